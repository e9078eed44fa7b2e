//! The status of a RequestAutoscaler, from what is known and decided, and when it is worth a write. Pure.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use pilotlight_core::{Activity, Evaluation, ScalingMetric, Time};

use super::conditions::{
    ACCEPTED, ACTIVE, ConditionState, INTERCEPTING, READY, ZERO_BLOCKED, condition, set,
};
use super::scaling::leaving_now;
use super::seen::Seen;
use crate::crd::{Mode, RequestAutoscalerStatus, Signal};
use crate::facts::PodPhase;
use crate::refusal::{AtZeroSignal, Way, cannot_see};

/// The write of a status that is missing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum StatusStep {
    /// None.
    Same,
    /// Something differs, and was written too lately to be written again before this time.
    Later(Time),
    /// This one.
    Write(Box<RequestAutoscalerStatus>),
}

/// What is to be written now: nothing merely because time has passed, and nothing that no reader would act on.
pub(crate) fn status_step(now: Time, seen: &Seen) -> StatusStep {
    let before = &seen.workload.autoscaler.status;
    let status = status(now, seen);
    if status == *before {
        return StatusStep::Same;
    }
    let load_alone = RequestAutoscalerStatus { in_flight: before.in_flight, ..status.clone() } == *before;
    let pause = match () {
        // Pods are found by the selector, and those that leave get nothing new: everything waits for these.
        () if status.selector != before.selector || status.leaving != before.leaving => Duration::ZERO,
        () if load_alone => BETWEEN_LOADS,
        () => BETWEEN_WRITES,
    };
    match seen.status_written.map(|written| written + pause) {
        Some(next) if now < next => StatusStep::Later(next),
        _ => StatusStep::Write(Box::new(status)),
    }
}

/// The status as it should be.
pub(crate) fn status(now: Time, seen: &Seen) -> RequestAutoscalerStatus {
    let fact = &seen.workload.autoscaler;
    let evaluation = seen.evaluation.as_deref();
    let mut status = fact.status.clone();
    status.observed_generation = Some(fact.generation);
    status.replicas = seen.replicas();
    if let Some(selector) = &seen.selector {
        status.selector.clone_from(selector);
    }
    if seen.is_settled() {
        let ready = seen.workload.pods.values().filter(|pod| pod.phase == PodPhase::Ready).count();
        status.ready_replicas = u32::try_from(ready).ok();
    }
    status.signal = seen.way.as_ref().ok().and_then(|way| signal(*way));
    status.path = seen.way.is_ok().then_some(seen.path.traffic);
    status.ports.clone_from(&seen.ports);
    status.leaving = leaving_now(now, seen);
    if let Some(last) = &seen.last {
        status.last_decision = Some((**last).clone());
    }
    if let Some(evaluation) = evaluation {
        status.wanted_replicas = evaluation.outcome.want.or(status.wanted_replicas);
        let decision = evaluation.decision.as_ref();
        status.panicking = decision.is_some_and(pilotlight_core::Decision::is_panicking);
        if let Some(decision) = evaluation.new_decision().filter(|_| counts_in_flight(seen)) {
            status.in_flight = Some(in_flight(decision.stable));
        }
    }
    let mut conditions = std::mem::take(&mut status.conditions);
    let states = [
        (ACCEPTED, Some(accepted(seen))),
        (INTERCEPTING, intercepting(seen)),
        (ACTIVE, evaluation.map(active)),
        (ZERO_BLOCKED, evaluation.map(|evaluation| zero_blocked(seen, evaluation))),
    ];
    for (type_, state) in states {
        if let Some(state) = state {
            set(&mut conditions, now, fact.generation, type_, state);
        }
    }
    if let Some(ready) = ready(seen, &conditions) {
        set(&mut conditions, now, fact.generation, READY, ready);
    }
    status.conditions = conditions;
    status
}

/// A load as it is told: with two digits, so that it comes to rest.
pub(crate) fn in_flight(load: f64) -> f64 {
    if load < 0.05 {
        return 0.0;
    }
    let step = 10_f64.powf(load.log10().floor() - 1.0).max(0.1);
    // The division makes the shortest decimal of it.
    let steps = 1.0 / step;
    (load * steps).round() / steps
}

fn counts_in_flight(seen: &Seen) -> bool {
    seen.accepted.as_ref().is_some_and(|accepted| accepted.spec.scaling_metric == ScalingMetric::Concurrency)
}

fn signal(way: Way) -> Option<Signal> {
    match way {
        Way::Always => Some(Signal::Activators),
        Way::AtZero(AtZeroSignal::QueueProxy) => Some(Signal::QueueProxy),
        Way::AtZero(AtZeroSignal::Autoscaler) => Some(Signal::Autoscaler),
        Way::AtZero(AtZeroSignal::Cpu) | Way::WakeOnly => None,
    }
}

fn accepted(seen: &Seen) -> ConditionState {
    if !seen.faults.is_empty() {
        let in_force = if seen.accepted.is_some() { "; what was in force before stays in force" } else { "" };
        let message = format!("{}{in_force}", seen.faults.join("; "));
        return ConditionState::is_false("InvalidSettings", message);
    }
    if seen.selector.is_none() {
        let target = seen.target_ref();
        let message = format!(
            "There is no {} {} in this namespace, or its scale cannot be read.",
            target.kind, target.name
        );
        return ConditionState::is_false("TargetNotFound", message);
    }
    if seen.way.is_err() && !seen.is_settled() {
        return ConditionState::is_unknown("Starting", "The target's pods are about to be looked for.");
    }
    if let Err(refusal) = &seen.way {
        return ConditionState::is_false(refusal.reason, refusal.message.clone());
    }
    let of_settings = seen.accepted.iter().flat_map(|accepted| &accepted.warnings);
    let warnings: Vec<&str> =
        seen.warnings.iter().map(|it| it.message.as_str()).chain(of_settings.map(String::as_str)).collect();
    match seen.warnings.first() {
        Some(first) => ConditionState::is_true(first.reason, warnings.join(" ")),
        None if warnings.is_empty() => ConditionState::is_true("Accepted", "The settings are in force."),
        None => ConditionState::is_true("Warnings", warnings.join(" ")),
    }
}

