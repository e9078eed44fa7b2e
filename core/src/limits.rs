//! Limits of a revision's requests: how many at once in one pod, and how much time each.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The most requests that one pod may run at once. In JSON, and wherever it is written, a number: 0 is no limit, as in
/// Knative's `containerConcurrency`.
///
/// ```
/// use pilotlight_core::ConcurrencyLimit;
/// assert_eq!(ConcurrencyLimit::from(10).get(), Some(10));
/// assert_eq!(ConcurrencyLimit::from(0), ConcurrencyLimit::UNLIMITED);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "u32", into = "u32")]
pub struct ConcurrencyLimit(Option<NonZeroU32>);

impl ConcurrencyLimit {
    /// No limit.
    pub const UNLIMITED: ConcurrencyLimit = ConcurrencyLimit(None);

    /// The limit; `None`: there is none.
    pub fn get(self) -> Option<u32> {
        self.0.map(NonZeroU32::get)
    }

    /// How many requests may wait in front of a pod with this limit: ten times as many as it works on, as in Knative's
    /// queue-proxy (`buildBreaker` in pkg/queue/sharedmain).
    pub fn queue_depth(self) -> Option<usize> {
        self.get().map(|limit| limit as usize * 10)
    }
}

impl From<u32> for ConcurrencyLimit {
    fn from(limit: u32) -> Self {
        ConcurrencyLimit(NonZeroU32::new(limit))
    }
}

impl From<ConcurrencyLimit> for u32 {
    fn from(limit: ConcurrencyLimit) -> u32 {
        limit.get().unwrap_or(0)
    }
}

impl fmt::Display for ConcurrencyLimit {
    /// As Knative writes it: 0 is no limit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        u32::from(*self).fmt(f)
    }
}

/// Time limits of a request. All three start when the request arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// Time from arrival to the end of the response, whatever happens. Zero: at once, as in Knative.
    pub total: Duration,
    /// Time from arrival to the head of the response; `None`: no limit of its own.
    pub response_start: Option<Duration>,
    /// The longest silence: from arrival to the head, and between two pieces of the response; `None`: no limit of its
    /// own.
    pub idle: Option<Duration>,
}

impl Timeouts {
    /// No limit but that of the whole.
    pub const fn total(total: Duration) -> Self {
        Timeouts { total, response_start: None, idle: None }
    }
}

impl Default for Timeouts {
    /// Knative's: 300 s for the whole.
    fn default() -> Self {
        Timeouts::total(Duration::from_secs(300))
    }
}
