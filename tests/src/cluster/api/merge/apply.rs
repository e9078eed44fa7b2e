//! Server-side apply: what a manager applies is merged in, what it applies no longer is taken out, and what others own is
//! a conflict unless it is forced.

use serde_json::{Map, Value};

use super::fields::{self, FieldSet};
use super::managers::{Entry, Managers, Writer};
use super::schema::{self, FieldPath, ListType};
use crate::cluster::api::definition::Definition;
use crate::cluster::api::failure::{Failure, Result, cause};

/// The object after `applied` was merged into `live` (an empty object if there is none), with its managers.
pub(crate) fn apply(
    definition: &Definition,
    writer: Writer<'_>,
    live: &Value,
    applied: &Value,
    is_forced: bool,
) -> Result<Value> {
    let mut managers = Managers::of(live);
    let fields = FieldSet::of(definition, applied);
    let mut object = live.clone();
    merge(definition, &mut object, applied, &mut Vec::new());
    let changed = FieldSet::changed(definition, live, &object);
    let mut conflicts = Vec::new();
    let mut kept = fields.clone();
    for other in managers.others(writer) {
        let common = other.fields.intersection(&changed);
        other.fields.subtract(&common);
        kept.union(&other.fields);
        conflicts.extend(common.paths().into_iter().map(|path| (described(other), path)));
    }
    if !is_forced && !conflicts.is_empty() {
        return Err(refusal(&conflicts));
    }
    let mut dropped = managers.applied(writer);
    dropped.subtract(&fields);
    prune(definition, &mut object, &dropped, &kept, &mut Vec::new());
    managers.set_applied(definition, writer, fields);
    managers.retain_present(definition, &object);
    managers.write(&mut object);
    Ok(object)
}

fn merge<'a>(definition: &Definition, live: &mut Value, applied: &'a Value, path: &mut FieldPath<'a>) {
    match (live, applied) {
        (live, Value::Object(fields)) if path.is_empty() || !schema::is_atomic_map(definition, path) => {
            if !live.is_object() {
                *live = Value::Object(Map::new());
            }
            for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
                path.push(name);
                merge(definition, &mut live[name], value, path);
                path.pop();
            }
        }
        (Value::Array(live), Value::Array(items)) => {
            let kind = schema::list_type(definition, path);
            if kind == ListType::Atomic {
                live.clone_from(items);
                return;
            }
            for item in items {
                let step = fields::step(&kind, item);
                match live.iter_mut().find(|each| fields::step(&kind, each) == step) {
                    Some(mine) if item.is_object() => {
                        for (name, value) in
                            item.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null())
                        {
                            path.push(name);
                            merge(definition, &mut mine[name], value, path);
                            path.pop();
                        }
                    }
                    Some(_) => {}
                    None => live.push(without_nulls(item)),
                }
            }
        }
        (live, applied) => *live = without_nulls(applied),
    }
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let present = fields.iter().filter(|(_, value)| !value.is_null());
            present.map(|(name, value)| (name.clone(), without_nulls(value))).collect::<Map<_, _>>().into()
        }
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

