//! Descriptions of traffic: how much, how bursty, how long it is silent, and what that means for scaling.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use pilotlight_config::duration;
use pilotlight_core::Time;
use pilotlight_histogram::{Durations, NANOSECOND};
use serde::Serialize;

use super::{Loaded, Traffic};

/// The shape of a [`Traffic`] in numbers and, shown, in words.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Description {
    /// The files it was read from.
    pub loaded: Vec<Loaded>,
    /// How many requests.
    pub requests: u64,
    /// How long.
    pub duration_s: f64,
    /// Requests per second over all of it.
    pub mean_rate: f64,
    /// Most requests in one second, counted from the start.
    pub peak_per_second: u64,
    /// Most requests in one minute.
    pub peak_per_minute: u64,
    /// Standard deviation of the gaps between requests over their mean: 0 even, 1 Poisson, above it bursty.
    pub gap_cv: Option<f64>,
    /// Variance over mean of the counts in intervals: 1 for Poisson, whatever the interval. Growing with the
    /// interval means that the rate itself changes.
    pub dispersion: Vec<Dispersion>,
    /// The longest times without a request, longest first.
    pub longest_gaps: Vec<Gap>,
    /// Times without a request that are longer than the default stable window.
    pub silence: Silence,
    /// How long serving takes, if the traffic says so.
    pub service: Option<ServiceQuantiles>,
}

/// Index of dispersion of the counts at one interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Dispersion {
    /// The interval.
    pub interval_s: u64,
    /// Variance over mean.
    pub index: f64,
}

/// A time without a request: before the first, between two, or after the last.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
pub struct Gap {
    /// How long.
    pub length_s: f64,
    /// The beginning of the gap.
    pub start_s: f64,
}

/// Gaps longer than a window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Silence {
    /// The window.
    pub longer_than_s: u64,
    /// How many gaps are longer.
    pub times: u64,
    /// The share of all time that lies in them.
    pub time_fraction: f64,
}

/// Quantiles of known service times, exact to 0.1 %.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ServiceQuantiles {
    /// Requests whose service time is known.
    pub known: u64,
    /// Mean.
    pub mean_s: f64,
    /// Half take no longer.
    pub p50_s: f64,
    /// 90 % take no longer.
    pub p90_s: f64,
    /// 99 % take no longer.
    pub p99_s: f64,
    /// The longest.
    pub max_s: f64,
}

impl Description {
    pub(super) fn of(traffic: &Traffic, seed: u64) -> Self {
        let mut gaps = GapMeter::default();
        let mut counts = [1, 10, 60].map(Bins::new);
        let mut services = Durations::<NANOSECOND, 3>::default();
        let (mut requests, mut longest) = (0u64, Duration::ZERO);
        for arrival in traffic.arrivals(seed) {
            requests += 1;
            gaps.arrive(arrival.at);
            for bins in &mut counts {
                bins.arrive(arrival.at);
            }
            if let Some(service) = arrival.service {
                services.record(service);
                longest = longest.max(service);
            }
        }
        let end = Time::EPOCH + traffic.duration();
        gaps.end(end);
        let seconds = traffic.duration().as_secs_f64();
        let share = |part: f64| if seconds > 0.0 { part / seconds } else { 0.0 };
        Description {
            loaded: traffic.loaded().to_vec(),
            requests,
            duration_s: seconds,
            mean_rate: share(requests as f64),
            peak_per_second: counts[0].peak(),
            peak_per_minute: counts[2].peak(),
            gap_cv: gaps.cv(),
            dispersion: counts
                .iter_mut()
                .filter_map(|bins| {
                    bins.dispersion(end).map(|index| Dispersion { interval_s: bins.width_s, index })
                })
                .collect(),
            silence: Silence {
                longer_than_s: WINDOW.as_secs(),
                times: gaps.silences,
                time_fraction: share(gaps.silent.as_secs_f64()),
            },
            longest_gaps: gaps.longest(),
            service: service_quantiles(&services, longest),
        }
    }

