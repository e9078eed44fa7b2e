//! Decisions and their reasons, kept where people and machines can see it: the live view, `/v1/decisions`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use indexmap::IndexMap;
use parking_lot::Mutex;
use pilotlight_core::{Evaluation, RevisionId, RevisionSpec, ScalingMetric, Time, Trouble};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::cluster::RevisionView;

/// The latest evaluation of every revision, and the latest changes of scale.
#[derive(Debug)]
pub struct Board {
    revisions: Mutex<IndexMap<Arc<RevisionId>, Shown>>,
    /// What keeps pods from coming up, of those revisions where something does.
    conditions: Mutex<BTreeMap<RevisionId, Condition>>,
    version: watch::Sender<u64>,
}

/// One change of the number of pods a revision should have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// When.
    pub at: Time,
    /// The number before; `None`: there was none yet.
    pub from: Option<u32>,
    /// The number from now on.
    pub to: u32,
    /// The rule that bound it, as a word.
    pub reason: String,
    /// The same in a sentence.
    pub why: String,
}

/// One revision as it is shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RevisionStatus {
    /// The name.
    pub revision: RevisionId,
    /// The metric.
    pub metric: ScalingMetric,
    /// The target, per pod.
    pub target: f64,
    /// The number of pods that was last applied.
    pub scale: Option<u32>,
    /// The latest decision, in a sentence.
    pub why: String,
    /// Why pods do not come up; `None`: they do.
    #[serde(default)]
    pub trouble: Option<Trouble>,
    /// Pods that have been starting for a while, and what they wait for.
    #[serde(default)]
    pub not_ready: Vec<NotReady>,
    /// The latest evaluation, with its numbers and the decision that stands.
    pub evaluation: Evaluation,
    /// The latest changes of scale, oldest first.
    pub changes: Vec<Change>,
}

/// A pod that is not ready yet, and what it waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotReady {
    /// The pod.
    pub pod: String,
    /// The reason.
    pub why: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Condition {
    trouble: Option<Arc<Trouble>>,
    not_ready: Vec<NotReady>,
}

#[derive(Debug)]
struct Shown {
    spec: Arc<RevisionSpec>,
    scale: Option<u32>,
    evaluation: Evaluation,
    /// The latest evaluation that decided anew, or the latest of all while there is none.
    decided: Evaluation,
    changes: VecDeque<Change>,
}

impl Default for Board {
    fn default() -> Self {
        Board { revisions: Mutex::default(), conditions: Mutex::default(), version: watch::Sender::new(0) }
    }
}

impl Board {
    /// A copy of everything shown now, in the order of the names.
    pub fn snapshot(&self) -> Vec<RevisionStatus> {
        let conditions = self.conditions.lock().clone();
        let status = |(id, shown): (&Arc<RevisionId>, &Shown)| {
            let Condition { trouble, not_ready } = conditions.get(id).cloned().unwrap_or_default();
            RevisionStatus {
                revision: (**id).clone(),
                metric: shown.spec.scaling_metric,
                target: shown.spec.target,
                scale: shown.scale,
                why: shown.decided.why(&shown.spec),
                trouble: trouble.as_deref().cloned(),
                not_ready,
                evaluation: shown.evaluation.clone(),
                changes: shown.changes.iter().cloned().collect(),
            }
        };
        let mut statuses: Vec<_> = self.revisions.lock().iter().map(status).collect();
        statuses.sort_by(|one, other| one.revision.cmp(&other.revision));
        statuses
    }

    /// Changes whenever something shown does.
    pub fn version(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Shows an evaluation. Returns the change of scale it brought, if it did.
    pub(crate) fn show(
        &self,
        id: &Arc<RevisionId>,
        spec: &Arc<RevisionSpec>,
        evaluation: &Evaluation,
    ) -> Option<Change> {
        let mut revisions = self.revisions.lock();
        let shown = revisions.entry(Arc::clone(id)).or_insert_with(|| Shown {
            spec: Arc::clone(spec),
            scale: None,
            evaluation: evaluation.clone(),
            decided: evaluation.clone(),
            changes: VecDeque::new(),
        });
        shown.spec = Arc::clone(spec);
        shown.evaluation.clone_from(evaluation);
        if evaluation.decided || evaluation.outcome.bound.is_some() || !shown.decided.decided {
            shown.decided.clone_from(evaluation);
        }
        let from = shown.scale;
        shown.scale = evaluation.plan.scale.or(from);
        let change = shown.scale.filter(|_| shown.scale != from).map(|to| Change {
            at: evaluation.at,
            from,
            to,
            reason: evaluation.reason(),
            why: evaluation.why(spec),
        });
        if let Some(change) = &change {
            if shown.changes.len() == CHANGES_KEPT {
                shown.changes.pop_front();
            }
            shown.changes.push_back(change.clone());
        }
        drop(revisions);
        self.version.send_modify(|version| *version += 1);
        change
    }

    /// Shows what keeps a revision's pods from coming up.
    pub(crate) fn note(&self, id: &RevisionId, seen: &RevisionView) {
        let waiting = seen.pods.iter().filter(|pod| pod.phase.is_starting());
        let not_ready =
            waiting.filter_map(|pod| Some(NotReady { pod: pod.name.clone(), why: pod.waits_for.clone()? }));
        let condition = Condition { trouble: seen.trouble.clone(), not_ready: not_ready.collect() };
        let mut conditions = self.conditions.lock();
        let is_news = if condition == Condition::default() {
            conditions.remove(id).is_some()
        } else {
            conditions.insert(id.clone(), condition.clone()) != Some(condition)
        };
        drop(conditions);
        if is_news {
            self.version.send_modify(|version| *version += 1);
        }
    }

    pub(crate) fn remove(&self, id: &RevisionId) {
        self.conditions.lock().remove(id);
        self.revisions.lock().swap_remove(id);
        self.version.send_modify(|version| *version += 1);
    }
}

/// Changes of scale that are remembered of each revision.
const CHANGES_KEPT: usize = 64;