fn intercepting(seen: &Seen) -> Option<ConditionState> {
    seen.selector.as_ref()?;
    let intercepting = &seen.path.intercepting;
    let status = if intercepting.status { "True" } else { "False" };
    Some(ConditionState {
        status,
        reason: intercepting.reason.clone(),
        message: intercepting.message.clone(),
    })
}

fn active(evaluation: &Evaluation) -> ConditionState {
    match evaluation.activity {
        Activity::Active { .. } => ConditionState::is_true("Active", "Enough pods are ready."),
        Activity::Activating { .. } if !evaluation.initialized => {
            ConditionState::is_unknown(INITIALIZING, "The first pods are on their way up.")
        }
        Activity::Activating { .. } => ConditionState::is_unknown(
            "Queued",
            "Requests wait at the activators while pods are on their way up.",
        ),
        Activity::Inactive { timed_out: true, .. } => {
            ConditionState::is_false(TIMED_OUT, "No pod became ready in time.")
        }
        Activity::Inactive { timed_out: false, .. } => {
            ConditionState::is_false("NoTraffic", "There is no traffic: no pod is needed.")
        }
    }
}

fn zero_blocked(seen: &Seen, evaluation: &Evaluation) -> ConditionState {
    if let Some(contest) = &seen.contest {
        let message = format!(
            "{} changes the number of pods again and again: it is not lowered any more. Take spec.replicas out of what {} \
             applies; a change of this object's spec, or a quiet hour, ends this.",
            contest.manager, contest.manager
        );
        return ConditionState::is_true(CONTESTED, message);
    }
    if seen.way == Ok(Way::WakeOnly) {
        let refusal = cannot_see(&seen.workload);
        return ConditionState::is_true(refusal.reason, refusal.message);
    }
    let accepted = seen.accepted.as_ref();
    if accepted.is_some_and(|accepted| accepted.spec.min_scale > 0) {
        return ConditionState::is_false("MinReplicas", "minReplicas keeps a pod.");
    }
    if accepted.is_some_and(|accepted| !accepted.spec.enable_scale_to_zero) {
        let message = "enable-scale-to-zero is false in the ConfigMap config-autoscaler.";
        return ConditionState::is_true("ScaleToZeroOff", message);
    }
    match seen.mode() {
        Mode::Act => {}
        Mode::Observe => {
            return ConditionState::is_true("Observe", "mode: Observe changes no number of pods.");
        }
        Mode::Paused => {
            return ConditionState::is_true("Paused", "mode: Paused changes no number of pods.");
        }
    }
    let wants_zero = evaluation.outcome.want == Some(0) && seen.replicas().is_some_and(|pods| pods > 0);
    let activity = &seen.activity;
    if wants_zero && !seen.path.intercepting.status {
        let intercepting = &seen.path.intercepting;
        return ConditionState::is_true(&intercepting.reason, intercepting.message.clone());
    }
    if wants_zero && (activity.waiting > 0 || activity.pods.values().any(|requests| *requests > 0)) {
        let message = "An open connection keeps the last pod; tcpIdleTimeout ends connections that are idle.";
        return ConditionState::is_true("OpenConnections", message);
    }
    ConditionState::is_false("NotBlocked", "The last pod may go when there is no traffic.")
}

/// `Ready` is the first of what is not as it should be; `None`: nothing was decided yet, and it stays as it is.
fn ready(seen: &Seen, conditions: &[Condition]) -> Option<ConditionState> {
    let mut both = [ACCEPTED, INTERCEPTING].into_iter().filter_map(|type_| condition(conditions, type_));
    let wrong = both.find(|condition| condition.status != "True");
    let as_cause = |status, cause: &Condition| ConditionState {
        status,
        reason: cause.reason.clone(),
        message: cause.message.clone(),
    };
    if let Some(cause) = wrong {
        return Some(as_cause("False", cause));
    }
    let evaluation = seen.evaluation.as_deref()?;
    let trouble = seen.workload.pods.iter().find_map(|(name, pod)| Some((name, pod.trouble.as_deref()?)));
    if let Some((pod, trouble)) = trouble.filter(|_| evaluation.pods.ready == 0) {
        let message = format!("Pod {pod} does not come up: {}", trouble.message);
        return Some(ConditionState::is_false(&trouble.word, message));
    }
    let active = condition(conditions, ACTIVE)?;
    Some(match evaluation.activity {
        Activity::Activating { .. } => as_cause("Unknown", active),
        Activity::Inactive { timed_out: true, .. } => as_cause("False", active),
        Activity::Inactive { .. } => ConditionState::is_true("Asleep", "A request wakes it."),
        Activity::Active { .. } => ConditionState::is_true("Ready", "Requests are served."),
    })
}

/// The reason of `Active` before the initial number of pods was ready once.
pub(crate) const INITIALIZING: &str = "Initializing";
/// The reason of `Active` when pods never came up.
pub(crate) const TIMED_OUT: &str = "TimedOut";
/// The reason of `ZeroBlocked` while somebody else changes the number of pods again and again. The message begins with a name.
pub(crate) const CONTESTED: &str = "ReplicasContested";
const BETWEEN_WRITES: Duration = Duration::from_secs(2);
const BETWEEN_LOADS: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
