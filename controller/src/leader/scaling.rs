//! From the number of pods that was decided on to the write of the scale that is missing: who may lower what, and when. Pure.

use pilotlight_core::{Bound, Time};

use super::scale_in::{drained_at, is_exact, leaving};
use super::seen::Seen;
use crate::crd::Mode;
use crate::path::Restored;
use crate::refusal::{AtZeroSignal, Way};

/// The write of a scale that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScaleStep {
    /// None: the number is as it should be, or may not be changed.
    Keep {
        /// When it may be, if nothing else happens before.
        until: Option<Time>,
    },
    /// More pods, whatever the number is now.
    Raise(u32),
    /// Fewer pods, if the target still is as it was seen.
    Lower(u32),
}

/// What is to be written now.
pub(crate) fn scale_step(now: Time, seen: &Seen) -> ScaleStep {
    let Some(replicas) = seen.replicas() else { return KEEP };
    if seen.mode() != Mode::Act || seen.is_second {
        return KEEP;
    }
    let is_refused = seen.way.is_err() && seen.faults.is_empty() && seen.path.restored == Restored::No;
    if seen.restoring.is_some() || is_refused {
        // Nobody is left who would wake it.
        return if replicas == 0 { ScaleStep::Raise(seen.waking_replicas()) } else { KEEP };
    }
    let Ok(way) = &seen.way else { return KEEP };
    if replicas == 0 && seen.path.must_wake {
        return ScaleStep::Raise(seen.waking_replicas());
    }
    let Some(wanted) = seen.evaluation.as_ref().and_then(|evaluation| evaluation.plan.scale) else {
        return KEEP;
    };
    let owns_all = matches!(way, Way::Always | Way::AtZero(AtZeroSignal::QueueProxy));
    match wanted {
        _ if replicas == 0 && wanted > 0 => wake(seen, *way, wanted),
        _ if wanted > replicas && owns_all => ScaleStep::Raise(wanted),
        _ if wanted >= replicas => KEEP,
        0 if *way == Way::WakeOnly => KEEP,
        0 => lower(now, seen, *way, 0),
        _ if owns_all => lower(now, seen, *way, wanted),
        _ => KEEP,
    }
}

/// Wakes, unless somebody else has put it to sleep, and nothing but the recent past asks for a pod.
fn wake(seen: &Seen, way: Way, wanted: u32) -> ScaleStep {
    let bound = seen.evaluation.as_ref().and_then(|evaluation| evaluation.outcome.bound);
    if seen.is_put_to_sleep && bound == Some(Bound::RecentlyActive) {
        return KEEP;
    }
    let of_hpa = seen.hpa.as_ref().filter(|_| way == Way::AtZero(AtZeroSignal::Autoscaler));
    ScaleStep::Raise(wanted.max(of_hpa.map_or(0, |hpa| hpa.min_replicas)))
}

/// The pods that are about to go, as the status names them.
pub(crate) fn leaving_now(now: Time, seen: &Seen) -> Vec<String> {
    let wanted = seen.evaluation.as_ref().and_then(|evaluation| evaluation.plan.scale);
    let fewer = wanted.zip(seen.replicas()).filter(|(wanted, replicas)| *wanted > 0 && wanted < replicas);
    let (Some((wanted, _)), true) = (fewer, is_exact(seen)) else { return Vec::new() };
    match (seen.mode(), guard(now, seen, Way::Always, wanted)) {
        (Mode::Act, None) if seen.restoring.is_none() => leaving(seen, wanted),
        _ => Vec::new(),
    }
}

fn lower(now: Time, seen: &Seen, way: Way, wanted: u32) -> ScaleStep {
    if let Some(step) = guard(now, seen, way, wanted) {
        return step;
    }
    if wanted > 0 && is_exact(seen) {
        let leaving = leaving(seen, wanted);
        if leaving != seen.workload.autoscaler.status.leaving {
            return KEEP;
        }
        if let Some(at) = drained_at(now, seen, &leaving) {
            return ScaleStep::Keep { until: Some(at) };
        }
    }
    ScaleStep::Lower(wanted)
}

/// Whatever stands against fewer pods.
fn guard(now: Time, seen: &Seen, way: Way, wanted: u32) -> Option<ScaleStep> {
    let window = seen.stable_window();
    let until = |time: Time| Some(ScaleStep::Keep { until: Some(time) });
    if seen.contest.is_some() {
        return Some(KEEP);
    }
    if now < seen.since + window {
        return until(seen.since + window);
    }
    if let Some(raise) = seen.raise.filter(|raise| wanted < raise.to) {
        return until(raise.at + window);
    }
    // A connection that the activators do not see may be anywhere.
    let is_partial = way == Way::Always && !seen.path.sees_all;
    (is_partial || (wanted == 0 && !may_sleep(seen, way))).then_some(KEEP)
}

/// Whether the last pods may go now. Demand was looked at again after the path was there: the evaluation that asks for
/// none is younger, and so is what the activators said last.
fn may_sleep(seen: &Seen, way: Way) -> bool {
    let activity = &seen.activity;
    let has_requests = activity.waiting > 0 || activity.pods.values().any(|requests| *requests > 0);
    let is_quiet = match way {
        Way::Always | Way::AtZero(AtZeroSignal::QueueProxy) => true,
        Way::AtZero(AtZeroSignal::Autoscaler | AtZeroSignal::Cpu) => seen.is_quiet,
        Way::WakeOnly => false,
    };
    seen.path.may_sleep && !has_requests && is_quiet
}

const KEEP: ScaleStep = ScaleStep::Keep { until: None };

#[cfg(test)]
mod tests;
