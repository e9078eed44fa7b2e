//! The books: the results of all requests, and the steps of every cold start, in bounded memory.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use pilotlight_core::{PodTimeline, RevisionId, Time};
use pilotlight_histogram::{Durations, MICROSECOND};

/// The books of one activator, since it started.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// Revision by revision; those deleted long ago are only in `total`.
    pub revisions: BTreeMap<RevisionId, RevisionLedger>,
    /// All revisions together, deleted ones included.
    pub total: RevisionLedger,
    /// Stats that could not be sent because the autoscaler was away.
    pub stats_dropped: u64,
}

/// The books of one revision.
#[derive(Clone, Debug, Default)]
pub struct RevisionLedger {
    /// Requests that arrived.
    pub requests: u64,
    /// Responses by status code.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests whose client left before the response was complete.
    pub abandoned: u64,
    /// Responses that broke off after they had begun: the pod failed, or a time limit passed.
    pub broken: u64,
    /// Requests that a pod took and did not answer.
    pub lost: u64,
    /// From a request's arrival to the end of its response.
    pub latency: Latencies,
    /// The cold starts of this revision.
    pub cold_starts: ColdStarts,
}

impl RevisionLedger {
    /// Adds another ledger's numbers to this one.
    pub fn add(&mut self, other: &RevisionLedger) {
        self.requests += other.requests;
        for (&status, count) in &other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.abandoned += other.abandoned;
        self.broken += other.broken;
        self.lost += other.lost;
        self.latency.add(&other.latency);
        self.cold_starts.add(&other.cold_starts);
    }
}

/// The cold starts of a revision. One is counted each time it goes from no ready pod to a pod that takes a waiting
/// request, by the request that waited longest.
#[derive(Clone, Debug, Default)]
pub struct ColdStarts {
    /// The number of cold starts.
    pub count: u64,
    /// The latest, oldest first; at most 1000.
    pub recent: VecDeque<ColdStart>,
    /// From the request's arrival until it was sent to the pod: the sum of the four steps.
    pub total: Latencies,
    /// Until the autoscaler had decided.
    pub decide: Latencies,
    /// Until the pod's process had been started.
    pub start: Latencies,
    /// Until the pod was ready.
    pub ready: Latencies,
    /// Until the request was sent.
    pub forward: Latencies,
}

impl ColdStarts {
    const MAX_RECENT: usize = 1000;

    pub(crate) fn record(&mut self, start: ColdStart) {
        self.count += 1;
        self.total.record(start.total());
        self.decide.record(start.decide);
        self.start.record(start.start);
        self.ready.record(start.ready);
        self.forward.record(start.forward);
        self.recent.push_back(start);
        if self.recent.len() > Self::MAX_RECENT {
            self.recent.pop_front();
        }
    }

    fn add(&mut self, other: &ColdStarts) {
        self.count += other.count;
        self.total.add(&other.total);
        self.decide.add(&other.decide);
        self.start.add(&other.start);
        self.ready.add(&other.ready);
        self.forward.add(&other.forward);
        self.recent.extend(other.recent.iter().copied());
        self.recent.make_contiguous().sort_by_key(|start| start.arrived);
        let excess = self.recent.len().saturating_sub(Self::MAX_RECENT);
        self.recent.drain(..excess);
    }
}

/// One cold start, split into the steps that add up to its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColdStart {
    /// When the request arrived that waited longest.
    pub arrived: Time,
    /// Until the autoscaler had decided; zero if a pod was already on its way.
    pub decide: Duration,
    /// Until the pod's process had been started.
    pub start: Duration,
    /// Until the pod was ready.
    pub ready: Duration,
    /// Until the request was sent to the pod.
    pub forward: Duration,
}

impl ColdStart {
    /// Splits the time from `arrived` to `sent` at the marks of the pod's timeline. Marks outside it are moved to
    /// its ends, and a mark nobody measured falls together with the one before: the steps always add up.
    pub(crate) fn new(arrived: Time, timeline: PodTimeline, sent: Time) -> Self {
        let mut previous = arrived;
        let mut step = |mark: Option<Time>| {
            let mark = mark.unwrap_or(previous).min(sent).max(previous);
            let length = mark - previous;
            previous = mark;
            length
        };
        ColdStart {
            arrived,
            decide: step(timeline.decided),
            start: step(timeline.spawned),
            ready: step(timeline.ready),
            forward: step(Some(sent)),
        }
    }

    /// From the request's arrival until it was sent.
    pub fn total(&self) -> Duration {
        self.decide + self.start + self.ready + self.forward
    }
}

/// A distribution of durations, exact to 1 %.
pub type Latencies = Durations<MICROSECOND, 2>;

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(decided: u64, spawned: u64, ready: u64) -> PodTimeline {
        let at = |millis| Some(Time::from_millis(millis));
        PodTimeline { decided: at(decided), spawned: at(spawned), ready: at(ready) }
    }

    fn millis(start: ColdStart) -> [u128; 4] {
        [start.decide, start.start, start.ready, start.forward].map(|step| step.as_millis())
    }

    #[test]
    fn a_cold_start_is_split_at_the_pods_marks() {
        let start =
            ColdStart::new(Time::from_millis(1000), timeline(1020, 1030, 1500), Time::from_millis(1501));
        assert_eq!(millis(start), [20, 10, 470, 1]);
        assert_eq!(start.total(), Duration::from_millis(501));
    }

    #[test]
    fn marks_before_the_arrival_or_missing_cost_nothing_and_the_sum_still_holds() {
        let start =
            ColdStart::new(Time::from_millis(1000), timeline(500, 900, 1500), Time::from_millis(1501));
        assert_eq!(millis(start), [0, 0, 500, 1]);
        let start = ColdStart::new(Time::from_millis(1000), PodTimeline::default(), Time::from_millis(1501));
        assert_eq!(millis(start), [0, 0, 0, 501]);
        // Another process's clock may be ahead.
        let start =
            ColdStart::new(Time::from_millis(1000), timeline(1020, 1030, 9000), Time::from_millis(1501));
        assert_eq!(millis(start), [20, 10, 471, 0]);
    }

    #[test]
    fn quantiles_are_exact_to_one_percent_and_ledgers_add_up() {
        let mut one = RevisionLedger::default();
        let mut other = RevisionLedger::default();
        for ms in 1..=1000 {
            let ledger = if ms % 2 == 0 { &mut one } else { &mut other };
            ledger.latency.record(Duration::from_millis(ms));
        }
        one.add(&other);
        assert_eq!(one.latency.count(), 1000);
        let p99 = one.latency.quantile(0.99).unwrap().as_secs_f64();
        assert!((0.98..=1.0).contains(&p99), "{p99}");
        assert_eq!(Latencies::default().quantile(0.5), None);
    }

    #[test]
    fn only_the_latest_cold_starts_are_kept_but_all_are_counted() {
        let mut starts = ColdStarts::default();
        for second in 0..2500 {
            let arrived = Time::from_secs(second);
            starts.record(ColdStart::new(
                arrived,
                PodTimeline::default(),
                arrived + Duration::from_millis(5),
            ));
        }
        assert_eq!((starts.count, starts.recent.len()), (2500, 1000));
        assert_eq!(starts.recent[0].arrived, Time::from_secs(1500));
        let other = starts.clone();
        starts.add(&other);
        assert_eq!((starts.count, starts.recent.len()), (5000, 1000));
    }
}
