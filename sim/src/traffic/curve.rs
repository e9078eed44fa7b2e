//! A rate over time, and its integral turned around: at what time have so many requests been due?
//!
//! Every curve is a chain of straight lines that may jump where they meet, repeated for ever. Steps, ramps and
//! bursts are that by nature; a sine is drawn with 1,440 lines a period, which is within 0.00024 % of its
//! amplitude.

use std::sync::Arc;
use std::time::Duration;

use pilotlight_core::{Rng, Time};

use super::Origin;
use super::process::Gaps;

/// A rate over time that repeats itself.
#[derive(Clone, Debug)]
pub(super) struct Curve {
    lines: Box<[Line]>,
    period_nanos: u64,
    /// Requests due in one period.
    mass: f64,
}

/// A straight line of a curve. Times are in nanoseconds, rates in requests per nanosecond.
#[derive(Clone, Copy, Debug)]
struct Line {
    start_nanos: u64,
    length_nanos: f64,
    rate: f64,
    /// Twice the change of the rate per nanosecond.
    bend: f64,
    /// Requests due in the period before this line, and until its end.
    mass_before: f64,
    mass_until: f64,
}

impl Curve {
    /// Lines by their length and the rates, per second, they begin and end with. Lines of no length are left out.
    pub(super) fn new(lines: impl IntoIterator<Item = (Duration, f64, f64)>) -> Self {
        let (mut drawn, mut start_nanos, mut mass) = (Vec::new(), 0u64, 0.0);
        for (length, from, to) in lines {
            let nanos = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
            if nanos == 0 {
                continue;
            }
            let length_nanos = nanos as f64;
            let (rate, end_rate) = (from / NANOS, to / NANOS);
            let mass_until = mass + 0.5 * (rate + end_rate) * length_nanos;
            let bend = 2.0 * (end_rate - rate) / length_nanos;
            drawn.push(Line { start_nanos, length_nanos, rate, bend, mass_before: mass, mass_until });
            mass = mass_until;
            start_nanos = start_nanos.saturating_add(nanos);
        }
        Curve { lines: drawn.into(), period_nanos: start_nanos, mass }
    }

    /// A wave around `mean`, beginning there and rising.
    pub(super) fn sine(mean: f64, amplitude: f64, period: Duration) -> Self {
        Curve::smooth(period, 1_440, |share| mean + amplitude * (std::f64::consts::TAU * share).sin())
    }

    /// A day from midnight to midnight, with its deepest hour at 4 and its highest at 11.
    pub(super) fn day(trough: f64, peak: f64, day: Duration) -> Self {
        Curve::smooth(day, DAY.len() as u64, |share| {
            let hour = (share * DAY.len() as f64).round() as usize % DAY.len();
            trough + (peak - trough) * DAY[hour]
        })
    }

    fn smooth(period: Duration, lines: u64, rate: impl Fn(f64) -> f64) -> Self {
        let nanos = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        let start = |line: u64| (u128::from(nanos) * u128::from(line) / u128::from(lines)) as u64;
        let at = |line: u64| rate(line as f64 / lines as f64);
        Curve::new(
            (0..lines)
                .map(|line| (Duration::from_nanos(start(line + 1) - start(line)), at(line), at(line + 1))),
        )
    }

    /// Requests due until `at`.
    fn mass_until(&self, at: Time) -> f64 {
        if self.period_nanos == 0 {
            return 0.0;
        }
        let (periods, within) = (at.as_nanos() / self.period_nanos, at.as_nanos() % self.period_nanos);
        let line = self.lines[self.lines.partition_point(|line| line.start_nanos <= within) - 1];
        let x = (within - line.start_nanos) as f64;
        periods as f64 * self.mass + line.mass_before + x * (line.rate + 0.25 * line.bend * x)
    }
}

