//! Everything a revision's next decision depends on besides its settings and its pods, as a value: whoever decides
//! about the revision from now on goes on where another left off.
//!
//! Knative keeps a part of it in the PodAutoscaler's status; its windows and its panic are lost with the process.

use serde::{Deserialize, Serialize};

use crate::decider::LoadHistory;
use crate::{ActivatorPath, Activity, Decision};

/// Memory of a revision. The default is an empty history: the revision is seen for the first time.
///
/// Source: [`Revision::history`](crate::Revision::history) of the revision that is to go on. A driver that stores only
/// an [`Evaluation`](crate::Evaluation) still has everything but `load`.
///
/// ```
/// use pilotlight_core::{Activity, History, Input, PodCounts, Revision, RevisionSpec, Time};
/// let spec = RevisionSpec { initial_scale: 5, ..RevisionSpec::default() };
/// let active = Activity::Active { since: Time::from_secs(100) };
/// let history = History { activity: Some(active), initialized: true, ..History::default() };
/// let one = PodCounts { ready: 1, ..PodCounts::default() };
/// let mut revision = Revision::resume(Time::from_secs(900), spec, one, history);
/// let plan = revision.step(Time::from_secs(900), Input::Tick).unwrap();
/// assert_eq!(plan.scale, None); // the initial scale was reached before the restart
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Whether the revision had its pods, and since when; `None`: nobody knows.
    #[serde(default)]
    pub activity: Option<Activity>,
    /// Whether the initial scale was reached once.
    #[serde(default)]
    pub initialized: bool,
    /// The last valid decision.
    #[serde(default)]
    pub decision: Option<Decision>,
    /// The activator's place in the request path, as it was last known.
    #[serde(default)]
    pub path: ActivatorPath,
    /// The load of the last while, and what is held because of it; `None`: lost. The number of pods is then held for a
    /// whole stable window, as if there were panic.
    #[serde(default)]
    pub load: Option<LoadHistory>,
}
