//! Lists, page by page: all pages show the objects as they were at one version.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use super::call::Call;
use super::failure::{Failure, Result};
use super::selector::Selection;
use super::shape::Shape;
use super::store::{Key, Object, Store};

/// The answer to a list.
pub(crate) fn list(store: &parking_lot::Mutex<Store>, call: &Call) -> Result<Bytes> {
    let shape = Shape::read(&call.accept)?;
    let (definition, page) = {
        let store = store.lock();
        (Arc::clone(&store.table(&call.id())?.definition), Page::read(&store, call)?)
    };
    let mut meta = json!({"resourceVersion": page.revision.to_string()});
    if let Some(last) = page.last {
        meta["continue"] = format!("{}.{}.{}", page.revision, last.namespace, last.name).into();
        if let Some(left) = page.left {
            meta["remainingItemCount"] = left.into();
        }
    }
    Ok(shape.list(&definition, &meta, page.objects.iter().map(|object| &**object)))
}

/// The objects of a kind that a call selects.
pub(crate) fn selection(store: &Store, call: &Call) -> Result<Selection> {
    let is_custom = store.table(&call.id())?.definition.is_custom;
    let (labels, fields) = (call.params.text("labelSelector"), call.params.text("fieldSelector"));
    Selection::parse(&call.target.namespace, labels, fields, is_custom)
}

/// The version that a call names; nothing if it names none, or 0.
pub(crate) fn version(call: &Call) -> Result<Option<u64>> {
    let Some(text) = call.params.get("resourceVersion") else { return Ok(None) };
    let version = text.parse().map_err(|_| {
        Failure::bad_request(format!(
            "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: invalid syntax"
        ))
    })?;
    Ok(Some(version).filter(|version| *version > 0))
}

struct Page {
    objects: Vec<Arc<Object>>,
    revision: u64,
    /// The last object, if there are more.
    last: Option<Key>,
    /// How many there are more, if all are selected.
    left: Option<usize>,
}

impl Page {
    fn read(store: &Store, call: &Call) -> Result<Self> {
        let selection = selection(store, call)?;
        let table = store.table(&call.id())?;
        let limit = call.params.get("limit").and_then(|limit| limit.parse().ok()).filter(|limit| *limit > 0);
        let version = version(call)?;
        let matching = call.params.get("resourceVersionMatch");
        check_match(call, matching)?;
        let (at, after) = match call.params.get("continue") {
            Some(token) => {
                let (revision, key) = continued(token)?;
                (Some(revision), Some(key))
            }
            // A page of a version that is named is of exactly this version, unless the client says otherwise.
            None if matching == Some("Exact") || matching.is_none() && limit.is_some() => (version, None),
            None => (None, None),
        };
        if let Some(wanted) = version.or(at).filter(|wanted| *wanted > store.revision()) {
            return Err(Failure::too_large(wanted, store.revision()));
        }
        let revision = at.unwrap_or_else(|| store.revision());
        let namespace = &call.target.namespace;
        let is_now = !table.has_changed_since(revision).ok_or_else(|| gone(call))?;
        let mut objects = if is_now {
            let all = table.objects(namespace, after.as_ref());
            all.map(|(_, object)| object).filter(|object| selection.matches(&object.value)).cloned().collect()
        } else {
            let then = table.at(revision).ok_or_else(|| gone(call))?;
            let rest = then.into_iter().filter(|(key, _)| after.as_ref().is_none_or(|after| key > after));
            rest.map(|(_, object)| object)
                .filter(|object| selection.matches(&object.value))
                .collect::<Vec<_>>()
        };
        let mut page = Self { revision, last: None, left: None, objects: Vec::new() };
        if let Some(limit) = limit.filter(|limit| objects.len() > *limit) {
            page.left = selection.is_everything().then(|| objects.len() - limit);
            objects.truncate(limit);
            page.last = objects.last().map(|object| Key::of(&object.value));
        }
        page.objects = objects;
        Ok(page)
    }
}

fn check_match(call: &Call, matching: Option<&str>) -> Result<()> {
    let wrong = |message: &str| {
        Err(Failure::new(
            422,
            "Invalid",
            format!("ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: {message}"),
        ))
    };
    match matching {
        None => Ok(()),
        Some(_) if call.params.get("continue").is_some() => {
            wrong("Forbidden: resourceVersionMatch is forbidden when continue is provided")
        }
        Some(_) if call.params.get("resourceVersion").is_none() => {
            wrong("Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided")
        }
        Some("Exact") if call.params.get("resourceVersion") == Some("0") => {
            wrong("Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"")
        }
        Some("Exact" | "NotOlderThan") => Ok(()),
        Some(other) => {
            wrong(&format!("Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\""))
        }
    }
}

/// Reads a `continue` token: the version of the list, and the last object of the page before.
fn continued(token: &str) -> Result<(u64, Key)> {
    let mut parts = token.splitn(3, '.');
    let revision = parts.next().and_then(|text| text.parse().ok());
    match (revision, parts.next(), parts.next()) {
        (Some(revision), Some(namespace), Some(name)) => Ok((revision, Key::new(namespace, name))),
        _ => Err(Failure::bad_request(format!("continue key is not valid: {token:?}"))),
    }
}

fn gone(call: &Call) -> Failure {
    Failure::expired(if call.params.get("continue").is_some() {
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without \
         the continue parameter."
    } else {
        "The resourceVersion for the provided list is too old."
    })
}
