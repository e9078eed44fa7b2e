//! Wakes of an activator's own: for a workload that the controller has not woken within a second, since it is away or its
//! report was lost.

use std::collections::BTreeMap;
use std::time::Duration;

use pilotlight_activator::Activator;
use pilotlight_core::{RevisionId, Time};
use pilotlight_feed::Feed;
use pilotlight_kubernetes::scale::Scales;
use pilotlight_kubernetes::write::WriteError;
use pilotlight_net::Clock;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use super::metrics::Metrics;
use super::view::Sleeper;

/// Workloads that sleep while requests wait for them. Pure.
#[derive(Debug, Default)]
pub(super) struct Wakes(BTreeMap<RevisionId, Wake>);

#[derive(Debug)]
struct Wake {
    next: Time,
    delay: Duration,
    is_in_flight: bool,
}

impl Wakes {
    /// The workloads to wake now. `waiting` are all that sleep while requests wait for them at this moment.
    pub(super) fn step(
        &mut self,
        now: Time,
        waiting: impl IntoIterator<Item = RevisionId>,
    ) -> Vec<RevisionId> {
        let mut before = std::mem::take(&mut self.0);
        let mut due = Vec::new();
        for id in waiting {
            let new = || Wake { next: now + PATIENCE, delay: PATIENCE, is_in_flight: false };
            let mut wake = before.remove(&id).unwrap_or_else(new);
            if !wake.is_in_flight && wake.next <= now {
                wake.is_in_flight = true;
                due.push(id.clone());
            }
            self.0.insert(id, wake);
        }
        // Whoever is on the way is waited for: there is never a second one.
        self.0.extend(before.into_iter().filter(|(_, wake)| wake.is_in_flight));
        due
    }

    /// An attempt is over. As long as the workload sleeps and requests wait, the next one comes later each time.
    pub(super) fn over(&mut self, now: Time, id: &RevisionId) {
        if let Some(wake) = self.0.get_mut(id) {
            *wake = Wake {
                next: now + wake.delay,
                delay: wake.delay.saturating_mul(2).min(LONGEST_DELAY),
                is_in_flight: false,
            };
        }
    }
}

/// The parts that wakes are made of.
pub(super) struct Waker {
    pub(super) activator: Activator,
    pub(super) sleepers: Feed<RevisionId, Sleeper>,
    pub(super) scales: Scales,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
}

/// The result of an attempt.
#[derive(Debug)]
pub(super) enum Attempt {
    /// The target asks for so many pods, and did not before.
    Woken(u32),
    /// The target asked for so many pods already.
    Awake(u32),
    /// The API server did not take it.
    Failed(WriteError),
}

impl Waker {
    /// Wakes workloads until the task is aborted.
    pub(super) async fn run(self) {
        let (mut wakes, mut attempts) = (Wakes::default(), JoinSet::new());
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    for id in wakes.step(self.clock.now(), self.waiting()) {
                        let Some(sleeper) = self.sleepers.get(&id) else {
                            wakes.over(self.clock.now(), &id);
                            continue;
                        };
                        let scales = self.scales.clone();
                        attempts.spawn(async move {
                            let attempt = attempt(&scales, &id, &sleeper).await;
                            (id, attempt)
                        });
                    }
                }
                Some(Ok((id, attempt))) = attempts.join_next() => {
                    wakes.over(self.clock.now(), &id);
                    self.tell(&id, &attempt);
                }
            }
        }
    }

    /// Workloads that sleep while requests wait for them.
    fn waiting(&self) -> Vec<RevisionId> {
        let busy = self.activator.busy().into_iter().filter(|(_, activity)| activity.queued > 0);
        busy.map(|(id, _)| id).filter(|id| self.sleepers.get(id).is_some()).collect()
    }

    fn tell(&self, id: &RevisionId, attempt: &Attempt) {
        match attempt {
            Attempt::Woken(pods) => {
                self.metrics.wakes.increment(1);
                info!(workload = %id, pods, "Woke a workload, since no controller did");
            }
            Attempt::Awake(pods) => {
                debug!(workload = %id, pods, "The workload was woken, and has no pod yet");
            }
            Attempt::Failed(error) => {
                self.metrics.wake_errors.increment(1);
                warn!(workload = %id, %error, "Cannot wake a workload; trying again while requests wait");
            }
        }
    }
}

/// Has a target that asks for no pod ask for some; not if anybody was faster.
pub(super) async fn attempt(scales: &Scales, id: &RevisionId, sleeper: &Sleeper) -> Attempt {
    let wake = async {
        let (seen, _) = scales.read(&id.namespace, &sleeper.target).await?;
        if seen.replicas > 0 {
            return Ok(Attempt::Awake(seen.replicas));
        }
        let now = scales.set_from(&id.namespace, &sleeper.target, &seen, sleeper.pods).await?;
        Ok(Attempt::Woken(now.replicas))
    };
    wake.await.unwrap_or_else(Attempt::Failed)
}

/// How long the controller may take to wake a workload.
const PATIENCE: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// How often requests that wait are looked at.
const TICK: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> RevisionId {
        RevisionId::new("shop", name)
    }

    fn step(wakes: &mut Wakes, now: u64, waiting: &[&str]) -> Vec<String> {
        let waiting = waiting.iter().map(|name| id(name));
        wakes.step(Time::from_millis(now), waiting).into_iter().map(|id| id.name).collect()
    }

    #[test]
    fn a_workload_is_woken_once_it_has_slept_through_a_second_of_demand() {
        let mut wakes = Wakes::default();
        assert_eq!(step(&mut wakes, 0, &["web"]), [""; 0]);
        assert_eq!(step(&mut wakes, 750, &["web", "api"]), [""; 0]);
        assert_eq!(step(&mut wakes, 1_000, &["web", "api"]), ["web"]);
        assert_eq!(step(&mut wakes, 1_750, &["web", "api"]), ["api"]);
    }

    #[test]
    fn demand_that_ends_begins_anew() {
        let mut wakes = Wakes::default();
        step(&mut wakes, 0, &["web"]);
        step(&mut wakes, 900, &[]);
        assert_eq!(step(&mut wakes, 1_000, &["web"]), [""; 0]);
        assert_eq!(step(&mut wakes, 2_000, &["web"]), ["web"]);
    }

    #[test]
    fn one_attempt_is_on_the_way_at_a_time_and_the_next_comes_later_each_time() {
        let mut wakes = Wakes::default();
        step(&mut wakes, 0, &["web"]);
        let mut tried = Vec::new();
        for now in (0..130_000).step_by(250) {
            if !step(&mut wakes, now, &["web"]).is_empty() {
                tried.push(now / 1_000);
                assert_eq!(step(&mut wakes, now, &["web"]), [""; 0]);
                // Demand that comes and goes does not bring a second one either.
                step(&mut wakes, now, &[]);
                assert_eq!(step(&mut wakes, now + 10_000, &["web"]), [""; 0]);
                wakes.over(Time::from_millis(now), &id("web"));
            }
        }
        assert_eq!(tried, [1, 2, 4, 8, 16, 32, 62, 92, 122]);
        step(&mut wakes, 200_000, &[]);
        assert!(wakes.0.is_empty());
    }
}
