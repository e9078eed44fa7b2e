//! Windowed averages of a sampled value, and the windowed maximum that delays scaling down. Time comes in as
//! an argument; nothing here reads a clock.
//!
//! Knative's names: `TimedFloat64Buckets` and `WeightedFloat64Buckets` (pkg/autoscaler/aggregation), and
//! `max.TimeWindow`. Their boundary behaviour is kept to the letter, quirks included, because tuned systems
//! rely on it; `docs/algorithm.md` works the quirks out in numbers.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cadence::TICK;
use crate::{Aggregation, Time};

/// A sliding window over one-second buckets. What lands in the same second adds up; the average is per second.
///
/// ```
/// use pilotlight_core::{Aggregation, Time, Window};
/// use std::time::Duration;
/// let mut window = Window::new(Duration::from_secs(5), Aggregation::Linear);
/// for (second, value) in [(0, 1.0), (1, 2.0), (2, 3.0)] {
///     window.record(Time::from_secs(second), value);
/// }
/// assert_eq!(window.average(Time::from_secs(2)), 2.0); // young: only the elapsed seconds count
/// ```
#[derive(Clone, Debug)]
pub struct Window {
    /// A ring: second `s` lives in slot `s % len`.
    buckets: Vec<f64>,
    weighting: Weighting,
    /// The second of the oldest value that still counts; `None` after a resize found only stale data.
    first_write: Option<i64>,
    /// The newest second written; `None` before the first record.
    last_write: Option<i64>,
    /// The sum of all buckets, kept up to date so that a linear average need not add them up.
    total: f64,
}

/// The buckets of one [`Window`]. The default is a window that was never written to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WindowHistory {
    /// The window's length in seconds.
    pub seconds: u64,
    /// The second of the oldest value that counts; `None`: the window counts as full.
    pub oldest: Option<i64>,
    /// The second of the newest value; `None`: there is none.
    pub newest: Option<i64>,
    /// One value a second, the newest last. Leading zeros are left out.
    pub values: Vec<f64>,
}

#[derive(Clone, Copy, Debug)]
enum Weighting {
    Linear,
    /// Each older second weighs `1 - coefficient` of the next younger one.
    Exponential {
        coefficient: f64,
    },
}

impl Window {
    /// An empty window. `length` is rounded up to whole seconds, at least one.
    pub fn new(length: Duration, aggregation: Aggregation) -> Self {
        let seconds = whole_seconds_up(length);
        Window {
            buckets: vec![0.0; seconds],
            weighting: match aggregation {
                Aggregation::Linear => Weighting::Linear,
                Aggregation::WeightedExponential => Weighting::exponential(seconds),
            },
            first_write: None,
            last_write: None,
            total: 0.0,
        }
    }

    /// A window that goes on from what another one remembered. A history of another length is resized first.
    pub fn resume(now: Time, length: Duration, aggregation: Aggregation, history: &WindowHistory) -> Self {
        let seconds = Duration::from_secs(history.seconds.clamp(1, LONGEST_HISTORY_SECONDS));
        let mut window = Window::new(seconds, aggregation);
        window.first_write = history.oldest;
        window.last_write = history.newest;
        if let Some(newest) = history.newest {
            for (second, value) in
                (i64::MIN..=newest).rev().zip(history.values.iter().rev()).take(window.buckets.len())
            {
                let slot = window.slot(second);
                window.buckets[slot] = *value;
                window.total += value;
            }
        }
        window.resize(now, length);
        window
    }

    /// Everything [`Window::resume`] needs.
    pub fn history(&self) -> WindowHistory {
        let values = match self.last_write {
            None => Vec::new(),
            Some(last) => (last - self.len() + 1..=last)
                .map(|second| self.buckets[self.slot(second)])
                .skip_while(|value| *value == 0.0)
                .collect(),
        };
        WindowHistory {
            seconds: self.buckets.len() as u64,
            oldest: self.first_write,
            newest: self.last_write,
            values,
        }
    }

    /// Adds `value` to the bucket of its second. A value older than the window is dropped.
    pub fn record(&mut self, at: Time, value: f64) {
        let second = second_of(at);
        if self.last_write != Some(second) && !self.open(second) {
            return;
        }
        let slot = self.slot(second);
        self.buckets[slot] += value;
        self.total += value;
    }

    /// Whether the last write is more than a whole window ago. At exactly one window the answer is still no,
    /// though the average is already 0.
    pub fn is_empty(&self, now: Time) -> bool {
        self.last_write.is_none_or(|last| second_of(now) - last > self.len())
    }

