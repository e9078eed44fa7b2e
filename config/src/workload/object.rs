//! The identity of objects: kind, namespace, name, and who made it.

use serde_json::Value;

use super::manifest::Node;
use crate::fault::Findings;
use crate::wording::number;

/// The kind of an object in messages.
pub(super) fn kind<'a>(node: &Node<'a>) -> &'a str {
    node.child("kind").value.and_then(Value::as_str).unwrap_or("an object without a kind")
}

/// The name of an object in messages: its kind and name.
pub(super) fn name(node: &Node<'_>) -> String {
    let kind = kind(node);
    match node.at(&["metadata", "name"]).value.and_then(Value::as_str) {
        Some(name) => format!("{kind} {name}"),
        None => kind.to_owned(),
    }
}

/// The kind, namespace and name by which an object is found among others.
pub(super) fn identity(node: &Node<'_>) -> Option<[String; 3]> {
    let metadata = node.child("metadata");
    let text = |node: Node<'_>| node.value.and_then(Value::as_str).map(str::to_owned);
    let namespace = text(metadata.child("namespace")).unwrap_or_else(|| "default".to_owned());
    Some([text(node.child("kind"))?, namespace, text(metadata.child("name"))?])
}

/// The object that made this one, if it says so.
pub(super) fn owner(node: &Node<'_>) -> Option<[String; 3]> {
    let owners = node.at(&["metadata", "ownerReferences"]).items(&mut Findings::default());
    let owner = owners.iter().find(|owner| owner.child("controller").value == Some(&Value::Bool(true)))?;
    let text = |key| owner.child(key).value.and_then(Value::as_str).map(str::to_owned);
    let [_, namespace, _] = identity(node)?;
    Some([text("kind")?, namespace, text("name")?])
}

/// The first of many names, and how many more there are.
pub(super) fn some_of(names: &[String]) -> String {
    const MOST: usize = 5;
    match names.len() {
        ..=MOST => names.join(", "),
        all => format!("{} and {} more", names[..MOST].join(", "), number((all - MOST) as f64)),
    }
}
