//! Facts: the part of each watched object that is kept. Only what a decision, a status or a new object needs.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod as PodObject;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time as ObjectTime};
use k8s_openapi::jiff::Timestamp;
use pilotlight_autoscaler::cluster::PodPhase;
use pilotlight_config::keys::annotation;
use pilotlight_core::{RevisionId, Time};
use pilotlight_kubernetes::knative::{
    Condition, ConditionsStatus, Metric, MetricSpec, PodAutoscaler, PodAutoscalerSpec, PodAutoscalerStatus,
    ServerlessService, ServerlessServiceSpec,
};
use pilotlight_kubernetes::known::Versioned;
use pilotlight_kubernetes::labels;
use pilotlight_kubernetes::trouble::{PodTrouble, trouble_of, waits_for};

/// A PodAutoscaler.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct AutoscalerFact {
    pub(crate) uid: String,
    pub(crate) resource_version: String,
    pub(crate) generation: i64,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) spec: PodAutoscalerSpec,
    pub(crate) status: PodAutoscalerStatus,
}

/// A ServerlessService.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ServiceFact {
    pub(crate) resource_version: String,
    /// The UID of the object that controls it.
    pub(crate) owner: Option<String>,
    pub(crate) spec: ServerlessServiceSpec,
    pub(crate) service_name: String,
    pub(crate) private_service_name: String,
    pub(crate) is_ready: bool,
    /// Why it is not ready, as its controller says.
    pub(crate) message: String,
    /// Since when traffic has been led to activators.
    pub(crate) activator_since: Option<Time>,
}

/// A Metric.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct MetricFact {
    pub(crate) resource_version: String,
    pub(crate) generation: i64,
    /// The UID of the object that controls it.
    pub(crate) owner: Option<String>,
    pub(crate) spec: MetricSpec,
    pub(crate) status: ConditionsStatus,
}

/// A pod that has not ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PodFact {
    pub(crate) phase: PodPhase,
    pub(crate) ip: Option<IpAddr>,
    pub(crate) started: Time,
    pub(crate) waits_for: Option<String>,
    pub(crate) trouble: Option<Box<PodTrouble>>,
}

impl Versioned for AutoscalerFact {
    fn resource_version(&self) -> &str {
        &self.resource_version
    }
}

impl Versioned for ServiceFact {
    fn resource_version(&self) -> &str {
        &self.resource_version
    }
}

impl Versioned for MetricFact {
    fn resource_version(&self) -> &str {
        &self.resource_version
    }
}

/// Reads a PodAutoscaler. `None`: it is being deleted, or names the class of another autoscaler.
pub(crate) fn autoscaler(object: &PodAutoscaler) -> Option<(RevisionId, AutoscalerFact)> {
    let meta = &object.metadata;
    let annotations = meta.annotations.clone().unwrap_or_default();
    if annotations.get(annotation::CLASS.name).is_some_and(|class| class != annotation::KPA) {
        return None;
    }
    let fact = AutoscalerFact {
        uid: meta.uid.clone().unwrap_or_default(),
        resource_version: meta.resource_version.clone().unwrap_or_default(),
        generation: meta.generation.unwrap_or(0),
        labels: meta.labels.clone().unwrap_or_default(),
        annotations,
        spec: object.spec.clone(),
        status: object.status.clone().unwrap_or_default(),
    };
    Some((id_of(meta)?, fact))
}

/// Reads a ServerlessService. `None`: it is being deleted.
pub(crate) fn service(object: &ServerlessService) -> Option<(RevisionId, ServiceFact)> {
    let meta = &object.metadata;
    let status = object.status.clone().unwrap_or_default();
    let ready = condition(&status.conditions, "Ready");
    let is_current = status.observed_generation == meta.generation;
    let activator = condition(&status.conditions, "ActivatorEndpointsPopulated");
    let fact = ServiceFact {
        resource_version: meta.resource_version.clone().unwrap_or_default(),
        owner: controller(meta),
        spec: object.spec.clone(),
        service_name: status.service_name.clone(),
        private_service_name: status.private_service_name.clone(),
        is_ready: is_current && ready.is_some_and(|ready| ready.status == "True"),
        message: ready.map(|ready| ready.message.clone()).unwrap_or_default(),
        activator_since: activator
            .filter(|populated| populated.status == "True")
            .and_then(|populated| populated.last_transition_time.as_ref())
            .map(time),
    };
    Some((id_of(meta)?, fact))
}

