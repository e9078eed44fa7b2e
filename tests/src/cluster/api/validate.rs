//! Rules that objects have to keep, as far as controllers come across them. What breaks one is refused with 422.

use serde_json::Value;

use super::definition::{Definition, ScalePaths};
use super::failure::{Failure, Result};
use super::selector;

/// Refuses an object that breaks rules. `before` is what it replaces.
pub(crate) fn check(definition: &Definition, before: Option<&Value>, object: &Value) -> Result<()> {
    let mut faults = Faults::default();
    check_name(definition, object, &mut faults);
    check_replicas(definition, object, &mut faults);
    check_owners(object, &mut faults);
    if !definition.is_custom {
        match definition.kind.as_str() {
            "Pod" => check_pod("spec", &object["spec"], &mut faults),
            "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" => check_workload(object, &mut faults),
            "Service" => check_service(object, &mut faults),
            "ConfigMap" | "Secret" => check_keys(object, &mut faults),
            "HorizontalPodAutoscaler" => check_autoscaler(&object["spec"], &mut faults),
            "PodDisruptionBudget" => check_budget(&object["spec"], &mut faults),
            "RoleBinding" | "ClusterRoleBinding" => check_binding(object, &mut faults),
            _ => {}
        }
        if let Some(before) = before {
            check_immutable(definition, before, object, &mut faults);
        }
    }
    if faults.0.is_empty() {
        return Ok(());
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let causes: Vec<_> =
        faults.0.iter().map(|(field, reason, message)| (field.as_str(), *reason, message.clone())).collect();
    Err(Failure::invalid(definition, name, &causes))
}

#[derive(Default)]
struct Faults(Vec<(String, &'static str, String)>);

impl Faults {
    fn required(&mut self, field: impl Into<String>, detail: &str) {
        let message =
            if detail.is_empty() { "Required value".to_owned() } else { format!("Required value: {detail}") };
        self.0.push((field.into(), "FieldValueRequired", message));
    }

    fn invalid(&mut self, field: impl Into<String>, value: &Value, detail: &str) {
        self.0.push((field.into(), "FieldValueInvalid", format!("Invalid value: {value}: {detail}")));
    }
}

fn check_name(definition: &Definition, object: &Value, faults: &mut Faults) {
    let value = &object["metadata"]["name"];
    let name = value.as_str().unwrap_or_default();
    if name.is_empty() {
        faults.required("metadata.name", "name or generateName is required");
    } else if definition.group == "rbac.authorization.k8s.io" {
        if [".", ".."].contains(&name) || name.contains(['/', '%']) {
            faults.invalid("metadata.name", value, "may not be '.' or '..', nor contain '/' or '%'");
        }
    } else if matches!((definition.group.as_str(), definition.kind.as_str()), ("", "Namespace" | "Service")) {
        if !is_label(name) {
            faults.invalid(
                "metadata.name",
                value,
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
                 end with an alphanumeric character",
            );
        }
    } else if name.len() > 253 || !name.split('.').all(|part| is_label_of(part, 253)) {
        faults.invalid(
            "metadata.name",
            value,
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start \
             and end with an alphanumeric character",
        );
    }
}

fn check_replicas(definition: &Definition, object: &Value, faults: &mut Faults) {
    let Some(ScalePaths { spec, .. }) = &definition.scale else { return };
    let value = spec.iter().try_fold(object, |value, name| value.get(name)).unwrap_or(&Value::Null);
    if value.as_i64().is_some_and(|replicas| replicas < 0) {
        faults.invalid(spec.join("."), value, "must be greater than or equal to 0");
    } else if !value.is_null() && !value.is_i64() {
        faults.invalid(spec.join("."), value, "must be an integer");
    }
}

fn check_owners(object: &Value, faults: &mut Faults) {
    let owners = object["metadata"]["ownerReferences"].as_array();
    for (place, owner) in owners.into_iter().flatten().enumerate() {
        for name in ["apiVersion", "kind", "name", "uid"] {
            if owner[name].as_str().is_none_or(str::is_empty) {
                faults.required(format!("metadata.ownerReferences[{place}].{name}"), "");
            }
        }
    }
    let controllers = owners.into_iter().flatten().filter(|owner| owner["controller"] == true);
    if controllers.count() > 1 {
        faults.invalid(
            "metadata.ownerReferences",
            &Value::Null,
            "Only one reference can have Controller set to true",
        );
    }
}

fn check_pod(path: &str, spec: &Value, faults: &mut Faults) {
    let containers = spec["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
    if containers.is_empty() {
        faults.required(format!("{path}.containers"), "");
    }
    for (place, container) in containers.iter().enumerate() {
        if container["name"].as_str().is_none_or(str::is_empty) {
            faults.required(format!("{path}.containers[{place}].name"), "");
        }
        if container["image"].as_str().is_none_or(str::is_empty) {
            faults.required(format!("{path}.containers[{place}].image"), "");
        }
        for (port_place, port) in container["ports"].as_array().into_iter().flatten().enumerate() {
            if !port["containerPort"].as_i64().is_some_and(|port| (1..=65535).contains(&port)) {
                faults.invalid(
                    format!("{path}.containers[{place}].ports[{port_place}].containerPort"),
                    &port["containerPort"],
                    "must be between 1 and 65535, inclusive",
                );
            }
        }
    }
}

fn check_workload(object: &Value, faults: &mut Faults) {
    let (selector, template) = (&object["spec"]["selector"], &object["spec"]["template"]);
    let labels = &template["metadata"]["labels"];
    if selector.as_object().is_none_or(serde_json::Map::is_empty) {
        faults.required("spec.selector", "");
    } else if !selector::label_selector_matches(selector, labels) {
        faults.invalid(
            "spec.template.metadata.labels",
            labels,
            "`selector` does not match template `labels`",
        );
    }
    check_pod("spec.template.spec", &template["spec"], faults);
}

fn check_service(object: &Value, faults: &mut Faults) {
    let spec = &object["spec"];
    let ports = spec["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_headless = spec["clusterIP"] == "None";
    if ports.is_empty() && spec["type"] != "ExternalName" && !is_headless {
        faults.required("spec.ports", "");
    }
    for (place, port) in ports.iter().enumerate() {
        if !port["port"].as_i64().is_some_and(|port| (1..=65535).contains(&port)) {
            let field = format!("spec.ports[{place}].port");
            faults.invalid(field, &port["port"], "must be between 1 and 65535, inclusive");
        }
        if ports.len() > 1 && port["name"].as_str().is_none_or(str::is_empty) {
            faults.required(format!("spec.ports[{place}].name"), "");
        }
    }
}

fn check_keys(object: &Value, faults: &mut Faults) {
    let is_key = |each: char| each.is_ascii_alphanumeric() || "-._".contains(each);
    for key in object["data"].as_object().into_iter().flatten().map(|(key, _)| key) {
        if key.is_empty() || key.len() > 253 || !key.chars().all(is_key) {
            let detail = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
            faults.invalid(format!("data[{key}]"), &key.as_str().into(), detail);
        }
    }
}

fn check_autoscaler(spec: &Value, faults: &mut Faults) {
    for name in ["kind", "name"] {
        if spec["scaleTargetRef"][name].as_str().is_none_or(str::is_empty) {
            faults.required(format!("spec.scaleTargetRef.{name}"), "");
        }
    }
    let most = spec["maxReplicas"].as_i64().unwrap_or(0);
    if most < 1 {
        faults.invalid("spec.maxReplicas", &spec["maxReplicas"], "must be greater than 0");
    } else if spec["minReplicas"].as_i64().is_some_and(|least| least > most) {
        let detail = "must be greater than or equal to `minReplicas`";
        faults.invalid("spec.maxReplicas", &spec["maxReplicas"], detail);
    }
}

fn check_budget(spec: &Value, faults: &mut Faults) {
    if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() {
        faults.invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set");
    }
}

fn check_binding(binding: &Value, faults: &mut Faults) {
    if binding["roleRef"]["name"].as_str().is_none_or(str::is_empty) {
        faults.required("roleRef.name", "");
    }
    for (place, subject) in binding["subjects"].as_array().into_iter().flatten().enumerate() {
        if subject["name"].as_str().is_none_or(str::is_empty) {
            faults.required(format!("subjects[{place}].name"), "");
        }
        if subject["kind"] == "ServiceAccount" && subject["namespace"].as_str().is_none_or(str::is_empty) {
            faults.required(format!("subjects[{place}].namespace"), "");
        }
    }
}

fn check_immutable(definition: &Definition, before: &Value, object: &Value, faults: &mut Faults) {
    let (old, new) = (&before["spec"], &object["spec"]);
    match definition.kind.as_str() {
        "RoleBinding" | "ClusterRoleBinding" if before["roleRef"] != object["roleRef"] => {
            faults.invalid("roleRef", &object["roleRef"], "cannot change roleRef");
        }
        "PriorityClass" if before["value"] != object["value"] => {
            faults.invalid("value", &object["value"], "may not be changed in an update.");
        }
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" if old["selector"] != new["selector"] => {
            faults.invalid("spec.selector", &new["selector"], "field is immutable");
        }
        "Service" if new["type"] == old["type"] && old["clusterIP"] != new["clusterIP"] => {
            faults.invalid("spec.clusterIP", &new["clusterIP"], "field is immutable");
        }
        "Pod" if without_mutable(old) != without_mutable(new) => {
            let detail = "pod updates may not change fields other than `spec.containers[*].image`,\
                          `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to \
                          existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
                          previously negative)";
            faults.0.push(("spec".into(), "FieldValueForbidden", format!("Forbidden: {detail}")));
        }
        "ConfigMap" | "Secret" if before["immutable"] == true && before["data"] != object["data"] => {
            faults.0.push((
                "data".into(),
                "FieldValueForbidden",
                "Forbidden: field is immutable when `immutable` is set".into(),
            ));
        }
        _ => {}
    }
}

/// A pod's spec without what an update may change.
fn without_mutable(spec: &Value) -> Value {
    let mut spec = spec.clone();
    if let Some(fields) = spec.as_object_mut() {
        fields.remove("activeDeadlineSeconds");
        fields.remove("tolerations");
    }
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            container["image"] = Value::Null;
        }
    }
    spec
}

fn is_label(name: &str) -> bool {
    is_label_of(name, 63)
}

/// Whether a name is a label of RFC 1123, but for how long it may be.
fn is_label_of(name: &str, most: usize) -> bool {
    let is_alphanumeric = |each: u8| each.is_ascii_lowercase() || each.is_ascii_digit();
    let bytes = name.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    bytes.len() <= most
        && bytes.iter().all(|each| is_alphanumeric(*each) || *each == b'-')
        && ends.into_iter().all(|end| end.is_some_and(|end| is_alphanumeric(*end)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(kind: &str, object: &Value) -> Vec<String> {
        let mut definition = Definition::new("apps", "v1", kind, "things").with_scale(".spec.replicas");
        definition.is_custom = false;
        let Err(refused) = check(&definition, None, object) else { return Vec::new() };
        let causes = refused.status.details.expect("details").causes;
        causes.into_iter().map(|cause| cause.field).collect()
    }

    #[test]
    fn each_broken_rule_is_named() {
        let template = json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let selector = json!({"matchLabels": {"app": "a"}});
        let named = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
        let good = json!({"selector": selector, "template": template, "replicas": 0});
        assert_eq!(faults("Deployment", &named("a.b-c", good.clone())), [""; 0]);
        for name in ["A", "-a", "a-", "a..b", "a_b", ""] {
            assert_eq!(faults("Deployment", &named(name, good.clone())), ["metadata.name"], "{name}");
        }
        let other = json!({"selector": {"matchLabels": {"app": "b"}}, "template": template, "replicas": -1});
        assert_eq!(
            faults("Deployment", &named("a", other)),
            ["spec.replicas", "spec.template.metadata.labels"]
        );
        let pod = json!({"containers": [{"ports": [{"containerPort": 0}]}]});
        let fields = [
            "spec.containers[0].name",
            "spec.containers[0].image",
            "spec.containers[0].ports[0].containerPort",
        ];
        assert_eq!(faults("Pod", &named("a", pod)), fields);
        assert_eq!(faults("Service", &named("a", json!({}))), ["spec.ports"]);
    }
}
