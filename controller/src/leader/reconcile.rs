//! From what is seen of a workload and what was decided to the writes that are missing, in their order. Pure: the same state
//! again leads to no write.

use pilotlight_core::Time;

use super::restore::{Finalizer, finalizer_step};
use super::scaling::{ScaleStep, scale_step};
use super::seen::Seen;
use super::status::{StatusStep, status_step};
use crate::crd::RequestAutoscalerStatus;
use crate::path::PathWrite;

/// One write that is missing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Write {
    /// The finalizer comes before anything that it stands for, and goes after all of it.
    AddFinalizer,
    Path(PathWrite),
    /// The Endpoints object of a Service is to be read.
    ReadEndpoints(String),
    /// A pod should go first, or (`false`) no longer.
    DeletionCost(String, bool),
    /// The scale target should ask for another number of pods.
    Scale,
    Status(Box<RequestAutoscalerStatus>),
    RemoveFinalizer,
}

/// The writes that are missing, in order, and when to look again if nothing else happens before.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Work {
    pub(crate) writes: Vec<Write>,
    pub(crate) again: Option<Time>,
}

/// The work that is left to do.
pub(crate) fn reconcile(now: Time, seen: &Seen) -> Work {
    let mut work = Work { writes: Vec::new(), again: seen.path.wake_at };
    let finalizer = finalizer_step(seen);
    if finalizer == Finalizer::Add {
        work.writes.push(Write::AddFinalizer);
    }
    if may_write_path(seen) {
        work.writes.extend(seen.path.ask_endpoints.iter().cloned().map(Write::ReadEndpoints));
        work.writes.extend(seen.path.writes.iter().cloned().map(Write::Path));
    }
    let leaving = &seen.workload.autoscaler.status.leaving;
    let survivors = seen.costed.iter().filter(|pod| !leaving.contains(pod));
    work.writes.extend(survivors.map(|pod| Write::DeletionCost(pod.clone(), false)));
    match scale_step(now, seen) {
        ScaleStep::Raise(_) => work.writes.push(Write::Scale),
        ScaleStep::Lower(_) => {
            let uncosted =
                leaving.iter().filter(|pod| seen.sets_deletion_cost && !seen.costed.contains(*pod));
            work.writes.extend(uncosted.map(|pod| Write::DeletionCost(pod.clone(), true)));
            work.writes.push(Write::Scale);
        }
        ScaleStep::Keep { until } => work.look_again(until),
    }
    match status_step(now, seen) {
        StatusStep::Same => {}
        StatusStep::Later(at) => work.look_again(Some(at)),
        StatusStep::Write(status) => work.writes.push(Write::Status(status)),
    }
    if finalizer == Finalizer::Remove {
        work.writes.push(Write::RemoveFinalizer);
    }
    work
}

/// Nothing is known of what is wanted before the first decision, nor where the settings were never legal: all stays as it is.
fn may_write_path(seen: &Seen) -> bool {
    match (&seen.way, seen.restoring) {
        _ if seen.is_second => false,
        (_, Some(_)) => true,
        (Err(_), None) => seen.faults.is_empty() && seen.is_settled(),
        (Ok(_), None) => seen.evaluation.is_some(),
    }
}

impl Work {
    fn look_again(&mut self, at: Option<Time>) {
        self.again = self.again.into_iter().chain(at).min();
    }
}

#[cfg(test)]
mod tests;