/// Reads a Metric. `None`: it is being deleted.
pub(crate) fn metric(object: &Metric) -> Option<(RevisionId, MetricFact)> {
    let meta = &object.metadata;
    let fact = MetricFact {
        resource_version: meta.resource_version.clone().unwrap_or_default(),
        generation: meta.generation.unwrap_or(0),
        owner: controller(meta),
        spec: object.spec.clone(),
        status: object.status.clone().unwrap_or_default(),
    };
    Some((id_of(meta)?, fact))
}

/// Reads a pod, under its revision's name and its own. `None`: it has ended, or is no revision's.
pub(crate) fn pod(object: &PodObject) -> Option<((RevisionId, String), PodFact)> {
    let (meta, status) = (&object.metadata, object.status.as_ref()?);
    let revision = meta.labels.as_ref()?.get(labels::REVISION)?;
    let is_ready = || {
        let mut conditions = status.conditions.iter().flatten();
        conditions.find(|condition| condition.type_ == "Ready").is_some_and(|ready| ready.status == "True")
    };
    let phase = match status.phase.as_deref() {
        // A pod that is deleted before it has started counts as one that is pending, as in Knative.
        Some("Pending") | None => PodPhase::Pending,
        Some("Running") if meta.deletion_timestamp.is_some() => PodPhase::Terminating,
        Some("Running") if is_ready() => PodPhase::Ready,
        Some("Running") => PodPhase::Starting,
        Some(_) => return None,
    };
    let is_starting = phase.is_starting() && meta.deletion_timestamp.is_none();
    let fact = PodFact {
        phase,
        ip: status.pod_ip.as_deref().and_then(|ip| ip.parse().ok()),
        started: status.start_time.as_ref().or(meta.creation_timestamp.as_ref()).map_or(Time::EPOCH, time),
        waits_for: is_starting.then(|| waits_for(status)).flatten(),
        trouble: is_starting.then(|| trouble_of(status)).flatten().map(Box::new),
    };
    Some(((RevisionId::new(meta.namespace.clone()?, revision), meta.name.clone()?), fact))
}

/// The condition of a type.
pub(crate) fn condition<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// A point in time as Kubernetes writes it. Times before 1970 become that.
pub(crate) fn time(time: &ObjectTime) -> Time {
    Time::from_nanos(u64::try_from(time.0.as_nanosecond()).unwrap_or(0))
}

/// A point in time as Kubernetes writes it: in whole seconds.
pub(crate) fn object_time(time: Time) -> ObjectTime {
    let seconds = i64::try_from(time.whole_seconds()).unwrap_or(i64::MAX);
    ObjectTime(Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX))
}

/// The name of an object that is not being deleted.
pub(super) fn id_of(meta: &ObjectMeta) -> Option<RevisionId> {
    if meta.deletion_timestamp.is_some() {
        return None;
    }
    Some(RevisionId::new(meta.namespace.clone()?, meta.name.clone()?))
}

