//! Upstreams whose connections have just broken: they may be dying.
//!
//! A process that is killed closes its sockets one by one, the listener often last (Linux runs `task_work` in LIFO order). In
//! between the kernel accepts connections that nobody will ever read from: what is written there is lost with a reset, and
//! cannot be told from what the app has seen. So a connection that is opened just after another broke is watched for a
//! moment before anything is written to it. A dying upstream resets it, and the request was not sent.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::Error;

/// When a connection to each upstream broke last.
#[derive(Debug, Default)]
pub(super) struct Breaks {
    at: Mutex<HashMap<SocketAddr, Instant>>,
}

impl Breaks {
    /// An exchange failed; what counts is whether its connection broke.
    pub(super) fn failed(&self, upstream: SocketAddr, error: &Error) {
        if matches!(error, Error::UpstreamClosed | Error::Broken(_)) {
            self.note(upstream);
        }
    }

    /// A connection broke with an exchange on it.
    pub(super) fn note(&self, upstream: SocketAddr) {
        let now = Instant::now();
        let mut at = self.at.lock();
        at.retain(|_, at| *at + WATCHED > now);
        at.insert(upstream, now);
    }

    /// Until when a new connection is to be watched before it is written to; `None`: it need not be.
    pub(super) fn watch_until(&self, upstream: SocketAddr) -> Option<Instant> {
        let mut at = self.at.lock();
        let until = *at.get(&upstream)? + WATCHED;
        if until > Instant::now() {
            return Some(until);
        }
        at.remove(&upstream);
        None
    }
}

/// Time within which a process that was killed has closed all of its sockets. It takes less than a millisecond, unless others
/// keep the processor busy.
const WATCHED: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_upstream_is_watched_for_a_moment_after_each_break() {
        let (breaks, one, other) = (Breaks::default(), address(1), address(2));
        assert_eq!(breaks.watch_until(one), None);
        breaks.note(one);
        assert_eq!(breaks.watch_until(one), Some(Instant::now() + WATCHED));
        assert_eq!(breaks.watch_until(other), None);
        advance(WATCHED / 2).await;
        breaks.note(one);
        advance(WATCHED / 2).await;
        assert_eq!(breaks.watch_until(one), Some(Instant::now() + WATCHED / 2));
        advance(WATCHED / 2).await;
        assert_eq!(breaks.watch_until(one), None);
    }

    #[tokio::test(start_paused = true)]
    async fn upstreams_that_broke_long_ago_are_forgotten() {
        let breaks = Breaks::default();
        for last in 0..100 {
            breaks.note(address(last));
            advance(WATCHED).await;
        }
        assert_eq!(breaks.at.lock().len(), 1);
    }

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 80))
    }
}
