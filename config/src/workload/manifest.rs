//! YAML documents as trees whose nodes know their path, so that every message can name it.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::{Map, Value};

use crate::fault::{Fault, Findings};
use crate::spelling::nearest;
use yaml::Lines;
pub(super) use yaml::RENDER_FIRST;
pub use yaml::SyntaxError;

mod yaml;

/// One object of a file.
pub struct Document {
    /// The line on which the object begins, from 1.
    pub line: u64,
    /// The place of its YAML document in the file, from 1.
    pub number: u32,
    value: Value,
    lines: Rc<Lines>,
    /// The object's place inside the YAML document: empty, or `items[2]` within a list.
    path: String,
}

impl Document {
    /// The object itself.
    pub fn root(&self) -> Node<'_> {
        Node { value: Some(&self.value), path: self.path.clone() }
    }

    /// The line of the file on which a field, named by its path, or what is left of it, is written.
    pub fn line_of(&self, path: &str) -> u64 {
        self.lines.of(path).map_or(self.line, u64::from).max(self.line)
    }
}

/// All objects of a file, with lists opened and empty documents left out, and what cannot be parsed.
pub fn read(text: &str) -> (Vec<Document>, Vec<SyntaxError>) {
    let (parsed, errors) = yaml::parse(text);
    let mut opened = Vec::new();
    for document in parsed {
        let lines = Rc::new(document.lines);
        let root = Document {
            line: document.line,
            number: document.number,
            value: document.value,
            lines,
            path: String::new(),
        };
        open(root, &mut opened);
    }
    (opened, errors)
}

/// All objects of a file. `Err` is one line about the first fault of its syntax.
pub fn documents(text: &str) -> Result<Vec<Document>, String> {
    let (documents, errors) = read(text);
    errors.into_iter().next().map_or(Ok(documents), |error| Err(error.message))
}

/// Opens lists: of Kubernetes, and of objects that stand in a list of JSON or YAML.
fn open(document: Document, documents: &mut Vec<Document>) {
    let is_object = |value: &Value| value.get("kind").is_some();
    let is_list = document.value.get("kind").and_then(Value::as_str).is_some_and(|it| it.ends_with("List"));
    let Document { line, number, value, lines, path } = document;
    let (items, prefix) = match value {
        Value::Null => return,
        Value::Object(mut fields) if is_list && fields.get("items").is_some_and(Value::is_array) => {
            let mut items = fields.remove("items").unwrap_or_default();
            name_items(&fields, &mut items);
            (items, if path.is_empty() { "items".to_owned() } else { format!("{path}.items") })
        }
        Value::Array(items) if !items.is_empty() && items.iter().all(is_object) => {
            (Value::Array(items), path)
        }
        value => return documents.push(Document { line, number, value, lines, path }),
    };
    let Value::Array(items) = items else { return };
    for (at, value) in items.into_iter().enumerate() {
        let path = format!("{prefix}[{at}]");
        let line = lines.of(&path).map_or(line, u64::from);
        open(Document { line, number, value, lines: Rc::clone(&lines), path }, documents);
    }
}

/// Gives the objects of a typed list (`DeploymentList`), as the API server answers with, the kind and apiVersion that
/// only the list names.
fn name_items(list: &Map<String, Value>, items: &mut Value) {
    let kind = list.get("kind").and_then(Value::as_str).and_then(|kind| kind.strip_suffix("List"));
    let (Some(kind), Some(api_version), Value::Array(items)) = (kind, list.get("apiVersion"), items) else {
        return;
    };
    for item in items.iter_mut().filter_map(Value::as_object_mut) {
        if !kind.is_empty() && !item.contains_key("kind") && !item.contains_key("apiVersion") {
            item.insert("kind".to_owned(), kind.into());
            item.insert("apiVersion".to_owned(), api_version.clone());
        }
    }
}

/// A place in a document: what is there, if anything, and how to name it.
#[derive(Clone, Debug)]
pub struct Node<'a> {
    /// The value; nothing where it is absent or null.
    pub value: Option<&'a Value>,
    /// The path inside the file, as messages name it: `spec.metrics[0].type`.
    pub path: String,
}