fn controller(meta: &ObjectMeta) -> Option<String> {
    let mut owners = meta.owner_references.iter().flatten();
    owners.find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_pod(json: serde_json::Value) -> Option<((RevisionId, String), PodFact)> {
        pod(&serde_json::from_value(json).unwrap())
    }

    fn phase(status: &serde_json::Value, is_deleted: bool) -> Option<PodPhase> {
        let mut meta = json!({"namespace": "ns", "name": "hello-1-x",
            "labels": {"serving.knative.dev/revision": "hello-1"}});
        if is_deleted {
            meta["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        Some(read_pod(json!({"metadata": meta, "status": status}))?.1.phase)
    }

    #[test]
    fn pods_are_counted_as_knative_counts_them() {
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let not_ready = json!([{"type": "Ready", "status": "False"}]);
        let running = |conditions: &serde_json::Value| json!({"phase": "Running", "conditions": conditions});
        let table = [
            (json!({"phase": "Pending"}), false, Some(PodPhase::Pending)),
            (json!({"phase": "Pending"}), true, Some(PodPhase::Pending)),
            (running(&ready), false, Some(PodPhase::Ready)),
            (running(&not_ready), false, Some(PodPhase::Starting)),
            (running(&json!([])), false, Some(PodPhase::Starting)),
            (running(&ready), true, Some(PodPhase::Terminating)),
            (json!({"phase": "Succeeded"}), false, None),
            (json!({"phase": "Failed"}), false, None),
            (json!({"phase": "Unknown"}), false, None),
        ];
        for (status, is_deleted, expected) in table {
            assert_eq!(phase(&status, is_deleted), expected, "{status}, deleted: {is_deleted}");
        }
    }

    #[test]
    fn a_pod_is_its_revisions_with_address_and_start() {
        let ((revision, name), fact) = read_pod(json!({
            "metadata": {"namespace": "ns", "name": "p", "labels": {"serving.knative.dev/revision": "r"}},
            "status": {"phase": "Running", "podIP": "fd00::1", "startTime": "1970-01-01T00:01:40Z"},
        }))
        .unwrap();
        assert_eq!((revision, name.as_str()), (RevisionId::new("ns", "r"), "p"));
        assert_eq!((fact.ip, fact.started), (Some("fd00::1".parse().unwrap()), Time::from_secs(100)));
        let unlabelled =
            json!({"metadata": {"namespace": "ns", "name": "p"}, "status": {"phase": "Running"}});
        assert!(read_pod(unlabelled).is_none());
    }

    #[test]
    fn a_services_conditions_are_those_of_its_present_generation() {
        let read = |generation: i64, ready: &str| {
            let object = json!({
                "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "ServerlessService",
                "metadata": {"namespace": "ns", "name": "r", "generation": generation, "ownerReferences": [
                    {"apiVersion": "v1", "kind": "X", "name": "x", "uid": "other"},
                    {"apiVersion": "v1", "kind": "X", "name": "x", "uid": "owner", "controller": true}]},
                "spec": {"mode": "Proxy"},
                "status": {"observedGeneration": 2, "serviceName": "r", "privateServiceName": "r-private",
                    "conditions": [{"type": "Ready", "status": ready, "message": "why"},
                        {"type": "ActivatorEndpointsPopulated", "status": "True",
                            "lastTransitionTime": "1970-01-01T00:00:07Z"}]},
            });
            service(&serde_json::from_value(object).unwrap()).unwrap().1
        };
        let current = read(2, "True");
        assert!(current.is_ready && current.owner.as_deref() == Some("owner"));
        assert_eq!(current.activator_since, Some(Time::from_secs(7)));
        assert!(!read(3, "True").is_ready && !read(2, "Unknown").is_ready);
        assert_eq!(read(2, "Unknown").message, "why");
    }

    #[test]
    fn an_object_that_is_being_deleted_or_anothers_is_none() {
        let read = |meta: serde_json::Value| {
            let object = json!({"apiVersion": "autoscaling.internal.knative.dev/v1alpha1",
                "kind": "PodAutoscaler", "metadata": meta, "spec": {"containerConcurrency": 5}});
            autoscaler(&serde_json::from_value(object).unwrap())
        };
        let fact =
            read(json!({"namespace": "ns", "name": "r", "uid": "u", "resourceVersion": "12"})).unwrap().1;
        assert_eq!((fact.uid.as_str(), fact.version(), fact.spec.container_concurrency), ("u", 12, 5));
        let gone = json!({"namespace": "ns", "name": "r", "deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert!(read(gone).is_none());
        let class = |class: &str| json!({"namespace": "ns", "name": "r", "annotations": {"autoscaling.knative.dev/class": class}});
        assert!(read(class("hpa.autoscaling.knative.dev")).is_none());
        assert!(read(class("kpa.autoscaling.knative.dev")).is_some());
    }

    #[test]
    fn times_keep_their_whole_seconds() {
        let moment = Time::from_millis(1_700_000_000_900);
        assert_eq!(time(&object_time(moment)), Time::from_secs(1_700_000_000));
    }
}