    /// The average per second.
    ///
    /// Linear: silence in between counts as zeros, silence at the end shrinks the divisor instead; rounded to
    /// six decimals. Exponential: not normalised (one sample `v` reads `coefficient * v`) and not rounded.
    pub fn average(&self, now: Time) -> f64 {
        let Some(last) = self.last_write else { return 0.0 };
        let silent = (second_of(now) - last).max(0);
        if silent >= self.len() {
            return 0.0;
        }
        match self.weighting {
            Weighting::Linear => self.linear_average(last, silent),
            Weighting::Exponential { coefficient } => self.exponential_average(last, silent, coefficient),
        }
    }

    /// Changes the length and keeps the newest values that fit, unless all are stale.
    pub fn resize(&mut self, now: Time, length: Duration) {
        let seconds = whole_seconds_up(length);
        if seconds == self.buckets.len() {
            return;
        }
        let mut resized = vec![0.0; seconds];
        self.total = 0.0;
        self.first_write = None;
        if let Some(last) = self.last_write.filter(|last| second_of(now) - last <= self.len()) {
            for second in (last - self.len().min(seconds as i64) + 1)..=last {
                let value = self.buckets[self.slot(second)];
                resized[second.rem_euclid(seconds as i64) as usize] = value;
                self.total += value;
            }
            // The old length, not the new one: a partly filled ring is treated as having been full.
            self.first_write = Some(last - self.len() + 1);
        }
        self.buckets = resized;
        if let Weighting::Exponential { coefficient } = &mut self.weighting {
            *coefficient = exponential_coefficient(seconds);
        }
    }

    /// Makes `second` the place to write to. False if it lies before the window.
    fn open(&mut self, second: i64) -> bool {
        let last = self.last_write.unwrap_or(NEVER);
        if second + self.len() <= last {
            return false;
        }
        if self.first_write.is_none_or(|first| first > second) {
            self.first_write = Some(second);
        }
        if second > last {
            if second - last >= self.len() {
                self.first_write = Some(second);
                self.buckets.fill(0.0);
                self.total = 0.0;
            } else {
                for stale in last + 1..=second {
                    let slot = self.slot(stale);
                    self.total -= self.buckets[slot];
                    self.buckets[slot] = 0.0;
                }
            }
            self.last_write = Some(second);
        }
        true
    }

    fn linear_average(&self, last: i64, silent: i64) -> f64 {
        let mut total = self.total;
        for expired in last + 1..=last + silent {
            total -= self.buckets[self.slot(expired)];
        }
        let written = self.first_write.map_or(self.len(), |first| last - first + 1);
        let seconds = written.min(self.len() - silent);
        round_to_micros(total / seconds as f64)
    }

    fn exponential_average(&self, last: i64, silent: i64, coefficient: f64) -> f64 {
        let decay = 1.0 - coefficient;
        let mut weight = coefficient * decay.powi(silent as i32);
        let mut sum = 0.0;
        // From the newest second backwards around the ring, without a division per step.
        let newest = self.slot(last);
        let counted = (self.len() - silent) as usize;
        let (wrapped, straight) = (&self.buckets[newest + 1..], &self.buckets[..=newest]);
        for value in straight.iter().rev().chain(wrapped.iter().rev()).take(counted) {
            sum += value * weight;
            weight *= decay;
        }
        sum
    }

    fn slot(&self, second: i64) -> usize {
        second.rem_euclid(self.len()) as usize
    }

    fn len(&self) -> i64 {
        self.buckets.len() as i64
    }
}

impl Weighting {
    fn exponential(seconds: usize) -> Self {
        Weighting::Exponential { coefficient: exponential_coefficient(seconds) }
    }
}

/// The highest of the values recorded in the last while: a number of pods is only followed downwards when it
/// has been lower for the whole delay.
#[derive(Clone, Debug)]
pub struct DelayWindow {
    /// How many two-second slots a value lives.
    slots: u64,
    /// Slot and value; values strictly fall from front to back, so the front is the maximum.
    maxima: VecDeque<(u64, u32)>,
}

impl DelayWindow {
    /// A window that remembers for `delay`, in slots of two seconds. `None` for no delay: a window of one
    /// slot would still hold values for up to two seconds.
    pub fn new(delay: Duration) -> Option<Self> {
        let slots = whole_seconds_up(delay).div_ceil(SLOT_SECONDS as usize) as u64;
        (!delay.is_zero()).then(|| DelayWindow { slots, maxima: VecDeque::new() })
    }