impl<'a> Node<'a> {
    /// The node one level down.
    pub fn child(&self, key: &str) -> Node<'a> {
        let value = self.value.and_then(|value| value.get(key)).filter(|value| !value.is_null());
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Node { value, path }
    }

    /// The node several levels down.
    pub fn at(&self, keys: &[&str]) -> Node<'a> {
        keys.iter().fold(self.clone(), |node, key| node.child(key))
    }

    /// Whether anything is there.
    pub fn is_present(&self) -> bool {
        self.value.is_some()
    }

    /// The elements of a list.
    pub fn items(&self, findings: &mut Findings) -> Vec<Node<'a>> {
        let items = match self.value {
            None => return Vec::new(),
            Some(Value::Array(items)) => items,
            Some(_) => {
                self.fault("is not a list", findings);
                return Vec::new();
            }
        };
        let node = |(at, value)| Node { value: Some(value), path: format!("{}[{at}]", self.path) };
        items.iter().enumerate().map(node).collect()
    }

    /// A text.
    pub fn text(&self, findings: &mut Findings) -> Option<String> {
        match self.value? {
            Value::String(text) => Some(text.clone()),
            other => {
                self.fault(not_a_string(other), findings);
                None
            }
        }
    }

    /// A list of texts.
    pub fn texts(&self, findings: &mut Findings) -> Vec<String> {
        let items = self.items(findings);
        items.iter().filter_map(|item| item.text(findings)).collect()
    }

    /// A whole number between 0 and `max`.
    pub fn whole(&self, max: u32, findings: &mut Findings) -> Option<u32> {
        let value = self.value?;
        let number = value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|&n| n <= max);
        if number.is_none() {
            let shown = shown(value);
            findings.fault(&self.path, &shown, format!("is not a whole number between 0 and {max}"));
        }
        number
    }

    /// Records each field that is not among the `known`: most likely it is misspelt, and what was meant would
    /// silently not be so.
    pub fn only(&self, known: &[&str], findings: &mut Findings) {
        let Some(Value::Object(fields)) = self.value else { return };
        for field in fields.keys().filter(|field| !known.contains(&field.as_str())) {
            let rule = match nearest(field, known.iter().copied()) {
                Some(name) => format!("unknown field; did you mean `{name}`?"),
                None => format!("unknown field; there are {}", known.join(", ")),
            };
            self.child(field).fault(rule, findings);
        }
    }

    /// Texts by key, as in annotations and ConfigMaps: Kubernetes refuses anything but strings here.
    pub fn strings(&self, findings: &mut Findings) -> BTreeMap<String, String> {
        self.entries(findings, |node, value, findings| match value {
            Value::String(text) => Some(text.clone()),
            other => {
                node.fault(not_a_string(other), findings);
                None
            }
        })
    }

    /// Scalars by key, each as its text: for data that never goes through Kubernetes.
    pub fn bare_strings(&self, findings: &mut Findings) -> BTreeMap<String, String> {
        self.entries(findings, |node, value, findings| match value {
            Value::Array(_) | Value::Object(_) => {
                node.fault("is not a single value", findings);
                None
            }
            value => Some(shown(value)),
        })
    }

    fn entries(
        &self,
        findings: &mut Findings,
        read: impl Fn(&Node<'_>, &Value, &mut Findings) -> Option<String>,
    ) -> BTreeMap<String, String> {
        let fields = match self.value {
            None => return BTreeMap::new(),
            Some(Value::Object(fields)) => fields,
            Some(_) => {
                self.fault("is not a map of keys and values", findings);
                return BTreeMap::new();
            }
        };
        let mut entries = BTreeMap::new();
        for (key, value) in fields {
            let node = Node { value: Some(value), path: self.child(key).path };
            if let Some(text) = read(&node, value, findings) {
                entries.insert(key.clone(), text);
            }
        }
        entries
    }

    /// Records that something is wrong here.
    pub fn fault(&self, rule: impl Into<String>, findings: &mut Findings) {
        findings.faults.push(Fault::without_value(self.path.clone(), rule));
    }
}

/// A value as it might have been written.
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn not_a_string(value: &Value) -> String {
    match value {
        Value::Number(_) | Value::Bool(_) => format!("must be a string: write \"{value}\""),
        Value::Null => "must be a string; there is nothing".to_owned(),
        Value::Array(_) | Value::Object(_) | Value::String(_) => "must be a string".to_owned(),
    }
}
