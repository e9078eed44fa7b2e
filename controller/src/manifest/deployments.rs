//! The two programs.

use serde_json::{Value, json};

use super::{ACTIVATOR, ACTIVATOR_NAME, CONTROLLER, ManifestParams, NAME, labels, metadata};

/// Deployments, their disruption budgets, and the Service that their metrics are found by.
pub(super) fn objects(params: &ManifestParams) -> Vec<Value> {
    let controller = Installed {
        name: NAME,
        component: CONTROLLER,
        ports: json!([{"name": "stats", "containerPort": 8080}, {"name": "admin", "containerPort": 9091}]),
        grace_period: 60,
        memory: ("64Mi", "512Mi"),
    };
    // A connection that is kept may take its time. The other ports are too many to be listed.
    let activator = Installed {
        name: ACTIVATOR_NAME,
        component: ACTIVATOR,
        ports: json!([{"name": "admin", "containerPort": 9090}]),
        grace_period: 600,
        memory: ("128Mi", "1Gi"),
    };
    let mut objects = Vec::new();
    for program in [&controller, &activator] {
        objects.push(program.deployment(params));
        objects.push(program.budget(params));
    }
    objects.push(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "pilotlight-metrics", "namespace": params.system_namespace,
            "labels": {"app.kubernetes.io/name": NAME}},
        "spec": {
            "clusterIP": "None",
            "selector": {"app.kubernetes.io/name": NAME},
            "ports": [{"name": "metrics", "port": 9090, "targetPort": "admin"}],
        },
    }));
    objects
}

struct Installed {
    name: &'static str,
    component: &'static str,
    ports: Value,
    /// Seconds that it may take to end.
    grace_period: u32,
    /// Memory that it asks for, and the most that it is given.
    memory: (&'static str, &'static str),
}

impl Installed {
    fn deployment(&self, params: &ManifestParams) -> Value {
        let labels = labels(self.component);
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": metadata(self.name, &params.system_namespace, self.component),
            "spec": {
                "replicas": 2,
                "minReadySeconds": 10,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": self.pod(params, &labels)},
            },
        })
    }

    fn pod(&self, params: &ManifestParams, labels: &Value) -> Value {
        let mut args = vec!["kube".to_owned(), self.component.to_owned()];
        if !params.namespaces.is_empty() {
            args.push(format!("--namespace={}", params.namespaces.join(",")));
        }
        let from =
            |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
        let probe = |path: &str, period: u32, failures: u32| {
            json!({"httpGet": {"path": path, "port": "admin"}, "periodSeconds": period,
                "failureThreshold": failures})
        };
        let spread = |key: &str| {
            json!({"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": labels}})
        };
        json!({
            "serviceAccountName": self.name,
            "terminationGracePeriodSeconds": self.grace_period,
            "topologySpreadConstraints":
                [spread("kubernetes.io/hostname"), spread("topology.kubernetes.io/zone")],
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": self.component,
                "image": params.image,
                "args": args,
                "env": [
                    from("POD_NAME", "metadata.name"),
                    from("POD_IP", "status.podIP"),
                    from("NODE_NAME", "spec.nodeName"),
                    from("SYSTEM_NAMESPACE", "metadata.namespace"),
                ],
                "ports": self.ports,
                "readinessProbe": probe("/readyz", 2, 2),
                "livenessProbe": probe("/healthz", 10, 6),
                "resources": {
                    "requests": {"cpu": "100m", "memory": self.memory.0},
                    "limits": {"memory": self.memory.1},
                },
                "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]}},
                // The last lines of a program that ended are told with its state.
                "terminationMessagePolicy": "FallbackToLogsOnError",
            }],
        })
    }

    fn budget(&self, params: &ManifestParams) -> Value {
        json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": metadata(self.name, &params.system_namespace, self.component),
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels(self.component)}},
        })
    }
}