    /// A window that goes on with the maxima another one remembered.
    pub(crate) fn resume(delay: Duration, maxima: &[(u64, u32)]) -> Option<Self> {
        Self::new(delay).map(|window| DelayWindow { maxima: maxima.iter().copied().collect(), ..window })
    }

    /// The maxima still remembered: slot and value, oldest first.
    pub(crate) fn maxima(&self) -> Vec<(u64, u32)> {
        self.maxima.iter().copied().collect()
    }

    /// Adds a value and returns the highest one still remembered.
    pub fn record(&mut self, now: Time, value: u32) -> u32 {
        self.record_slot(now.whole_seconds() / SLOT_SECONDS, value)
    }

    fn record_slot(&mut self, slot: u64, value: u32) -> u32 {
        // A value that is not higher than the new one can never be the maximum again.
        while self.maxima.back().is_some_and(|&(_, last)| value >= last) {
            self.maxima.pop_back();
        }
        while self.maxima.front().is_some_and(|&(first, _)| slot.saturating_sub(first) >= self.slots) {
            self.maxima.pop_front();
        }
        if self.maxima.back().is_none_or(|&(last, _)| last != slot) {
            self.maxima.push_back((slot, value));
        }
        self.maxima.front().map_or(value, |&(_, highest)| highest)
    }
}

/// The weight of the newest second: 99.99 % of all weight lies within the window, but never less than 20 %
/// on the newest second (from 42 seconds on).
fn exponential_coefficient(seconds: usize) -> f64 {
    (1.0 - (1.0f64 - 0.9999).powf(1.0 / seconds as f64)).max(0.2)
}

