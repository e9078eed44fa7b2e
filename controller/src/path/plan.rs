//! What is to be done for a workload's path now.

use std::collections::BTreeSet;

use pilotlight_core::{ActivatorPath, Time};

use crate::crd::TrafficPath;
use crate::slices::SliceWrite;

/// What is to be done for a workload's path now, and what may be said of it.
#[derive(Clone, Debug, PartialEq)]
pub struct PathPlan {
    /// Writes, in their order. After one that fails the rest is left, and the step is taken anew.
    pub writes: Vec<PathWrite>,
    /// Services whose Endpoints object must be read before the next step.
    pub ask_endpoints: BTreeSet<String>,
    /// The activators' place in the path, for the core.
    pub path: ActivatorPath,
    /// Whether activators see every request, so that the number they see is the workload's demand. Replicas are not lowered
    /// on that number otherwise.
    pub sees_all: bool,
    /// Whether replicas may be set to 0: our slices stand, every node has heard of them, and nothing stale is beside them.
    pub may_sleep: bool,
    /// Whether the target must be woken to `max(1, minReplicas)` without any demand: no activator is left that could hold a
    /// request.
    pub must_wake: bool,
    /// Where traffic goes.
    pub traffic: TrafficPath,
    /// The condition `Intercepting`.
    pub intercepting: Intercepting,
    /// Whether everything is as it was found.
    pub restored: Restored,
    /// When to look again, if nothing else happens before.
    pub wake_at: Option<Time>,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum PathWrite {
    /// A write of an EndpointSlice.
    Slice(SliceWrite),
    /// The deletion of a stale Endpoints object.
    DeleteEndpoints(EndpointsDeletion),
}

/// The deletion of an Endpoints object. That it is gone already is as good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointsDeletion {
    /// The name: that of the Service.
    pub name: String,
    /// The UID that it must still have.
    pub uid: String,
    /// The version that it must still have.
    pub resource_version: String,
}

/// The condition `Intercepting`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intercepting {
    /// `True`: traffic takes the way that was asked for. `False`: it does not, or not yet.
    pub status: bool,
    /// The reason in a word.
    pub reason: String,
    /// The reason in a sentence, with what to do.
    pub message: String,
}

/// Whether everything is as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Restored {
    /// It is not.
    No,
    /// Traffic reaches the pods, by slices of ours that belong to the Service: it has no selector, and nobody keeps them up
    /// to date once we are gone.
    ByOurSlices,
    /// It is.
    Yes,
}
