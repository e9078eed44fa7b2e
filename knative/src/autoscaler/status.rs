//! The status of a PodAutoscaler and of a Metric, as Knative's controller reads it: pure, from what is known and decided.

use pilotlight_core::{Activity, Evaluation, Time};
use pilotlight_kubernetes::knative::{Condition, ConditionsStatus, PodAutoscalerStatus};

use super::conditions::{
    ACTIVE, FAILED_CREATE, INITIALIZED, NO_TRAFFIC, NOT_OWNED, NOT_READY, QUEUED, READY, SERVICE_READY,
    State, TIMED_OUT, set,
};
use super::facts::{MetricFact, condition};
use super::scraping::ScrapeOutcome;
use super::seen::{Refusal, Seen};

/// The status of a PodAutoscaler after an evaluation.
pub(crate) fn autoscaler_status(now: Time, seen: &Seen, evaluation: &Evaluation) -> PodAutoscalerStatus {
    let mut status = seen.autoscaler.status.clone();
    status.observed_generation = Some(seen.autoscaler.generation);
    let serving = seen.serving();
    if let Some(service) = serving {
        status.service_name.clone_from(&service.service_name);
        status.metrics_service_name.clone_from(&service.private_service_name);
    }
    let service_ready = match serving {
        None => State::is_unknown(NOT_READY, "No Private Service Name"),
        Some(service) if service.is_ready => State::is_true(),
        Some(service) => State::is_unknown(NOT_READY, &service.message),
    };
    set(&mut status.conditions, now, SERVICE_READY, service_ready);
    if condition(&status.conditions, INITIALIZED).is_none() {
        set(&mut status.conditions, now, INITIALIZED, State::is_unknown("", ""));
    }
    if let Some(refusal) = seen.refusal() {
        // Nothing was compared with what is wanted: Knative leaves the numbers as they were.
        set(&mut status.conditions, now, ACTIVE, refused(refusal, &seen.id.name));
    } else {
        let want = serving.and(evaluation.outcome.want);
        let ready = if serving.is_some() { evaluation.pods.ready } else { 0 };
        let known = status.desired_scale.filter(|&desired| desired >= 0);
        status.desired_scale = Some(want.map_or(known.unwrap_or(UNKNOWN_SCALE), wire));
        status.actual_scale = Some(wire(ready));
        if evaluation.initialized && !status.service_name.is_empty() {
            set(&mut status.conditions, now, INITIALIZED, State::is_true());
        }
        let (since, state) = active(evaluation.activity);
        set(&mut status.conditions, since, ACTIVE, state);
    }
    let ready = ready(&status.conditions);
    set(&mut status.conditions, now, READY, ready);
    status
}

/// The status of a Metric after a scrape.
pub(crate) fn metric_status(now: Time, metric: &MetricFact, scrape: &ScrapeOutcome) -> ConditionsStatus {
    let mut status = metric.status.clone();
    status.observed_generation = Some(metric.generation);
    let state = match scrape {
        ScrapeOutcome::Done => State::is_true(),
        ScrapeOutcome::NoEndpoints => State::is_unknown("NoEndpoints", "failed to get endpoints"),
        ScrapeOutcome::DidNotReceiveStat => {
            State::is_false("DidNotReceiveStat", "did not receive stat from an unscraped pod")
        }
        ScrapeOutcome::Failed(why) => {
            State::is_false("CollectionFailed", format!("Failed to reconcile metric collection: {why}"))
        }
    };
    set(&mut status.conditions, now, READY, state);
    status
}

/// `Active`, and since when.
fn active(activity: Activity) -> (Time, State) {
    match activity {
        Activity::Active { since } => (since, State::is_true()),
        Activity::Activating { since } => (
            since,
            State::is_unknown(
                QUEUED,
                "Requests to the target are being buffered as resources are provisioned.",
            ),
        ),
        Activity::Inactive { since, timed_out: true } => {
            (since, State::is_false(TIMED_OUT, "The target could not be activated."))
        }
        Activity::Inactive { since, timed_out: false } => {
            (since, State::is_false(NO_TRAFFIC, "The target is not receiving traffic."))
        }
    }
}

fn refused(refusal: Refusal, name: &str) -> State {
    match refusal {
        Refusal::NotOwned(kind) => {
            State::is_false(NOT_OWNED, format!("There is an existing {kind} \"{name}\" that we do not own."))
        }
        Refusal::FailedCreate(kind) => {
            State::is_false(FAILED_CREATE, format!("Failed to create {kind} \"{name}\"."))
        }
    }
}

/// `Ready` is `Active`'s state where that is not true, since Knative marks it last; otherwise that of the condition
/// that has not been true for the shortest time. False beats unknown, and only `Active` can be false.
fn ready(conditions: &[Condition]) -> State {
    let states = [ACTIVE, INITIALIZED, SERVICE_READY].map(|type_| condition(conditions, type_));
    let untrue = |condition: &&Condition| condition.status != "True";
    let [active, others @ ..] = states;
    let newest = others
        .into_iter()
        .flatten()
        .filter(untrue)
        .max_by_key(|condition| condition.last_transition_time.as_ref().map(|time| time.0));
    match active.filter(untrue).or(newest) {
        None => State::is_true(),
        Some(cause) => State {
            status: if cause.status == "False" { "False" } else { "Unknown" },
            reason: cause.reason.clone(),
            message: cause.message.clone(),
        },
    }
}

fn wire(pods: u32) -> i32 {
    i32::try_from(pods).unwrap_or(i32::MAX)
}

/// `desiredScale` while nobody knows.
const UNKNOWN_SCALE: i32 = -1;
