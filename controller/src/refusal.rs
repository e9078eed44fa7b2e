//! The way of a workload: where its traffic can be led, whether its load can be seen, and why not. Pure.
//!
//! [`way`] is asked with the [`Workload`] and its [`Surroundings`]: other autoscalers, policies, quotas and data planes
//! that have a say. Everything that stands in the way is a [`Refusal`]; what may be meant and may hurt is a [`Warning`].

pub mod look;
mod rules;
mod surroundings;
mod warnings;

pub use surroundings::{
    BudgetFact, ClusterFacts, DataPlane, HpaFact, IngressAround, NamespaceFacts, PolicyFact, Progressive,
    QuotaFact, Rival, ScaledObjectFact, ServiceAround, Surroundings, TargetFact,
};

use crate::Workload;

/// How the load of a workload is seen, and so what may be done for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// All requests pass the activators.
    Always,
    /// Requests pass the activators while there are no pods. Above zero the load is seen by other means.
    AtZero(AtZeroSignal),
    /// Nothing shows the load above zero: a sleeping target is woken, and nothing else is done.
    WakeOnly,
}

/// The measurement above zero where requests do not pass the activators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtZeroSignal {
    /// A queue-proxy in every pod counts.
    QueueProxy,
    /// One HorizontalPodAutoscaler holds the number of pods above zero, and its metrics say when there is no load.
    Autoscaler,
    /// The pods' CPU says when there is no load. The number of pods above zero is nobody's.
    Cpu,
}

/// Why nothing is done for a workload, or why its pods may not all go.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The reason of a condition, such as `SharedService`.
    pub reason: &'static str,
    /// A sentence that says what to do.
    pub message: String,
}

/// Something that works, and may not be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The reason of an event or a condition, such as `SessionAffinity`.
    pub reason: &'static str,
    /// A sentence that says what to do.
    pub message: String,
}

/// The way of a workload; or the first thing that stands in the way, the gravest first.
pub fn way(workload: &Workload, surroundings: &Surroundings) -> Result<Way, Refusal> {
    rules::judge(workload, surroundings).map_err(|mut refusals| refusals.swap_remove(0))
}

/// Everything that stands in the way of a workload, the gravest first; empty: [`way`] has an answer.
pub fn refusals(workload: &Workload, surroundings: &Surroundings) -> Vec<Refusal> {
    rules::judge(workload, surroundings).err().unwrap_or_default()
}

/// Things that may hurt a workload which is not refused.
pub fn warnings(workload: &Workload, surroundings: &Surroundings) -> Vec<Warning> {
    warnings::of(workload, surroundings)
}

/// Why the pods of a workload that can only be woken do not all go (`ZeroBlocked`), with the ways on.
pub fn cannot_see(workload: &Workload) -> Refusal {
    let target = &workload.autoscaler.spec.scale_target_ref;
    let object = format!("{}/{}", target.kind.to_lowercase(), target.name);
    Refusal {
        reason: "CannotSee",
        message: format!(
            "Requests go straight to the pods, so nothing shows when there are none. Take the Service's selector away \
             (pilotlight kube enable {object} --exact), add the queue-proxy (pilotlight kube inject), or write \
             `interception: AtZero`, by which the pods' CPU decides."
        ),
    }
}
