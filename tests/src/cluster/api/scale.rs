//! The `scale` subresource: a view of an object's replicas.

use serde_json::{Value, json};

use super::definition::{Definition, ScalePaths};
use super::failure::{Failure, Result};

/// The `Scale` object of an object; none if its kind has none.
pub(crate) fn of(definition: &Definition, object: &Value) -> Option<Value> {
    let ScalePaths { spec, status, selector } = definition.scale.as_ref()?;
    let metadata = &object["metadata"];
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
            "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": {},
        "status": {"replicas": at(object, status).and_then(Value::as_i64).unwrap_or(0)},
    });
    // Kubernetes leaves a zero out, which matters to patches that replace it.
    if let Some(replicas) = at(object, spec).and_then(Value::as_i64).filter(|replicas| *replicas != 0) {
        scale["spec"]["replicas"] = replicas.into();
    }
    let selector = (!selector.is_empty()).then(|| at(object, selector)).flatten();
    if let Some(selector) = selector.map(selector_text).filter(|text| !text.is_empty()) {
        scale["status"]["selector"] = selector.into();
    }
    Some(scale)
}

/// The object with the replicas that `scale` wants; a `Scale` without them wants 0.
pub(crate) fn set(definition: &Definition, object: &Value, scale: &Value) -> Result<Value> {
    let Some(ScalePaths { spec, .. }) = &definition.scale else { return Err(Failure::no_such_page()) };
    let wanted = scale["spec"].get("replicas").cloned().unwrap_or(json!(0));
    if wanted.as_i64().is_none_or(|replicas| replicas < 0) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let message = format!("Invalid value: {wanted}: must be greater than or equal to 0");
        return Err(Failure::invalid(definition, name, &[("spec.replicas", "FieldValueInvalid", message)]));
    }
    let mut object = object.clone();
    let field = spec.iter().fold(&mut object, |value, name| &mut value[name]);
    *field = wanted;
    // The version of a Scale is that of its object.
    object["metadata"]["resourceVersion"] = scale["metadata"]["resourceVersion"].clone();
    Ok(object)
}

fn at<'a>(object: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, name| value.get(name))
}

/// A label selector in one line; a text as it is.
fn selector_text(selector: &Value) -> String {
    if let Some(text) = selector.as_str() {
        return text.into();
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pairs = selector["matchLabels"].as_object().into_iter().flatten();
    let mut parts: Vec<String> = pairs.map(|(key, value)| format!("{key}={}", text(value))).collect();
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = text(&expression["key"]);
        let values: Vec<_> = expression["values"].as_array().into_iter().flatten().map(text).collect();
        let values = values.join(",");
        parts.push(match expression["operator"].as_str() {
            Some("In") => format!("{key} in ({values})"),
            Some("NotIn") => format!("{key} notin ({values})"),
            Some("Exists") => key,
            _ => format!("!{key}"),
        });
    }
    parts.join(",")
}
