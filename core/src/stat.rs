//! A proxy's measurements of one second, and how it measures it.
//!
//! Knative's names: `metrics.Stat` and `RequestStats` (pkg/http/stats in knative/serving).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Time;

/// The report of one queue-proxy or one activator for one second.
///
/// Averages are in requests, counts in requests per second. Source: `metrics.Stat` (proto3).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stat {
    /// The pod that reports.
    pub pod_name: String,
    /// Requests in flight, averaged over the second.
    pub average_concurrent_requests: f64,
    /// The part that came through the activator, which reports them itself.
    pub average_proxied_concurrent_requests: f64,
    /// Requests that arrived.
    pub request_count: f64,
    /// The part that came through the activator.
    pub proxied_request_count: f64,
    /// How long the reporter has been running; `None`: an activator, which does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process_uptime: Option<Duration>,
    /// When the stat was received, in whole seconds; `None` until the first receiver sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Time>,
}

/// The sender of a request, as a pod sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// Straight from the client.
    Direct,
    /// Through the activator (`K-Proxy-Request: activator`).
    Proxied,
}

/// Counts requests and averages how many were in flight, weighed by time.
///
/// ```
/// use pilotlight_core::{RequestKind, RequestStats, Time};
/// let mut stats = RequestStats::new(Time::from_secs(0));
/// stats.request_started(Time::from_millis(0), RequestKind::Direct);
/// stats.request_finished(Time::from_millis(500), RequestKind::Direct);
/// let report = stats.report(Time::from_secs(1));
/// assert_eq!((report.average_concurrent_requests, report.request_count), (0.5, 1.0));
/// ```
#[derive(Clone, Debug)]
pub struct RequestStats {
    in_flight: u32,
    proxied_in_flight: u32,
    last_change: Time,
    // Reset by each report:
    requests: u64,
    proxied_requests: u64,
    seconds_in_use: f64,
    concurrency_seconds: f64,
    proxied_concurrency_seconds: f64,
}

impl RequestStats {
    /// Starts counting, with nothing in flight.
    pub fn new(now: Time) -> Self {
        RequestStats {
            in_flight: 0,
            proxied_in_flight: 0,
            last_change: now,
            requests: 0,
            proxied_requests: 0,
            seconds_in_use: 0.0,
            concurrency_seconds: 0.0,
            proxied_concurrency_seconds: 0.0,
        }
    }

    /// A request arrived. It counts from here, whether it has to wait or not.
    pub fn request_started(&mut self, now: Time, kind: RequestKind) {
        self.advance(now);
        self.requests += 1;
        self.in_flight += 1;
        if kind == RequestKind::Proxied {
            self.proxied_requests += 1;
            self.proxied_in_flight += 1;
        }
    }

    /// A request that had been taken for finished goes on. It arrived before, and is no other request.
    pub fn request_resumed(&mut self, now: Time) {
        self.advance(now);
        self.in_flight += 1;
    }

    /// A request that had started has ended, however it ended.
    pub fn request_finished(&mut self, now: Time, kind: RequestKind) {
        self.advance(now);
        self.in_flight = self.in_flight.saturating_sub(1);
        if kind == RequestKind::Proxied {
            self.proxied_in_flight = self.proxied_in_flight.saturating_sub(1);
        }
    }

    /// Requests in flight at this moment.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// The averages and counts since the last report, and a fresh start. `pod_name`, `process_uptime` and
    /// `timestamp` are left for the caller; counts are not yet divided by the period.
    pub fn report(&mut self, now: Time) -> Stat {
        self.advance(now);
        let average = |sum: f64| if self.seconds_in_use > 0.0 { sum / self.seconds_in_use } else { 0.0 };
        let stat = Stat {
            average_concurrent_requests: average(self.concurrency_seconds),
            average_proxied_concurrent_requests: average(self.proxied_concurrency_seconds),
            request_count: self.requests as f64,
            proxied_request_count: self.proxied_requests as f64,
            ..Stat::default()
        };
        *self = RequestStats {
            in_flight: self.in_flight,
            proxied_in_flight: self.proxied_in_flight,
            ..RequestStats::new(self.last_change)
        };
        stat
    }

