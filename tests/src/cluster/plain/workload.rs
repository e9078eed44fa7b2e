//! Workloads: a Deployment of the app, a Service, and a RequestAutoscaler that scales the one by the requests to the other.

use serde_json::{Value, json};

use crate::cluster::whole::merge;

/// A workload to create.
#[derive(Clone, Debug)]
pub struct WorkloadSpec {
    /// The name of all of its objects, and of the pods' label `app`.
    pub name: String,
    /// The pods that it begins with.
    pub replicas: i32,
    /// The ports of app and Service.
    pub ports: Vec<AppPort>,
    /// Whether the Service selects the pods. Without, all requests pass the activators.
    pub has_selector: bool,
    /// The time until the app listens, such as `2s`.
    pub startup: String,
    /// How long the app goes on to take connections after SIGTERM, such as `2s`.
    pub close_after: String,
    /// Seconds between the end of a pod and SIGTERM.
    pub pre_stop: u32,
    /// Whether there is a readiness probe.
    pub is_probed: bool,
    /// More of the RequestAutoscaler's spec.
    pub autoscaler: Value,
}

/// A port of the app and of its Service.
#[derive(Clone, Debug)]
pub struct AppPort {
    /// Its name, at the Service and in the pod.
    pub name: &'static str,
    /// The Service's number.
    pub port: u16,
    /// The pod's number.
    pub target: u16,
    /// Whether it takes lines instead of HTTP.
    pub is_tcp: bool,
    /// The Service's `appProtocol`; empty: none.
    pub app_protocol: &'static str,
}

impl AppPort {
    /// HTTP, both versions.
    pub const HTTP: AppPort =
        AppPort { name: "http", port: 80, target: 8080, is_tcp: false, app_protocol: "" };
    /// HTTP/2 by prior knowledge.
    pub const H2C: AppPort =
        AppPort { name: "grpc", port: 81, target: 8081, is_tcp: false, app_protocol: "kubernetes.io/h2c" };
    /// Lines over TCP.
    pub const TCP: AppPort =
        AppPort { name: "lines", port: 7000, target: 7000, is_tcp: true, app_protocol: "tcp" };
}

impl WorkloadSpec {
    /// One HTTP port behind a Service without a selector, a pod for every two requests, down to zero, asleep at first.
    pub fn exact(name: &str) -> WorkloadSpec {
        WorkloadSpec {
            name: name.to_owned(),
            replicas: 0,
            ports: vec![AppPort::HTTP],
            has_selector: false,
            startup: "0s".to_owned(),
            close_after: "0s".to_owned(),
            pre_stop: 0,
            is_probed: true,
            autoscaler: json!({ "minReplicas": 0, "target": 2, "targetUtilizationPercentage": 100 }),
        }
    }

    /// The same with more in the spec of its RequestAutoscaler.
    pub fn with(mut self, autoscaler: Value) -> WorkloadSpec {
        merge(&mut self.autoscaler, autoscaler);
        self
    }

    /// The Deployment.
    pub fn deployment(&self) -> Value {
        let listen = self
            .ports
            .iter()
            .map(|port| format!("{}/{}", port.target, if port.is_tcp { "tcp" } else { "http" }));
        let listen = listen.collect::<Vec<_>>().join(" ");
        let ports = self.ports.iter().map(|port| json!({ "name": port.name, "containerPort": port.target }));
        let mut container = json!({
            "name": "app", "image": "plain", "ports": ports.collect::<Vec<_>>(),
            "env": [
                { "name": "LISTEN", "value": listen }, { "name": "STARTUP", "value": self.startup },
                { "name": "CLOSE_AFTER", "value": self.close_after },
            ],
        });
        if self.is_probed {
            let first = self.ports.first().map(|port| port.name).unwrap_or_default();
            container["readinessProbe"] = json!({ "tcpSocket": { "port": first }, "periodSeconds": 1 });
        }
        if self.pre_stop > 0 {
            container["lifecycle"] = json!({ "preStop": { "sleep": { "seconds": self.pre_stop } } });
        }
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": self.name },
            "spec": {
                "replicas": self.replicas,
                "selector": { "matchLabels": { "app": self.name } },
                "strategy": { "rollingUpdate": { "maxUnavailable": 0, "maxSurge": 1 } },
                "template": {
                    "metadata": { "labels": { "app": self.name } },
                    "spec": { "terminationGracePeriodSeconds": 30, "containers": [container] },
                },
            },
        })
    }

    /// The Service.
    pub fn service(&self) -> Value {
        let ports = self.ports.iter().map(|port| {
            let mut each = json!({ "name": port.name, "port": port.port, "targetPort": port.name });
            if !port.app_protocol.is_empty() {
                each["appProtocol"] = port.app_protocol.into();
            }
            each
        });
        let mut service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": self.name }, "spec": { "ports": ports.collect::<Vec<_>>() },
        });
        if self.has_selector {
            service["spec"]["selector"] = json!({ "app": self.name });
        }
        service
    }

    /// The RequestAutoscaler.
    pub fn autoscaler(&self) -> Value {
        let target = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": self.name });
        let mut spec = json!({ "scaleTargetRef": target, "services": [{ "name": self.name }] });
        merge(&mut spec, self.autoscaler.clone());
        json!({
            "apiVersion": "pilotlight.dev/v1alpha1", "kind": "RequestAutoscaler",
            "metadata": { "name": self.name }, "spec": spec,
        })
    }

    /// The workload whose pod gave this answer, if its name says so.
    pub(super) fn is_of(name: &str, answer: &str) -> bool {
        let pod = answer.trim_start_matches("Pod ");
        pod.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_belongs_to_the_workload_whose_whole_name_begins_it() {
        assert!(WorkloadSpec::is_of("web", "Pod web-5d-1\n"));
        for (name, answer) in [("web", "Pod webs-5d-1\n"), ("web-1", "Pod web-5d-1\n"), ("web", "no pod")] {
            assert!(!WorkloadSpec::is_of(name, answer), "{name}: {answer}");
        }
    }
}
