//! The memory of one workload: settings that were accepted, what somebody else did to it, and what was decided.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pilotlight_core::{ActivatorPath, Activity, Evaluation, History, Plan, RevisionSpec, Time};
use pilotlight_kubernetes::scale::ScaleFact;

use super::conditions::{ZERO_BLOCKED, condition, since_1970};
use super::foreign::Foreign;
use super::seen::ScaleReason;
use super::status::CONTESTED;
use super::target::{ScaledFact, ScaledName};
use crate::Workload;
use crate::crd::{Interception, LastDecision, Mode};
use crate::facts::{Name, PodPhase};
use crate::path::EndpointsSeen;
use crate::ports::PortOwner;
use crate::refusal::Way;
use crate::settings::Accepted;

/// The memory of one workload. All of it can be lost: what counts is read again from its objects.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    pub(super) target: Option<ScaledName>,
    pub(super) services: BTreeSet<Name>,
    pub(super) ports: BTreeSet<PortOwner>,
    /// The number of pods that is being written.
    pub(super) setting: Option<u32>,
    pub(super) endpoints: BTreeMap<String, EndpointsSeen>,
    pub(super) memory: Memory,
    /// Scale and selector of a target that is not watched.
    other: Option<(ScaleFact, String)>,
}

/// The memory of one RequestAutoscaler: gone with it, even if another of the same name follows.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) uid: String,
    generation: i64,
    pub(super) accepted: Option<Arc<Accepted>>,
    pub(super) faults: Arc<[String]>,
    pub(super) foreign: Foreign,
    pub(super) is_put_to_sleep: bool,
    pub(super) is_cpu_quiet: bool,
    pub(super) is_hpa_quiet: bool,
    /// The phase of each pod, and since when.
    phases: BTreeMap<String, (PodPhase, Time)>,
    /// The path that the step before found.
    pub(super) path: Option<ActivatorPath>,
    leaving: (Vec<String>, Option<Time>),
    /// Pods that were told to go first.
    pub(super) costed: BTreeSet<String>,
    pub(super) restoring: Option<Time>,
    pub(super) status_written: Option<Time>,
    pub(super) shown: Option<Shown>,
}

/// The state of a workload that decisions are made about.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) history: Arc<History>,
    /// Since when it is decided about in this way.
    pub(super) since: Time,
    pub(super) terms: Terms,
    pub(super) spec: Arc<RevisionSpec>,
    pub(super) evaluation: Option<Box<Evaluation>>,
    pub(super) last: Option<Arc<LastDecision>>,
    pub(super) why: Option<Arc<ScaleReason>>,
}

/// The terms under which decisions are made: with others nothing is lowered for a stable window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) mode: Mode,
    pub(super) interception: Interception,
    pub(super) way: Way,
}

/// The work that an evaluation calls for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// Something that is written may differ.
    pub(crate) is_dirty: bool,
    /// More pods are wanted than the scale target asks for.
    pub(crate) is_urgent: bool,
}

impl Entry {
    /// Whether decisions are made about it.
    pub(super) fn is_shown(&self) -> bool {
        self.memory.shown.is_some()
    }

    /// Forgets another RequestAutoscaler of the same name.
    pub(super) fn settle(&mut self, now: Time, workload: &Workload) {
        let fact = &workload.autoscaler;
        if self.memory.uid != fact.uid {
            self.memory = Memory { uid: fact.uid.clone(), ..Memory::default() };
            self.endpoints.clear();
            let blocked = condition(&fact.status.conditions, ZERO_BLOCKED);
            if let Some(contest) = blocked.filter(|it| it.status == "True" && it.reason == CONTESTED) {
                let since = since_1970(&contest.last_transition_time).min(now);
                let generation = contest.observed_generation.unwrap_or(fact.generation);
                let manager = contest.message.split(' ').next().unwrap_or_default();
                self.memory.foreign = Foreign::resume(manager.to_owned(), since, generation);
            }
        }
        self.memory.generation = fact.generation;
    }

    /// The scale of a target that is not watched.
    pub(super) fn other_scale(&self) -> Option<ScaleFact> {
        self.other.as_ref().map(|(scale, _)| scale.clone())
    }

    /// The selector of a target that is not watched.
    pub(super) fn other_selector(&self) -> Option<String> {
        self.other.as_ref().map(|(_, selector)| selector.clone())
    }

