//! Knative's internal objects, as far as an autoscaler and an activator need them.
//!
//! Source: the CRDs of knative/serving. Fields that are not needed are not read; objects of others are therefore changed by
//! patches, never by an update.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use serde::{Deserialize, Serialize};

/// The scaling of one revision, asked for by its controller. Knative's short names: `kpa`, `pa`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "autoscaling.internal.knative.dev",
    version = "v1alpha1",
    kind = "PodAutoscaler",
    namespaced,
    status = "PodAutoscalerStatus",
    derive = "PartialEq",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default)]
pub struct PodAutoscalerSpec {
    /// The most requests a pod may run at once; 0: any number.
    pub container_concurrency: i64,
    /// The object with the `scale` subresource, as a rule a Deployment of the same namespace.
    pub scale_target_ref: TargetRef,
    /// `Reachable`, `Unreachable`, or nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reachability: String,
    /// `http1` or `h2c`.
    pub protocol_type: String,
}

/// A reference to an object of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetRef {
    /// Group and version, such as `apps/v1`.
    pub api_version: String,
    /// The kind, such as `Deployment`.
    pub kind: String,
    /// The name.
    pub name: String,
}

/// The state that the autoscaler has brought a revision to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodAutoscalerStatus {
    /// The generation of the spec that this speaks of.
    pub observed_generation: Option<i64>,
    /// `Ready`, `Active`, `ScaleTargetInitialized`, `SKSReady`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The Service that leads to the revision.
    pub service_name: String,
    /// The Service that leads to its pods, for scrapes.
    pub metrics_service_name: String,
    /// Pods that are wanted; -1 while nobody knows.
    pub desired_scale: Option<i32>,
    /// Pods that are ready.
    pub actual_scale: Option<i32>,
    /// Annotations of Knative's duck type; carried along.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// One condition of a Knative object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// The name.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// `Info` or `Warning` for conditions that do not count for `Ready`; nothing for the others.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub severity: String,
    /// When status, reason or message last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
    /// The reason, in one word.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The reason, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// The collection of a revision's metric.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "autoscaling.internal.knative.dev",
    version = "v1alpha1",
    kind = "Metric",
    namespaced,
    status = "ConditionsStatus",
    derive = "PartialEq",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default)]
pub struct MetricSpec {
    /// In nanoseconds.
    pub stable_window: i64,
    /// In nanoseconds.
    pub panic_window: i64,
    /// The Service that is scraped; empty: none is.
    pub scrape_target: String,
}

/// A status of conditions alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConditionsStatus {
    /// The generation of the spec that this speaks of.
    pub observed_generation: Option<i64>,
    /// The conditions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A revision's pair of Services, and whether the public one leads to pods or to activators. Knative's short name: `sks`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "networking.internal.knative.dev",
    version = "v1alpha1",
    kind = "ServerlessService",
    namespaced,
    status = "ServerlessServiceStatus",
    derive = "PartialEq",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerlessServiceSpec {
    /// `Serve`: to the pods. `Proxy`: to activators.
    pub mode: String,
    /// The owner of the pods.
    pub object_ref: TargetRef,
    /// `http1` or `h2c`.
    pub protocol_type: String,
    /// How many activators stand by; 0: all.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_activators: i32,
}

/// The state that the controller has brought a ServerlessService to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerlessServiceStatus {
    /// The generation of the spec that this speaks of.
    pub observed_generation: Option<i64>,
    /// `Ready`, `EndpointsPopulated`, `ActivatorEndpointsPopulated`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The public Service.
    pub service_name: String,
    /// The private Service.
    pub private_service_name: String,
}

/// A revision: one version of an app.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "serving.knative.dev",
    version = "v1",
    kind = "Revision",
    namespaced,
    status = "ConditionsStatus",
    derive = "PartialEq",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default)]
pub struct RevisionSpec {
    /// The most requests a pod may run at once; 0 or nothing: any number.
    pub container_concurrency: Option<i64>,
    /// The longest time a request may take, in seconds; nothing: the default.
    pub timeout_seconds: Option<i64>,
    /// The longest time until a response begins, in seconds.
    pub response_start_timeout_seconds: Option<i64>,
    /// The longest time without a byte, in seconds.
    pub idle_timeout_seconds: Option<i64>,
    /// The containers, as far as their ports and probes go.
    pub containers: Vec<RevisionContainer>,
}

/// A container of a revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RevisionContainer {
    /// The name.
    pub name: String,
    /// The container with ports serves.
    pub ports: Vec<RevisionPort>,
    /// The probe of its readiness.
    pub readiness_probe: Option<serde_json::Value>,
    /// The probe of its start.
    pub startup_probe: Option<serde_json::Value>,
}

/// The port of a serving container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RevisionPort {
    /// `h2c` or `http1`; nothing means the latter.
    pub name: String,
    /// The number.
    pub container_port: i32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(number: &i32) -> bool {
    *number == 0
}
