//! Strategic merge patches of built-in kinds: maps are merged, lists by their merge key if they have one.
//!
//! Directives: `$patch` (`delete`, `replace`, `merge`), `$deleteFromPrimitiveList/x`, `$setElementOrder/x` and
//! `$retainKeys`. Lists merge as told by [`schema`](super::schema); the others are replaced.

use serde_json::{Map, Value};

use super::schema::{self, FieldPath};
use crate::cluster::api::definition::Definition;
use crate::cluster::api::failure::{Failure, Result};

/// Changes `live` by a strategic merge patch.
pub(crate) fn merge(definition: &Definition, live: &mut Value, patch: &Value) -> Result<()> {
    let Value::Object(patch) = patch else { return Err(Failure::bad_request("a patch has to be an object")) };
    merge_map(definition, live, patch, &mut Vec::new())
}

fn merge_map<'a>(
    definition: &Definition,
    live: &mut Value,
    patch: &'a Map<String, Value>,
    path: &mut FieldPath<'a>,
) -> Result<()> {
    let directive = patch.get("$patch").and_then(Value::as_str);
    if !live.is_object() || matches!(directive, Some("replace" | "delete")) {
        *live = Value::Object(Map::new());
    }
    let Some(fields) = live.as_object_mut() else { return Ok(()) };
    if directive == Some("delete") {
        return Ok(());
    }
    if let Some(retained) = patch.get("$retainKeys").and_then(Value::as_array) {
        fields.retain(|name, _| retained.iter().any(|each| each == name.as_str()));
    }
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/")
            && let Some(items) = fields.get_mut(list).and_then(Value::as_array_mut)
            && let Some(gone) = value.as_array()
        {
            items.retain(|item| !gone.contains(item));
        }
        if name.starts_with('$') {
            continue;
        }
        path.push(name);
        match value {
            Value::Null => {
                fields.remove(name);
            }
            Value::Object(patch) => {
                merge_map(definition, fields.entry(name.clone()).or_insert(Value::Null), patch, path)?;
            }
            Value::Array(patch) => {
                merge_list(definition, fields.entry(name.clone()).or_insert(Value::Null), patch, path)?;
            }
            other => {
                fields.insert(name.clone(), other.clone());
            }
        }
        path.pop();
    }
    for (name, order) in patch {
        if let (Some(list), Some(order)) = (name.strip_prefix("$setElementOrder/"), order.as_array())
            && let Some(items) = fields.get_mut(list).and_then(Value::as_array_mut)
        {
            path.push(list);
            let key = schema::patch_key(definition, path).unwrap_or_default();
            path.pop();
            let place = |item: &Value| {
                order
                    .iter()
                    .position(|each| if key.is_empty() { each == item } else { each[key] == item[key] })
            };
            items.sort_by_key(|item| place(item).unwrap_or(usize::MAX));
        }
    }
    Ok(())
}

fn merge_list<'a>(
    definition: &Definition,
    live: &mut Value,
    patch: &'a [Value],
    path: &mut FieldPath<'a>,
) -> Result<()> {
    let is_replacing = patch.iter().any(|item| item["$patch"] == "replace");
    let key = schema::patch_key(definition, path);
    let (Some(key), false, Some(items)) = (key, is_replacing, live.as_array_mut()) else {
        let is_directive = |item: &Value| item.get("$patch").is_some();
        *live = patch.iter().filter(|item| !is_directive(item)).cloned().collect();
        return Ok(());
    };
    if key.is_empty() {
        for item in patch {
            if !items.contains(item) {
                items.push(item.clone());
            }
        }
        return Ok(());
    }
    for item in patch {
        let Value::Object(patch) = item else {
            return Err(Failure::bad_request(format!("an item of {path:?} is no object")));
        };
        let Some(value) = patch.get(key) else {
            let message = format!("map: {item} does not contain declared merge key: {key}");
            return Err(Failure::bad_request(message));
        };
        let place = items.iter().position(|each| each[key] == *value);
        match (patch.get("$patch").and_then(Value::as_str), place) {
            (Some("delete"), Some(place)) => {
                items.remove(place);
            }
            (Some("delete"), None) => {}
            (_, Some(place)) => merge_map(definition, &mut items[place], patch, path)?,
            (_, None) => {
                let mut item = Value::Null;
                merge_map(definition, &mut item, patch, path)?;
                items.push(item);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(mut live: Value, patch: &Value) -> Value {
        let mut pods = Definition::new("", "v1", "Pod", "pods");
        pods.is_custom = false;
        merge(&pods, &mut live, patch).expect("a patch");
        live
    }

    #[test]
    fn containers_merge_by_name_and_other_lists_are_replaced() {
        let live = json!({"spec": {"containers": [
            {"name": "a", "image": "x", "args": ["1"], "env": [{"name": "E", "value": "1"}]}, {"name": "b"}]}});
        let patch = json!({"spec": {"containers": [
            {"name": "a", "args": ["2"], "env": [{"name": "F", "value": "2"}]}, {"name": "b", "$patch": "delete"}, {"name": "c"}]}});
        let expected = json!({"spec": {"containers": [
            {"name": "a", "image": "x", "args": ["2"], "env": [{"name": "E", "value": "1"}, {"name": "F", "value": "2"}]},
            {"name": "c"}]}});
        assert_eq!(patched(live, &patch), expected);
    }

    #[test]
    fn directives_delete_order_and_replace() {
        let live = json!({
            "metadata": {"finalizers": ["a", "b"], "labels": {"x": "1"}},
            "status": {"conditions": [{"type": "A"}, {"type": "B"}]}
        });
        let patch = json!({
            "metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "labels": {"$patch": "replace", "y": "2"}},
            "status": {"conditions": [{"type": "B", "status": "True"}], "$setElementOrder/conditions": [{"type": "B"}, {"type": "A"}]}
        });
        let expected = json!({
            "metadata": {"finalizers": ["b"], "labels": {"y": "2"}},
            "status": {"conditions": [{"type": "B", "status": "True"}, {"type": "A"}]}
        });
        assert_eq!(patched(live, &patch), expected);
    }
}
