//! Objects as rows of a table, as `kubectl get` shows them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::definition::Definition;
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
    let own: Vec<_> = definition.columns.iter().map(|column| (column, json_path(&column.path))).collect();
    heads.extend(own.iter().map(|(column, _)| head(&column.name, column.is_wide)));
    heads.push(head("Age", false));
    let row = |object: &Object| {
        let value = &object.value;
        let mut cells: Vec<_> = columns.iter().map(|(_, _, cell)| cell(value)).collect();
        let at = |path: &[Step]| path.iter().try_fold(value, |value, step| step.of(value)).cloned();
        cells.extend(own.iter().map(|(_, path)| at(path).unwrap_or_default()));
        cells.push(age(value).into());
        json!({"cells": cells, "object": metadata(object)})
    };
    let rows: Vec<_> = objects.into_iter().map(row).collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "columnDefinitions": heads, "rows": rows})
}

/// A step of a JSON path, as far as columns of custom resources have them.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// `.name`
    Field(String),
    /// `[0]`
    Item(usize),
    /// `[?(@.name=="value")]`: the first item that has it.
    Having(String, String),
}

impl Step {
    fn of<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        match self {
            Step::Field(name) => value.get(name),
            Step::Item(place) => value.get(place),
            Step::Having(name, text) => value.as_array()?.iter().find(|item| item[name] == text.as_str()),
        }
    }
}

/// Reads a JSON path. What is not understood is a field that nothing has.
fn json_path(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some((inside, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let filter = inside.strip_prefix("?(@.").and_then(|filter| filter.strip_suffix(')'));
            steps.push(match filter.and_then(|filter| filter.split_once("==")) {
                Some((name, text)) => {
                    Step::Having(name.trim().to_owned(), text.trim().trim_matches(['"', '\'']).to_owned())
                }
                None => inside.parse().map_or_else(|_| Step::Field(inside.to_owned()), Step::Item),
            });
            rest = after;
            continue;
        }
        let name = rest.trim_start_matches('.');
        // A dot within a name is escaped.
        let is_end = |(at, _): &(usize, &str)| !name[..*at].ends_with('\\');
        let end = name.match_indices(['.', '[']).find(is_end).map_or(name.len(), |(at, _)| at);
        if end > 0 {
            steps.push(Step::Field(name[..end].replace("\\.", ".")));
        }
        rest = &name[end..];
    }
    steps
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
        ("autoscaling", "HorizontalPodAutoscaler") => &[
            ("Reference", false, |object| {
                let target = &object["spec"]["scaleTargetRef"];
                let text = |name: &str| target[name].as_str().unwrap_or_default();
                format!("{}/{}", text("kind"), text("name")).into()
            }),
            ("MinPods", false, |object| object["spec"]["minReplicas"].clone()),
            ("MaxPods", false, |object| object["spec"]["maxReplicas"].clone()),
            ("Replicas", false, |object| count(&object["status"]["currentReplicas"]).into()),
        ],
        ("policy", "PodDisruptionBudget") => &[
            ("Min Available", false, |object| or_not(&object["spec"]["minAvailable"])),
            ("Max Unavailable", false, |object| or_not(&object["spec"]["maxUnavailable"])),
            ("Allowed Disruptions", false, |object| count(&object["status"]["disruptionsAllowed"]).into()),
        ],
        ("scheduling.k8s.io", "PriorityClass") => &[("Value", false, |class| class["value"].clone())],
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

fn or_not(value: &Value) -> Value {
    if value.is_null() { "N/A".into() } else { value.clone() }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_find_their_cells() {
        let object = json!({
            "spec": {"color": "red", "a.b": 1},
            "status": {"conditions": [{"type": "Other"}, {"type": "Ready", "status": "True"}], "list": [7, 8]}
        });
        let cell =
            |path: &str| json_path(path).iter().try_fold(&object, |value, step| step.of(value)).cloned();
        assert_eq!(cell(".spec.color"), Some(json!("red")));
        assert_eq!(cell(r".spec.a\.b"), Some(json!(1)));
        for ready in [
            r#".status.conditions[?(@.type=="Ready")].status"#,
            ".status.conditions[?(@.type=='Ready')].status",
        ] {
            assert_eq!(cell(ready), Some(json!("True")));
        }
        assert_eq!(cell(".status.list[1]"), Some(json!(8)));
        assert_eq!(cell(".status.conditions[?(@.type=='None')].status"), None);
        assert_eq!(cell(".status.list[*]"), None);
    }
}