    /// The consequences for scaling, in plain words; empty if there are none.
    pub fn advice(&self) -> Vec<String> {
        let mut advice = Vec::new();
        let hours = self.duration_s / 3_600.0;
        if self.requests == 0 {
            return vec!["The traffic has no requests.".to_owned()];
        }
        let Silence { longer_than_s, times, time_fraction } = self.silence;
        if times == 0 {
            advice.push(format!(
                "Never silent for longer than the default window of {longer_than_s} s: scale to zero will not happen."
            ));
        } else {
            let often = if hours >= 1.0 {
                format!("{} times an hour", short(times as f64 / hours))
            } else {
                format!("{times} times")
            };
            advice.push(format!(
                "Silent for longer than the default window of {longer_than_s} s {often}, {} % of the time: scale to \
                 zero will happen, and the first request after it waits for a pod.",
                short(time_fraction * 100.0)
            ));
        }
        let peak_over_mean = self.peak_per_second as f64 / self.mean_rate;
        if self.peak_per_second >= 10 && peak_over_mean >= 5.0 {
            advice.push(format!(
                "The busiest second has {} times the mean rate: room for bursts (target burst capacity, a lower \
                 target) matters more here than the average load.",
                short(peak_over_mean)
            ));
        }
        if let [second, .., minute] = self.dispersion[..]
            && minute.index > 10.0
            && minute.index > 3.0 * second.index
        {
            advice.push(
                "The rate itself rises and falls: counts per minute vary more than counts per second. Autoscaling pays."
                    .to_owned(),
            );
        }
        advice
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for loaded in &self.loaded {
            writeln!(f, "{loaded}")?;
        }
        let time = |seconds: f64| {
            let digits = if seconds < 1.0 { 1e6 } else { 1e3 };
            duration::format(Duration::from_secs_f64((seconds * digits).round() / digits))
        };
        writeln!(f, "requests        {} in {}", self.requests, time(self.duration_s))?;
        writeln!(
            f,
            "rate            mean {}/s, peak second {}, peak minute {}",
            short(self.mean_rate),
            self.peak_per_second,
            self.peak_per_minute
        )?;
        if let Some(cv) = self.gap_cv {
            write!(f, "burstiness      cv of gaps {}", short(cv))?;
            for (at, Dispersion { interval_s, index }) in self.dispersion.iter().enumerate() {
                let separator = if at == 0 { "; dispersion" } else { "," };
                write!(f, "{separator} {} at {interval_s} s", short(*index))?;
            }
            writeln!(f)?;
        }
        if !self.longest_gaps.is_empty() {
            let gap = |gap: &Gap| format!("{} at {}", time(gap.length_s), time(gap.start_s));
            let all: Vec<_> = self.longest_gaps.iter().map(gap).collect();
            writeln!(f, "longest gaps    {}", all.join(", "))?;
        }
        if let Some(s) = self.service {
            // Quantiles are known to three digits.
            let [mean, p50, p90, p99] = [s.mean_s, s.p50_s, s.p90_s, s.p99_s].map(three_digits);
            let max = time(s.max_s);
            writeln!(f, "service time    mean {mean}, p50 {p50}, p90 {p90}, p99 {p99}, max {max}")?;
        }
        for sentence in self.advice() {
            writeln!(f, "{sentence}")?;
        }
        Ok(())
    }
}

fn service_quantiles(services: &Durations<NANOSECOND, 3>, longest: Duration) -> Option<ServiceQuantiles> {
    // A quantile is the upper edge of a cell, which may lie beyond the longest.
    let at = |q| services.quantile(q).map(|time| time.min(longest).as_secs_f64());
    Some(ServiceQuantiles {
        known: services.count(),
        mean_s: services.mean()?.as_secs_f64(),
        p50_s: at(0.5)?,
        p90_s: at(0.9)?,
        p99_s: at(0.99)?,
        max_s: longest.as_secs_f64(),
    })
}

/// A time with three digits that matter.
fn three_digits(seconds: f64) -> String {
    let digits = 10_f64.powi(if seconds > 0.0 { 2 - seconds.log10().floor() as i32 } else { 0 });
    duration::format(Duration::from_secs_f64((seconds * digits).round() / digits))
}

