//! The annotations of one object, wherever they are written: as annotations in one or two places, or as fields
//! that stand for them. Remembers which, so that messages can name the place.

use std::collections::BTreeMap;

use serde_json::Value;

use super::manifest::Node;
use crate::fault::Findings;
use crate::keys::{Entry, annotation as keys};
use crate::resolve::Origin;

/// The annotations of an object: those it has, and those its fields stand for.
pub(super) struct Written {
    pub(super) annotations: BTreeMap<String, String>,
    /// The place annotations are written at.
    path: String,
    /// Where those are written that are not below `path`; `None`: nowhere, they are the kind's own defaults.
    fields: BTreeMap<String, Option<String>>,
}

impl Written {
    /// The annotations written at one place.
    pub(super) fn at(place: &Node<'_>, findings: &mut Findings) -> Self {
        let annotations = place.strings(findings);
        Written { annotations, path: place.path.clone(), fields: BTreeMap::new() }
    }

    /// How an annotation is named in messages: by where it, or the field it stands for, is written.
    pub(super) fn path_of(&self, key: &str) -> String {
        match self.fields.get(key) {
            Some(Some(field)) => field.clone(),
            _ if key.is_empty() => self.path.clone(),
            _ => format!("{}.{key}", self.path),
        }
    }

    /// Where a setting that is in force through the annotation `key` was set.
    pub(super) fn origin_of(&self, key: &'static str) -> Origin {
        match self.fields.get(key) {
            Some(Some(field)) => Origin::Field(field.clone()),
            Some(None) => Origin::Default,
            None => Origin::Annotation(key),
        }
    }

    /// Lets a field, if it is there, stand for an annotation. Fields hold numbers, annotations their text.
    pub(super) fn stand_in(&mut self, key: &'static str, field: &Node<'_>, findings: &mut Findings) {
        let text = match field.value {
            None => return,
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::String(text)) => text.clone(),
            Some(_) => return field.fault("is not a single value", findings),
        };
        self.stand_in_as(key, field, text);
    }

    /// Lets a field stand for an annotation with this text.
    pub(super) fn stand_in_as(&mut self, key: &'static str, field: &Node<'_>, text: String) {
        self.annotations.insert(key.to_owned(), text);
        self.fields.insert(key.to_owned(), Some(field.path.clone()));
    }

    /// Writes an annotation that nobody wrote.
    pub(super) fn assume(&mut self, key: &'static str, value: &str) {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self.fields.insert(key.to_owned(), None);
    }

    /// Adds annotations from a second place, which count before the first.
    pub(super) fn add_above(&mut self, place: &Node<'_>, findings: &mut Findings) {
        for (key, value) in place.strings(findings) {
            self.fields.insert(key.clone(), Some(place.child(&key).path));
            self.annotations.insert(key, value);
        }
    }

    /// Adds annotations from a second place, which count only where the first has none in either spelling.
    pub(super) fn add_below(&mut self, place: &Node<'_>, findings: &mut Findings) {
        let first: Vec<String> = self.annotations.keys().cloned().collect();
        let is_said = |key: &str| {
            let same = |entry: &&&dyn Entry| entry.name() == key || entry.alias() == Some(key);
            let entry = keys::ALL.iter().find(same);
            first
                .iter()
                .any(|said| said == key || entry.is_some_and(|e| e.name() == said || e.alias() == Some(said)))
        };
        for (key, value) in place.strings(findings) {
            if !is_said(&key) {
                self.fields.insert(key.clone(), Some(place.child(&key).path));
                self.annotations.insert(key, value);
            }
        }
    }

    /// Whether an annotation of exactly this name is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.annotations.contains_key(key)
    }
}
