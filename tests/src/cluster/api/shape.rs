//! The forms in which objects are sent: whole, their metadata alone, or as the rows of a table.

use bytes::Bytes;
use serde_json::{Value, json};

use super::definition::Definition;
use super::failure::{Failure, Result};
use super::store::Object;
use super::table;

/// The form that a client accepts first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Whole,
    /// `PartialObjectMetadata`.
    Metadata,
    /// `Table`, for kubectl.
    Table,
}

impl Shape {
    /// Reads an `Accept` header.
    pub(crate) fn read(accept: &str) -> Result<Self> {
        for kind in accept.split(',').map(str::trim).filter(|kind| !kind.is_empty()) {
            let kind: String = kind.split_whitespace().collect();
            if kind.starts_with("application/json") {
                return Ok(if kind.contains("as=PartialObjectMetadata") {
                    Self::Metadata
                } else if kind.contains("as=Table") {
                    Self::Table
                } else {
                    Self::Whole
                });
            }
            if kind.starts_with("*/*")
                || kind.starts_with("application/*")
                || kind.starts_with("application/yaml")
            {
                return Ok(Self::Whole);
            }
        }
        if accept.is_empty() {
            return Ok(Self::Whole);
        }
        let message = format!("only the following media types are accepted: application/json, not {accept}");
        Err(Failure::new(406, "NotAcceptable", message))
    }

    /// One object.
    pub(crate) fn object(self, definition: &Definition, object: &Object) -> Bytes {
        match self {
            Self::Whole => object.json.clone(),
            Self::Metadata => write(&table::metadata(object)),
            Self::Table => write(&table::of(definition, &json!({}), [object])),
        }
    }

    /// A list; `meta` is its metadata.
    pub(crate) fn list<'a>(
        self,
        definition: &Definition,
        meta: &Value,
        objects: impl ExactSizeIterator<Item = &'a Object>,
    ) -> Bytes {
        let (kind, api_version) = match self {
            Self::Table => return write(&table::of(definition, meta, objects)),
            Self::Metadata => ("PartialObjectMetadataList".into(), "meta.k8s.io/v1".into()),
            Self::Whole => (format!("{}List", definition.kind), definition.api_version()),
        };
        let head = format!(r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{meta},"items":["#);
        let mut bytes = Vec::with_capacity(head.len() + objects.len() * 1024);
        bytes.extend_from_slice(head.as_bytes());
        for (place, object) in objects.enumerate() {
            if place > 0 {
                bytes.push(b',');
            }
            bytes.extend_from_slice(&self.object(definition, object));
        }
        bytes.extend_from_slice(b"]}");
        bytes.into()
    }

    /// The kind and version of one object in this form.
    pub(crate) fn kind(self, definition: &Definition) -> (String, String) {
        match self {
            Self::Metadata => ("PartialObjectMetadata".into(), "meta.k8s.io/v1".into()),
            Self::Whole | Self::Table => (definition.kind.clone(), definition.api_version()),
        }
    }
}

pub(crate) fn write(value: &Value) -> Bytes {
    serde_json::to_vec(value).expect("JSON can be written").into()
}
