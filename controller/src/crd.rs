//! `RequestAutoscaler`: the one object that a user writes for each workload.
//!
//! The API server refuses what its schema and CEL can say. Everything is checked again by [`settings`](crate::settings), which
//! knows more: a spec may have been stored before a rule was.

mod definition;

use std::collections::BTreeMap;

pub use definition::definition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use pilotlight_kubernetes::knative::TargetRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The scaling of one workload by its requests.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "pilotlight.dev",
    version = "v1alpha1",
    kind = "RequestAutoscaler",
    namespaced,
    shortname = "ra",
    status = "RequestAutoscalerStatus",
    derive = "PartialEq",
    doc = "The scaling of one workload by its requests, down to zero and back.",
    printcolumn = r#"{"name": "Target", "type": "string", "jsonPath": ".spec.scaleTargetRef.name"}"#,
    printcolumn = r#"{"name": "Min", "type": "integer", "jsonPath": ".spec.minReplicas"}"#,
    printcolumn = r#"{"name": "Max", "type": "integer", "jsonPath": ".spec.maxReplicas"}"#,
    printcolumn = r#"{"name": "Replicas", "type": "integer", "jsonPath": ".status.replicas"}"#,
    printcolumn = r#"{"name": "Wanted", "type": "integer", "jsonPath": ".status.wantedReplicas"}"#,
    printcolumn = r#"{"name": "In-Flight", "type": "number", "jsonPath": ".status.inFlight"}"#,
    printcolumn = r#"{"name": "Why", "type": "string", "jsonPath": ".status.lastDecision.why", "priority": 1}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "!has(self.minReplicas) || !has(self.maxReplicas) || self.maxReplicas == 0 || self.maxReplicas >= self.minReplicas", "message": "maxReplicas is less than minReplicas"},
    {"rule": "!has(self.activationScale) || !has(self.minReplicas) || self.activationScale >= self.minReplicas", "message": "activationScale is less than minReplicas"},
    {"rule": "!has(self.activationScale) || !has(self.maxReplicas) || self.maxReplicas == 0 || self.activationScale <= self.maxReplicas", "message": "activationScale is above maxReplicas"}
]))]
pub struct RequestAutoscalerSpec {
    /// The object that is scaled: anything with a scale subresource, in the same namespace.
    pub scale_target_ref: ScaleTargetRef,
    /// The Services whose traffic counts. None: every one that is not headless and whose selector matches the pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub services: Vec<ServiceRef>,
    /// How traffic reaches the activators.
    #[serde(default)]
    pub interception: Interception,
    /// Whether anything is scaled.
    #[serde(default)]
    pub mode: Mode,
    /// The fewest pods; 0 lets the last one go. 1 if it is not written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub min_replicas: Option<u32>,
    /// The most pods; 0 or not written: as the cluster's defaults say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub max_replicas: Option<u32>,
    /// The measure that is held at the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<Metric>,
    /// The value of the metric that each pod is to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.01))]
    pub target: Option<f64>,
    /// The part of the target that is aimed at, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub target_utilization_percentage: Option<f64>,
    /// The most requests that a pod is given at once; 0: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub container_concurrency: Option<u32>,
    /// The stable window, such as `60s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$"))]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "duration(self) >= duration('6s') && duration(self) <= duration('1h')", "message": "window is not between 6s and 1h"}]))]
    pub window: Option<String>,
    /// The panic window, in percent of the stable window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub panic_window_percentage: Option<f64>,
    /// The load at which panic begins, in percent of what the ready pods take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 110, max = 1000))]
    pub panic_threshold_percentage: Option<f64>,
    /// How load is averaged over a window: `linear` or `weighted-exponential`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["linear", "weighted-exponential", "weightedExponential"]))]
    pub metric_aggregation_algorithm: Option<String>,
    /// How long a lower number must hold before it is followed, such as `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$"))]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "duration(self) <= duration('1h')", "message": "scaleDownDelay is above 1h"}]))]
    pub scale_down_delay: Option<String>,
    /// The number of pods of a workload that is new here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub initial_scale: Option<u32>,
    /// The number of pods that a wake starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 2_147_483_647))]
    pub activation_scale: Option<u32>,
    /// How long the last pod stays after the last request, such as `1m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$"))]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "duration(self) <= duration('1h')", "message": "scaleToZeroPodRetention is above 1h"}]))]
    pub scale_to_zero_pod_retention: Option<String>,
    /// The longest time that a request may be held and answered in, in seconds. 300 if it is not written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub timeout_seconds: Option<u32>,
    /// The longest time that a pod which is to go may take over the requests it has, such as `30s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$"))]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "duration(self) <= duration('1h')", "message": "scaleInDrain is above 1h"}]))]
    pub scale_in_drain: Option<String>,
    /// How long a TCP connection without a byte counts as a request in flight. `60s` if it is not written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$"))]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "duration(self) > duration('0s')", "message": "tcpIdle is not above 0s"}]))]
    pub tcp_idle: Option<String>,
    /// How long a TCP connection without a byte is kept, and keeps the last pod. Not written: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$"))]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "duration(self) > duration('0s')", "message": "tcpIdleTimeout is not above 0s"}]))]
    pub tcp_idle_timeout: Option<String>,
    /// Requests that are no demand: they neither wake nor count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub ignore: Vec<IgnoreRule>,
    /// Names of ports on which connections begin with a header of the PROXY protocol, version 2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub proxy_protocol: Vec<String>,
    /// Whether whoever reaches the activators may reach the pods, even if a NetworkPolicy says otherwise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trust_activators: bool,
}

