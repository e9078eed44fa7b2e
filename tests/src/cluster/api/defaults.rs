//! Values that the server fills in where a built-in object leaves them out, as far as controllers come across them.

use serde_json::{Map, Value, json};

use super::definition::Definition;

/// Fills in what an object of a built-in kind leaves out.
pub(crate) fn fill(definition: &Definition, object: &mut Value) {
    if definition.is_custom {
        return;
    }
    match definition.kind.as_str() {
        "Pod" => {
            fill_pod(&mut object["spec"]);
            fill_in(
                &mut object["spec"],
                &json!({"enableServiceLinks": true, "serviceAccountName": "default"}),
            );
        }
        "Deployment" => {
            let rolling = json!({"type": "RollingUpdate"});
            fill_in(
                &mut object["spec"],
                &json!({"replicas": 1, "strategy": rolling, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600}),
            );
            let strategy = &mut object["spec"]["strategy"];
            fill_in(strategy, &rolling);
            if strategy["type"] == "RollingUpdate" {
                fill_in(strategy, &json!({"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}));
            }
            fill_pod(&mut object["spec"]["template"]["spec"]);
        }
        "ReplicaSet" => {
            fill_in(&mut object["spec"], &json!({"replicas": 1}));
            fill_pod(&mut object["spec"]["template"]["spec"]);
        }
        "StatefulSet" => {
            let update = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}});
            fill_in(
                &mut object["spec"],
                &json!({
                    "replicas": 1, "podManagementPolicy": "OrderedReady", "revisionHistoryLimit": 10, "updateStrategy": update
                }),
            );
            fill_pod(&mut object["spec"]["template"]["spec"]);
        }
        "Service" => fill_service(&mut object["spec"]),
        "Namespace" => {
            let name = object["metadata"]["name"].clone();
            fill_in(&mut object["metadata"], &json!({"labels": {}}));
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
            fill_in(&mut object["spec"], &json!({"finalizers": ["kubernetes"]}));
        }
        "DaemonSet" => {
            let update =
                json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}});
            fill_in(&mut object["spec"], &json!({"revisionHistoryLimit": 10, "updateStrategy": update}));
            fill_pod(&mut object["spec"]["template"]["spec"]);
        }
        "HorizontalPodAutoscaler" => {
            let target = json!({"type": "Utilization", "averageUtilization": 80});
            let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
            fill_in(&mut object["spec"], &json!({"minReplicas": 1, "metrics": [cpu]}));
        }
        "NetworkPolicy" => {
            let has_egress = object["spec"]["egress"].as_array().is_some_and(|rules| !rules.is_empty());
            let types = if has_egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
            fill_in(&mut object["spec"], &json!({"podSelector": {}, "policyTypes": types}));
        }
        "PersistentVolumeClaim" => fill_in(&mut object["spec"], &json!({"volumeMode": "Filesystem"})),
        "PriorityClass" => fill_in(object, &json!({"preemptionPolicy": "PreemptLowerPriority"})),
        "RoleBinding" | "ClusterRoleBinding" => {
            for subject in items(object, "subjects") {
                if subject["kind"] != "ServiceAccount" {
                    fill_in(subject, &json!({"apiGroup": "rbac.authorization.k8s.io"}));
                }
            }
        }
        "EndpointSlice" => {
            for port in items(object, "ports") {
                fill_in(port, &json!({"name": "", "protocol": "TCP"}));
            }
        }
        "Endpoints" => {
            for subset in items(object, "subsets") {
                for port in items(subset, "ports") {
                    fill_in(port, &json!({"protocol": "TCP"}));
                }
            }
        }
        "Secret" => fill_secret(object),
        _ => {}
    }
}

