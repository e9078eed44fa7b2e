//! Manifests as people would write them, in temporary files. JSON is YAML, so nothing needs quoting by hand.

use std::path::Path;

use serde_json::{Map, Value, json};
use tempfile::NamedTempFile;

/// Writes documents to a temporary file that is removed with the value.
pub fn file(documents: &[Value]) -> NamedTempFile {
    let text: Vec<String> = documents.iter().map(|document| format!("{document:#}\n")).collect();
    text_file(&text.join("---\n"))
}

/// Writes any text to a temporary file that is removed with the value.
pub fn text_file(text: &str) -> NamedTempFile {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().expect("a temporary file");
    std::fs::write(file.path(), text).expect("a writable temporary file");
    file
}

/// A Knative Service with one container that runs `command`; the autoscaling annotations without their prefix.
pub fn service(name: &str, annotations: &[(&str, &str)], command: &[&str]) -> Value {
    let annotations: Map<String, Value> = annotations
        .iter()
        .map(|(key, value)| (format!("autoscaling.knative.dev/{key}"), Value::from(*value)))
        .collect();
    json!({
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "template": {
            "metadata": { "annotations": annotations },
            "spec": { "containers": [{ "image": "none", "command": command }] },
        } },
    })
}

/// The operator's ConfigMap.
pub fn config(data: &[(&str, &str)]) -> Value {
    let data: Map<String, Value> = data.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "config-autoscaler", "namespace": "knative-serving" },
        "data": data,
    })
}

/// The shortest times Knative allows.
pub fn quick_config() -> Value {
    config(&[("stable-window", "6s"), ("scale-to-zero-grace-period", "6s")])
}

/// A path as a command-line argument.
pub fn arg(path: &Path) -> &str {
    path.to_str().expect("temporary files have plain names")
}