    fn advance(&mut self, now: Time) {
        let seconds = (now - self.last_change).as_secs_f64();
        if seconds > 0.0 {
            self.seconds_in_use += seconds;
            self.concurrency_seconds += f64::from(self.in_flight) * seconds;
            self.proxied_concurrency_seconds += f64::from(self.proxied_in_flight) * seconds;
            self.last_change = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RequestKind::{Direct, Proxied};

    fn ms(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    /// Average in flight and number of requests, then the same for those through the activator.
    fn report(stats: &mut RequestStats, at: u64) -> [f64; 4] {
        let stat = stats.report(ms(at));
        [
            stat.average_concurrent_requests,
            stat.request_count,
            stat.average_proxied_concurrent_requests,
            stat.proxied_request_count,
        ]
    }

    #[test]
    fn two_half_second_requests_are_one_in_flight() {
        let mut one_after_the_other = RequestStats::new(ms(0));
        one_after_the_other.request_started(ms(0), Direct);
        one_after_the_other.request_finished(ms(500), Direct);
        one_after_the_other.request_started(ms(500), Direct);
        one_after_the_other.request_finished(ms(1000), Direct);
        assert_eq!(report(&mut one_after_the_other, 1000), [1.0, 2.0, 0.0, 0.0]);

        let mut at_once = RequestStats::new(ms(0));
        at_once.request_started(ms(250), Direct);
        at_once.request_started(ms(250), Direct);
        assert_eq!(at_once.in_flight(), 2);
        at_once.request_finished(ms(750), Direct);
        at_once.request_finished(ms(750), Direct);
        assert_eq!(report(&mut at_once, 1000), [1.0, 2.0, 0.0, 0.0]);
    }

    #[test]
    fn a_long_request_is_counted_once_and_in_flight_throughout() {
        let mut stats = RequestStats::new(ms(0));
        stats.request_started(ms(0), Direct);
        assert_eq!(report(&mut stats, 1000), [1.0, 1.0, 0.0, 0.0]);
        assert_eq!(report(&mut stats, 2000), [1.0, 0.0, 0.0, 0.0]);
        assert_eq!(report(&mut stats, 3000), [1.0, 0.0, 0.0, 0.0]);
        stats.request_finished(ms(3500), Direct);
        assert_eq!(report(&mut stats, 4000), [0.5, 0.0, 0.0, 0.0]);
        assert_eq!(report(&mut stats, 5000), [0.0; 4]);
    }

    #[test]
    fn requests_through_the_activator_are_counted_in_all_and_apart() {
        let mut stats = RequestStats::new(ms(0));
        stats.request_started(ms(0), Proxied);
        stats.request_started(ms(0), Direct);
        stats.request_finished(ms(500), Proxied);
        stats.request_finished(ms(1000), Direct);
        assert_eq!(report(&mut stats, 1000), [1.5, 2.0, 0.5, 1.0]);
    }

    #[test]
    fn time_that_runs_backwards_is_ignored() {
        let mut stats = RequestStats::new(ms(1000));
        stats.request_started(ms(1000), Direct);
        stats.request_started(ms(200), Direct);
        assert_eq!(report(&mut stats, 500), [0.0, 2.0, 0.0, 0.0], "no time has passed yet");
        stats.request_finished(ms(1000), Direct);
        assert_eq!(
            report(&mut stats, 2000),
            [1.0, 0.0, 0.0, 0.0],
            "from 500 to 1000 nothing was not counted"
        );
    }

    #[test]
    fn a_period_of_no_length_averages_to_nothing_and_keeps_what_is_in_flight() {
        let mut stats = RequestStats::new(ms(0));
        stats.request_started(ms(0), Direct);
        assert_eq!(report(&mut stats, 0), [0.0, 1.0, 0.0, 0.0]);
        assert_eq!(stats.in_flight(), 1);
        assert_eq!(report(&mut stats, 500), [1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn averages_are_over_the_time_that_passed_not_over_a_nominal_second() {
        let mut stats = RequestStats::new(ms(0));
        stats.request_started(ms(0), Direct);
        stats.request_finished(ms(1000), Direct);
        assert_eq!(report(&mut stats, 2000), [0.5, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn ending_what_never_began_does_not_go_below_zero() {
        let mut stats = RequestStats::new(ms(0));
        stats.request_finished(ms(0), Proxied);
        assert_eq!((stats.in_flight(), report(&mut stats, 1000)), (0, [0.0; 4]));
    }
}
