//! All that is known of the revisions, by revision: facts go in one by one, each touches one revision, and what the
//! autoscaler sees of it comes out. Pure, and what it costs does not depend on how many revisions there are.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use pilotlight_autoscaler::cluster::{Parents, Pod, RevisionView, Scraping};
use pilotlight_core::{
    ActivatorPath, Activity, Evaluation, History, Plan, RevisionId, RevisionSpec, Time, Trouble,
};
use pilotlight_kubernetes::known::Known;
use pilotlight_kubernetes::labels;
use pilotlight_kubernetes::scale::ScaleFact;
use pilotlight_kubernetes::trouble::PodTrouble;

use super::buckets::Buckets;
use super::facts::{AutoscalerFact, MetricFact, PodFact, ServiceFact};
use super::history::history;
use super::scraping::ScrapeOutcome;
use super::seen::{ScaleReason, Seen};
use super::settings::Settings;
use super::spec::spec_of;
use super::targets::{TargetId, TargetKind, Targets};

/// All revisions, and all that is known of each.
#[derive(Debug)]
pub(crate) struct Index {
    settings: Arc<Settings>,
    buckets: Arc<Buckets>,
    /// Whether every watch has told what there is. Before that nothing is shown: a revision whose pods are not known yet
    /// would look like one without pods.
    is_complete: bool,
    revisions: BTreeMap<Arc<RevisionId>, Entry>,
    targets: Targets,
}

/// A change of one object; `None`: it is gone, or of no interest any more.
#[derive(Debug)]
pub(crate) enum Fact {
    Autoscaler(Arc<RevisionId>, Option<Arc<AutoscalerFact>>),
    Service(Arc<RevisionId>, Option<Arc<ServiceFact>>),
    Metric(Arc<RevisionId>, Option<Arc<MetricFact>>),
    /// By revision and pod.
    Pod(Arc<(RevisionId, String)>, Option<Arc<PodFact>>),
    Target(Arc<TargetId>, Option<Arc<ScaleFact>>),
}

/// An object as a write returned it; a scale target as a read returned it, too.
#[derive(Debug)]
pub(crate) enum Written {
    Autoscaler(AutoscalerFact),
    Service(ServiceFact),
    Metric(MetricFact),
    Target(ScaleFact),
}

/// Something about a revision that somebody should look at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// A pod does not come up: Kubernetes' word for it, and a sentence.
    Trouble(String, String),
    /// Annotations are illegal.
    IllegalSettings(String),
}

/// The work that an evaluation calls for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// Something that is written may differ.
    pub(crate) is_dirty: bool,
    /// More pods are wanted than the scale target asks for.
    pub(crate) is_urgent: bool,
    /// The revision's public address is to be probed.
    pub(crate) probe: Option<ProbeTarget>,
    /// The autoscaler's view of the revision has changed.
    pub(crate) is_seen_otherwise: bool,
}

impl Due {
    /// Nothing is to be done: the usual case.
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Due::default()
    }
}

/// The public address of a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProbeTarget {
    /// The name of its Service; empty: it has none yet.
    pub(crate) service: String,
    pub(crate) port: u16,
}

#[derive(Debug, Default)]
struct Entry {
    autoscaler: Known<AutoscalerFact>,
    service: Known<ServiceFact>,
    metric: Known<MetricFact>,
    pods: BTreeMap<String, Arc<PodFact>>,
    /// The object that is scaled.
    target: Option<TargetId>,
    /// `None`: not ours to scale.
    spec: Option<Arc<RevisionSpec>>,
    faults: Option<String>,
    is_held: bool,
    shown: Option<Shown>,
}

/// The state of a revision that the autoscaler sees.
#[derive(Debug)]
struct Shown {
    history: Arc<History>,
    evaluation: Option<Box<Evaluation>>,
    why: Option<Arc<ScaleReason>>,
    probed: bool,
    failed_create: Option<&'static str>,
    scrape: ScrapeOutcome,
    told_trouble: Option<String>,
    told_faults: Option<String>,
}

