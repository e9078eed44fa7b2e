//! How a workload's traffic reaches the activators: from what is seen to the writes that are missing now. Level-triggered
//! and pure: every step is derived again from slices, scale and pods, and the same state again leads to no write.
//!
//! A Service *without* a selector leads to the activators always, and to its pods only while no activator is left:
//!
//! ```text
//!                 first activator has bound its ports
//!   (stale) ────────────────────────────────────────────► activators ──► stale Endpoints and slices are deleted
//!                                                         ▲        │
//!          activators stand for `propagation`:            │        │  no activator is left:
//!          pods end, then go                              │        ▼  pods are named, and woken
//!                                                          pods
//! ```
//!
//! A Service *with* one keeps its native slices, and ours stand beside them on the way to zero, at zero, and back:
//!
//! ```text
//!              the core plans Proxy, or replicas are 0
//!   pods ─────────────────────────────────────────────────► activators ──► `propagation` ──► replicas may be 0
//!    ▲                                                          │
//!    └── gone ◄── `propagation` ◄── ending ◄────────────────────┘
//!                                     a pod has been ready for `propagation`, and nothing leads to zero
//! ```
//!
//! While everything is put back, every Service goes the way to `pods`.

mod plan;
mod seen;
mod service;
mod words;

use std::time::Duration;

use pilotlight_core::{ActivatorPath, Time};

pub use plan::{EndpointsDeletion, Intercepting, PathPlan, PathWrite, Restored};
pub use seen::{EndpointsSeen, PathSeen, PathWay, ReadyPod, Restoring, ServiceSeen};
use service::ServiceStep;

use crate::crd::TrafficPath;
use crate::slices::Member;

/// What is to be done now. The caller carries out the writes in order, and steps again once they, or anything else, are
/// seen.
pub fn step(seen: &PathSeen) -> PathPlan {
    let steps: Vec<_> =
        seen.services.iter().map(|(name, service)| service::step(seen, name, service)).collect();
    let path = activator_path(seen, &steps);
    let is_restoring = seen.restoring != Restoring::No;
    let is_refused = matches!(seen.way, PathWay::Refused { .. });
    let is_alone = !seen.activators.iter().any(Member::is_serving);
    let due = path.populated_since.filter(|_| !path.probed).map(|since| since + seen.propagation);
    let named = steps.iter().any(|step| step.leads_to_activators);
    PathPlan {
        ask_endpoints: steps
            .iter()
            .filter(|step| step.asks_endpoints)
            .map(|step| step.name.clone())
            .collect(),
        path,
        sees_all: seen.way == PathWay::Always && path.probed,
        may_sleep: path.probed && seen.way != PathWay::WakeOnly,
        must_wake: is_alone && !is_restoring && !is_refused && seen.replicas == Some(0) && !steps.is_empty(),
        traffic: if named { TrafficPath::Activator } else { TrafficPath::Pods },
        intercepting: words::intercepting(seen, &steps),
        restored: steps.iter().map(|step| step.restored).min().unwrap_or(Restored::Yes),
        wake_at: steps.iter().filter_map(|step| step.wake_at).chain(due).min(),
        writes: steps.into_iter().flat_map(|step| step.writes).collect(),
    }
}

/// Since when all traffic has come here, as far as slices say. A leader that has just started reads the time from them;
/// afterwards it counts from the moment at which the last thing beside them was gone.
fn activator_path(seen: &PathSeen, steps: &[ServiceStep]) -> ActivatorPath {
    let standing: Option<Vec<Time>> = steps.iter().map(|step| step.populated_since).collect();
    let written = standing.and_then(|times| times.into_iter().max());
    let populated_since = written.map(|written| {
        let known = seen.before.map_or(written, |before| before.populated_since.unwrap_or(seen.now));
        known.max(written).min(seen.now)
    });
    let probed = populated_since.is_some_and(|since| seen.now >= since + seen.propagation);
    ActivatorPath { populated_since, probed }
}

/// How long a change of slices takes to reach every node, unless it is configured.
pub const PROPAGATION: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
