//! Everything a revision's next decision depends on besides its settings and its pods, as a value: whoever decides
//! about the revision from now on goes on where another left off.
//!
//! Knative keeps a part of it in the PodAutoscaler's status; its windows and its panic are lost with the process.

use serde::{Deserialize, Serialize};

use crate::{ActivatorPath, Activity, Decision, ScalingMode};

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

/// Memory of [`Collector`](crate::Collector) and [`Decider`](crate::Decider).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadHistory {
    /// Requests in flight.
    pub concurrency: WindowPairHistory,
    /// Requests a second.
    pub requests: WindowPairHistory,
    /// The window that leads.
    pub mode: ScalingMode,
    /// The floor while there is panic: the most pods decided on since it began.
    pub max_panic_pods: u32,
    /// The numbers that `scale-down-delay` still holds: two-second slot and pods, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delayed: Vec<(u64, u32)>,
}

/// One metric in its stable and its panic window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WindowPairHistory {
    /// The stable window.
    pub stable: WindowHistory,
    /// The panic window.
    pub panic: WindowHistory,
}

/// The buckets of one [`Window`](crate::Window). The default is a window that was never written to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WindowHistory {
    /// The window's length in seconds.
    pub seconds: u64,
    /// The second of the oldest value that counts; `None`: the window counts as full.
    pub oldest: Option<i64>,
    /// The second of the newest value; `None`: there is none.
    pub newest: Option<i64>,
    /// One value a second, the newest last. Leading zeros are left out.
    pub values: Vec<f64>,
}
