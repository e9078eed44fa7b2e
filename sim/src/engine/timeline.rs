//! Writes the timeline: one point for each step, and steps twice as long whenever there are too many.

use std::time::Duration;

use pilotlight_core::Time;

use crate::outcome::{Point, Timeline};

/// How much of something there is, and how much there was, added up over time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Level {
    value: f64,
    since: Time,
    integral: f64,
}

impl Level {
    pub(super) fn set(&mut self, now: Time, value: f64) {
        if value != self.value {
            self.integral = self.integral(now);
            (self.value, self.since) = (value, now);
        }
    }

    pub(super) fn add(&mut self, now: Time, by: f64) {
        self.set(now, self.value + by);
    }

    pub(super) fn value(&self) -> f64 {
        self.value
    }

    /// Value times seconds, up to now.
    pub(super) fn integral(&self, now: Time) -> f64 {
        self.integral + self.value * (now - self.since).as_secs_f64()
    }
}

/// Levels whose average over time is of interest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Levels {
    pub(super) in_flight: Level,
    /// Requests at work, of those in flight.
    pub(super) at_work: Level,
    pub(super) ready: Level,
    pub(super) starting: Level,
    pub(super) pending: Level,
    pub(super) terminating: Level,
    pub(super) nodes: Level,
    pub(super) panicking: Level,
    pub(super) proxied: Level,
    pub(super) wanted: Level,
}

/// Collects what happens within a step, and what there is on average.
pub(super) struct Recorder {
    step: Duration,
    /// The end of the step under way.
    next: Time,
    /// The levels at the beginning of the step under way.
    at_start: Sums,
    steps: Vec<TimelineStep>,
    now: TimelineStep,
}

/// One step: sums that can be added to those of its neighbour.
#[derive(Clone)]
struct TimelineStep {
    sums: Sums,
    wanted: f64,
    target_per_pod: f64,
    arrivals: u64,
    completions: u64,
    failures: u64,
    longest: Duration,
    latencies: Sketch,
}

/// Level times seconds, for each level.
#[derive(Clone, Copy, Default)]
struct Sums([f64; LEVELS]);

const LEVELS: usize = 8;

impl Default for Recorder {
    fn default() -> Self {
        Recorder {
            step: SHORTEST_STEP,
            next: Time::EPOCH + SHORTEST_STEP,
            at_start: Sums::default(),
            steps: Vec::new(),
            now: TimelineStep::default(),
        }
    }
}

impl Recorder {
    /// The end of the step under way.
    pub(super) fn next(&self) -> Time {
        self.next
    }

    pub(super) fn arrived(&mut self) {
        self.now.arrivals += 1;
    }

    pub(super) fn ended(&mut self, well: bool, after: Duration) {
        match well {
            true => {
                self.now.completions += 1;
                self.now.longest = self.now.longest.max(after);
                self.now.latencies.add(after);
            }
            false => self.now.failures += 1,
        }
    }

    /// Closes all steps that are over.
    pub(super) fn advance(&mut self, now: Time, levels: &Levels, target_per_pod: f64) {
        while now >= self.next {
            let end = self.next;
            self.close(end, levels, target_per_pod);
            if self.steps.len() >= MOST_STEPS {
                self.halve();
            }
            self.next = Time::EPOCH + self.step * (self.steps.len() as u32 + 1);
        }
    }

    /// Closes the last step, which may be a short one.
    pub(super) fn finish(&mut self, now: Time, levels: &Levels, target_per_pod: f64) -> Timeline {
        self.advance(now, levels, target_per_pod);
        let start = Time::EPOCH + self.step * self.steps.len() as u32;
        let rest = now - start;
        if !rest.is_zero() {
            self.close(now, levels, target_per_pod);
        }
        let step_s = self.step.as_secs_f64();
        let last = self.steps.len().wrapping_sub(1);
        let points = self.steps.iter().enumerate().map(|(i, step)| {
            let seconds = if i == last && !rest.is_zero() { rest.as_secs_f64() } else { step_s };
            step.point(i as f64 * step_s, seconds)
        });
        Timeline { step_s, points: points.collect() }
    }

