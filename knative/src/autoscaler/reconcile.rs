//! From what is seen of a revision and what was decided to the writes that are missing, in Knative's order. Pure: the
//! same state again leads to no write.
//!
//! Source: Knative's `pkg/reconciler/autoscaling/kpa`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use pilotlight_config::keys::annotation;
use pilotlight_core::{Evaluation, ServingMode, Time};
use pilotlight_kubernetes::knative::{
    ConditionsStatus, Metric, MetricSpec, PodAutoscalerStatus, ServerlessService, ServerlessServiceSpec,
};

use super::history::SERVE;
use super::seen::{METRIC, Refusal, SERVICE, Seen};
use super::status::{autoscaler_status, metric_status};

/// One write that is missing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Write {
    CreateService(Box<ServerlessService>),
    ChangeService(ServerlessServiceSpec),
    CreateMetric(Box<Metric>),
    ChangeMetric(MetricSpec),
    /// The scale target should ask for another number of pods.
    Scale,
    Status(Box<PodAutoscalerStatus>),
    MetricStatus(ConditionsStatus),
}

impl Write {
    /// The kind of the object that is created, if one is.
    pub(crate) fn creates(&self) -> Option<&'static str> {
        match self {
            Write::CreateService(_) => Some(SERVICE),
            Write::CreateMetric(_) => Some(METRIC),
            _ => None,
        }
    }
}

/// The writes that are missing, in order.
pub(crate) fn reconcile(now: Time, seen: &Seen) -> Vec<Write> {
    let mut writes = Vec::new();
    if seen.serving().is_none() {
        write_service(seen, service_spec(seen, ServingMode::Proxy, LEAST_ACTIVATORS), &mut writes);
    }
    // An autoscaler that has just started knows nothing of what is wanted, and leaves all else as it is.
    let Some(evaluation) = seen.evaluation.as_deref() else { return writes };
    if seen.serving().is_some() && seen.refusal() != Some(Refusal::NotOwned(METRIC)) {
        write_metric(seen, &mut writes);
        if seen.scale().is_some_and(|pods| seen.replicas != Some(pods)) {
            writes.push(Write::Scale);
        }
        let spec = service_spec(seen, evaluation.plan.mode, evaluation.plan.activators);
        write_service(seen, spec, &mut writes);
    }
    write_status(now, seen, evaluation, &mut writes);
    writes
}

fn write_service(seen: &Seen, spec: ServerlessServiceSpec, writes: &mut Vec<Write>) {
    match &seen.service {
        None => writes.push(Write::CreateService(Box::new(service(seen, spec)))),
        Some(service) if !seen.owns(service.owner.as_deref()) => {}
        Some(service) if service.spec != spec => writes.push(Write::ChangeService(spec)),
        Some(_) => {}
    }
}

fn write_metric(seen: &Seen, writes: &mut Vec<Write>) {
    let spec = metric_spec(seen);
    match &seen.metric {
        None => writes.push(Write::CreateMetric(Box::new(metric(seen, spec)))),
        Some(metric) if metric.spec != spec => writes.push(Write::ChangeMetric(spec)),
        Some(_) => {}
    }
}

fn write_status(now: Time, seen: &Seen, evaluation: &Evaluation, writes: &mut Vec<Write>) {
    let status = autoscaler_status(now, seen, evaluation);
    if status != seen.autoscaler.status {
        writes.push(Write::Status(Box::new(status)));
    }
    // A Metric whose spec is yet to change gets another generation first.
    if let Some(metric) = &seen.metric
        && seen.owns(metric.owner.as_deref())
        && !writes.iter().any(|write| matches!(write, Write::ChangeMetric(_)))
    {
        let status = metric_status(now, metric, &seen.scrape);
        if status != metric.status {
            writes.push(Write::MetricStatus(status));
        }
    }
}

fn service_spec(seen: &Seen, mode: ServingMode, activators: u32) -> ServerlessServiceSpec {
    let autoscaler = &seen.autoscaler.spec;
    ServerlessServiceSpec {
        mode: match mode {
            ServingMode::Proxy => "Proxy",
            ServingMode::Serve => SERVE,
        }
        .to_owned(),
        object_ref: autoscaler.scale_target_ref.clone(),
        protocol_type: autoscaler.protocol_type.clone(),
        num_activators: i32::try_from(activators).unwrap_or(i32::MAX),
    }
}

fn service(seen: &Seen, spec: ServerlessServiceSpec) -> ServerlessService {
    let mut metadata = metadata(seen);
    metadata.annotations.as_mut().map(|annotations| annotations.remove(annotation::METRIC.name));
    ServerlessService { metadata, spec, status: None }
}

fn metric_spec(seen: &Seen) -> MetricSpec {
    let nanos = |length: std::time::Duration| i64::try_from(length.as_nanos()).unwrap_or(i64::MAX);
    let private = seen.serving().map(|service| service.private_service_name.clone());
    MetricSpec {
        stable_window: nanos(seen.spec.stable_window),
        panic_window: nanos(seen.spec.panic_window),
        scrape_target: private.filter(|_| seen.spec.scraped).unwrap_or_default(),
    }
}

fn metric(seen: &Seen, spec: MetricSpec) -> Metric {
    Metric { metadata: metadata(seen), spec, status: None }
}

/// Of an object that belongs to the PodAutoscaler: its name, its labels and annotations, and its owner.
fn metadata(seen: &Seen) -> ObjectMeta {
    let autoscaler = &seen.autoscaler;
    ObjectMeta {
        namespace: Some(seen.id.namespace.clone()),
        name: Some(seen.id.name.clone()),
        labels: Some(autoscaler.labels.clone()),
        annotations: Some(autoscaler.annotations.clone()),
        owner_references: Some(vec![OwnerReference {
            api_version: "autoscaling.internal.knative.dev/v1alpha1".to_owned(),
            kind: "PodAutoscaler".to_owned(),
            name: seen.id.name.clone(),
            uid: autoscaler.uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }]),
        ..ObjectMeta::default()
    }
}

/// Activators that stand by before anything is known of the pods.
const LEAST_ACTIVATORS: u32 = 2;

#[cfg(test)]
mod tests;