/// Three digits that matter.
fn short(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let digits = (2 - value.abs().log10().floor() as i32).clamp(0, 9) as usize;
    let shown = format!("{value:.digits$}");
    if shown.contains('.') { shown.trim_end_matches('0').trim_end_matches('.').to_owned() } else { shown }
}

/// Gaps between requests as they come.
#[derive(Debug, Default)]
struct GapMeter {
    last: Option<Time>,
    /// Welford's running mean and sum of squares.
    count: u64,
    mean: f64,
    squares: f64,
    silences: u64,
    silent: Duration,
    longest: Vec<(Duration, Time)>,
}

impl GapMeter {
    fn arrive(&mut self, at: Time) {
        if let Some(last) = self.last {
            let gap = (at - last).as_secs_f64();
            self.count += 1;
            let before = gap - self.mean;
            self.mean += before / self.count as f64;
            self.squares += before * (gap - self.mean);
        }
        self.idle_until(at);
        self.last = Some(at);
    }

    fn end(&mut self, end: Time) {
        self.idle_until(end);
    }

    fn idle_until(&mut self, at: Time) {
        let start = self.last.unwrap_or(Time::EPOCH);
        let length = at - start;
        if length > WINDOW {
            self.silences += 1;
            self.silent += length;
        }
        let is_long =
            self.longest.len() < LONGEST || self.longest.last().is_some_and(|(least, _)| length > *least);
        if is_long && !length.is_zero() {
            let place = self.longest.partition_point(|(longer, _)| *longer >= length);
            self.longest.insert(place, (length, start));
            self.longest.truncate(LONGEST);
        }
    }

    fn cv(&self) -> Option<f64> {
        (self.count > 1 && self.mean > 0.0).then(|| (self.squares / self.count as f64).sqrt() / self.mean)
    }

    fn longest(&self) -> Vec<Gap> {
        let gap = |&(length, start): &(Duration, Time)| Gap {
            length_s: length.as_secs_f64(),
            start_s: start.as_secs_f64(),
        };
        self.longest.iter().map(gap).collect()
    }
}

/// Counts in intervals, of which only how often each count occurs is kept.
#[derive(Debug)]
struct Bins {
    width_s: u64,
    bin: u64,
    count: u64,
    /// Bins by their count; those of zero are reckoned at the end.
    seen: BTreeMap<u64, u64>,
}

impl Bins {
    fn new(width_s: u64) -> Self {
        Bins { width_s, bin: 0, count: 0, seen: BTreeMap::new() }
    }

    fn arrive(&mut self, at: Time) {
        let bin = at.whole_seconds() / self.width_s;
        if bin != self.bin {
            self.close();
            self.bin = bin;
        }
        self.count += 1;
    }

    fn close(&mut self) {
        if self.count > 0 {
            *self.seen.entry(self.count).or_default() += 1;
            self.count = 0;
        }
    }

    fn peak(&mut self) -> u64 {
        self.close();
        self.seen.keys().next_back().copied().unwrap_or(0)
    }

    /// Over all intervals up to `end`, the last of which may be cut short.
    fn dispersion(&mut self, end: Time) -> Option<f64> {
        self.close();
        let bins = (end.as_nanos().div_ceil(1_000_000_000 * self.width_s)) as f64;
        let sum: f64 = self.seen.iter().map(|(&count, &times)| count as f64 * times as f64).sum();
        if bins < 2.0 || sum == 0.0 {
            return None;
        }
        let mean = sum / bins;
        let empty = bins - self.seen.values().map(|&times| times as f64).sum::<f64>();
        let off = |count: f64| (count - mean) * (count - mean);
        let squares = self.seen.iter().map(|(&count, &times)| off(count as f64) * times as f64).sum::<f64>();
        Some((squares + off(0.0) * empty) / bins / mean)
    }
}

/// The default stable window.
const WINDOW: Duration = Duration::from_secs(60);

/// The number of gaps that are told.
const LONGEST: usize = 5;