    fn close(&mut self, at: Time, levels: &Levels, target_per_pod: f64) {
        let sums = Sums::of(at, levels);
        let mut step = std::mem::take(&mut self.now);
        step.sums = sums - self.at_start;
        step.wanted = levels.wanted.value();
        step.target_per_pod = target_per_pod;
        self.at_start = sums;
        self.steps.push(step);
    }

    fn halve(&mut self) {
        self.step *= 2;
        let pairs = self.steps.chunks(2).map(|pair| match pair {
            [one, other] => one.with(other),
            _ => pair[0].clone(),
        });
        self.steps = pairs.collect();
    }
}

impl TimelineStep {
    fn with(&self, next: &TimelineStep) -> TimelineStep {
        TimelineStep {
            sums: self.sums + next.sums,
            wanted: next.wanted,
            target_per_pod: next.target_per_pod,
            arrivals: self.arrivals + next.arrivals,
            completions: self.completions + next.completions,
            failures: self.failures + next.failures,
            longest: self.longest.max(next.longest),
            latencies: self.latencies.with(&next.latencies),
        }
    }

    fn point(&self, at_s: f64, seconds: f64) -> Point {
        let [in_flight, at_work, ready, starting, pending, terminating, nodes, panicking] =
            self.sums.0.map(|sum| millionths((sum / seconds).max(0.0)));
        let longest = self.longest.as_secs_f64();
        Point {
            at_s,
            arrivals_per_s: millionths(self.arrivals as f64 / seconds),
            completions_per_s: millionths(self.completions as f64 / seconds),
            failures_per_s: millionths(self.failures as f64 / seconds),
            in_flight,
            queued: millionths((in_flight - at_work).max(0.0)),
            target: millionths(ready * self.target_per_pod),
            wanted: self.wanted,
            ready,
            starting,
            pending,
            terminating,
            nodes,
            panic_fraction: panicking,
            latency_p50_s: millionths(self.latencies.quantile(0.5).min(longest)),
            latency_p95_s: millionths(self.latencies.quantile(0.95).min(longest)),
            latency_max_s: longest,
        }
    }
}

impl Default for TimelineStep {
    fn default() -> Self {
        TimelineStep {
            sums: Sums::default(),
            wanted: 0.0,
            target_per_pod: 0.0,
            arrivals: 0,
            completions: 0,
            failures: 0,
            longest: Duration::ZERO,
            latencies: Sketch::default(),
        }
    }
}

impl Sums {
    fn of(now: Time, levels: &Levels) -> Self {
        let Levels { in_flight, at_work, ready, starting, pending, terminating, nodes, panicking, .. } =
            levels;
        let levels: [&Level; LEVELS] =
            [in_flight, at_work, ready, starting, pending, terminating, nodes, panicking];
        Sums(levels.map(|level| level.integral(now)))
    }
}