impl Index {
    pub(crate) fn new(settings: Arc<Settings>, buckets: Arc<Buckets>) -> Self {
        Index {
            settings,
            buckets,
            is_complete: false,
            revisions: BTreeMap::new(),
            targets: Targets::default(),
        }
    }

    /// Every watch has told what there is.
    pub(crate) fn complete(&mut self) {
        self.is_complete = true;
    }

    /// The revisions there are.
    pub(crate) fn revisions(&self) -> Vec<Arc<RevisionId>> {
        self.revisions.keys().map(Arc::clone).collect()
    }

    /// The settings from now on. [`Index::resolve_again`] brings them to a revision.
    pub(crate) fn settings(&mut self, settings: Arc<Settings>) {
        self.settings = settings;
    }

    /// The buckets from now on. [`Index::resolve_again`] brings them to a revision.
    pub(crate) fn buckets(&mut self, buckets: Arc<Buckets>) {
        self.buckets = buckets;
    }

    /// Looks anew whether a revision is ours, and with which settings.
    pub(crate) fn resolve_again(&mut self, id: &RevisionId) {
        let Some(entry) = self.revisions.get_mut(id) else { return };
        entry.is_held = self.buckets.hold(id);
        entry.resolve(&self.settings);
    }

    /// Takes in a fact. Returns the revision that it is about.
    pub(crate) fn learn(&mut self, fact: Fact) -> Option<Arc<RevisionId>> {
        match fact {
            Fact::Autoscaler(id, fact) => {
                let entry = Self::entry(&mut self.revisions, &self.buckets, &id);
                let before = entry.autoscaler.current().map(Arc::clone);
                entry.autoscaler.watched(fact);
                let uid = |fact: &Arc<AutoscalerFact>| fact.uid.clone();
                if before.as_ref().map(uid) != entry.autoscaler.current().map(uid) {
                    // Another revision of the same name: nothing is remembered of it.
                    entry.shown = None;
                }
                let now = entry.autoscaler.current();
                let settings = |fact: &Arc<AutoscalerFact>| (fact.annotations.clone(), fact.spec.clone());
                if before.as_ref().map(settings) != now.map(settings) {
                    entry.resolve(&self.settings);
                }
                self.follow_target(&id);
                Some(id)
            }
            Fact::Service(id, fact) => {
                Self::entry(&mut self.revisions, &self.buckets, &id).service.watched(fact);
                Some(id)
            }
            Fact::Metric(id, fact) => {
                Self::entry(&mut self.revisions, &self.buckets, &id).metric.watched(fact);
                Some(id)
            }
            Fact::Pod(key, fact) => {
                let (id, pod) = &*key;
                let id = self
                    .revisions
                    .get_key_value(id)
                    .map_or_else(|| Arc::new(id.clone()), |(id, _)| Arc::clone(id));
                let entry = Self::entry(&mut self.revisions, &self.buckets, &id);
                match fact {
                    Some(fact) => entry.pods.insert(pod.clone(), fact),
                    None => entry.pods.remove(pod),
                };
                Some(id)
            }
            Fact::Target(target, fact) => self.targets.watched(&target, fact),
        }
    }

    /// Takes in what a write returned.
    pub(crate) fn wrote(&mut self, id: &RevisionId, written: Written) {
        let Some(entry) = self.revisions.get_mut(id) else { return };
        match written {
            Written::Autoscaler(fact) => entry.autoscaler.written(fact),
            Written::Service(fact) => entry.service.written(fact),
            Written::Metric(fact) => entry.metric.written(fact),
            Written::Target(fact) => {
                if let Some(target) = &entry.target {
                    self.targets.answered(target, fact);
                }
            }
        }
    }

