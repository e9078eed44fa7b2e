//! Putting everything back as it was found, before a RequestAutoscaler or all of us is gone. Pure.

use super::seen::Seen;
use crate::crd::Mode;
use crate::path::Restored;

/// The change of the finalizer that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finalizer {
    /// None.
    Same,
    /// There is something to restore from now on.
    Add,
    /// Everything is restored.
    Remove,
}

/// What is to be done about the finalizer now. It is there from the first change that has to be undone until the
/// RequestAutoscaler or all of us goes: to take it away whenever nothing is to be restored would be a write for every wake.
pub(crate) fn finalizer_step(seen: &Seen) -> Finalizer {
    let fact = &seen.workload.autoscaler;
    let is_there = fact.finalizers.iter().any(|finalizer| finalizer == RESTORE);
    match (is_there, seen.restoring) {
        (true, Some(_)) if is_restored(seen) => Finalizer::Remove,
        (false, None) if seen.is_decided_about() && seen.evaluation.is_some() && changes_something(seen) => {
            Finalizer::Add
        }
        _ => Finalizer::Same,
    }
}

fn changes_something(seen: &Seen) -> bool {
    seen.mode() == Mode::Act || !seen.path.writes.is_empty()
}

/// Whether nothing is left to restore: the target is awake, and our slices are gone or belong to the Service.
fn is_restored(seen: &Seen) -> bool {
    if seen.is_second {
        return true;
    }
    let is_awake = seen.replicas().is_none_or(|replicas| replicas > 0);
    let is_target_going = seen.target.as_ref().is_some_and(|target| target.is_deleted);
    let is_as_it_was = is_awake || is_target_going || seen.mode() != Mode::Act;
    seen.path.restored != Restored::No && seen.path.writes.is_empty() && is_as_it_was
}

/// The finalizer of RequestAutoscalers that have something to restore.
pub(crate) const RESTORE: &str = "pilotlight.dev/restore";
