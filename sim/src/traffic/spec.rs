//! Traffic as it is written into a scenario, and from there to what can arrive.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use pilotlight_config::duration;

use super::curve::Curve;
use super::error::TrafficError;
use super::markov::Markov;
use super::trace::{self, TraceSpec};
use super::{Origin, Process, Traffic};

/// Traffic as it was written: where it comes from, and what is done to it, in order.
///
/// ```yaml
/// traffic:
///   constant: {rate: 100, for: 10m}
/// ```
///
/// or, with operators, as a list:
///
/// ```yaml
/// traffic:
///   - trace: {file: azure_llm_2023_code.csv, tokens: {base: 100ms, prompt: 50us, generated: 20ms}}
///   - scale: 2
///   - cut: {to: 30m}
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct TrafficSpec {
    /// The source.
    pub source: Source,
    /// The operators, in order.
    pub then: Vec<Operator>,
}

/// A source of traffic. Rates are in requests per second.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A constant rate.
    Constant {
        /// The rate.
        rate: f64,
        /// How long.
        length: Duration,
        /// How arrivals follow the rate.
        arrivals: Process,
    },
    /// One rate after the other.
    Steps {
        /// The rates and how long each holds.
        steps: Vec<RateStep>,
        /// How arrivals follow the rate.
        arrivals: Process,
    },
    /// From one rate to another in a straight line.
    Ramp {
        /// The rate at the start.
        from: f64,
        /// The rate at the end.
        to: f64,
        /// How long.
        length: Duration,
        /// How arrivals follow the rate.
        arrivals: Process,
    },
    /// A wave that begins at its mean and rises.
    Sine {
        /// The rate in the middle.
        mean: f64,
        /// How far the rate rises above the mean, and falls below it.
        amplitude: f64,
        /// From wave to wave.
        period: Duration,
        /// How long.
        length: Duration,
        /// How arrivals follow the rate.
        arrivals: Process,
    },
    /// Days from midnight to midnight, as an office and a home have them.
    Diurnal {
        /// The rate at four in the morning.
        trough: f64,
        /// The rate at eleven.
        peak: f64,
        /// How long a day is; shorter for a day in fast motion.
        day: Duration,
        /// How long; a day if left out.
        length: Option<Duration>,
        /// How arrivals follow the rate.
        arrivals: Process,
    },
    /// Calm, and bursts at regular times; it begins calm.
    Bursts {
        /// The rate while it is calm.
        base: f64,
        /// The rate during a burst.
        burst: f64,
        /// How long a burst is.
        length: Duration,
        /// From burst to burst.
        every: Duration,
        /// How long it all is.
        total: Duration,
        /// How arrivals follow the rate.
        arrivals: Process,
    },
    /// Poisson arrivals whose rate changes at random: a Markov-modulated Poisson process.
    Mmpp {
        /// The states; after each comes any other, as likely as another.
        states: Vec<MarkovState>,
        /// How long.
        length: Duration,
    },
    /// Many at the same instant, every so often; the first at the start.
    Concurrent {
        /// How many.
        requests: u32,
        /// From one time to the next.
        every: Duration,
        /// How long.
        length: Duration,
    },
    /// A recorded trace.
    Trace(TraceSpec),
    /// Several at the same time.
    Merge(Vec<TrafficSpec>),
    /// One after the other.
    Sequence(Vec<TrafficSpec>),
}

/// A rate and how long it holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateStep {
    /// Requests per second.
    pub rate: f64,
    /// How long.
    pub length: Duration,
}

/// A state of [`Source::Mmpp`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MarkovState {
    /// Requests per second.
    pub rate: f64,
    /// How long it lasts on average; the time itself is exponential.
    pub mean: Duration,
}

/// An operator on traffic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operator {
    /// [`Traffic::scale`]: the rate times this.
    Scale(f64),
    /// [`Traffic::speed`]: time passes so many times faster.
    Speed(f64),
    /// The opposite of speed: it takes so many times longer.
    Stretch(f64),
    /// [`Traffic::shift`]: silence of this length first.
    Shift(Duration),
    /// [`Traffic::cut`]: only a part.
    Cut {
        /// From here; the start if left out.
        from: Duration,
        /// Up to here; the end if left out.
        to: Option<Duration>,
    },
    /// [`Traffic::repeat`]: so many times in all.
    Repeat(u32),
}