    /// The API server says that one of the revision's objects is not there: what we remember of our own writes is no use.
    pub(crate) fn missing(&mut self, id: &RevisionId) {
        let Some(entry) = self.revisions.get_mut(id) else { return };
        entry.autoscaler.missing();
        entry.service.missing();
        entry.metric.missing();
        if let Some(target) = &entry.target {
            self.targets.forget(target);
        }
    }

    /// An object of this kind could not be created; `None`: it could.
    pub(crate) fn failed_create(&mut self, id: &RevisionId, kind: Option<&'static str>) {
        if let Some(shown) = self.revisions.get_mut(id).and_then(|entry| entry.shown.as_mut()) {
            shown.failed_create = kind;
        }
    }

    /// The revision's pods were scraped. True if that is news.
    pub(crate) fn scraped(&mut self, id: &RevisionId, outcome: &ScrapeOutcome) -> bool {
        let Some(shown) = self.revisions.get_mut(id).and_then(|entry| entry.shown.as_mut()) else {
            return false;
        };
        let is_news = shown.scrape != *outcome;
        shown.scrape.clone_from(outcome);
        is_news
    }

    /// An activator answered at the revision's public address. True if that is of use still.
    pub(crate) fn probed(&mut self, id: &RevisionId) -> bool {
        let Some(shown) = self.revisions.get_mut(id).and_then(|entry| entry.shown.as_mut()) else {
            return false;
        };
        let is_waited_for = shown.evaluation.as_ref().is_some_and(|evaluation| evaluation.plan.probe_path);
        is_waited_for && !std::mem::replace(&mut shown.probed, true)
    }

    /// Whether the revision is ours to write about.
    pub(crate) fn is_shown(&self, id: &RevisionId) -> bool {
        self.revisions.get(id).is_some_and(|entry| entry.shown.is_some())
    }

    /// Looks at a revision after a change: what the autoscaler sees of it (`None`: it is not ours), and what is new
    /// about it. From the moment it is ours its history is what its objects say then.
    pub(crate) fn look(&mut self, now: Time, id: &RevisionId) -> (Option<RevisionView>, Vec<News>) {
        let is_complete = self.is_complete;
        let Some(entry) = self.revisions.get_mut(id) else { return (None, Vec::new()) };
        let replicas = self.targets.replicas(entry.target.as_ref());
        let (Some(autoscaler), Some(spec)) = (entry.autoscaler.current(), &entry.spec) else {
            entry.shown = None;
            if entry.is_empty() {
                self.revisions.remove(id);
            }
            return (None, Vec::new());
        };
        if !is_complete || !entry.is_held {
            entry.shown = None;
            return (None, Vec::new());
        }
        let service = entry.service.current().map(Arc::as_ref);
        let shown = entry.shown.get_or_insert_with(|| {
            let history = history(now, &autoscaler.status, service, replicas, spec);
            Shown::new(history)
        });
        let trouble = entry.pods.iter().find_map(|(name, pod)| Some((name, pod.trouble.as_deref()?)));
        let news = shown.news(trouble, entry.faults.as_ref());
        let view = RevisionView {
            spec: Arc::clone(spec),
            path: ActivatorPath {
                populated_since: service.and_then(|service| service.activator_since),
                probed: shown.probed,
            },
            pods: entry.pods.iter().map(|(name, fact)| pod(name, fact)).collect(),
            trouble: trouble.map(|(name, trouble)| Arc::<Trouble>::new(trouble.told(name))),
            history: Some(Arc::clone(&shown.history)),
            scraping: scraping(&self.settings, id, service),
            parents: parents(autoscaler),
        };
        (Some(view), news)
    }