/// A reference to the object that is scaled.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScaleTargetRef {
    /// Group and version, such as `apps/v1`.
    #[serde(default = "apps_v1")]
    #[schemars(length(min = 1, max = 253))]
    pub api_version: String,
    /// The kind, such as `Deployment`.
    #[serde(default = "deployment")]
    #[schemars(length(min = 1, max = 253))]
    pub kind: String,
    /// The name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A reference to a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRef {
    /// The name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// How traffic reaches the activators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Interception {
    /// `Always` if the Service has no selector, `AtZero` if the load can be seen otherwise.
    #[default]
    Auto,
    /// All requests pass the activators. The Service has no selector.
    Always,
    /// Requests pass the activators while there are no pods, and on the way there and back.
    AtZero,
}

/// Whether anything is scaled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// Scales.
    #[default]
    Act,
    /// Decides and tells, and never patches a scale.
    Observe,
    /// Leaves a 0 alone, and wakes nothing.
    Paused,
}

/// The measure that is held at the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// Requests in flight.
    Concurrency,
    /// Requests per second.
    Rps,
}

/// Requests that are no demand. Both fields written: both must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{"rule": "has(self.path) || has(self.userAgent)", "message": "a rule needs a path or a userAgent"}]))]
pub struct IgnoreRule {
    /// The path, exactly; with a `*` at its end, its beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), regex(pattern = "^/"))]
    pub path: Option<String>,
    /// A part of the User-Agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub user_agent: Option<String>,
}

/// The state of a workload, written by the controller.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestAutoscalerStatus {
    /// The generation of the spec that this speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The pods that the target asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// The pods that are ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<u32>,
    /// The pods that were decided on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted_replicas: Option<u32>,
    /// Requests in flight, averaged over the stable window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<f64>,
    /// The measurement that decisions rest on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<Signal>,
    /// The path of traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<TrafficPath>,
    /// Whether there is panic.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub panicking: bool,
    /// The last change of the number of pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_decision: Option<LastDecision>,
    /// The label selector of the target's pods, as its scale subresource has it. Activators find the pods by it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// Pods that are given nothing new, since they are about to go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub leaving: Vec<String>,
    /// Ports of the activators by Service and port name, for readers: `web/http: 10007`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<String, u16>,
    /// `Accepted`, `Intercepting`, `Ready`, `Active`, `ZeroBlocked`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The measurement that decisions rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Signal {
    /// Activators see every request.
    Activators,
    /// Queue-proxies in the pods see every request.
    QueueProxy,
    /// Another autoscaler holds the number of pods above zero.
    Autoscaler,
}

/// The path of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TrafficPath {
    /// Through the activators.
    Activator,
    /// Straight to the pods.
    Pods,
}

/// A change of the number of pods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastDecision {
    /// When it was decided.
    pub time: Time,
    /// Pods before.
    pub from: u32,
    /// Pods after.
    pub to: u32,
    /// The rule that decided, in a word.
    pub rule: String,
    /// The reason in a sentence, with its numbers.
    pub why: String,
}

impl From<&ScaleTargetRef> for TargetRef {
    fn from(target: &ScaleTargetRef) -> TargetRef {
        let ScaleTargetRef { api_version, kind, name } = target.clone();
        TargetRef { api_version, kind, name }
    }
}

fn apps_v1() -> String {
    "apps/v1".to_owned()
}

fn deployment() -> String {
    "Deployment".to_owned()
}
