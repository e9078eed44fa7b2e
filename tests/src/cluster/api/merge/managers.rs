//! Who owns which fields of an object: `metadata.managedFields`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::fields::FieldSet;
use crate::cluster::api::definition::Definition;
use crate::cluster::api::store::timestamp;

/// The managers of one object.
pub(crate) struct Managers {
    entries: Vec<Entry>,
}

/// One manager's fields, by how it writes: an `Apply` and an `Update` of one name are two managers.
pub(crate) struct Entry {
    pub(crate) manager: String,
    pub(crate) operation: String,
    pub(crate) subresource: String,
    pub(crate) api_version: String,
    pub(crate) fields: FieldSet,
    pub(crate) time: String,
}

/// Who writes, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writer<'a> {
    pub(crate) manager: &'a str,
    /// Empty for the main resource.
    pub(crate) subresource: &'a str,
}

impl Managers {
    pub(crate) fn of(object: &Value) -> Self {
        let entries = object["metadata"]["managedFields"].as_array();
        Self { entries: entries.into_iter().flatten().map(Entry::read).collect() }
    }

    /// Gives what an update changed to the one who changed it; what is gone belongs to nobody.
    pub(crate) fn update(
        &mut self,
        definition: &Definition,
        writer: Writer<'_>,
        before: Option<&Value>,
        after: &Value,
    ) {
        let changed = match before {
            Some(before) => FieldSet::changed(definition, before, after),
            None => FieldSet::of(definition, after),
        };
        for entry in &mut self.entries {
            if !entry.is(writer, UPDATE) {
                entry.fields.subtract(&changed);
            }
        }
        let mine = self.entry(definition, writer, UPDATE);
        let mut fields = mine.fields.clone();
        fields.union(&changed);
        mine.set(fields);
        self.retain_present(definition, after);
    }

    /// The fields that were applied last.
    pub(crate) fn applied(&self, writer: Writer<'_>) -> FieldSet {
        let entry = self.entries.iter().find(|entry| entry.is(writer, APPLY));
        entry.map(|entry| entry.fields.clone()).unwrap_or_default()
    }

    pub(crate) fn set_applied(&mut self, definition: &Definition, writer: Writer<'_>, fields: FieldSet) {
        self.entry(definition, writer, APPLY).set(fields);
    }

    /// All but what one has applied.
    pub(crate) fn others(&mut self, writer: Writer<'_>) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut().filter(move |entry| !entry.is(writer, APPLY))
    }

    /// Forgets fields that the object has not got.
    pub(crate) fn retain_present(&mut self, definition: &Definition, object: &Value) {
        let present = FieldSet::present(definition, object);
        for entry in &mut self.entries {
            entry.fields = entry.fields.intersection(&present);
        }
    }

    pub(crate) fn write(&self, object: &mut Value) {
        let entries: Vec<_> =
            self.entries.iter().filter(|entry| !entry.fields.is_empty()).map(Entry::to_value).collect();
        if entries.is_empty() {
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.remove("managedFields");
            }
        } else {
            object["metadata"]["managedFields"] = Value::Array(entries);
        }
    }

    fn entry(&mut self, definition: &Definition, writer: Writer<'_>, operation: &str) -> &mut Entry {
        let place = self.entries.iter().position(|entry| entry.is(writer, operation));
        let place = place.unwrap_or_else(|| {
            self.entries.push(Entry {
                manager: writer.manager.into(),
                operation: operation.into(),
                subresource: writer.subresource.into(),
                api_version: definition.api_version(),
                fields: FieldSet::default(),
                time: timestamp(Timestamp::now()),
            });
            self.entries.len() - 1
        });
        &mut self.entries[place]
    }
}

impl Entry {
    fn read(value: &Value) -> Self {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        Self {
            manager: text("manager"),
            operation: text("operation"),
            subresource: text("subresource"),
            api_version: text("apiVersion"),
            fields: FieldSet::from_value(&value["fieldsV1"]),
            time: text("time"),
        }
    }

    fn is(&self, writer: Writer<'_>, operation: &str) -> bool {
        self.manager == writer.manager
            && self.subresource == writer.subresource
            && self.operation == operation
    }

    pub(crate) fn is_update(&self) -> bool {
        self.operation == UPDATE
    }

    /// The time stays what it was if nothing changes.
    fn set(&mut self, fields: FieldSet) {
        if fields != self.fields {
            self.fields = fields;
            self.time = timestamp(Timestamp::now());
        }
    }

    fn to_value(&self) -> Value {
        let mut value = json!({
            "manager": self.manager,
            "operation": self.operation,
            "apiVersion": self.api_version,
            "time": self.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.to_value(),
        });
        if !self.subresource.is_empty() {
            value["subresource"] = self.subresource.as_str().into();
        }
        value
    }
}

const APPLY: &str = "Apply";
const UPDATE: &str = "Update";
