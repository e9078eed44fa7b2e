//! How the lists and maps of an object merge: by which keys, as a set, or as a whole.
//!
//! The built-in kinds are known as far as controllers merge them: pods and pod templates, Services, Nodes, metadata and
//! conditions. Any other list is atomic, unless the schema of a custom resource has `x-kubernetes-list-type`.

use serde_json::Value;

use crate::cluster::api::definition::Definition;

/// How a list merges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListType {
    /// As a whole.
    Atomic,
    /// By its values.
    Set,
    /// Item by item; the items are told apart by these fields.
    Map(Vec<String>),
}

/// The path of a field, without the indices of lists.
pub(crate) type FieldPath<'a> = Vec<&'a str>;

/// The type of a list under server-side apply.
pub(crate) fn list_type(definition: &Definition, path: &[&str]) -> ListType {
    if let Some(row) = row(definition, path) {
        return match row.keys {
            [] => ListType::Set,
            keys => ListType::Map(keys.iter().map(|key| (*key).to_owned()).collect()),
        };
    }
    let Some(schema) = definition.schema.as_ref().and_then(|schema| at(schema, path)) else {
        return ListType::Atomic;
    };
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => ListType::Set,
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
            ListType::Map(keys.filter_map(Value::as_str).map(str::to_owned).collect())
        }
        _ => ListType::Atomic,
    }
}

/// Whether a map is owned and replaced as a whole under server-side apply.
pub(crate) fn is_atomic_map(definition: &Definition, path: &[&str]) -> bool {
    let is_listed = !definition.is_custom
        && (ATOMIC_MAPS.contains(&path.last().copied().unwrap_or_default())
            || path == ["spec", "selector"]
            || path == ["involvedObject"]);
    let schema = || definition.schema.as_ref().and_then(|schema| at(schema, path));
    is_listed || schema().is_some_and(|schema| schema["x-kubernetes-map-type"] == "atomic")
}

/// The key by which a strategic merge patch merges a list; none: the list is replaced. A set merges without a key.
pub(crate) fn patch_key(definition: &Definition, path: &[&str]) -> Option<&'static str> {
    row(definition, path).map(|row| row.patch_key)
}

/// The value of a key that an item leaves out.
pub(crate) fn default_of_key(key: &str) -> Option<Value> {
    (key == "protocol").then(|| "TCP".into())
}

struct Row {
    path: &'static str,
    /// Fields that tell the items apart; none: the list is a set.
    keys: &'static [&'static str],
    /// The field by which a strategic merge patch tells them apart; empty for sets.
    patch_key: &'static str,
}

const fn list(path: &'static str, keys: &'static [&'static str], patch_key: &'static str) -> Row {
    Row { path, keys, patch_key }
}

const METADATA: &[Row] =
    &[list("metadata.ownerReferences", &["uid"], "uid"), list("metadata.finalizers", &[], "")];

/// Lists of a pod's spec. The three kinds of containers are alike.
const POD: &[Row] = &[
    list("containers", &["name"], "name"),
    list("containers.ports", &["containerPort", "protocol"], "containerPort"),
    list("containers.env", &["name"], "name"),
    list("containers.volumeMounts", &["mountPath"], "mountPath"),
    list("containers.volumeDevices", &["devicePath"], "devicePath"),
    list("volumes", &["name"], "name"),
    list("imagePullSecrets", &["name"], "name"),
    list("hostAliases", &["ip"], "ip"),
    list("topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"], "topologyKey"),
];

const CONDITIONS: Row = list("status.conditions", &["type"], "type");

const POD_STATUS: &[Row] = &[CONDITIONS, list("status.podIPs", &["ip"], "ip")];

const NODE: &[Row] =
    &[CONDITIONS, list("status.addresses", &["type"], "type"), list("spec.podCIDRs", &[], "")];

const SERVICE: &[Row] = &[CONDITIONS, list("spec.ports", &["port", "protocol"], "port")];

const SERVICE_ACCOUNT: &[Row] = &[list("secrets", &["name"], "name")];

const WITH_CONDITIONS: &[Row] = &[CONDITIONS];

/// Names of maps that are references or selectors: nobody owns a part of one.
const ATOMIC_MAPS: &[&str] = &[
    "configMapKeyRef",
    "configMapRef",
    "fieldRef",
    "labelSelector",
    "nodeSelector",
    "resourceFieldRef",
    "scaleTargetRef",
    "secretKeyRef",
    "secretRef",
    "targetRef",
];

fn row(definition: &Definition, path: &[&str]) -> Option<&'static Row> {
    let find = |rows: &'static [Row], path: &[&str]| {
        rows.iter().find(|row| row.path.split('.').eq(path.iter().copied()))
    };
    if path.first() == Some(&"metadata") {
        return find(METADATA, path);
    }
    if definition.is_custom {
        return None;
    }
    let pod = match definition.kind.as_str() {
        "Pod" => path.strip_prefix(&["spec"]),
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" => {
            path.strip_prefix(&["spec", "template", "spec"])
        }
        _ => None,
    };
    if let Some(path) = pod {
        let mut path = path.to_vec();
        if let Some(name) = path.first_mut()
            && ["initContainers", "ephemeralContainers"].contains(name)
        {
            *name = "containers";
        }
        return find(POD, &path);
    }
    let rows = match definition.kind.as_str() {
        "Pod" => POD_STATUS,
        "Node" => NODE,
        "Service" => SERVICE,
        "ServiceAccount" => SERVICE_ACCOUNT,
        _ => WITH_CONDITIONS,
    };
    find(rows, path)
}

/// The schema of a field.
fn at<'a>(schema: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(schema, |schema, name| {
        let schema = schema.get("items").unwrap_or(schema);
        schema["properties"].get(name).or_else(|| schema.get("additionalProperties"))
    })
}