impl std::ops::Add for Sums {
    type Output = Sums;
    fn add(self, other: Sums) -> Sums {
        Sums(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }
}

impl std::ops::Sub for Sums {
    type Output = Sums;
    fn sub(self, other: Sums) -> Sums {
        Sums(std::array::from_fn(|i| self.0[i] - other.0[i]))
    }
}

/// A value without the dust of its sums: averages are differences of integrals, and exact to far less than this.
fn millionths(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// Counts times in buckets that are 19 % wide, from 0.1 ms to more than an hour; boxed while there are any.
#[derive(Clone, Default)]
struct Sketch(Option<Box<[u32; BUCKETS]>>);

const BUCKETS: usize = 104;

impl Sketch {
    fn add(&mut self, time: Duration) {
        let counts = self.0.get_or_insert_with(|| Box::new([0; BUCKETS]));
        counts[bucket(time)] += 1;
    }

    fn with(&self, other: &Sketch) -> Sketch {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Sketch(Some(Box::new(std::array::from_fn(|i| one[i] + other[i])))),
            (one, other) => Sketch(one.as_ref().or(other.as_ref()).cloned()),
        }
    }

    /// In seconds; the middle of the bucket.
    fn quantile(&self, q: f64) -> f64 {
        let Some(counts) = &self.0 else { return 0.0 };
        let count: u64 = counts.iter().map(|&n| u64::from(n)).sum();
        let rank = ((count as f64 * q).ceil() as u64).max(1);
        let mut seen = 0;
        for (i, &n) in counts.iter().enumerate() {
            seen += u64::from(n);
            if seen >= rank {
                return FINEST_SECONDS * ((i as f64 + 0.5) / BUCKETS_PER_DOUBLING).exp2();
            }
        }
        0.0
    }
}

fn bucket(time: Duration) -> usize {
    let ratio = time.as_secs_f64() / FINEST_SECONDS;
    if ratio <= 1.0 { 0 } else { ((ratio.log2() * BUCKETS_PER_DOUBLING) as usize).min(BUCKETS - 1) }
}

const FINEST_SECONDS: f64 = 1e-4;
const BUCKETS_PER_DOUBLING: f64 = 4.0;
const SHORTEST_STEP: Duration = Duration::from_secs(1);
/// Two thousand points are more than a screen can show.
const MOST_STEPS: usize = 2_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_grow_and_their_number_does_not() {
        let mut recorder = Recorder::default();
        let mut levels = Levels::default();
        levels.ready.set(Time::EPOCH, 3.0);
        for second in 0..10_000 {
            recorder.advance(Time::from_secs(second), &levels, 7.0);
            recorder.arrived();
            recorder.ended(true, Duration::from_millis(100));
        }
        let timeline = recorder.finish(Time::from_secs(10_000), &levels, 7.0);
        assert_eq!(timeline.step_s, 8.0);
        assert_eq!(timeline.points.len(), 1_250);
        for point in &timeline.points {
            assert_eq!((point.arrivals_per_s, point.ready, point.target), (1.0, 3.0, 21.0));
            assert!((point.latency_p50_s - 0.1).abs() < 0.01, "{point:?}");
        }
    }

    #[test]
    fn what_is_whole_stays_whole() {
        let mut recorder = Recorder::default();
        let mut levels = Levels::default();
        for at in 0..3_000u64 {
            let now = Time::from_nanos(at * 100_000_007);
            recorder.advance(now, &levels, 0.7);
            levels.ready.set(now, [2.0, 3.0][usize::from(at == 7)]);
            levels.in_flight.set(now, 0.1);
            levels.at_work.set(now, 0.1);
        }
        let timeline = recorder.finish(Time::from_secs(301), &levels, 0.7);
        let quiet = &timeline.points[2..];
        assert!(quiet.iter().all(|point| (point.ready, point.queued, point.target) == (2.0, 0.0, 1.4)));
    }

    #[test]
    fn a_last_short_step_is_not_diluted() {
        let mut recorder = Recorder::default();
        let mut levels = Levels::default();
        levels.in_flight.set(Time::EPOCH, 4.0);
        let timeline = recorder.finish(Time::from_millis(2_500), &levels, 1.0);
        assert_eq!(timeline.points.len(), 3);
        assert!(timeline.points.iter().all(|point| (point.in_flight - 4.0).abs() < 1e-9));
    }

    #[test]
    fn sketched_quantiles_are_within_a_bucket() {
        let mut sketch = Sketch::default();
        (1..=1_000).for_each(|ms| sketch.add(Duration::from_millis(ms)));
        for q in [0.1, 0.5, 0.95] {
            let exact = q;
            assert!((sketch.quantile(q) / exact - 1.0).abs() < 0.1, "{q}: {}", sketch.quantile(q));
        }
    }
}
