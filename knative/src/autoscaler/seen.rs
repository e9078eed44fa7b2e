//! Everything that is known about one revision at a moment, for one round of reconciling it.

use std::sync::Arc;

use pilotlight_core::{Evaluation, RevisionId, RevisionSpec};

use super::facts::{AutoscalerFact, MetricFact, ServiceFact};
use super::scraping::ScrapeOutcome;

/// The objects of a revision, its settings, and what was decided.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) id: Arc<RevisionId>,
    pub(crate) autoscaler: Arc<AutoscalerFact>,
    pub(crate) service: Option<Arc<ServiceFact>>,
    pub(crate) metric: Option<Arc<MetricFact>>,
    /// The pods that the scale target asks for; `None`: not known.
    pub(crate) replicas: Option<u32>,
    pub(crate) spec: Arc<RevisionSpec>,
    /// The newest evaluation; `None`: there is none yet, and nothing is known of what is wanted.
    pub(crate) evaluation: Option<Box<Evaluation>>,
    /// Why it asks for the number of pods that it does.
    pub(crate) why: Option<Arc<ScaleReason>>,
    /// The kind of an object that the API server does not let us create.
    pub(crate) failed_create: Option<&'static str>,
    /// How the last scrape of the pods went.
    pub(crate) scrape: ScrapeOutcome,
}

impl Seen {
    /// The ServerlessService, once it has its private Service. Before that there is nothing to scale for.
    pub(crate) fn serving(&self) -> Option<&ServiceFact> {
        self.service.as_deref().filter(|service| !service.private_service_name.is_empty())
    }

    /// Whether an object whose controller this is belongs to the revision's PodAutoscaler.
    pub(crate) fn owns(&self, controller: Option<&str>) -> bool {
        controller == Some(&self.autoscaler.uid)
    }

    /// The obstacle in the way of the whole revision; nothing is scaled then.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        if self.metric.as_ref().is_some_and(|metric| !self.owns(metric.owner.as_deref())) {
            return Some(Refusal::NotOwned(METRIC));
        }
        if self.service.as_ref().is_some_and(|service| !self.owns(service.owner.as_deref())) {
            return Some(Refusal::NotOwned(SERVICE));
        }
        self.failed_create.map(Refusal::FailedCreate)
    }

    /// The pods that the scale target should ask for, as far as it may be told so now.
    pub(crate) fn scale(&self) -> Option<u32> {
        let may_scale = self.serving().is_some() && self.refusal() != Some(Refusal::NotOwned(METRIC));
        self.evaluation.as_ref().filter(|_| may_scale)?.plan.scale
    }
}

/// The reason for a number of pods, from the evaluation that first asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScaleReason {
    /// In a word.
    pub(crate) reason: String,
    /// In a sentence.
    pub(crate) why: String,
}

/// An object that should be the revision's, by its kind, and is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Another object of that name is there.
    NotOwned(&'static str),
    /// The API server does not let us create it.
    FailedCreate(&'static str),
}

/// The kind of the object that says where traffic goes.
pub(crate) const SERVICE: &str = "ServerlessService";
/// The kind of the object that says that pods are scraped.
pub(crate) const METRIC: &str = "Metric";