/// A walk along a curve, from one due request to the next.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    origin: Arc<Origin>,
    gaps: Gaps,
    /// Operational time of the next request, and what a gap of 1 is in it.
    due: f64,
    step: f64,
    /// The next request is this one, counted from the start of the curve; only where gaps are all the same.
    count: u64,
    line: usize,
    /// The period the walk is in: its start, and the requests due before it.
    period_start_nanos: u64,
    mass_before_period: f64,
    last: Time,
}

impl Walk {
    /// Starts at `from`. `first` is the first gap. The origin is a curve.
    pub(super) fn new(origin: Arc<Origin>, from: Time, scale: f64, gaps: Gaps, first: f64) -> Self {
        let step = scale.recip();
        let mut walk = Walk {
            origin,
            gaps,
            due: 0.0,
            step,
            count: 0,
            line: 0,
            period_start_nanos: 0,
            mass_before_period: 0.0,
            last: Time::EPOCH,
        };
        let Origin::Curve { curve, .. } = &*walk.origin else { return walk };
        let mass = curve.mass_until(from);
        let periods = from.as_nanos().checked_div(curve.period_nanos).unwrap_or(0);
        walk.period_start_nanos = periods * curve.period_nanos;
        walk.mass_before_period = periods as f64 * curve.mass;
        if let Gaps::Uniform = walk.gaps {
            // One too early rather than one too late: what lies before `from` is passed over by the caller.
            walk.count = (mass * scale).floor().max(0.0) as u64;
            walk.due = walk.count as f64 * step;
            if walk.due < walk.mass_before_period {
                walk.count += 1;
                walk.due = walk.count as f64 * step;
            }
        } else {
            walk.due = mass + first * step;
            walk.last = from;
        }
        walk
    }

    /// The time at which the next request is due; `None` if that is never.
    #[inline]
    pub(super) fn next(&mut self, rng: &mut Rng) -> Option<Time> {
        let Origin::Curve { curve, .. } = &*self.origin else { return None };
        if curve.mass <= 0.0 || !self.due.is_finite() {
            return None;
        }
        let mut due = self.due - self.mass_before_period;
        let mut line = &curve.lines[self.line];
        while due >= line.mass_until {
            self.line += 1;
            if self.line == curve.lines.len() {
                // Whole periods are passed over at once.
                let periods = (due / curve.mass).floor().max(1.0);
                self.line = 0;
                self.period_start_nanos =
                    self.period_start_nanos.checked_add((periods * curve.period_nanos as f64) as u64)?;
                self.mass_before_period += periods * curve.mass;
                due = self.due - self.mass_before_period;
            }
            line = &curve.lines[self.line];
        }
        let needed = (due - line.mass_before).max(0.0);
        let x = if line.bend == 0.0 {
            needed / line.rate
        } else if needed > 0.0 {
            // The stable solution of the quadratic equation.
            let root = (line.rate * line.rate + line.bend * needed).max(0.0).sqrt();
            2.0 * needed / (line.rate + root)
        } else {
            // A ramp may begin at a rate of zero.
            0.0
        };
        let x = x.min(line.length_nanos);
        let nanos = self.period_start_nanos.checked_add(line.start_nanos)?;
        let at = Time::from_nanos(nanos.saturating_add((x + 0.5) as u64)).max(self.last);
        self.last = at;
        self.count += 1;
        self.due = match self.gaps {
            // Multiplied, not added up: the millionth request is as exact as the first.
            Gaps::Uniform => self.count as f64 * self.step,
            _ => self.due + self.gaps.next(rng) * self.step,
        };
        Some(at)
    }
}

const NANOS: f64 = 1e9;

/// A working day's load by the hour, from its trough (0) to its peak (1): asleep at four, at work from eight, a dip
/// at lunch, a second rise after it, and an evening at home.
const DAY: [f64; 24] = [
    0.24, 0.14, 0.06, 0.02, 0.00, 0.03, 0.12, 0.30, 0.58, 0.84, 0.97, 1.00, 0.90, 0.86, 0.93, 0.95, 0.88,
    0.76, 0.66, 0.64, 0.66, 0.60, 0.50, 0.36,
];
