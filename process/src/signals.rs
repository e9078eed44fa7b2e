//! The signals that ask a process to stop, and the stop itself.

use std::io;
use std::time::Duration;

use pilotlight_net::Drain;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

/// SIGTERM, SIGINT and SIGHUP, which from now on ask a process to stop, and no longer end it. To be made first of all:
/// a signal that comes during the start must not kill it without a word. A program that gets a second one ends at once.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    /// The terminal was closed.
    hangup: Signal,
}

impl StopSignals {
    /// Starts listening, on the current runtime.
    pub fn new() -> io::Result<Self> {
        Ok(StopSignals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one. Returns its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}

/// Drains servers: starts `drain`, waits until `serving` is over, and cuts what is left of it after `limit`. Returns
/// whether nothing had to be cut.
pub async fn stop_within(limit: Duration, drain: &Drain, serving: impl Future) -> bool {
    drain.start();
    tokio::pin!(serving);
    let in_time = timeout(limit, &mut serving).await.is_ok();
    if !in_time {
        drain.force();
        serving.await;
    }
    in_time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stop_is_polite_until_its_limit_and_then_not() {
        let drain = Drain::default();
        assert!(stop_within(Duration::from_secs(5), &drain, drain.started()).await);
        let drain = Drain::default();
        let started = tokio::time::Instant::now();
        assert!(!stop_within(Duration::from_secs(5), &drain, drain.forced()).await);
        assert_eq!(started.elapsed(), Duration::from_secs(5));
    }
}
