//! Objects as rows of a table, as `kubectl get` shows them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::definition::{Definition, path_of};
use super::store::Object;

/// A column: its name, whether only `-o wide` shows it, and its cell.
type Column = (&'static str, bool, fn(&Value) -> Value);

/// A `Table` of objects.
pub(crate) fn of<'a>(
    definition: &Definition,
    meta: &Value,
    objects: impl IntoIterator<Item = &'a Object>,
) -> Value {
    let columns = columns(definition);
    let mut heads: Vec<_> = columns.iter().map(|(name, is_wide, _)| head(name, *is_wide)).collect();
    let own: Vec<_> = definition.columns.iter().map(|(name, path)| (name, path_of(path))).collect();
    heads.extend(own.iter().map(|(name, _)| head(name, false)));
    heads.push(head("Age", false));
    let row = |object: &Object| {
        let value = &object.value;
        let mut cells: Vec<_> = columns.iter().map(|(_, _, cell)| cell(value)).collect();
        let at = |path: &[String]| path.iter().try_fold(value, |value, name| value.get(name)).cloned();
        cells.extend(own.iter().map(|(_, path)| at(path).unwrap_or_default()));
        cells.push(age(value).into());
        json!({"cells": cells, "object": metadata(object)})
    };
    let rows: Vec<_> = objects.into_iter().map(row).collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "columnDefinitions": heads, "rows": rows})
}

/// An object's metadata as an object.
pub(crate) fn metadata(object: &Object) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object.value["metadata"]})
}

fn head(name: &str, is_wide: bool) -> Value {
    let format = if name == "Name" { "name" } else { "" };
    json!({"name": name, "type": "string", "format": format, "description": name, "priority": i32::from(is_wide)})
}

fn columns(definition: &Definition) -> Vec<Column> {
    let mut columns: Vec<Column> = vec![("Name", false, |object| object["metadata"]["name"].clone())];
    let own: &[Column] = match (definition.group.as_str(), definition.kind.as_str()) {
        ("", "Pod") => &[
            ("Ready", false, |pod| {
                let statuses = pod["status"]["containerStatuses"].as_array();
                let ready = statuses.into_iter().flatten().filter(|status| status["ready"] == true).count();
                format!("{ready}/{}", pod["spec"]["containers"].as_array().map_or(0, Vec::len)).into()
            }),
            ("Status", false, |pod| {
                let is_ending = pod["metadata"].get("deletionTimestamp").is_some();
                if is_ending { "Terminating".into() } else { pod["status"]["phase"].clone() }
            }),
            ("IP", true, |pod| or_none(&pod["status"]["podIP"])),
            ("Node", true, |pod| or_none(&pod["spec"]["nodeName"])),
        ],
        ("apps", "Deployment" | "StatefulSet") => &[
            ("Ready", false, |object| {
                format!(
                    "{}/{}",
                    count(&object["status"]["readyReplicas"]),
                    count(&object["spec"]["replicas"])
                )
                .into()
            }),
            ("Up-to-date", false, |object| count(&object["status"]["updatedReplicas"]).into()),
            ("Available", false, |object| count(&object["status"]["availableReplicas"]).into()),
        ],
        ("apps", "ReplicaSet") => &[
            ("Desired", false, |object| count(&object["spec"]["replicas"]).into()),
            ("Current", false, |object| count(&object["status"]["replicas"]).into()),
            ("Ready", false, |object| count(&object["status"]["readyReplicas"]).into()),
        ],
        ("", "Service") => &[
            ("Type", false, |service| service["spec"]["type"].clone()),
            ("Cluster-IP", false, |service| or_none(&service["spec"]["clusterIP"])),
            ("Port(s)", false, |service| {
                let ports = service["spec"]["ports"].as_array().into_iter().flatten();
                let port =
                    |port: &Value| format!("{}/{}", port["port"], port["protocol"].as_str().unwrap_or("TCP"));
                ports.map(port).collect::<Vec<_>>().join(",").into()
            }),
        ],
        ("", "Namespace") => &[("Status", false, |namespace| namespace["status"]["phase"].clone())],
        ("", "Event") => &[
            ("Type", false, |event| event["type"].clone()),
            ("Reason", false, |event| event["reason"].clone()),
            ("Object", false, |event| {
                let object = &event["involvedObject"];
                let text = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
                format!("{}/{}", text("kind").to_lowercase(), text("name")).into()
            }),
            ("Message", false, |event| event["message"].clone()),
        ],
        ("coordination.k8s.io", "Lease") => {
            &[("Holder", false, |lease| or_none(&lease["spec"]["holderIdentity"]))]
        }
        ("autoscaling.internal.knative.dev", "PodAutoscaler") => &[
            ("DesiredScale", false, |object| object["status"]["desiredScale"].clone()),
            ("ActualScale", false, |object| object["status"]["actualScale"].clone()),
            ("Ready", false, ready),
        ],
        ("networking.internal.knative.dev", "ServerlessService") => &[
            ("Mode", false, |object| object["spec"]["mode"].clone()),
            ("ServiceName", false, |object| object["status"]["serviceName"].clone()),
            ("Ready", false, ready),
        ],
        (group, _) if group.ends_with("knative.dev") => &[("Ready", false, ready)],
        _ => &[],
    };
    columns.extend_from_slice(own);
    columns
}

fn count(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

fn or_none(value: &Value) -> Value {
    if value.as_str().is_none_or(str::is_empty) { "<none>".into() } else { value.clone() }
}

fn ready(object: &Value) -> Value {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let mut ready = conditions
        .filter(|condition| condition["type"] == "Ready")
        .map(|condition| condition["status"].clone());
    ready.next_back().unwrap_or_default()
}

/// Time since an object was created: `42s`, `7m`, `3h`, `2d`.
fn age(object: &Value) -> String {
    let created =
        object["metadata"]["creationTimestamp"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
    let Some(created) = created else { return "<unknown>".into() };
    match Timestamp::now().duration_since(created).as_secs() {
        seconds @ ..120 => format!("{seconds}s"),
        seconds @ ..7200 => format!("{}m", seconds / 60),
        seconds @ ..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}
