//! Measures a run while it goes: quantiles, integrals, and the timeline. Nothing here is kept per request.

use std::time::Duration;

use pilotlight_core::Time;
use pilotlight_histogram::{Durations, MICROSECOND};

use super::oracle::Oracle;
use super::timeline::{Levels, Recorder};
use crate::outcome::{Outcome, Quantiles};

/// How an attempt that was answered went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Served {
    pub(super) status: u16,
    /// From the client's first sending to the answer.
    pub(super) latency: Duration,
    /// The part that was work.
    pub(super) service: Duration,
    /// The part that was spent waiting while there was no pod.
    pub(super) cold: Duration,
}

pub(super) struct Meter {
    pub(super) outcome: Outcome,
    pub(super) levels: Levels,
    pub(super) oracle: Oracle,
    recorder: Option<Recorder>,
    latency: Times,
    wait: Times,
    queue: Times,
    cold: Times,
    service: Times,
    answered: u64,
    objective: Option<Duration>,
    within_objective: u64,
    costs_counted: bool,
}

impl Meter {
    pub(super) fn new(seed: u64, objective: Option<Duration>, timeline: bool, oracle: Oracle) -> Self {
        Meter {
            outcome: Outcome { seed, ..Outcome::default() },
            levels: Levels::default(),
            oracle,
            recorder: timeline.then(Recorder::default),
            latency: Times::default(),
            wait: Times::default(),
            queue: Times::default(),
            cold: Times::default(),
            service: Times::default(),
            answered: 0,
            objective,
            within_objective: 0,
            costs_counted: false,
        }
    }

    /// Brings the timeline up to date; to be called before anything happens at `now`.
    pub(super) fn advance(&mut self, now: Time, target_per_pod: f64) {
        if let Some(recorder) = &mut self.recorder
            && now >= recorder.next()
        {
            recorder.advance(now, &self.levels, target_per_pod);
        }
    }

    pub(super) fn arrived(&mut self, now: Time, is_cold: bool) {
        self.outcome.requests += 1;
        self.outcome.cold_requests += u64::from(is_cold);
        self.levels.in_flight.add(now, 1.0);
        if let Some(recorder) = &mut self.recorder {
            recorder.arrived();
        }
    }

    pub(super) fn answered(&mut self, now: Time, answer: Served) {
        let Served { status, latency, service, cold } = answer;
        self.ended(now, status == 200, latency);
        self.count_status(status);
        if status != 200 {
            return;
        }
        let wait = latency.saturating_sub(service);
        self.answered += 1;
        self.latency.record(latency);
        self.service.record(service);
        self.wait.record(wait);
        self.cold.record(cold);
        self.queue.record(wait.saturating_sub(cold));
        self.within_objective += u64::from(self.objective.is_some_and(|objective| latency < objective));
    }

    pub(super) fn abandoned(&mut self, now: Time, after: Duration) {
        self.outcome.abandoned += 1;
        self.ended(now, false, after);
    }

    /// Counts the cost of pods until now, once: the time after the load is not part of its price.
    pub(super) fn count_costs(&mut self, now: Time) {
        if std::mem::replace(&mut self.costs_counted, true) {
            return;
        }
        let (levels, outcome) = (&self.levels, &mut self.outcome);
        let pods = &mut outcome.pods;
        pods.ready_seconds = levels.ready.integral(now);
        pods.starting_seconds = levels.starting.integral(now);
        pods.terminating_seconds = levels.terminating.integral(now);
        pods.pending_seconds = levels.pending.integral(now);
        pods.node_seconds = levels.nodes.integral(now);
        pods.pod_seconds = pods.ready_seconds + pods.starting_seconds + pods.terminating_seconds;
        outcome.scaling.panic_seconds = levels.panicking.integral(now);
        outcome.scaling.proxied_seconds = levels.proxied.integral(now);
    }

    /// Ends the measuring.
    pub(super) fn finish(mut self, now: Time, target_per_pod: f64, duration: Duration) -> Outcome {
        self.count_costs(now);
        let mut outcome = self.outcome;
        outcome.duration_s = duration.as_secs_f64();
        outcome.latency = quantiles(&self.latency);
        outcome.wait = quantiles(&self.wait);
        outcome.queue = quantiles(&self.queue);
        outcome.cold_start = quantiles(&self.cold);
        outcome.service = quantiles(&self.service);
        outcome.slo_fraction = self.objective.map(|_| match outcome.requests {
            0 => 1.0,
            requests => self.within_objective as f64 / requests as f64,
        });
        let pods = &mut outcome.pods;
        pods.oracle_pod_seconds = self.oracle.finish();
        if pods.oracle_pod_seconds > 0.0 {
            pods.over_provision = pods.pod_seconds / pods.oracle_pod_seconds;
        }
        outcome.timeline =
            self.recorder.map(|mut recorder| recorder.finish(now, &self.levels, target_per_pod));
        outcome
    }

    fn ended(&mut self, now: Time, well: bool, after: Duration) {
        self.levels.in_flight.add(now, -1.0);
        if let Some(recorder) = &mut self.recorder {
            recorder.ended(well, after);
        }
    }

    fn count_status(&mut self, status: u16) {
        *self.outcome.statuses.entry(status).or_default() += 1;
    }
}

/// To the microsecond and to 0.1 %.
type Times = Durations<MICROSECOND, 3>;

fn quantiles(times: &Times) -> Quantiles {
    let at = |q| times.quantile(q).unwrap_or_default().as_secs_f64();
    Quantiles {
        mean: times.mean().unwrap_or_default().as_secs_f64(),
        p50: at(0.5),
        p90: at(0.9),
        p95: at(0.95),
        p99: at(0.99),
        p99_9: at(0.999),
        max: times.max().unwrap_or_default().as_secs_f64(),
    }
}
