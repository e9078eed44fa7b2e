//! Graceful shutdown of servers, and the end of grace.

use tokio::sync::watch;

/// A token that stops servers. All clones are the same token.
///
/// [`start`](Drain::start) begins a graceful stop: no new connections, idle ones are closed, requests in flight
/// run to their end. [`force`](Drain::force) cuts what is left.
#[derive(Clone, Debug)]
pub struct Drain {
    phase: watch::Sender<DrainPhase>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum DrainPhase {
    Serving,
    Draining,
    Forced,
}

impl Default for Drain {
    fn default() -> Self {
        Drain { phase: watch::Sender::new(DrainPhase::Serving) }
    }
}

impl Drain {
    /// Begins a graceful stop. Calling it again changes nothing.
    pub fn start(&self) {
        self.advance_to(DrainPhase::Draining);
    }

    /// Cuts all connections that are left.
    pub fn force(&self) {
        self.advance_to(DrainPhase::Forced);
    }

    /// Whether the stop has begun.
    pub fn is_started(&self) -> bool {
        *self.phase.borrow() >= DrainPhase::Draining
    }

    /// Returns once the stop has begun.
    pub async fn started(&self) {
        self.reached(DrainPhase::Draining).await;
    }

    /// Returns once connections are cut.
    pub async fn forced(&self) {
        self.reached(DrainPhase::Forced).await;
    }

    fn advance_to(&self, to: DrainPhase) {
        self.phase.send_if_modified(|phase| {
            let forward = *phase < to;
            *phase = to.max(*phase);
            forward
        });
    }

    async fn reached(&self, wanted: DrainPhase) {
        // An error would say that all senders are gone, and `self` is one.
        let _ = self.phase.subscribe().wait_for(|phase| *phase >= wanted).await;
    }
}