impl From<Source> for TrafficSpec {
    fn from(source: Source) -> Self {
        TrafficSpec { source, then: Vec::new() }
    }
}

pub(super) fn load(spec: &TrafficSpec, base_dir: &Path) -> Result<Traffic, TrafficError> {
    let source = load_source(&spec.source, base_dir);
    // A source alone is no list.
    let mut traffic = if spec.then.is_empty() { source } else { source.map_err(|error| error.below("[0]")) }?;
    for (at, operator) in (1..).zip(&spec.then) {
        traffic = operator.apply(&traffic).map_err(|error| error.below(&format!("[{at}]")))?;
    }
    Ok(traffic)
}

fn load_source(source: &Source, base_dir: &Path) -> Result<Traffic, TrafficError> {
    let all = |parts: &[TrafficSpec], name| {
        not_empty(parts, name)?;
        let place = |at, error: TrafficError| error.below(&format!("{name}[{at}]"));
        let loaded = (0..).zip(parts);
        loaded.map(|(at, part)| load(part, base_dir).map_err(|e| place(at, e))).collect::<Result<Vec<_>, _>>()
    };
    let (curve, arrivals, length) = match source {
        Source::Trace(spec) => return trace::load(spec, base_dir),
        Source::Merge(parts) => return Ok(Traffic::merge(all(parts, "merge")?)),
        Source::Sequence(parts) => return Ok(Traffic::sequence(all(parts, "sequence")?)),
        Source::Mmpp { states, length } => {
            not_empty(states, "mmpp.states")?;
            for (at, state) in states.iter().enumerate() {
                rate(&format!("mmpp.states[{at}].rate"), state.rate)?;
                time(&format!("mmpp.states[{at}].mean"), state.mean)?;
            }
            let markov = Markov::new(states.iter().map(|state| (state.rate, state.mean)));
            return Ok(Traffic::of(Origin::Markov(markov), time("mmpp.for", *length)?));
        }
        Source::Concurrent { requests, every, length } => {
            rule::requests(*requests).map_err(|rule| setting("concurrent.requests", requests, rule))?;
            let every = time("concurrent.every", *every)?;
            let origin = Origin::Together { requests: *requests, every };
            return Ok(Traffic::of(origin, time("concurrent.for", *length)?));
        }
        Source::Constant { rate: level, length, arrivals } => {
            let level = rate("constant.rate", *level)?;
            let length = time("constant.for", *length)?;
            (Curve::new([(length, level, level)]), arrivals, length)
        }
        Source::Steps { steps, arrivals } => {
            not_empty(steps, "steps.steps")?;
            for (at, step) in steps.iter().enumerate() {
                rate(&format!("steps.steps[{at}].rate"), step.rate)?;
                time(&format!("steps.steps[{at}].for"), step.length)?;
            }
            let length = steps.iter().fold(Duration::ZERO, |sum, step| sum.saturating_add(step.length));
            let lines = steps.iter().map(|step| (step.length, step.rate, step.rate));
            (Curve::new(lines), arrivals, time("steps.steps", length)?)
        }
        Source::Ramp { from, to, length, arrivals } => {
            let length = time("ramp.for", *length)?;
            (Curve::new([(length, rate("ramp.from", *from)?, rate("ramp.to", *to)?)]), arrivals, length)
        }
        Source::Sine { mean, amplitude, period, length, arrivals } => {
            rate("sine.mean", *mean)?;
            if rate("sine.amplitude", *amplitude)? > *mean {
                return Err(setting("sine.amplitude", amplitude, "must not be above the mean"));
            }
            let curve = Curve::sine(*mean, *amplitude, time("sine.period", *period)?);
            (curve, arrivals, time("sine.for", *length)?)
        }
        Source::Diurnal { trough, peak, day, length, arrivals } => {
            rate("diurnal.trough", *trough)?;
            if rate("diurnal.peak", *peak)? < *trough {
                return Err(setting("diurnal.peak", peak, "must not be below the trough"));
            }
            let curve = Curve::day(*trough, *peak, time("diurnal.day", *day)?);
            (curve, arrivals, time("diurnal.for", length.unwrap_or(*day))?)
        }
        Source::Bursts { base, burst, length, every, total, arrivals } => {
            rate("bursts.base", *base)?;
            rate("bursts.burst", *burst)?;
            if time("bursts.length", *length)? > time("bursts.every", *every)? {
                let shown = duration::format(*length);
                return Err(setting("bursts.length", shown, "must not be longer than from burst to burst"));
            }
            let lines = [(*every - *length, *base, *base), (*length, *burst, *burst)];
            (Curve::new(lines), arrivals, time("bursts.for", *total)?)
        }
    };
    Ok(Traffic::of(Origin::Curve { curve, arrivals: *arrivals, services: None }, length))
}