/// Six decimals, half away from zero.
fn round_to_micros(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

fn whole_seconds_up(length: Duration) -> usize {
    (length.as_secs() as usize + usize::from(length.subsec_nanos() > 0)).max(1)
}

fn second_of(time: Time) -> i64 {
    time.whole_seconds() as i64
}

/// Before any second there can be, with room to subtract from.
const NEVER: i64 = i64::MIN / 2;

/// The longest window there can be is an hour; a history that claims more than a day is damaged.
const LONGEST_HISTORY_SECONDS: u64 = 24 * 3600;

/// The delay window remembers as finely as there are decisions.
const SLOT_SECONDS: u64 = TICK.period.as_secs();

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Time {
        Time::from_secs(BASE + seconds)
    }
    fn linear(seconds: u64) -> Window {
        Window::new(Duration::from_secs(seconds), Aggregation::Linear)
    }
    fn weighted(seconds: u64) -> Window {
        Window::new(Duration::from_secs(seconds), Aggregation::WeightedExponential)
    }
    fn filled(seconds: u64, values: impl IntoIterator<Item = (u64, f64)>) -> Window {
        let mut window = linear(seconds);
        values.into_iter().for_each(|(at, value)| window.record(s(at), value));
        window
    }
    const BASE: u64 = 1_000_000;

    #[test]
    fn linear_average_follows_the_reference_script() {
        let mut w = linear(5);
        w.record(s(0), 1.0);
        assert_eq!(w.average(s(0)), 1.0);
        for second in 1..=4 {
            w.record(s(second), (second + 1) as f64);
        }
        assert_eq!(w.average(s(4)), 3.0);
        assert_eq!(w.average(Time::from_millis((BASE + 3) * 1000 + 600)), 3.0, "reading the past");
        assert_eq!(w.average(s(6)), 4.0, "(15 - 1 - 2) / 3: silence shrinks the divisor");
        assert_eq!(w.average(s(10)), 0.0);
        w.record(s(6), 91.0);
        assert_eq!(w.average(s(6)), 20.6);
        w.record(s(60), 1984.0);
        assert_eq!(w.average(s(60)), 1984.0);
        w.record(s(57), 4.0);
        assert_eq!(w.average(s(60)), 497.0, "a late value extends the window backwards");
        w.record(s(61), 5.0);
        assert_eq!(w.average(s(61)), 398.6);
        w.record(s(58), 10.0);
        assert_eq!(w.average(s(61)), 400.6);
        w.record(s(55), 10.0);
        w.record(s(56), 10.0);
        assert_eq!(w.average(s(61)), 400.6, "values a window old are ignored");
        w.record(s(66), 10.0);
        assert_eq!(w.average(s(66)), 10.0, "exactly one window later all else is gone");
    }

    #[test]
    fn values_may_arrive_in_descending_order() {
        let w = filled(5, (0..=8).rev().map(|second| (second, 5.0)));
        assert_eq!(w.average(s(5)), 5.0);
    }

    #[test]
    fn a_window_is_not_empty_at_exactly_its_length_though_its_average_is_zero() {
        let w = filled(5, [(0, 10.0)]);
        assert!(!w.is_empty(s(5)) && w.average(s(5)) == 0.0);
        assert!(w.is_empty(s(6)));
        assert!(linear(5).is_empty(s(0)));
    }

    #[test]
    fn resizing_keeps_the_newest_values() {
        let mut w = filled(5, (0..=5).map(|second| (second, (second + 1) as f64)));
        assert_eq!(w.average(s(5)), 4.0);
        w.resize(s(5), Duration::from_secs(10));
        assert_eq!(w.average(s(5)), 4.0);
        w.record(s(6), 7.0);
        assert_eq!(w.average(s(6)), 4.5);
        w.resize(s(6), Duration::from_secs(4));
        assert_eq!(w.average(s(6)), 5.5);
    }

    #[test]
    fn resizing_after_a_silent_window_forgets_everything() {
        let mut w = filled(5, [(0, 10.0)]);
        w.resize(s(6), Duration::from_secs(10));
        assert_eq!((w.average(s(6)), w.first_write), (0.0, None));
    }

    #[test]
    fn stable_and_panic_windows_read_the_same_samples_differently() {
        let samples = (0..10).map(|second| (second, (second + 5) as f64));
        assert_eq!(filled(6, samples.clone()).average(s(9)), 11.5);
        assert_eq!(filled(2, samples).average(s(9)), 13.5);
    }

    #[test]
    fn what_lands_in_one_second_adds_up() {
        let w = filled(60, [(0, 10.0), (0, 10.0), (0, 10.0), (1, 10.0), (1, 10.0), (1, 10.0), (1, 10.0)]);
        assert_eq!(w.average(s(1)), 35.0);
        let w = filled(60, [(0, 10.0); 5]);
        assert_eq!(w.average(s(55)), 50.0);
        let mut w = linear(60);
        w.record(Time::from_secs(BASE - 70), 100.0);
        w.record(s(0), 10.0);
        assert_eq!(w.average(s(0)), 10.0);
    }

    #[test]
    fn exponential_coefficients_are_the_published_ones() {
        let table = [
            (1, 0.9999),
            (3, 0.953_584),
            (5, 0.841_511),
            (6, 0.784_557),
            (10, 0.601_893),
            (30, 0.264_358),
            (40, 0.205_672),
            (41, 0.201_198),
            (42, 0.2),
            (60, 0.2),
            (3600, 0.2),
        ];
        for (seconds, expected) in table {
            assert!((exponential_coefficient(seconds) - expected).abs() < 1e-6, "{seconds}");
        }
    }

    #[test]
    fn exponential_average_is_not_normalised() {
        let mut w = weighted(5);
        w.record(s(0), 2.0);
        assert!((w.average(s(0)) - 1.683_021).abs() < 1e-6);
        assert!((w.average(s(1)) - 0.266_741).abs() < 1e-6);
        let mut w = weighted(5);
        for second in 0..5 {
            w.record(s(second), (second + 2) as f64);
        }
        assert!((w.average(s(4)) - 5.811_58).abs() < 1e-4);
    }

    #[test]
    fn the_delay_window_holds_the_highest_recent_value() {
        let run = |values: &[u32]| -> Vec<u32> {
            let mut w = DelayWindow::new(Duration::from_secs(10)).unwrap();
            values.iter().zip(0..).map(|(&v, slot)| w.record_slot(slot, v)).collect()
        };
        assert_eq!(run(&[5, 6, 5, 5, 5, 5, 5]), [5, 6, 6, 6, 6, 6, 5]);
        assert_eq!(
            run(&[5, 8, 5, 7, 5, 5, 1, 4, 4, 4, 4, 9, 3, 4, 2, 1, 0]),
            [5, 8, 8, 8, 8, 8, 7, 7, 5, 5, 4, 9, 9, 9, 9, 9, 4]
        );
    }

    #[test]
    fn the_delay_window_keeps_the_larger_value_of_one_slot() {
        let mut w = DelayWindow::new(Duration::from_secs(10)).unwrap();
        assert!((1..=7).rev().all(|value| w.record_slot(3, value) == 7));
        let mut w = DelayWindow::new(Duration::from_secs(10)).unwrap();
        assert_eq!(
            [w.record_slot(0, 6), w.record_slot(1, 5), w.record_slot(2, 2), w.record_slot(6, 1)],
            [6, 6, 6, 2]
        );
    }

    #[test]
    fn no_delay_means_no_window() {
        assert!(DelayWindow::new(Duration::ZERO).is_none());
    }
}
