//! Objects of a revision for tests.

use std::sync::Arc;
use std::time::Duration;

use pilotlight_core::{
    Activity, Evaluation, Input, PodCounts, Revision, RevisionId, RevisionSpec, ServingMode, Time,
};
use pilotlight_kubernetes::knative::{
    Condition, ConditionsStatus, PodAutoscalerSpec, PodAutoscalerStatus, ServerlessServiceSpec, TargetRef,
};

use super::conditions::{self, State};
use super::facts::{AutoscalerFact, MetricFact, ServiceFact};
use super::history::history;
use super::reconcile::{Write, reconcile};
use super::scraping::ScrapeOutcome;
use super::seen::Seen;

/// The time at which tests begin.
pub(crate) const NOW: Time = Time::from_secs(1_700_000_000);

pub(crate) fn id() -> Arc<RevisionId> {
    Arc::new(RevisionId::new("ns", "hello-1"))
}

/// `hello-1`, of uid `pa-uid`, that has not been looked at yet.
pub(crate) fn autoscaler() -> AutoscalerFact {
    let annotations = [
        ("autoscaling.knative.dev/class", "kpa.autoscaling.knative.dev"),
        ("autoscaling.knative.dev/metric", "concurrency"),
        ("example.com/note", "kept"),
    ];
    let labels = [("serving.knative.dev/revision", "hello-1"), ("app", "hello")];
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    AutoscalerFact {
        uid: "pa-uid".to_owned(),
        resource_version: "10".to_owned(),
        generation: 1,
        labels: labels.map(owned).into(),
        annotations: annotations.map(owned).into(),
        spec: PodAutoscalerSpec {
            scale_target_ref: target(),
            reachability: "Reachable".to_owned(),
            protocol_type: "http1".to_owned(),
            ..PodAutoscalerSpec::default()
        },
        status: PodAutoscalerStatus::default(),
    }
}

pub(crate) fn target() -> TargetRef {
    TargetRef {
        api_version: "apps/v1".to_owned(),
        kind: "Deployment".to_owned(),
        name: "hello-1-deployment".to_owned(),
    }
}

/// A ServerlessService of ours, as its controller has made it ready.
pub(crate) fn service(mode: &str, activators: i32) -> ServiceFact {
    ServiceFact {
        resource_version: "20".to_owned(),
        owner: Some("pa-uid".to_owned()),
        spec: ServerlessServiceSpec {
            mode: mode.to_owned(),
            object_ref: target(),
            protocol_type: "http1".to_owned(),
            num_activators: activators,
        },
        service_name: "hello-1".to_owned(),
        private_service_name: "hello-1-private".to_owned(),
        is_ready: true,
        message: String::new(),
        activator_since: None,
    }
}

/// A revision that has a ready ServerlessService, no Metric yet, and no evaluation.
pub(crate) fn seen(spec: RevisionSpec) -> Seen {
    Seen {
        id: id(),
        autoscaler: Arc::new(autoscaler()),
        service: Some(Arc::new(service("Proxy", 2))),
        metric: None,
        replicas: Some(1),
        spec: Arc::new(spec),
        evaluation: None,
        why: None,
        failed_create: None,
        scrape: ScrapeOutcome::default(),
    }
}

/// The evaluation of a revision that wants, and has, this many pods, and was decided about at `NOW`.
pub(crate) fn evaluation(spec: &RevisionSpec, pods: u32) -> Evaluation {
    let status = PodAutoscalerStatus {
        desired_scale: Some(i32::try_from(pods).unwrap()),
        conditions: vec![is("Active", "True", Duration::from_secs(10))],
        ..PodAutoscalerStatus::default()
    };
    step(&history_of(&status, spec), spec, pods)
}

/// A history read from a status alone.
pub(crate) fn history_of(status: &PodAutoscalerStatus, spec: &RevisionSpec) -> pilotlight_core::History {
    history(NOW, status, None, None, spec)
}

/// What a revision with this history makes of `NOW`, without anything new decided.
pub(crate) fn step(history: &pilotlight_core::History, spec: &RevisionSpec, ready: u32) -> Evaluation {
    let pods = PodCounts { ready, ..PodCounts::default() };
    let mut revision = Revision::resume(NOW, spec.clone(), pods, history.clone());
    revision.step(NOW, Input::Wake);
    revision.evaluation().unwrap().clone()
}

/// A condition that has been so for this long.
pub(crate) fn is(type_: &str, status: &'static str, lasted: Duration) -> Condition {
    let mut conditions = Vec::new();
    let reason = match (type_, status) {
        ("Active", "False") => conditions::NO_TRAFFIC,
        ("Active", "Unknown") => conditions::QUEUED,
        _ => "",
    };
    let state = State { status, reason: reason.to_owned(), message: String::new() };
    conditions::set(&mut conditions, NOW - lasted, type_, state);
    conditions.remove(0)
}

/// The same revision after all the writes that are missing, as the watches then show it, and those writes.
pub(crate) fn written(now: Time, mut seen: Seen) -> (Seen, Vec<Write>) {
    let mut all = Vec::new();
    for _ in 0..5 {
        let writes = reconcile(now, &seen);
        if writes.is_empty() {
            return (seen, all);
        }
        for write in &writes {
            perform(&mut seen, write);
        }
        all.extend(writes);
    }
    panic!("writes without an end: {all:?}");
}

fn perform(seen: &mut Seen, write: &Write) {
    match write {
        Write::CreateService(created) => {
            let made = ServiceFact { spec: created.spec.clone(), ..service("", 0) };
            seen.service = Some(Arc::new(made));
        }
        Write::ChangeService(spec) => {
            Arc::make_mut(seen.service.as_mut().unwrap()).spec.clone_from(spec);
        }
        Write::CreateMetric(created) => {
            seen.metric = Some(Arc::new(MetricFact {
                resource_version: "30".to_owned(),
                generation: 1,
                owner: Some("pa-uid".to_owned()),
                spec: created.spec.clone(),
                status: ConditionsStatus::default(),
            }));
        }
        Write::ChangeMetric(spec) => {
            let metric = Arc::make_mut(seen.metric.as_mut().unwrap());
            metric.spec.clone_from(spec);
            metric.generation += 1;
        }
        Write::Scale => seen.replicas = seen.scale(),
        Write::Status(status) => {
            Arc::make_mut(&mut seen.autoscaler).status.clone_from(status);
        }
        Write::MetricStatus(status) => {
            Arc::make_mut(seen.metric.as_mut().unwrap()).status.clone_from(status);
        }
    }
}

/// An activity that began so long before `NOW`.
pub(crate) fn since(seconds: u64) -> Time {
    NOW - Duration::from_secs(seconds)
}

/// The mode as a ServerlessService has it.
pub(crate) fn mode(mode: ServingMode) -> &'static str {
    match mode {
        ServingMode::Proxy => "Proxy",
        ServingMode::Serve => "Serve",
    }
}

/// An evaluation with another activity.
pub(crate) fn with_activity(mut evaluation: Evaluation, activity: Activity) -> Evaluation {
    evaluation.activity = activity;
    evaluation
}
