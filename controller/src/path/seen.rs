//! What is seen of a workload's path.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use pilotlight_core::{ActivatorPath, ServingMode, Time};

use crate::facts::ServiceFact;
use crate::slices::{Member, SliceFact};

/// What is seen of a workload's path at one moment.
#[derive(Clone, Debug)]
pub struct PathSeen {
    /// The time, since 1970: slices carry times, and another leader reads them.
    pub now: Time,
    /// The namespace.
    pub namespace: String,
    /// The RequestAutoscaler's name.
    pub autoscaler: String,
    /// The RequestAutoscaler's UID.
    pub autoscaler_uid: String,
    /// How traffic is to reach the activators.
    pub way: PathWay,
    /// The workload's Services, by name.
    pub services: BTreeMap<String, ServiceSeen>,
    /// All activators that are alive. One that does not answer and cannot be dialled is left out, and so is one that has just
    /// started and does not listen on every port that a slice names yet.
    pub activators: Vec<Member>,
    /// Names of those that have not answered this leader yet, and may have bound anything: they stay where slices name them.
    pub unheard: BTreeSet<String>,
    /// Pods of the target that are ready, and those that still serve while they end.
    pub pods: Vec<ReadyPod>,
    /// The replicas that the target asks for; `None`: not known.
    pub replicas: Option<u32>,
    /// The side that should answer, as the core plans it.
    pub mode: ServingMode,
    /// The path that the step before found; `None`: this leader has just started, and slices tell.
    pub before: Option<ActivatorPath>,
    /// How long a change of slices takes to reach every node; [`PROPAGATION`](super::PROPAGATION) unless configured.
    pub propagation: Duration,
    /// Whether everything is being put back as it was found.
    pub restoring: Restoring,
    /// Whether the namespace is in Istio's ambient mode.
    pub is_ambient: bool,
}

/// How traffic is to reach the activators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathWay {
    /// All requests pass the activators.
    Always,
    /// Requests pass the activators while there are no pods, and on the way there and back.
    AtZero,
    /// Requests pass the activators while there are no pods, and on the way back: nothing of ours leads there.
    WakeOnly,
    /// Not at all.
    Refused {
        /// The reason in a word.
        reason: String,
        /// The reason in a sentence, with what to do.
        message: String,
    },
}

/// Whether everything is being put back as it was found: the RequestAutoscaler is deleted, or all of us is uninstalled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restoring {
    /// Nothing is put back.
    #[default]
    No,
    /// Our slices go once something else serves.
    Gently,
    /// Our slices go at once: the time for pods to become ready is over.
    AtOnce,
}

/// One Service of the workload.
#[derive(Clone, Debug)]
pub struct ServiceSeen {
    /// The Service.
    pub service: Arc<ServiceFact>,
    /// Every slice of the Service, whoever keeps it.
    pub slices: Vec<SliceFact>,
    /// The Endpoints object of the Service's name.
    pub endpoints: EndpointsSeen,
    /// The activators' ports of the [table](crate::ports), by the names of the Service's ports.
    pub ports: BTreeMap<String, u16>,
    /// Names of activators that have bound all of these ports.
    pub bound: BTreeSet<String>,
}

/// The Endpoints object of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum EndpointsSeen {
    /// Not asked for: [`PathPlan::ask_endpoints`](super::PathPlan::ask_endpoints) says when to.
    #[default]
    Unknown,
    /// There is none.
    Absent,
    /// There is one.
    Present {
        /// The UID.
        uid: String,
        /// The version.
        resource_version: String,
        /// Whether every address is that of a pod which the target has or had.
        is_of_target: bool,
    },
}

/// A pod of the target that serves.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadyPod {
    /// The pod.
    pub member: Member,
    /// Since when it has been ready, or seen to be.
    pub ready_since: Time,
    /// The numbers of its ports, by [`WorkloadPort::key`](crate::WorkloadPort::key).
    pub ports: BTreeMap<String, u16>,
}
