//! Asking servers to stop: first politely, then not.

use tokio::sync::watch;

/// A token that stops servers. All clones are the same token.
///
/// [`start`](Drain::start) begins a graceful stop: no new connections, idle ones are closed, requests in flight
/// run to their end. [`force`](Drain::force) cuts what is left.
#[derive(Clone, Debug)]
pub struct Drain {
    phase: watch::Sender<Phase>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    Draining,
    Forced,
}

impl Default for Drain {
    fn default() -> Self {
        Drain { phase: watch::Sender::new(Phase::Serving) }
    }
}

impl Drain {
    /// Begins a graceful stop. Calling it again changes nothing.
    pub fn start(&self) {
        self.advance_to(Phase::Draining);
    }

    /// Cuts every connection that is left.
    pub fn force(&self) {
        self.advance_to(Phase::Forced);
    }

    /// Whether the stop has begun.
    pub fn is_started(&self) -> bool {
        *self.phase.borrow() >= Phase::Draining
    }

    /// Returns once the stop has begun.
    pub async fn started(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Returns once the rest is to be cut.
    pub async fn forced(&self) {
        self.reached(Phase::Forced).await;
    }

    fn advance_to(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let forward = *phase < to;
            *phase = to.max(*phase);
            forward
        });
    }

    async fn reached(&self, wanted: Phase) {
        // The only error is "all senders are gone", and `self` is one.
        let _ = self.phase.subscribe().wait_for(|phase| *phase >= wanted).await;
    }
}
