//! As much of `/openapi/v3` as kubectl asks for: which patches a kind takes, that fields are validated by the server, and
//! the schemas of custom resources for `kubectl explain`.

use serde_json::{Value, json};

use super::definition::Definition;
use super::store::Store;

/// The answer to a path of `/openapi/v3`; none if it is none.
pub(crate) fn find(store: &Store, path: &str) -> Option<Value> {
    let rest = path.strip_prefix("/openapi/v3")?.trim_matches('/');
    let definitions = || store.tables().map(|table| &*table.definition);
    if rest.is_empty() {
        let entry = |definition: &Definition| {
            let prefix = prefix(definition);
            let url = format!("/openapi/v3/{prefix}?hash=1");
            (prefix, json!({"serverRelativeURL": url}))
        };
        return Some(json!({"paths": definitions().map(entry).collect::<serde_json::Map<_, _>>()}));
    }
    let meant: Vec<_> = definitions().filter(|definition| prefix(definition) == rest).collect();
    if meant.is_empty() {
        return None;
    }
    let paths: serde_json::Map<_, _> =
        meant.iter().map(|definition| (path_of(definition), operations(definition))).collect();
    let schemas: serde_json::Map<_, _> =
        meant.iter().map(|definition| (definition.kind.clone(), schema(definition))).collect();
    let info = json!({"title": "Kubernetes", "version": "v1.33.0"});
    Some(json!({"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas}}))
}

/// `api/v1`, `apis/apps/v1`.
fn prefix(definition: &Definition) -> String {
    let root = if definition.group.is_empty() { "api" } else { "apis" };
    format!("{root}/{}", definition.api_version())
}

fn path_of(definition: &Definition) -> String {
    let namespace = if definition.is_namespaced { "namespaces/{namespace}/" } else { "" };
    format!("/{}/{namespace}{}/{{name}}", prefix(definition), definition.plural)
}

fn operations(definition: &Definition) -> Value {
    let names = ["dryRun", "fieldManager", "fieldValidation", "force"];
    let parameters: Vec<_> =
        names.iter().map(|name| json!({"name": name, "in": "query", "schema": {"type": "string"}})).collect();
    let mut content = json!({"application/json-patch+json": {}, "application/merge-patch+json": {}, "application/apply-patch+yaml": {}});
    if !definition.is_custom {
        content["application/strategic-merge-patch+json"] = json!({});
    }
    json!({"patch": {
        "parameters": parameters,
        "requestBody": {"content": content},
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind": kind_of(definition),
    }})
}

fn schema(definition: &Definition) -> Value {
    let unknown = || json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let mut schema = definition.schema.clone().unwrap_or_else(unknown);
    schema["x-kubernetes-group-version-kind"] = json!([kind_of(definition)]);
    // A CustomResourceDefinition leaves out what every object has.
    for (name, type_, description) in [
        ("apiVersion", "string", "Version of the schema of this object."),
        ("kind", "string", "Kind of this object."),
        ("metadata", "object", "Metadata that every object has."),
    ] {
        schema["properties"][name] = json!({"type": type_, "description": description});
    }
    schema
}

fn kind_of(definition: &Definition) -> Value {
    json!({"group": definition.group, "version": definition.version, "kind": definition.kind})
}
