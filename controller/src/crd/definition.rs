//! The CustomResourceDefinition, as an API server takes it.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use super::RequestAutoscaler;

/// The definition of RequestAutoscalers.
///
/// What `kube` derives, without two habits of its source: numbers have Rust's formats, which an API server warns about, and
/// what may be left out may be `null` as well, which a typed client never means.
pub fn definition() -> CustomResourceDefinition {
    let derived = RequestAutoscaler::crd();
    let Ok(mut value) = serde_json::to_value(&derived) else { return derived };
    if let Some(schema) = value.pointer_mut("/spec/versions/0/schema/openAPIV3Schema") {
        plain(schema);
        if let Some(spec) = schema.as_object_mut() {
            spec.insert("required".to_owned(), json!(["spec"]));
        }
    }
    serde_json::from_value(value).unwrap_or(derived)
}

/// Rewrites a schema and those within it.
fn plain(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    object.remove("nullable");
    if let Some(format) = object.get("format").and_then(Value::as_str).map(str::to_owned) {
        integer(object, &format);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = object.get_mut(key) {
            plain(inner);
        }
    }
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        properties.values_mut().for_each(plain);
    }
}

fn integer(object: &mut Map<String, Value>, format: &str) {
    let (format, most) = match format {
        "uint16" => ("int32", u32::from(u16::MAX)),
        "uint32" => ("int32", i32::MAX.unsigned_abs()),
        _ => return,
    };
    object.insert("format".to_owned(), json!(format));
    let bound = |object: &Map<String, Value>, key: &str| object.get(key).and_then(Value::as_f64);
    let (least, most) =
        (bound(object, "minimum").unwrap_or(0.0), bound(object, "maximum").unwrap_or(f64::from(most)));
    object.insert("minimum".to_owned(), json!(least));
    object.insert("maximum".to_owned(), json!(most));
}

#[cfg(test)]
mod tests;