/// The status that a new object begins with; none for kinds that begin without.
pub(crate) fn first_status(definition: &Definition, object: &Value) -> Option<Value> {
    if definition.is_custom {
        return None;
    }
    match definition.kind.as_str() {
        "Pod" => Some(json!({"phase": "Pending", "qosClass": "BestEffort"})),
        "Deployment" => Some(json!({})),
        "ReplicaSet" | "StatefulSet" => Some(json!({"replicas": 0})),
        "Service" => Some(json!({"loadBalancer": {}})),
        "Namespace" => Some(json!({"phase": "Active"})),
        "DaemonSet" => Some(json!({
            "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0
        })),
        "HorizontalPodAutoscaler" => Some(json!({"currentMetrics": null, "desiredReplicas": 0})),
        "PodDisruptionBudget" => Some(json!({
            "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0
        })),
        "ResourceQuota" => Some(json!({})),
        "PersistentVolumeClaim" => Some(json!({"phase": "Pending"})),
        "Ingress" => Some(json!({"loadBalancer": {}})),
        "CustomResourceDefinition" => {
            let condition = |name: &str, reason: &str| json!({"type": name, "status": "True", "reason": reason, "message": ""});
            let stored = object["spec"]["versions"].as_array().into_iter().flatten();
            let stored: Vec<_> =
                stored.filter(|version| version["storage"] == true).map(|version| &version["name"]).collect();
            Some(json!({
                "acceptedNames": object["spec"]["names"],
                "conditions": [condition("NamesAccepted", "NoConflicts"), condition("Established", "InitialNamesAccepted")],
                "storedVersions": stored,
            }))
        }
        _ => None,
    }
}

fn fill_service(spec: &mut Value) {
    let policy = json!({
        "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster", "ipFamilyPolicy": "SingleStack",
        "ipFamilies": ["IPv4"]
    });
    if spec["type"] == "ExternalName" {
        fill_in(spec, &json!({"sessionAffinity": "None"}));
    } else {
        fill_in(spec, &policy);
    }
    for port in items(spec, "ports") {
        let target = port["port"].clone();
        fill_in(port, &json!({"protocol": "TCP", "targetPort": target}));
    }
}

fn fill_pod(spec: &mut Value) {
    let pod = json!({
        "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 30, "securityContext": {},
        "schedulerName": "default-scheduler"
    });
    fill_in(spec, &pod);
    for list in ["containers", "initContainers"] {
        for container in items(spec, list) {
            fill_container(container);
        }
    }
}

fn fill_container(container: &mut Value) {
    let image = container["image"].as_str().unwrap_or_default();
    let tag = image.rsplit('/').next().unwrap_or_default().split_once(':');
    let is_latest = !image.contains('@') && tag.is_none_or(|(_, tag)| tag == "latest");
    let pull = if is_latest { "Always" } else { "IfNotPresent" };
    let defaults = json!({
        "imagePullPolicy": pull, "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        "resources": {}
    });
    fill_in(container, &defaults);
    for port in items(container, "ports") {
        fill_in(port, &json!({"protocol": "TCP"}));
    }
    for name in ["readinessProbe", "livenessProbe", "startupProbe"] {
        let Some(probe) = container.get_mut(name).filter(|probe| probe.is_object()) else { continue };
        fill_in(
            probe,
            &json!({"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}),
        );
        if let Some(get) = probe.get_mut("httpGet") {
            fill_in(get, &json!({"path": "/", "scheme": "HTTP"}));
        }
    }
}

/// `stringData` is written to `data`, and never read.
fn fill_secret(secret: &mut Value) {
    fill_in(secret, &json!({"type": "Opaque"}));
    let Some(Value::Object(texts)) = secret.as_object_mut().and_then(|secret| secret.remove("stringData"))
    else {
        return;
    };
    for (name, text) in texts {
        secret["data"][name] = base64(text.as_str().unwrap_or_default().as_bytes()).into();
    }
}

/// The items of a list, if there is one.
fn items<'a>(object: &'a mut Value, name: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Gives `object` the fields of `defaults` that it has not got. What is no object is left alone.
fn fill_in(object: &mut Value, defaults: &Value) {
    if object.is_null() {
        *object = Value::Object(Map::new());
    }
    let (Some(object), Some(defaults)) = (object.as_object_mut(), defaults.as_object()) else { return };
    for (name, value) in defaults {
        object.entry(name.clone()).or_insert_with(|| value.clone());
    }
}

/// The standard alphabet, padded (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { letter.into() } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_secrets_are_encoded() {
        for (plain, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }
}