impl Operator {
    /// The traffic with this done to it.
    pub fn apply(self, traffic: &Traffic) -> Result<Traffic, TrafficError> {
        Ok(match self {
            Operator::Scale(by) => traffic.scale(factor("scale", by)?),
            Operator::Speed(by) => traffic.speed(factor("speed", by)?),
            Operator::Stretch(by) => traffic.speed(factor("stretch", by)?.recip()),
            Operator::Shift(by) => traffic.shift(by),
            Operator::Cut { from, to } => {
                let to = to.unwrap_or(Duration::MAX);
                if to <= from {
                    return Err(setting(
                        "cut.to",
                        duration::format(to),
                        "must be after where the cut begins",
                    ));
                }
                if from >= traffic.duration() {
                    let rule = "lies beyond the end of the traffic";
                    return Err(setting("cut.from", duration::format(from), rule));
                }
                traffic.cut(from, to)
            }
            Operator::Repeat(times) => {
                traffic.repeat(rule::times(times).map_err(|rule| setting("repeat", times, rule))?)
            }
        })
    }
}

fn rate(field: &str, value: f64) -> Result<f64, TrafficError> {
    rule::rate(value).map_err(|rule| setting(field, value, rule))
}

fn factor(field: &str, value: f64) -> Result<f64, TrafficError> {
    rule::factor(value).map_err(|rule| setting(field, value, rule))
}

fn time(field: &str, value: Duration) -> Result<Duration, TrafficError> {
    rule::length(value).map_err(|rule| setting(field, duration::format(value), rule))
}

fn not_empty<T>(list: &[T], field: &str) -> Result<(), TrafficError> {
    if list.is_empty() { Err(setting(field, "[]", rule::NOT_EMPTY)) } else { Ok(()) }
}

pub(super) fn setting(field: &str, value: impl fmt::Display, rule: &'static str) -> TrafficError {
    TrafficError::Setting { field: field.to_owned(), value: value.to_string(), rule }
}

/// Rules for the numbers of traffic, whether they are read or come from code.
pub(super) mod rule {
    use std::time::Duration;

    pub(in crate::traffic) const MISSING: &str = "is missing";
    pub(in crate::traffic) const NUMBER: &str = "is not a number";
    pub(in crate::traffic) const NOT_EMPTY: &str = "must have at least one entry";

    /// A rate that can be meant.
    pub(in crate::traffic) fn rate(value: f64) -> Result<f64, &'static str> {
        let is_legal = (0.0..=1e9).contains(&value);
        if is_legal { Ok(value) } else { Err("is not a rate: 0 to 1e9 requests per second") }
    }

    pub(in crate::traffic) fn factor(value: f64) -> Result<f64, &'static str> {
        let is_legal = (1e-9..=1e9).contains(&value);
        if is_legal { Ok(value) } else { Err("is not a factor above zero") }
    }

    /// A century at most: far from where nanoseconds in 64 bits end, whatever is done to it.
    pub(in crate::traffic) fn length(value: Duration) -> Result<Duration, &'static str> {
        let is_legal = !value.is_zero() && value <= Duration::from_secs(100 * 366 * 86_400);
        if is_legal { Ok(value) } else { Err("must be above zero and at most a hundred years") }
    }

    pub(in crate::traffic) fn requests(value: u32) -> Result<u32, &'static str> {
        if value > 0 { Ok(value) } else { Err("must be above zero") }
    }

    pub(in crate::traffic) fn times(value: u32) -> Result<u32, &'static str> {
        if (1..=1_000_000).contains(&value) { Ok(value) } else { Err("must be from 1 to 1000000") }
    }
}
