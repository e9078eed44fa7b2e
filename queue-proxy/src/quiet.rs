//! The end of a pod's life: it may go once no request has come for a while, because then everybody who sends
//! them has learned that it is leaving.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

/// Waits for quiet. While it waits and afterwards, the pod is draining: probes fail, requests are still served.
/// Knative's name for this is the Drainer.
#[derive(Debug)]
pub(crate) struct Quiet {
    period: Duration,
    state: Mutex<State>,
    reset: Notify,
    terminating: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Goes to Draining.
    Serving,
    /// Goes to Drained once `until` has come; every request moves it away. Goes to Serving by a reset.
    Draining { until: Instant },
    /// Goes to Serving by a reset.
    Drained,
}

impl Quiet {
    /// A pod that serves. Once it drains, no request must have arrived for `period`.
    pub(crate) fn new(period: Duration) -> Self {
        Quiet {
            period,
            state: Mutex::new(State::Serving),
            reset: Notify::new(),
            terminating: AtomicBool::new(false),
        }
    }

    /// Whether somebody has asked to drain, and it was not taken back.
    pub(crate) fn is_draining(&self) -> bool {
        !matches!(*self.state.lock(), State::Serving)
    }

    /// Notes a request that is not a probe. Its arrival counts, not its end: its sender did not know yet that the pod
    /// leaves.
    pub(crate) fn request_arrived(&self) {
        if let State::Draining { until } = &mut *self.state.lock() {
            *until = Instant::now() + self.period;
        }
    }

    /// Drains because the process was told to end: waits for quiet.
    pub(crate) async fn terminate(&self) {
        self.terminating.store(true, Ordering::Relaxed);
        self.drain().await;
    }

    /// Drains because the app's container is told to end, alone or with the whole pod; which of the two is known within
    /// a second. With the pod: waits for quiet. Alone (its liveness probe failed, say): the drain is taken back, since
    /// the container will be started again.
    pub(crate) async fn wait_for_drain(self: &Arc<Self>) {
        let quiet = Arc::clone(self);
        // A task of its own: the drain must be taken back even if the kubelet hangs up.
        tokio::spawn(async move {
            sleep(TERMINATION_FOLLOWS_WITHIN).await;
            if !quiet.terminating.load(Ordering::Relaxed) {
                quiet.take_back();
            }
        });
        self.drain().await;
    }

    /// Returns when it has been quiet for the period, or when the drain is taken back.
    async fn drain(&self) {
        {
            let mut state = self.state.lock();
            if matches!(*state, State::Serving) {
                *state = State::Draining { until: Instant::now() + self.period };
            }
        }
        loop {
            // Subscribe before looking, or a reset in between would be missed.
            let reset = self.reset.notified();
            let until = {
                let mut state = self.state.lock();
                match *state {
                    State::Serving | State::Drained => return,
                    State::Draining { until } if until <= Instant::now() => {
                        *state = State::Drained;
                        return;
                    }
                    State::Draining { until } => until,
                }
            };
            tokio::select! {
                () = sleep_until(until) => {}
                () = reset => {}
            }
        }
    }

    fn take_back(&self) {
        *self.state.lock() = State::Serving;
        self.reset.notify_waiters();
    }
}

/// Longest time between the kubelet's `/wait-for-drain` and its SIGTERM when the whole pod ends: it sends both at once.
const TERMINATION_FOLLOWS_WITHIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    const PERIOD: Duration = Duration::from_secs(30);

    fn quiet() -> Arc<Quiet> {
        Arc::new(Quiet::new(PERIOD))
    }

    async fn seconds_of(work: impl Future<Output = ()>) -> u64 {
        let started = Instant::now();
        work.await;
        started.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn without_requests_a_drain_takes_the_quiet_period() {
        let quiet = quiet();
        assert!(!quiet.is_draining());
        assert_eq!(seconds_of(quiet.terminate()).await, 30);
        assert!(quiet.is_draining(), "a drained pod stays out of service");
        assert_eq!(seconds_of(quiet.terminate()).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_every_ten_seconds_keeps_a_drain_from_ending_and_the_last_one_ends_it() {
        let quiet = quiet();
        let requests = async {
            for _ in 0..20 {
                sleep(Duration::from_secs(10)).await;
                quiet.request_arrived();
            }
        };
        let (drained_after, ()) = tokio::join!(seconds_of(quiet.terminate()), requests);
        assert_eq!(drained_after, 200 + 30);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_a_drain_without_termination_is_taken_back_after_a_second() {
        let quiet = quiet();
        let waiting = async {
            assert_eq!(seconds_of(quiet.wait_for_drain()).await, 1);
        };
        let meanwhile = async {
            sleep(Duration::from_millis(500)).await;
            assert!(quiet.is_draining());
        };
        tokio::join!(waiting, meanwhile);
        assert!(!quiet.is_draining());
    }

    #[tokio::test(start_paused = true)]
    async fn the_drain_is_taken_back_even_if_the_one_who_asked_hangs_up() {
        let quiet = quiet();
        assert!(timeout(Duration::from_millis(100), quiet.wait_for_drain()).await.is_err());
        assert!(quiet.is_draining());
        sleep(Duration::from_secs(1)).await;
        assert!(!quiet.is_draining());
    }

    #[tokio::test(start_paused = true)]
    async fn two_that_wait_and_the_termination_end_together() {
        let quiet = quiet();
        let late = async {
            sleep(Duration::from_millis(500)).await;
            quiet.terminate().await;
        };
        let (first, second) = (seconds_of(quiet.wait_for_drain()), seconds_of(quiet.wait_for_drain()));
        assert_eq!(tokio::join!(first, second, seconds_of(late)), (30, 30, 30));
        assert!(quiet.is_draining());
    }

    #[tokio::test(start_paused = true)]
    async fn requests_before_the_drain_do_not_count() {
        let quiet = quiet();
        quiet.request_arrived();
        assert!(!quiet.is_draining());
        assert_eq!(seconds_of(quiet.terminate()).await, 30);
    }
}