    /// Takes in an evaluation, and says what it calls for.
    pub(crate) fn decided(&mut self, id: &RevisionId, evaluation: &Evaluation) -> Due {
        let Some(entry) = self.revisions.get_mut(id) else { return Due::default() };
        let Some(shown) = &mut entry.shown else { return Due::default() };
        let before = shown.evaluation.as_deref().map(told);
        let is_dirty = before != Some(told(evaluation));
        if let Some(target) = &entry.target
            && before.is_none_or(|(plan, ..)| plan.scale != evaluation.plan.scale)
            && !self.targets.is_watched(target)
        {
            // Somebody else may have changed it since it was read.
            self.targets.forget(target);
        }
        let replicas = self.targets.replicas(entry.target.as_ref());
        if let (Some(spec), Some(scale)) = (&entry.spec, evaluation.plan.scale)
            && before.is_none_or(|(plan, ..)| plan.scale != Some(scale))
        {
            let (reason, why) = (evaluation.reason(), evaluation.why(spec));
            shown.why = Some(Arc::new(ScaleReason { reason, why }));
        }
        match &mut shown.evaluation {
            Some(kept) => (**kept).clone_from(evaluation),
            None => shown.evaluation = Some(Box::new(evaluation.clone())),
        }
        // An answer from before the revision had pods again says nothing of the next time.
        let is_active = !matches!(evaluation.activity, Activity::Inactive { .. });
        let is_seen_otherwise = is_active && std::mem::take(&mut shown.probed);
        let is_urgent = is_dirty
            && evaluation.plan.scale.is_some_and(|pods| replicas.is_none_or(|replicas| pods > replicas));
        let needs_probe = evaluation.plan.probe_path && replicas != Some(0);
        let probe = entry.autoscaler.current().filter(|_| needs_probe).map(|autoscaler| ProbeTarget {
            service: autoscaler.status.service_name.clone(),
            port: if autoscaler.spec.protocol_type == "h2c" { 81 } else { 80 },
        });
        Due { is_dirty, is_urgent, probe, is_seen_otherwise }
    }

    /// Everything about a revision that is ours.
    pub(crate) fn seen(&self, id: &RevisionId) -> Option<Seen> {
        let (id, entry) = self.revisions.get_key_value(id)?;
        let shown = entry.shown.as_ref()?;
        Some(Seen {
            id: Arc::clone(id),
            autoscaler: Arc::clone(entry.autoscaler.current()?),
            service: entry.service.current().map(Arc::clone),
            metric: entry.metric.current().map(Arc::clone),
            replicas: self.targets.replicas(entry.target.as_ref()),
            spec: Arc::clone(entry.spec.as_ref()?),
            evaluation: shown.evaluation.clone(),
            why: shown.why.clone(),
            failed_create: shown.failed_create,
            scrape: shown.scrape.clone(),
        })
    }

    fn entry<'a>(
        revisions: &'a mut BTreeMap<Arc<RevisionId>, Entry>,
        buckets: &Buckets,
        id: &Arc<RevisionId>,
    ) -> &'a mut Entry {
        revisions
            .entry(Arc::clone(id))
            .or_insert_with(|| Entry { is_held: buckets.hold(id), ..Entry::default() })
    }

    /// Whether a PodAutoscaler names a scale target of this kind.
    pub(crate) fn names(&self, kind: &TargetKind) -> bool {
        self.targets.names(kind)
    }

    /// The revisions that a number of pods is wanted for, and whose scale target no watch shows.
    pub(crate) fn unwatched(&self) -> Vec<Arc<RevisionId>> {
        let is_unwatched = |entry: &Entry| {
            let evaluation = entry.shown.as_ref().and_then(|shown| shown.evaluation.as_ref());
            evaluation.is_some_and(|evaluation| evaluation.plan.scale.is_some())
                && entry.target.as_ref().is_some_and(|target| !self.targets.is_watched(target))
        };
        let unwatched = self.revisions.iter().filter(|(_, entry)| is_unwatched(entry));
        unwatched.map(|(id, _)| Arc::clone(id)).collect()
    }

    /// Notes what a revision scales.
    fn follow_target(&mut self, id: &Arc<RevisionId>) {
        let Some(entry) = self.revisions.get_mut(id) else { return };
        let target = entry.autoscaler.current().map(|autoscaler| &autoscaler.spec.scale_target_ref);
        let target = target.and_then(|target| TargetId::of(&id.namespace, target));
        if entry.target != target {
            self.targets.belongs(id, entry.target.as_ref(), target.as_ref());
            entry.target = target;
        }
    }
}

