//! The timers of a response body.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::Error;
use crate::alarm::Alarm;

/// The time limits of a response that has begun.
pub(crate) struct Timer {
    alarm: Alarm,
    total_at: Instant,
    idle: Option<Duration>,
    quiet_since: Instant,
    message: &'static str,
}

impl Timer {
    /// Begins with the response, whose time ends at `total_at`. `idle` is the longest silence.
    pub(crate) fn new(
        alarm: Alarm,
        total_at: Instant,
        idle: Option<Duration>,
        message: &'static str,
    ) -> Self {
        Timer { alarm, total_at, idle, quiet_since: Instant::now(), message }
    }

    /// The end of the response's time, whatever happens.
    pub(crate) fn total_at(&self) -> Instant {
        self.total_at
    }

    /// The error that an overdue response ends with.
    pub(crate) fn error(&self) -> Error {
        Error::TimedOut(self.message)
    }

    /// Notes that a piece of the response was read.
    pub(crate) fn written(&mut self) {
        if self.idle.is_some() {
            self.quiet_since = Instant::now();
        }
    }

    /// Ready once the response is overdue.
    pub(crate) fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<Error> {
        let deadline = match self.idle {
            Some(idle) => self.total_at.min(after(self.quiet_since, idle)),
            None => self.total_at,
        };
        self.alarm.poll(deadline, cx).map(|()| self.error())
    }
}

/// The instant so long after `start`; in a year if that overflows.
pub(crate) fn after(start: Instant, limit: Duration) -> Instant {
    start.checked_add(limit).unwrap_or(start + Duration::from_secs(365 * 24 * 3600))
}
