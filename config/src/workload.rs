//! The manifests people have, read into workloads that can be run and scaled: Knative Services, Configurations and
//! Revisions, KServe and KFServing InferenceServices, Deployments, StatefulSets and ReplicaSets with autoscaling
//! annotations, and the defaults beside them, as ConfigMap `config-autoscaler` or in the operator's KnativeServing.
//! PodAutoscalers, HorizontalPodAutoscalers and ScaledObjects are explained. YAML or JSON with any number of documents;
//! lists are opened.
//!
//! All faults of all files come in one answer, and what is at fault hides nothing else ([`survey`]). A kind that is not
//! supported is a note, unless a file holds nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use pilotlight_core::{ConcurrencyLimit, RevisionId, RevisionSpec, Timeouts};
use serde::Serialize;

use crate::autoscaler::AutoscalerConfig;
use crate::fault::{Parsed, Warning};
use crate::resolve::Setting;
pub use config::{data_beside, data_in};
pub use elsewhere::Elsewhere;
pub use survey::survey;

mod compare;
mod config;
mod draft;
mod elsewhere;
mod fields;
mod hpa;
mod kinds;
mod kserve;
pub mod manifest;
mod object;
mod placement;
mod pod;
mod requests;
mod survey;
mod unused;
mod written;

/// Something to run and to scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// The name: namespace (`default` where none is written) and name of the object.
    pub id: RevisionId,
    /// The kind of object it was written as.
    pub kind: Kind,
    /// How it scales.
    pub spec: RevisionSpec,
    /// The same for people, with where each setting came from.
    pub settings: Vec<Setting>,
    /// The annotations these settings came from: those written, and those that fields stand for.
    pub annotations: BTreeMap<String, String>,
    /// How many requests one pod may answer at once.
    pub container_concurrency: ConcurrencyLimit,
    /// The time limits of a request.
    pub timeouts: Timeouts,
    /// How long it may take to come up.
    pub progress_deadline: Duration,
    /// How to find out whether a pod is ready: a Kubernetes probe with Knative's defaults filled in.
    pub readiness_probe: Option<serde_json::Value>,
    /// The container of a pod.
    pub container: Container,
    /// The file, document and line it was read from.
    pub source: Source,
    /// The autoscaler it has in a cluster, sentence by sentence, where requests do not scale it.
    pub elsewhere: Option<Vec<String>>,
    /// Warnings: parts that are suspicious, or not carried over.
    pub notes: Vec<Warning>,
}

/// The kind of object a workload was written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Kind {
    /// A Knative `Service`.
    Service,
    /// A Knative `Configuration`.
    Configuration,
    /// A Knative `Revision`.
    Revision,
    /// A Knative `PodAutoscaler`, which Knative makes of a revision: its settings, and no container to run.
    PodAutoscaler,
    /// An `InferenceService` of KServe or KFServing.
    InferenceService,
    /// A plain `Deployment`.
    Deployment,
    /// A plain `StatefulSet`.
    StatefulSet,
    /// A plain `ReplicaSet`.
    ReplicaSet,
}

/// The serving container of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Container {
    /// The image, if one is written.
    pub image: Option<String>,
    /// The command; empty where the image's own is meant.
    pub command: Vec<String>,
    /// The arguments.
    pub args: Vec<String>,
    /// The environment, in the order written. Only literal values: what lives in a cluster stays there.
    pub env: Vec<(String, String)>,
    /// The directory to run in.
    pub working_dir: Option<String>,
    /// The port it listens on, if one is written.
    pub port: Option<u16>,
}

/// The file, document and line of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Source {
    /// The file, as it was named.
    pub file: String,
    /// The line on which the document begins, from 1.
    pub line: u64,
}

/// The text of one file.
#[derive(Clone, Copy, Debug)]
pub struct Manifest<'a> {
    /// How to name the file in messages.
    pub file: &'a str,
    /// What it holds.
    pub text: &'a str,
}

/// All that was found in a set of files.
#[derive(Clone, Debug, PartialEq)]
pub struct Workloads {
    /// The workloads, in the order of the files.
    pub workloads: Vec<Workload>,
    /// The objects by which other autoscalers scale.
    pub elsewhere: Vec<Elsewhere>,
    /// The defaults they were resolved with.
    pub config: AutoscalerConfig,
    /// The place of these defaults, if they are in the files.
    pub config_source: Option<Source>,
}

/// The port an application listens on where its manifest names none.
pub const DEFAULT_PORT: u16 = 8080;

/// Reads workloads from files. `config` holds the defaults; without it they come from a ConfigMap
/// `config-autoscaler` in the files, and without that they are Knative's.
///
/// ```
/// use pilotlight_config::workload::{self, Manifest};
/// let text = r#"
/// apiVersion: serving.knative.dev/v1
/// kind: Service
/// metadata: { name: hello }
/// spec:
///   template:
///     metadata:
///       annotations: { autoscaling.knative.dev/max-scale: "ten" }
///     spec:
///       containers: [{ image: hello }]
/// "#;
/// let faults = workload::read(&[Manifest { file: "service.yaml", text }], None).value.unwrap_err();
/// assert_eq!(
///     faults.to_string(),
///     "service.yaml:8: Service default/hello: \
///      spec.template.metadata.annotations.autoscaling.knative.dev/max-scale: \
///      \"ten\" is not a whole number between 0 and 2147483647"
/// );
/// ```
pub fn read(manifests: &[Manifest<'_>], config: Option<&AutoscalerConfig>) -> Parsed<Workloads> {
    let (workloads, findings) = survey(manifests, config);
    Parsed::new(workloads, findings)
}
