//! Quantiles of many durations in little memory, for the simulator, the activator's books, and the load test.

use std::time::Duration;

use hdrhistogram::Histogram;

/// A distribution of durations. Quantiles hold to `DIGITS` decimal digits (2: 1 %, 3: 0.1 %; at most 5) and tell apart
/// what differs by `UNIT_NANOS`; count, sum, mean, shortest and longest are exact.
///
/// Memory follows the longest duration, not how many there are, and there is none before the first above zero.
///
/// ```
/// use pilotlight_histogram::{Durations, MICROSECOND};
/// use std::time::Duration;
/// let mut latency = Durations::<MICROSECOND, 3>::default();
/// (1..=100).for_each(|millis| latency.record(Duration::from_millis(millis)));
/// assert_eq!(latency.mean(), Some(Duration::from_micros(50_500)));
/// let off = latency.quantile(0.95).unwrap().abs_diff(Duration::from_millis(95));
/// assert!(off < Duration::from_micros(95)); // 0.1 %
/// ```
#[derive(Clone, Debug)]
pub struct Durations<const UNIT_NANOS: u64, const DIGITS: u8> {
    /// In units; `None` until there is a duration above zero.
    histogram: Option<Histogram<u64>>,
    /// Durations of zero are counted only: where waits are recorded, most are none.
    zeros: u64,
    sum_nanos: u128,
    min_nanos: u64,
    max_nanos: u64,
}

/// The nanoseconds of a microsecond.
pub const MICROSECOND: u64 = 1_000;
/// The nanoseconds of a nanosecond.
pub const NANOSECOND: u64 = 1;

impl<const UNIT_NANOS: u64, const DIGITS: u8> Default for Durations<UNIT_NANOS, DIGITS> {
    fn default() -> Self {
        Durations { histogram: None, zeros: 0, sum_nanos: 0, min_nanos: u64::MAX, max_nanos: 0 }
    }
}

impl<const UNIT_NANOS: u64, const DIGITS: u8> Durations<UNIT_NANOS, DIGITS> {
    /// Adds a duration; one of more than 584 years counts as that long.
    #[inline]
    pub fn record(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.min_nanos = self.min_nanos.min(nanos);
        if nanos == 0 {
            self.zeros += 1;
            return;
        }
        self.max_nanos = self.max_nanos.max(nanos);
        self.sum_nanos += u128::from(nanos);
        // The histogram grows by itself, up to units that make centuries.
        if let Some(histogram) = self.made() {
            let _ = histogram.record(nanos / UNIT_NANOS);
        }
    }

    /// Adds all durations of another distribution.
    pub fn add(&mut self, other: &Self) {
        self.zeros += other.zeros;
        self.sum_nanos += other.sum_nanos;
        self.min_nanos = self.min_nanos.min(other.min_nanos);
        self.max_nanos = self.max_nanos.max(other.max_nanos);
        if let Some(theirs) = &other.histogram
            && let Some(ours) = self.made()
        {
            // Adding cannot fail: the digits are the same, and the histogram grows.
            let _ = ours.add(theirs);
        }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.zeros + self.histogram.as_ref().map_or(0, Histogram::len)
    }

    /// The duration that a fraction of all (0.99: 99 of 100) did not exceed; `None` if there are none.
    pub fn quantile(&self, fraction: f64) -> Option<Duration> {
        let count = self.count();
        let rank = ((fraction.clamp(0.0, 1.0) * count as f64).ceil() as u64).max(1);
        let Some(histogram) = self.histogram.as_ref().filter(|_| rank > self.zeros) else {
            return (count > 0).then_some(Duration::ZERO);
        };
        // Half a rank less, so that rounding finds this rank and not the next.
        let rank = (rank - self.zeros) as f64 - 0.5;
        let units = histogram.value_at_quantile(rank / histogram.len() as f64);
        // A step of the histogram is named by its upper end, which may lie above the longest.
        Some(Duration::from_nanos(units.saturating_mul(UNIT_NANOS).min(self.max_nanos)))
    }

    /// The sum of all.
    pub fn sum(&self) -> Duration {
        nanos(self.sum_nanos)
    }

    /// The mean; `None` if there are none.
    pub fn mean(&self) -> Option<Duration> {
        let count = u128::from(self.count());
        (count > 0).then(|| nanos((self.sum_nanos + count / 2) / count))
    }

