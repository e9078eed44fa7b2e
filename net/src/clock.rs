//! The one clock of a process.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pilotlight_core::Time;
use tokio::time::Instant;

/// Unix time read once at the start, plus the monotonic time since: it aligns with the wall clock and never
/// runs backwards. Follows tokio's clock, so it stands still in a test that pauses it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    started_at: Time,
}

impl Clock {
    /// Reads the wall clock, once for all.
    pub fn start() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Clock { started: Instant::now(), started_at: Time::EPOCH + unix }
    }

    /// The time, as nanoseconds since the Unix epoch.
    pub fn now(&self) -> Time {
        self.started_at + self.started.elapsed()
    }

    /// The tokio instant at which this clock shows `time`; the start, if that lies before the start.
    pub fn instant_at(&self, time: Time) -> Instant {
        self.started + time.since(self.started_at)
    }
}
