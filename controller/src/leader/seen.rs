//! Everything that is known about one workload at a moment, for one round of work on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use pilotlight_core::{Evaluation, RevisionId, RevisionSpec, Time};
use pilotlight_kubernetes::knative::TargetRef;
use pilotlight_kubernetes::scale::ScaleFact;

use super::foreign::{Contest, Raise};
use super::target::ScaledFact;
use crate::Workload;
use crate::crd::{LastDecision, Mode};
use crate::path::PathPlan;
use crate::peers::WorkloadActivity;
use crate::refusal::{HpaFact, Refusal, Warning, Way};
use crate::settings::Accepted;

/// A workload, its settings, what was decided, and what is to be done for its path.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) workload: Workload,
    /// The object that is scaled; `None`: it is not there, or of a kind that is not watched.
    pub(crate) target: Option<Arc<ScaledFact>>,
    /// Version and number of pods of the object that is scaled; `None`: not known.
    pub(crate) scale: Option<ScaleFact>,
    /// The label selector of the target's pods; `None`: not known.
    pub(crate) selector: Option<String>,
    /// The settings in force; `None`: there were no legal ones yet.
    pub(crate) accepted: Option<Arc<Accepted>>,
    /// Everything that is wrong with the settings as they are written.
    pub(crate) faults: Arc<[String]>,
    /// What may be done for it.
    pub(crate) way: Result<Way, Refusal>,
    /// What may hurt it.
    pub(crate) warnings: Vec<Warning>,
    /// What is to be done for its path.
    pub(crate) path: PathPlan,
    /// The ports of the activators, by Service and port name.
    pub(crate) ports: BTreeMap<String, u16>,
    /// The HorizontalPodAutoscaler of the target.
    pub(crate) hpa: Option<HpaFact>,
    /// The newest evaluation; `None`: there is none yet, and nothing is known of what is wanted.
    pub(crate) evaluation: Option<Box<Evaluation>>,
    /// The last change of the number of pods.
    pub(crate) last: Option<Arc<LastDecision>>,
    /// The reason for the number of pods that is wanted.
    pub(crate) why: Option<Arc<ScaleReason>>,
    /// Since when this leader has known it, in this mode: nothing is lowered for a stable window from then on.
    pub(crate) since: Time,
    /// A number that somebody else raised the target to, and that is respected still.
    pub(crate) raise: Option<Raise>,
    /// Somebody else changes the number of pods again and again.
    pub(crate) contest: Option<Contest>,
    /// Whether somebody else put it to sleep.
    pub(crate) is_put_to_sleep: bool,
    /// Whether what shows the load above zero shows none: the HPA's metrics, or the pods' CPU.
    pub(crate) is_quiet: bool,
    /// Whether it wants a Service of another workload that came first: the path of that one is not its own.
    pub(crate) is_second: bool,
    /// Requests at the activators, a second ago at most.
    pub(crate) activity: WorkloadActivity,
    /// Since when the pods that the status names as leaving have been the same ones.
    pub(crate) leaving_since: Option<Time>,
    /// Whether we may say which pods go first.
    pub(crate) sets_deletion_cost: bool,
    /// Pods that were told to go first.
    pub(crate) costed: BTreeSet<String>,
    /// Since when everything is being put back as it was found; `None`: it is not.
    pub(crate) restoring: Option<Time>,
    /// When the status was written last.
    pub(crate) status_written: Option<Time>,
}

/// The reason for a number of pods, from the evaluation that first asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScaleReason {
    /// In a word.
    pub(crate) rule: String,
    /// In a sentence.
    pub(crate) why: String,
}

impl Seen {
    /// The RequestAutoscaler's name.
    pub(crate) fn id(&self) -> &Arc<RevisionId> {
        &self.workload.id
    }

    /// The pods that the target asks for.
    pub(crate) fn replicas(&self) -> Option<u32> {
        self.scale.as_ref().map(|scale| scale.replicas)
    }

    /// The object that is scaled.
    pub(crate) fn target_ref(&self) -> TargetRef {
        TargetRef::from(&self.workload.autoscaler.spec.scale_target_ref)
    }

    /// The mode in force.
    pub(crate) fn mode(&self) -> Mode {
        self.accepted.as_ref().map_or(Mode::Paused, |accepted| accepted.mode)
    }

    /// The settings that decisions are made by.
    pub(crate) fn spec(&self) -> Option<RevisionSpec> {
        let way = *self.way.as_ref().ok()?;
        Some(self.accepted.as_ref()?.for_path(way))
    }

    /// Whether pods are found by the selector that the target has: before that their number is not known.
    pub(crate) fn is_settled(&self) -> bool {
        self.selector.as_ref().is_some_and(|selector| *selector == self.workload.autoscaler.status.selector)
    }

    /// Whether decisions are made about it.
    pub(crate) fn is_decided_about(&self) -> bool {
        let is_deleted = self.workload.autoscaler.is_deleted;
        self.accepted.is_some() && self.way.is_ok() && self.is_settled() && !is_deleted
    }

    /// The stable window in force.
    pub(crate) fn stable_window(&self) -> Duration {
        self.accepted.as_ref().map_or(Duration::from_secs(60), |accepted| accepted.spec.stable_window)
    }

    /// The number of pods that a wake without demand asks for: at least one.
    pub(crate) fn waking_replicas(&self) -> u32 {
        let min = self.accepted.as_ref().map_or(1, |accepted| accepted.spec.min_scale);
        let of_hpa = self.hpa.as_ref().map_or(1, |hpa| hpa.min_replicas);
        min.max(of_hpa).max(1)
    }
}
