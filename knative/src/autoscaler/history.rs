//! The memory of a revision, read back from what an autoscaler, ours or Knative's, has left in its objects.

use pilotlight_core::{
    ActivatorPath, Activity, Decision, History, RevisionSpec, Rule, ScalingMode, TargetBurstCapacity, Time,
};
use pilotlight_kubernetes::knative::PodAutoscalerStatus;

use super::conditions::{ACTIVE, FAILED_CREATE, INITIALIZED, NOT_OWNED, TIMED_OUT};
use super::facts::{ServiceFact, condition, time};

/// What is remembered of a revision. The load is lost: the number of pods is then held for a stable window.
pub(crate) fn history(
    now: Time,
    status: &PodAutoscalerStatus,
    service: Option<&ServiceFact>,
    replicas: Option<u32>,
    spec: &RevisionSpec,
) -> History {
    let activity = activity(now, status);
    let is_at_rest = replicas == Some(0) && matches!(activity, Some(Activity::Inactive { .. }));
    let path = ActivatorPath {
        populated_since: service.and_then(|service| service.activator_since),
        // The last pod went because the activator had answered.
        probed: is_at_rest,
    };
    History {
        activity,
        initialized: condition(&status.conditions, INITIALIZED).is_some_and(|it| it.status == "True"),
        decision: decision(status, service, replicas, spec),
        path,
        load: None,
    }
}

fn activity(now: Time, status: &PodAutoscalerStatus) -> Option<Activity> {
    let active = condition(&status.conditions, ACTIVE)?;
    // A condition of our own that says nothing about pods.
    if [NOT_OWNED, FAILED_CREATE].contains(&active.reason.as_str()) {
        return None;
    }
    let since = active.last_transition_time.as_ref().map_or(now, time).min(now);
    Some(match active.status.as_str() {
        "True" => Activity::Active { since },
        "False" => Activity::Inactive { since, timed_out: active.reason == TIMED_OUT },
        _ => Activity::Activating { since },
    })
}

/// The last decision, as far as `desiredScale` tells it. Where traffic goes straight to pods there was room for a burst.
fn decision(
    status: &PodAutoscalerStatus,
    service: Option<&ServiceFact>,
    replicas: Option<u32>,
    spec: &RevisionSpec,
) -> Option<Decision> {
    let desired = u32::try_from(status.desired_scale?).ok()?;
    // A status may be older than the last change of scale: nobody's pods are taken away for that.
    let desired = if desired > 0 { desired.max(replicas.unwrap_or(0)) } else { 0 };
    let is_served = service.is_some_and(|service| service.spec.mode == SERVE);
    let excess_burst_capacity = match spec.target_burst_capacity {
        TargetBurstCapacity::Off => 0,
        TargetBurstCapacity::Unlimited => -1,
        TargetBurstCapacity::Of(_) => {
            if is_served {
                0
            } else {
                -1
            }
        }
    };
    Some(Decision {
        desired,
        rule: Rule::PanicHold,
        ready_pods: u32::try_from(status.actual_scale.unwrap_or(0)).unwrap_or(0),
        stable: 0.0,
        panic: 0.0,
        target: spec.target,
        stable_demand: desired,
        panic_demand: desired,
        up_limit: desired,
        down_limit: desired,
        mode: ScalingMode::Stable,
        excess_burst_capacity,
    })
}

/// A ServerlessService's mode: traffic goes straight to pods.
pub(crate) const SERVE: &str = "Serve";