impl Entry {
    fn resolve(&mut self, settings: &Settings) {
        let resolved = self.autoscaler.current().and_then(|autoscaler| spec_of(autoscaler, settings));
        let (spec, faults) = resolved.unzip();
        self.faults = faults.flatten().map(|faults| faults.to_string());
        // The same settings keep their place in memory: followers compare by value.
        if self.spec.as_deref() != spec.as_ref() {
            self.spec = spec.map(Arc::new);
        }
    }

    fn is_empty(&self) -> bool {
        let Entry { autoscaler, service, metric, pods, .. } = self;
        autoscaler.current().is_none()
            && service.current().is_none()
            && metric.current().is_none()
            && pods.is_empty()
    }
}

impl Shown {
    fn new(history: History) -> Self {
        Shown {
            probed: history.path.probed,
            history: Arc::new(history),
            evaluation: None,
            why: None,
            failed_create: None,
            scrape: ScrapeOutcome::default(),
            told_trouble: None,
            told_faults: None,
        }
    }

    /// News that have not been told yet: a trouble once for as long as it lasts, faults once for what they are.
    fn news(&mut self, trouble: Option<(&String, &PodTrouble)>, faults: Option<&String>) -> Vec<News> {
        let word = trouble.map(|(_, trouble)| trouble.word.clone());
        let is_new = word.is_some() && word != self.told_trouble;
        self.told_trouble = word;
        let trouble = trouble.filter(|_| is_new).map(|(pod, trouble)| {
            News::Trouble(trouble.word.clone(), format!("Pod {pod} does not come up: {}", trouble.message))
        });
        let is_new = faults != self.told_faults.as_ref();
        self.told_faults = faults.cloned();
        let faults = faults.filter(|_| is_new).map(|faults| News::IllegalSettings(faults.clone()));
        trouble.into_iter().chain(faults).collect()
    }
}

/// The part of an evaluation that is written somewhere. Its time and its load are not.
fn told(evaluation: &Evaluation) -> (Plan, Option<u32>, Activity, bool, u32) {
    let plan = Plan { wake_at: None, probe_path: false, ..evaluation.plan };
    (plan, evaluation.outcome.want, evaluation.activity, evaluation.initialized, evaluation.pods.ready)
}

fn pod(name: &str, fact: &PodFact) -> Pod {
    // Only a pod that has not started yet has no address, and only ready ones are asked.
    let ip = fact.ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    Pod {
        name: name.to_owned(),
        phase: fact.phase,
        stats_address: SocketAddr::new(ip, STATS_PORT),
        metrics_address: SocketAddr::new(ip, METRICS_PORT),
        started: fact.started,
        waits_for: fact.waits_for.clone(),
    }
}

/// The queue-proxy's port for the autoscaler's scrapes.
const STATS_PORT: u16 = 9090;
/// The queue-proxy's port for Prometheus.
const METRICS_PORT: u16 = 9091;

/// How the pods are asked what they measured: a mesh may let only their private Service through.
fn scraping(settings: &Settings, id: &RevisionId, service: Option<&ServiceFact>) -> Scraping {
    let name = service.map(|service| &service.private_service_name).filter(|name| !name.is_empty());
    Scraping {
        service: name.map(|name| format!("{name}.{}:{STATS_PORT}", id.namespace).into()),
        mesh: settings.mesh,
        passthrough: settings.pods_addressable_in_mesh,
    }
}

fn parents(autoscaler: &AutoscalerFact) -> Parents {
    let label = |name| autoscaler.labels.get(name).map(|value| Arc::from(value.as_str()));
    Parents { configuration: label(labels::CONFIGURATION), service: label(labels::SERVICE) }
}

#[cfg(test)]
mod tests;
