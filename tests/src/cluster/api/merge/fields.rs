//! Sets of fields, as `fieldsV1` of `metadata.managedFields` writes them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::schema::{self, FieldPath, ListType};
use crate::cluster::api::definition::Definition;

/// Fields of an object. Steps are `f:name`, `k:{"name":"x"}` for an item of a list by its keys, `v:"x"` by its value.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct FieldSet {
    /// Whether the field itself is of the set, not only what is below it.
    pub(crate) is_member: bool,
    pub(crate) below: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    pub(crate) fn is_empty(&self) -> bool {
        !self.is_member && self.below.values().all(Self::is_empty)
    }

    /// All fields of an object that someone can own.
    pub(crate) fn of(definition: &Definition, object: &Value) -> Self {
        let mut set = Self::default();
        set.add_map(definition, object, &mut Vec::new());
        set.is_member = false;
        set.without_system_fields()
    }

    /// Fields of `after` that are not so in `before`.
    pub(crate) fn changed(definition: &Definition, before: &Value, after: &Value) -> Self {
        let mut set = Self::default();
        set.compare(definition, Some(before), after, &mut Vec::new());
        set.is_member = false;
        set.without_system_fields()
    }

    pub(crate) fn union(&mut self, other: &Self) {
        self.is_member |= other.is_member;
        for (step, below) in &other.below {
            self.below.entry(step.clone()).or_default().union(below);
        }
    }

    /// Takes the members of `other` out.
    pub(crate) fn subtract(&mut self, other: &Self) {
        self.is_member &= !other.is_member;
        for (step, below) in &other.below {
            if let Some(mine) = self.below.get_mut(step) {
                mine.subtract(below);
                if mine.is_empty() {
                    self.below.remove(step);
                }
            }
        }
    }

    /// Members of both.
    pub(crate) fn intersection(&self, other: &Self) -> Self {
        let mut set = Self { is_member: self.is_member && other.is_member, below: BTreeMap::new() };
        for (step, below) in &self.below {
            let common = other.below.get(step).map(|other| below.intersection(other)).unwrap_or_default();
            if !common.is_empty() {
                set.below.insert(step.clone(), common);
            }
        }
        set
    }

    /// Every field of an object and every step to it: what an owner can still own.
    pub(crate) fn present(definition: &Definition, object: &Value) -> Self {
        let mut all = Self::of(definition, object);
        all.mark();
        all
    }

    /// Member paths, such as `.spec.containers[name="a"].image`.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths("", &mut paths);
        paths
    }

    pub(crate) fn to_value(&self) -> Value {
        let mut map = Map::new();
        if self.is_member && !self.below.is_empty() {
            map.insert(".".into(), json!({}));
        }
        map.extend(self.below.iter().map(|(step, below)| (step.clone(), below.to_value())));
        Value::Object(map)
    }

    pub(crate) fn from_value(value: &Value) -> Self {
        let mut set = Self::read(value);
        set.is_member = false;
        set
    }

    fn read(value: &Value) -> Self {
        let Some(map) = value.as_object() else { return Self::default() };
        let below = map.iter().filter(|(step, _)| *step != ".");
        Self {
            is_member: map.is_empty() || map.contains_key("."),
            below: below.map(|(step, value)| (step.clone(), Self::read(value))).collect(),
        }
    }

    /// Every step becomes a member.
    fn mark(&mut self) {
        self.is_member = true;
        self.below.values_mut().for_each(Self::mark);
    }

    fn collect_paths(&self, path: &str, paths: &mut Vec<String>) {
        if self.is_member && !path.is_empty() {
            paths.push(path.into());
        }
        for (step, below) in &self.below {
            below.collect_paths(&format!("{path}{}", shown(step)), paths);
        }
    }

    fn add<'a>(&mut self, definition: &Definition, value: &'a Value, path: &mut FieldPath<'a>) {
        match value {
            Value::Object(map) if !map.is_empty() && !schema::is_atomic_map(definition, path) => {
                self.add_map(definition, value, path);
            }
            Value::Array(items) if !items.is_empty() => {
                let kind = schema::list_type(definition, path);
                for (item, step) in items.iter().zip(steps(&kind, items)) {
                    let below = self.below.entry(step).or_default();
                    below.is_member = true;
                    if item.is_object() {
                        below.add_map(definition, item, path);
                    }
                }
                self.is_member = self.below.is_empty();
            }
            _ => self.is_member = true,
        }
    }

    fn add_map<'a>(&mut self, definition: &Definition, map: &'a Value, path: &mut FieldPath<'a>) {
        for (name, value) in map.as_object().into_iter().flatten() {
            path.push(name);
            self.below.entry(format!("f:{name}")).or_default().add(definition, value, path);
            path.pop();
        }
    }

    fn compare<'a>(
        &mut self,
        definition: &Definition,
        before: Option<&'a Value>,
        after: &'a Value,
        path: &mut FieldPath<'a>,
    ) {
        let Some(before) = before else {
            self.add(definition, after, path);
            self.is_member |= after.is_object();
            return;
        };
        if before == after {
            return;
        }
        match (before, after) {
            (Value::Object(_), Value::Object(fields))
                if path.is_empty() || !schema::is_atomic_map(definition, path) =>
            {
                self.compare_maps(definition, before, fields, path);
            }
            (Value::Array(old), Value::Array(new)) => {
                let kind = schema::list_type(definition, path);
                if kind == ListType::Atomic {
                    self.is_member = true;
                    return;
                }
                let old_steps: Vec<_> = steps(&kind, old).collect();
                for (item, step) in new.iter().zip(steps(&kind, new)) {
                    let place = old_steps.iter().position(|each| *each == step);
                    let mut below = Self { is_member: place.is_none(), ..Self::default() };
                    match (place, item) {
                        (Some(place), Value::Object(fields)) => {
                            below.compare_maps(definition, &old[place], fields, path);
                        }
                        (None, Value::Object(_)) => below.add_map(definition, item, path),
                        _ => {}
                    }
                    self.insert(step, below);
                }
            }
            _ => self.add(definition, after, path),
        }
    }

    fn compare_maps<'a>(
        &mut self,
        definition: &Definition,
        before: &'a Value,
        fields: &'a Map<String, Value>,
        path: &mut FieldPath<'a>,
    ) {
        for (name, value) in fields {
            let mut below = Self::default();
            path.push(name);
            below.compare(definition, before.get(name), value, path);
            path.pop();
            self.insert(format!("f:{name}"), below);
        }
    }

    fn insert(&mut self, step: String, below: Self) {
        if !below.is_empty() {
            self.below.insert(step, below);
        }
    }

    fn without_system_fields(mut self) -> Self {
        self.below.remove("f:apiVersion");
        self.below.remove("f:kind");
        if let Some(metadata) = self.below.get_mut("f:metadata") {
            for name in SYSTEM_FIELDS {
                metadata.below.remove(*name);
            }
            metadata.is_member = false;
            if metadata.below.is_empty() {
                self.below.remove("f:metadata");
            }
        }
        self
    }
}

