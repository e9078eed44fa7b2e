//! When the regular things happen: reports, scrapes, evaluations.
//!
//! What lands in the same one-second bucket adds up, so two reports of one proxy in one bucket would count its
//! load twice, and the next bucket would miss it. Knative's timers start whenever their process does, and
//! now and then drift across a bucket's edge; ours keep to a fixed place within the second, as far from the
//! edge as they can, and each comes after what it needs. The simulator keeps the same times.

use std::time::Duration;

use crate::Time;

/// Something that happens over and over, at a fixed place within its period.
///
/// ```
/// use pilotlight_core::{Time, cadence::REPORT};
/// assert_eq!(REPORT.next(Time::from_millis(7_200)), Time::from_millis(7_500));
/// assert_eq!(REPORT.next(Time::from_millis(7_500)), Time::from_millis(8_500));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Cadence {
    /// From one time to the next.
    pub period: Duration,
    /// From the start of a period (counted from the epoch) to the time within it.
    pub phase: Duration,
}

/// Queue-proxies and activators report, in the middle of each second.
pub const REPORT: Cadence = Cadence { period: Duration::from_secs(1), phase: Duration::from_millis(500) };

/// The autoscaler asks pods for their reports, once these are made.
pub const SCRAPE: Cadence = Cadence { period: Duration::from_secs(1), phase: Duration::from_millis(650) };

/// The autoscaler evaluates every revision, with the second's reports in hand.
pub const TICK: Cadence = Cadence { period: Duration::from_secs(2), phase: Duration::from_millis(1900) };

impl Cadence {
    /// The first time after `now`.
    pub const fn next(self, now: Time) -> Time {
        let (period, phase) = (self.period.as_nanos() as u64, self.phase.as_nanos() as u64);
        let into_period = (now.as_nanos() + period - phase) % period;
        Time::from_nanos(now.as_nanos() + period - into_period)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_follows_the_one_before_by_a_period() {
        for cadence in [REPORT, SCRAPE, TICK] {
            let first = cadence.next(Time::from_nanos(1_234_567_890_123));
            assert_eq!(first.as_nanos() % cadence.period.as_nanos() as u64, cadence.phase.as_nanos() as u64);
            assert_eq!(cadence.next(first), first + cadence.period);
            assert_eq!(cadence.next(first - Duration::from_nanos(1)), first);
        }
    }

    #[test]
    fn a_second_is_reported_then_scraped_then_evaluated() {
        let second = Time::from_secs(101);
        let [report, scrape, tick] = [REPORT, SCRAPE, TICK].map(|cadence| cadence.next(second));
        assert!(
            second < report && report < scrape && scrape < tick && tick < second + Duration::from_secs(1)
        );
    }
}
