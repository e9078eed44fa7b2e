//! The memory of a workload, read back from what a leader has left in its objects.

use pilotlight_core::{
    Activity, Decision, History, RevisionSpec, Rule, ScalingMode, TargetBurstCapacity, Time,
};

use super::conditions::{ACTIVE, condition, since_1970};
use super::seen::Seen;
use super::status::{INITIALIZING, TIMED_OUT};
use crate::crd::{RequestAutoscalerStatus, TrafficPath};

/// The history of a workload. The load is lost: the number of pods is then held for a stable window.
pub(crate) fn history(now: Time, seen: &Seen, spec: &RevisionSpec) -> History {
    let status = &seen.workload.autoscaler.status;
    let replicas = seen.replicas();
    let activity = activity(now, status);
    // A target that sleeps when it is first seen sleeps on.
    let sleeps = activity.is_none() && replicas == Some(0);
    let asleep = Activity::Inactive { since: now, timed_out: false };
    History {
        activity: activity.or(sleeps.then_some(asleep)),
        initialized: sleeps
            || condition(&status.conditions, ACTIVE).is_some_and(|active| active.reason != INITIALIZING),
        decision: decision(status, replicas, spec),
        path: seen.path.path,
        load: None,
    }
}

fn activity(now: Time, status: &RequestAutoscalerStatus) -> Option<Activity> {
    let active = condition(&status.conditions, ACTIVE)?;
    let since = since_1970(&active.last_transition_time).min(now);
    Some(match active.status.as_str() {
        "True" => Activity::Active { since },
        "False" => Activity::Inactive { since, timed_out: active.reason == TIMED_OUT },
        _ => Activity::Activating { since },
    })
}

/// The last decision, as far as the status tells it. Where traffic goes straight to pods there was room for a burst.
fn decision(
    status: &RequestAutoscalerStatus,
    replicas: Option<u32>,
    spec: &RevisionSpec,
) -> Option<Decision> {
    let desired = status.wanted_replicas?;
    // A status may be older than the last change of scale: nobody's pods are taken away for that.
    let desired = if desired > 0 { desired.max(replicas.unwrap_or(0)) } else { 0 };
    let has_room = match spec.target_burst_capacity {
        TargetBurstCapacity::Off => true,
        TargetBurstCapacity::Unlimited => false,
        TargetBurstCapacity::Of(_) => status.path == Some(TrafficPath::Pods),
    };
    Some(Decision {
        desired,
        rule: Rule::PanicHold,
        ready_pods: status.ready_replicas.unwrap_or(0),
        stable: status.in_flight.unwrap_or(0.0),
        panic: 0.0,
        target: spec.target,
        stable_demand: desired,
        panic_demand: desired,
        up_limit: desired,
        down_limit: desired,
        mode: ScalingMode::Stable,
        excess_burst_capacity: if has_room { 0 } else { -1 },
    })
}