/// Takes the fields of `dropped` out of `value`, but for those that `kept` has.
fn prune<'a>(
    definition: &Definition,
    value: &mut Value,
    dropped: &'a FieldSet,
    kept: &FieldSet,
    path: &mut FieldPath<'a>,
) {
    let nobody = FieldSet::default();
    for (step, dropped) in &dropped.below {
        let kept = kept.below.get(step).unwrap_or(&nobody);
        let is_gone = dropped.is_member && kept.is_empty();
        if let Some(name) = step.strip_prefix("f:") {
            let Some(fields) = value.as_object_mut() else { continue };
            if is_gone {
                fields.remove(name);
            } else if let Some(field) = fields.get_mut(name) {
                path.push(name);
                prune(definition, field, dropped, kept, path);
                path.pop();
                if is_empty(field) && kept.is_empty() {
                    fields.remove(name);
                }
            }
            continue;
        }
        let kind = schema::list_type(definition, path);
        let Some(items) = value.as_array_mut() else { continue };
        let Some(place) = items.iter().position(|item| fields::step(&kind, item).as_ref() == Some(step))
        else {
            continue;
        };
        if is_gone {
            items.remove(place);
        } else {
            prune(definition, &mut items[place], dropped, kept, path);
        }
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

fn described(entry: &Entry) -> String {
    let Entry { manager, subresource, api_version, .. } = entry;
    let subresource =
        if subresource.is_empty() { String::new() } else { format!(" with subresource \"{subresource}\"") };
    // An update says its version and time, an apply does not.
    let using =
        if entry.is_update() { format!(" using {api_version} at {}", entry.time) } else { String::new() };
    format!("\"{manager}\"{subresource}{using}")
}

fn refusal(conflicts: &[(String, String)]) -> Failure {
    let causes = conflicts
        .iter()
        .map(|(manager, path)| cause(path, "FieldManagerConflict", &format!("conflict with {manager}")));
    let message = match conflicts {
        [(manager, path)] => format!("Apply failed with 1 conflict: conflict with {manager}: {path}"),
        many => {
            let mut message = format!("Apply failed with {} conflicts:", many.len());
            let mut last = "";
            for (manager, path) in many {
                if manager != last {
                    message += if last.is_empty() { " " } else { "\n" };
                    message += &format!("conflicts with {manager}:");
                    last = manager;
                }
                message += &format!("\n- {path}");
            }
            message
        }
    };
    Failure::owned(message, causes.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pods() -> Definition {
        let mut pods = Definition::new("", "v1", "Pod", "pods");
        pods.is_custom = false;
        pods
    }

    fn by(manager: &str, live: &Value, applied: &Value, is_forced: bool) -> Result<Value> {
        apply(&pods(), Writer { manager, subresource: "" }, live, applied, is_forced)
    }

    #[test]
    fn what_is_applied_no_longer_is_taken_out() {
        let first = json!({
            "metadata": {"labels": {"a": "1", "b": "2"}},
            "spec": {"containers": [{"name": "c", "image": "x"}, {"name": "d", "image": "y"}]}
        });
        let second = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"containers": [{"name": "c", "image": "z"}]}});
        let object = by("m", &json!({}), &first, false).expect("applied");
        let object = by("m", &object, &second, false).expect("applied");
        assert_eq!(object["metadata"]["labels"], json!({"a": "1"}));
        assert_eq!(object["spec"]["containers"], json!([{"name": "c", "image": "z"}]));
    }

    #[test]
    fn what_another_applies_as_well_stays() {
        let both = json!({"metadata": {"labels": {"a": "1", "b": "2"}}});
        let object = by("m", &json!({}), &both, false).expect("applied");
        let object =
            by("n", &object, &json!({"metadata": {"labels": {"b": "2"}}}), false).expect("no conflict");
        let object = by("m", &object, &json!({}), false).expect("applied");
        assert_eq!(object["metadata"]["labels"], json!({"b": "2"}));
    }

    #[test]
    fn a_field_of_another_is_a_conflict_unless_it_is_forced() {
        let spec = |image: &str| json!({"apiVersion": "v1", "spec": {"containers": [{"name": "c", "image": image}]}});
        let object = by("m", &json!({}), &spec("x"), false).expect("applied");
        let refused = by("n", &object, &spec("y"), false).expect_err("a conflict");
        assert_eq!(refused.code(), 409);
        let message = "Apply failed with 1 conflict: conflict with \"m\": .spec.containers[name=\"c\"].image";
        assert_eq!(refused.status.message, message);
        let object = by("n", &object, &spec("y"), true).expect("forced");
        assert_eq!(object["spec"]["containers"][0]["image"], "y");
        let managers = Managers::of(&object);
        let image = |fields: &FieldSet| fields.paths().iter().any(|path| path.ends_with(".image"));
        assert!(!image(&managers.applied(Writer { manager: "m", subresource: "" })));
        assert!(image(&managers.applied(Writer { manager: "n", subresource: "" })));
    }
}
