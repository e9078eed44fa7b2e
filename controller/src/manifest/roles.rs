//! ServiceAccounts and their rights.
//!
//! Activators read, and wake by themselves when the controller is silent. Only the controller writes, and nothing of a
//! user's but scales, and Endpoints that lead nowhere any more.

use serde_json::{Value, json};

use super::{ACTIVATOR, ACTIVATOR_NAME, CONTROLLER, ManifestParams, NAME, metadata};

/// ServiceAccounts, roles and bindings.
pub(super) fn objects(params: &ManifestParams) -> Vec<Value> {
    let system = params.system_namespace.as_str();
    let mut objects = Vec::new();
    for (name, component, at_home, abroad) in [
        (NAME, CONTROLLER, controller_at_home(), controller(params)),
        (ACTIVATOR_NAME, ACTIVATOR, activator_at_home(), activator()),
    ] {
        objects.push(json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": metadata(name, system, component)}));
        objects.extend(granted(name, component, Some(system), system, &at_home));
        if params.namespaces.is_empty() {
            objects.extend(granted(name, component, None, system, &abroad));
        }
        for namespace in &params.namespaces {
            // In a namespace of its own name the role at home is taken already.
            let name = if namespace == system { format!("{name}-workloads") } else { name.to_owned() };
            objects.extend(granted_to(
                &name,
                component,
                Some(namespace),
                system,
                &abroad,
                account(component),
            ));
        }
    }
    if params.namespaces.is_empty() {
        objects.extend(for_people());
    }
    objects
}

/// A role and its binding; without a namespace, those of the cluster.
fn granted(name: &str, component: &str, namespace: Option<&str>, system: &str, rules: &Value) -> [Value; 2] {
    granted_to(name, component, namespace, system, rules, account(component))
}

fn granted_to(
    name: &str,
    component: &str,
    namespace: Option<&str>,
    system: &str,
    rules: &Value,
    account: &str,
) -> [Value; 2] {
    let prefix = if namespace.is_some() { "" } else { "Cluster" };
    let mut about = metadata(name, namespace.unwrap_or_default(), component);
    if namespace.is_none() {
        about.as_object_mut().map(|about| about.remove("namespace"));
    }
    let role = format!("{prefix}Role");
    [
        json!({"apiVersion": RBAC, "kind": role, "metadata": about, "rules": rules}),
        json!({
            "apiVersion": RBAC, "kind": format!("{prefix}RoleBinding"), "metadata": about,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": system}],
        }),
    ]
}

fn account(component: &str) -> &'static str {
    if component == CONTROLLER { NAME } else { ACTIVATOR_NAME }
}

/// The controller's rights where workloads are.
fn controller(params: &ManifestParams) -> Value {
    let mut rules = vec![
        rule("", &["services", "endpoints", "pods"], READ),
        rule("discovery.k8s.io", &["endpointslices"], READ),
        rule("discovery.k8s.io", &["endpointslices"], &["create", "update", "patch", "delete"]),
        // OpenShift asks for it where endpoints lie outside of the pods' network.
        rule("discovery.k8s.io", &["endpointslices/restricted"], &["create"]),
        // A Service without a selector leaves some behind.
        rule("", &["endpoints"], &["delete"]),
        rule("pilotlight.dev", &["requestautoscalers"], READ),
        // The finalizer, while there is something to restore.
        rule("pilotlight.dev", &["requestautoscalers", "requestautoscalers/status"], &["update", "patch"]),
        rule("pilotlight.dev", &["requestautoscalers/finalizers"], &["update"]),
        scales(),
        // Annotations of targets are settings as well.
        rule("apps", TARGETS, READ),
        rule("argoproj.io", &["rollouts"], &["get"]),
        rule("metrics.k8s.io", &["pods"], &["get", "list"]),
        rule("autoscaling", &["horizontalpodautoscalers"], READ),
        rule("", &["events"], &["create", "patch"]),
        // Objects that may stand in a workload's way are read, and never written.
        rule("", &["namespaces", "nodes", "resourcequotas"], READ),
        rule("networking.k8s.io", &["networkpolicies", "ingresses", "ingressclasses"], READ),
        rule("policy", &["poddisruptionbudgets"], READ),
        rule("keda.sh", &["scaledobjects"], READ),
        rule("flagger.app", &["canaries"], READ),
        rule("security.istio.io", &["peerauthentications"], READ),
        rule("elbv2.k8s.aws", &["targetgroupbindings"], READ),
    ];
    // The controller's own roles are held until everything is restored.
    let (roles, bindings) = match params.namespaces.is_empty() {
        true => ("clusterroles", "clusterrolebindings"),
        false => ("roles", "rolebindings"),
    };
    rules.push(own("rbac.authorization.k8s.io", &[roles, bindings]));
    if params.with_deletion_cost {
        rules.push(rule("", &["pods"], &["patch"]));
    }
    Value::Array(rules)
}

/// The controller's rights in its own namespace.
fn controller_at_home() -> Value {
    json!([
        rule("coordination.k8s.io", &["leases"], &["get", "list", "watch", "create", "update", "patch"]),
        rule("", &["configmaps"], &["get", "list", "watch", "create", "update", "patch"]),
        rule("", &["pods"], READ),
        own("", &["serviceaccounts"]),
        own("rbac.authorization.k8s.io", &["roles", "rolebindings"]),
    ])
}

/// An activator's rights where workloads are.
fn activator() -> Value {
    json!([
        rule("", &["services", "pods"], READ),
        rule("discovery.k8s.io", &["endpointslices"], READ),
        rule("pilotlight.dev", &["requestautoscalers"], READ),
        scales(),
    ])
}

/// An activator's rights in its own namespace.
fn activator_at_home() -> Value {
    json!([rule("coordination.k8s.io", &["leases"], READ), rule("", &["configmaps", "pods"], READ),])
}

/// People who may edit or view workloads may do so with RequestAutoscalers.
fn for_people() -> [Value; 2] {
    let role = |name: &str, to: &[&str], verbs: &[&str]| {
        let mut labels = json!({"app.kubernetes.io/name": NAME});
        for to in to {
            labels[format!("rbac.authorization.k8s.io/aggregate-to-{to}")] = json!("true");
        }
        json!({"apiVersion": RBAC, "kind": "ClusterRole", "metadata": {"name": name, "labels": labels},
            "rules": [rule("pilotlight.dev", &["requestautoscalers"], verbs)]})
    };
    let write = ["create", "update", "patch", "delete", "deletecollection"];
    [
        role("pilotlight-edit", &["edit", "admin"], &write),
        role("pilotlight-view", &["view", "edit", "admin"], READ),
    ]
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}

fn scales() -> Value {
    let scales = TARGETS.iter().map(|target| format!("{target}/scale"));
    let scales: Vec<String> = scales.collect();
    json!({"apiGroups": ["apps"], "resources": scales, "verbs": ["get", "patch"]})
}

/// The right to hold the controller's own objects.
fn own(group: &str, resources: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "resourceNames": [NAME], "verbs": ["get", "patch"]})
}

const RBAC: &str = "rbac.authorization.k8s.io/v1";
const READ: &[&str] = &["get", "list", "watch"];
/// Kinds of targets whose scales may be written without a word of the user's.
const TARGETS: &[&str] = &["deployments", "statefulsets", "replicasets"];