    /// The scale of a target that is not watched, as a write returned it.
    pub(super) fn set_scale(&mut self, scale: ScaleFact) {
        if let Some((known, _)) = &mut self.other {
            *known = scale;
        }
    }

    /// The scale of a target that is not watched, as it was read.
    pub(super) fn read_scale(&mut self, now: Time, scale: ScaleFact, selector: String) {
        let before = self.other.replace((scale.clone(), selector)).map(|(scale, _)| scale.replicas);
        if let Some(from) = before.filter(|from| *from != scale.replicas) {
            self.changed_by_somebody(now, (from, scale.replicas), "somebody else");
        }
    }

    /// The target asks for another number of pods.
    pub(super) fn replicas_changed(&mut self, now: Time, from: u32, after: &ScaledFact) {
        let manager = after.last_manager.as_deref().unwrap_or("somebody else");
        self.changed_by_somebody(now, (from, after.scale.replicas), manager);
    }

    fn changed_by_somebody(&mut self, now: Time, (from, to): (u32, u32), manager: &str) {
        if self.setting == Some(to) || manager.starts_with(OURS) {
            self.memory.is_put_to_sleep = false;
            return;
        }
        self.memory.is_put_to_sleep = to == 0;
        self.memory.foreign.changed(now, (from, to), manager, self.memory.generation);
    }

    /// Takes in an evaluation, and says what it calls for.
    pub(super) fn decided(&mut self, evaluation: &Evaluation, replicas: Option<u32>) -> Due {
        let Some(shown) = &mut self.memory.shown else { return Due::default() };
        let before = shown.evaluation.as_deref().map(told);
        let is_dirty = before != Some(told(evaluation));
        if let Some(scale) = evaluation.plan.scale
            && before.is_none_or(|before| before.plan.scale != Some(scale))
        {
            let (rule, why) = (evaluation.reason(), evaluation.why(&shown.spec));
            shown.why = Some(Arc::new(ScaleReason { rule, why }));
        }
        match &mut shown.evaluation {
            Some(kept) => (**kept).clone_from(evaluation),
            None => shown.evaluation = Some(Box::new(evaluation.clone())),
        }
        let wants_more = |wanted: u32| wanted > 0 && replicas.is_none_or(|replicas| wanted > replicas);
        Due { is_dirty, is_urgent: is_dirty && evaluation.plan.scale.is_some_and(wants_more) }
    }
}

impl Memory {
    /// Notes the phases of the pods.
    pub(super) fn note_phases(&mut self, now: Time, workload: &Workload) {
        self.phases.retain(|name, _| workload.pods.contains_key(name));
        for (name, pod) in &workload.pods {
            if self.phases.get(name).is_none_or(|(phase, _)| *phase != pod.phase) {
                self.phases.insert(name.clone(), (pod.phase, now));
            }
        }
    }

    /// Since when the pods that the status names as leaving have been the same ones; `None`: there are none.
    pub(super) fn leaving_since(&mut self, now: Time, workload: &Workload) -> Option<Time> {
        let leaving = &workload.autoscaler.status.leaving;
        if self.leaving.0 != *leaving {
            self.leaving = (leaving.clone(), (!leaving.is_empty()).then_some(now));
        }
        self.costed.retain(|pod| workload.pods.contains_key(pod));
        self.leaving.1
    }

    /// Since when a pod is in the phase that it is in.
    pub(super) fn phase_since(&self, pod: &str) -> Option<Time> {
        self.phases.get(pod).map(|(_, since)| *since)
    }
}

/// The part of an evaluation that is written somewhere: neither its time nor the parts of its load that nobody acts on.
#[derive(PartialEq)]
struct ToldPart {
    plan: Plan,
    want: Option<u32>,
    activity: Activity,
    initialized: bool,
    ready: u32,
    is_panicking: bool,
    in_flight: u64,
}

fn told(evaluation: &Evaluation) -> ToldPart {
    let decision = evaluation.decision.as_ref();
    ToldPart {
        plan: Plan { wake_at: None, probe_path: false, activators: 0, ..evaluation.plan },
        want: evaluation.outcome.want,
        activity: evaluation.activity,
        initialized: evaluation.initialized,
        ready: evaluation.pods.ready,
        is_panicking: decision.is_some_and(pilotlight_core::Decision::is_panicking),
        in_flight: decision.map_or(0, |decision| super::status::in_flight(decision.stable).to_bits()),
    }
}

/// The beginning of the names by which our own programs write: an activator that wakes is one of us.
const OURS: &str = "pilotlight";
