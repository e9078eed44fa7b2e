//! The timers of a response body.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::Error;
use crate::alarm::Alarm;

/// The timers of a response that has begun.
pub(crate) struct Timer {
    alarm: Alarm,
    total_at: Instant,
    idle: Option<Duration>,
    quiet_since: Instant,
    message: &'static str,
}

impl Timer {
    /// Begins with the response. `total_at` is when it must have ended, `idle` the longest silence.
    pub(crate) fn new(
        alarm: Alarm,
        total_at: Instant,
        idle: Option<Duration>,
        message: &'static str,
    ) -> Self {
        Timer { alarm, total_at, idle, quiet_since: Instant::now(), message }
    }

    /// When the response must have ended, whatever happens.
    pub(crate) fn total_at(&self) -> Instant {
        self.total_at
    }

    /// What a response ends with that took too long.
    pub(crate) fn error(&self) -> Error {
        Error::TimedOut(self.message)
    }

    /// A piece of the response went out.
    pub(crate) fn written(&mut self) {
        if self.idle.is_some() {
            self.quiet_since = Instant::now();
        }
    }

    /// Ready when the response must end.
    pub(crate) fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<Error> {
        let deadline = match self.idle {
            Some(idle) => self.total_at.min(after(self.quiet_since, idle)),
            None => self.total_at,
        };
        self.alarm.poll(deadline, cx).map(|()| self.error())
    }
}

// An instant so far off that adding overflows is as good as a year.
pub(crate) fn after(start: Instant, limit: Duration) -> Instant {
    start.checked_add(limit).unwrap_or(start + Duration::from_secs(365 * 24 * 3600))
}