/// The step to each item of a list; none at all for atomic lists.
pub(crate) fn steps<'a>(kind: &'a ListType, items: &'a [Value]) -> impl Iterator<Item = String> + 'a {
    items.iter().filter_map(move |item| step(kind, item))
}

/// The step to an item of a list.
pub(crate) fn step(kind: &ListType, item: &Value) -> Option<String> {
    match kind {
        ListType::Atomic => None,
        ListType::Set => Some(format!("v:{item}")),
        ListType::Map(keys) => {
            let pair = |key: &String| {
                let value = item.get(key).cloned().or_else(|| schema::default_of_key(key));
                (key.clone(), value.unwrap_or_default())
            };
            Some(format!("k:{}", Value::Object(keys.iter().map(pair).collect())))
        }
    }
}

/// Fields of metadata that the server alone writes: nobody owns them.
const SYSTEM_FIELDS: &[&str] = &[
    "f:creationTimestamp",
    "f:deletionGracePeriodSeconds",
    "f:deletionTimestamp",
    "f:generation",
    "f:managedFields",
    "f:name",
    "f:namespace",
    "f:resourceVersion",
    "f:selfLink",
    "f:uid",
];

/// `f:name` as `.name`, `k:{"name":"x"}` as `[name="x"]`, `v:"x"` as `[="x"]`.
fn shown(step: &str) -> String {
    if let Some(name) = step.strip_prefix("f:") {
        return format!(".{name}");
    }
    if let Some(value) = step.strip_prefix("v:") {
        return format!("[={value}]");
    }
    let keys: Value = serde_json::from_str(step.strip_prefix("k:").unwrap_or(step)).unwrap_or_default();
    let pairs: Vec<_> =
        keys.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
    format!("[{}]", pairs.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_an_object_are_written_as_kubernetes_writes_them() {
        let mut pod = Definition::new("", "v1", "Pod", "pods");
        pod.is_custom = false;
        let object = json!({
            "kind": "Pod",
            "metadata": {"name": "p", "labels": {"a": "1"}, "finalizers": ["x"]},
            "spec": {"containers": [{"name": "c", "args": ["1"], "ports": [{"containerPort": 80}]}], "nodeSelector": {"b": "2"}}
        });
        let written = json!({
            "f:metadata": {"f:labels": {"f:a": {}}, "f:finalizers": {"v:\"x\"": {}}},
            "f:spec": {
                "f:containers": {"k:{\"name\":\"c\"}": {
                    ".": {}, "f:name": {}, "f:args": {},
                    "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}
                }},
                "f:nodeSelector": {}
            }
        });
        let set = FieldSet::of(&pod, &object);
        assert_eq!(set.to_value(), written);
        assert_eq!(FieldSet::from_value(&written), set);
        assert!(set.paths().contains(&".spec.containers[name=\"c\"].args".to_owned()), "{:?}", set.paths());
    }
}