    /// The shortest; `None` if there are none.
    pub fn min(&self) -> Option<Duration> {
        (self.count() > 0).then_some(Duration::from_nanos(self.min_nanos))
    }

    /// The longest; `None` if there are none.
    pub fn max(&self) -> Option<Duration> {
        (self.count() > 0).then_some(Duration::from_nanos(self.max_nanos))
    }

    /// The histogram, made now if need be; `None` only for more than five digits.
    #[inline]
    fn made(&mut self) -> Option<&mut Histogram<u64>> {
        if self.histogram.is_none() {
            self.histogram = Histogram::new(DIGITS).ok();
        }
        self.histogram.as_mut()
    }
}

fn nanos(nanos: u128) -> Duration {
    const SECOND: u128 = 1_000_000_000;
    Duration::new(u64::try_from(nanos / SECOND).unwrap_or(u64::MAX), (nanos % SECOND) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<const UNIT: u64, const DIGITS: u8>(micros: &[u64]) -> Durations<UNIT, DIGITS> {
        let mut durations = Durations::default();
        micros.iter().for_each(|&micros| durations.record(Duration::from_micros(micros)));
        durations
    }

    const MICRO: Duration = Duration::from_micros(1);

    #[test]
    fn nothing_recorded_has_no_quantiles() {
        let none = Durations::<MICROSECOND, 3>::default();
        assert_eq!((none.quantile(0.5), none.mean(), none.min(), none.max()), (None, None, None, None));
        assert_eq!((none.count(), none.sum()), (0, Duration::ZERO));
    }

    #[test]
    fn zeros_are_the_lowest_ranks() {
        let waits = of::<MICROSECOND, 3>(&[0, 7, 0, 9, 0, 0, 8, 0]);
        let quantiles = [0.0, 0.5, 0.625, 0.626, 0.75, 0.875, 1.0].map(|q| waits.quantile(q));
        assert_eq!(quantiles, [0, 0, 0, 7, 7, 8, 9].map(|micros| Some(MICRO * micros)));
        assert_eq!(
            (waits.min(), waits.max(), waits.mean()),
            (Some(Duration::ZERO), Some(MICRO * 9), Some(MICRO * 3))
        );
        assert_eq!(of::<MICROSECOND, 3>(&[0, 0]).quantile(1.0), Some(Duration::ZERO));
    }

    #[test]
    fn every_rank_is_found_however_many_there_are() {
        // Exact up to 2047 units: each rank is a value.
        let micros: Vec<u64> = (1..=2_000).collect();
        let durations = of::<MICROSECOND, 3>(&micros);
        for rank in 1..=2_000_u32 {
            assert_eq!(durations.quantile(f64::from(rank) / 2_000.0), Some(MICRO * rank), "{rank} of 2000");
        }
    }

    #[test]
    fn a_quantile_is_never_beyond_the_longest_and_holds_to_its_digits() {
        let coarse = of::<MICROSECOND, 2>(&[1_000_003, 5_000_007]);
        assert_eq!(coarse.quantile(1.0), Some(MICRO * 5_000_007));
        let off = coarse.quantile(0.5).unwrap().abs_diff(MICRO * 1_000_003);
        assert!(off < MICRO * 10_000, "{off:?}");
        let fine = of::<NANOSECOND, 3>(&[1_000_003, 5_000_007]);
        let off = fine.quantile(0.5).unwrap().abs_diff(MICRO * 1_000_003);
        assert!(off < MICRO * 1_000, "{off:?}");
    }

    #[test]
    fn two_distributions_added_are_one_of_all_durations() {
        let (mut one, other) = (of::<MICROSECOND, 3>(&[0, 5, 6]), of::<MICROSECOND, 3>(&[0, 1, 9]));
        one.add(&other);
        let all = of::<MICROSECOND, 3>(&[0, 0, 1, 5, 6, 9]);
        let figures = |d: &Durations<MICROSECOND, 3>| {
            (d.count(), d.sum(), d.min(), d.max(), d.quantile(0.5), d.quantile(0.6))
        };
        assert_eq!(figures(&one), figures(&all));
        let mut none = Durations::default();
        none.add(&all);
        assert_eq!(figures(&none), figures(&all));
    }
}
