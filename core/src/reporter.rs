//! What an activator tells the autoscaler about one revision: a call for help when the first request comes,
//! then one sample a second for as long as there is something to say. The activator and the simulator share it.
//!
//! Time comes in as an argument; nothing here reads a clock or sends. Knative's name is `ConcurrencyReporter`.

use crate::cadence::REPORT;
use crate::{RequestKind, RequestStats, Stat, Time};

/// Counts one revision's requests, from arrival to the end of the response, waiting included.
#[derive(Debug, Default)]
pub struct Reporter {
    /// `None` while there is nothing to report.
    tracked: Option<Tracked>,
}

#[derive(Debug)]
struct Tracked {
    /// When the first request arrived.
    since: Time,
    stats: RequestStats,
    /// Connections that are open and silent.
    idle: u32,
    /// The first request was announced on its own; the next sample must not tell of it again.
    announced: bool,
}

impl Reporter {
    /// A request arrived. If it is the first, returns the stat to be sent at once: it wakes the autoscaler.
    pub fn request_started(&mut self, now: Time) -> Option<Stat> {
        let is_first = self.tracked.is_none();
        let tracked = self.tracked.get_or_insert_with(|| Tracked {
            since: now,
            stats: RequestStats::new(now),
            idle: 0,
            announced: true,
        });
        tracked.stats.request_started(now, RequestKind::Direct);
        is_first.then(|| Stat { average_concurrent_requests: 1.0, request_count: 1.0, ..Stat::default() })
    }

    /// A request that had arrived is over, however it ended.
    pub fn request_finished(&mut self, now: Time) {
        if let Some(tracked) = &mut self.tracked {
            tracked.stats.request_finished(now, RequestKind::Direct);
        }
    }

    /// A connection that counts as a request in flight has been silent for so long that it is no load any more. It is
    /// reported as [`IDLE_CONCURRENCY`] until it [ends](Reporter::idle_connection_ended) or
    /// [goes on](Reporter::connection_resumed).
    pub fn connection_idled(&mut self, now: Time) {
        if let Some(tracked) = &mut self.tracked {
            tracked.stats.request_finished(now, RequestKind::Direct);
            tracked.idle += 1;
        }
    }

    /// A silent connection carries bytes again, and counts as the request in flight that it was.
    pub fn connection_resumed(&mut self, now: Time) {
        if let Some(tracked) = &mut self.tracked {
            tracked.idle = tracked.idle.saturating_sub(1);
            tracked.stats.request_resumed(now);
        }
    }

    /// A silent connection was closed.
    pub fn idle_connection_ended(&mut self) {
        if let Some(tracked) = &mut self.tracked {
            tracked.idle = tracked.idle.saturating_sub(1);
        }
    }

    /// The sample of the period since the last one; `None` if there is nothing to say.
    ///
    /// A period without any request is reported once, as zero, and ends the tracking. While a request waits, every
    /// sample but the announced one is above zero, so a wake-up that got lost is repeated each second.
    pub fn report(&mut self, now: Time) -> Option<Stat> {
        self.report_weighed(now, 1.0)
    }

    /// The same for a revision that has pods: the first sample is an average over the whole period, of which a part may
    /// have passed before the first request. An activator that takes over requests from another just before it reports
    /// would tell of them as if it had had them all the time, and so does the other.
    pub fn report_beside_pods(&mut self, now: Time) -> Option<Stat> {
        let tracked = self.tracked.as_ref()?;
        let part = (now - tracked.since).as_secs_f64() / REPORT.period.as_secs_f64();
        self.report_weighed(now, if tracked.announced { part.min(1.0) } else { 1.0 })
    }

    fn report_weighed(&mut self, now: Time, part: f64) -> Option<Stat> {
        let tracked = self.tracked.as_mut()?;
        let mut stat = tracked.stats.report(now);
        stat.average_concurrent_requests *= part;
        let is_over =
            stat.average_concurrent_requests == 0.0 && tracked.stats.in_flight() == 0 && tracked.idle == 0;
        if std::mem::take(&mut tracked.announced) {
            stat.average_concurrent_requests = (stat.average_concurrent_requests - 1.0).max(0.0);
            stat.request_count -= 1.0;
        }
        if tracked.idle > 0 {
            stat.average_concurrent_requests = stat.average_concurrent_requests.max(IDLE_CONCURRENCY);
        }
        if is_over {
            self.tracked = None;
        }
        Some(stat)
    }

    /// The sample to send first over a new connection: whoever listens now may never have heard the
    /// announcement, so it is not discounted. `None` unless a request is in flight.
    pub fn resync(&mut self, now: Time) -> Option<Stat> {
        let tracked = self.tracked.as_mut().filter(|tracked| tracked.stats.in_flight() > 0)?;
        tracked.announced = false;
        let mut stat = tracked.stats.report(now);
        // Requests that arrived this very moment have no average yet, and zero would not wake anybody.
        if stat.average_concurrent_requests == 0.0 {
            stat.average_concurrent_requests = f64::from(tracked.stats.in_flight());
        }
        Some(stat)
    }

    /// Requests between arrival and the end of their response, and connections that count as such.
    pub fn in_flight(&self) -> u32 {
        self.tracked.as_ref().map_or(0, |tracked| tracked.stats.in_flight())
    }

    /// Connections that are open and silent.
    pub fn idle_connections(&self) -> u32 {
        self.tracked.as_ref().map_or(0, |tracked| tracked.idle)
    }
}

/// The concurrency of all silent connections together: it keeps a revision from going to zero, and no more. Ten times what
/// the autoscaler's averages, which are rounded to six decimals, can tell from zero.
pub const IDLE_CONCURRENCY: f64 = 1e-5;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Aggregation, Window};

    /// A script: seconds, and what is expected there.
    #[derive(Default)]
    struct Script(Reporter);

    impl Script {
        fn start(&mut self, secs: u64) -> Option<(f64, f64)> {
            self.0.request_started(Time::from_secs(secs)).map(pair)
        }
        fn finish(&mut self, secs: u64) {
            self.0.request_finished(Time::from_secs(secs));
        }
        fn tick(&mut self, secs: u64) -> Option<(f64, f64)> {
            self.0.report(Time::from_secs(secs)).map(pair)
        }
    }

    #[allow(clippy::needless_pass_by_value, reason = "it is mapped over options")]
    fn pair(stat: Stat) -> (f64, f64) {
        (stat.average_concurrent_requests, stat.request_count)
    }

    #[test]
    fn the_first_request_is_announced_at_once_and_not_told_twice() {
        let mut script = Script::default();
        assert_eq!(script.start(0), Some((1.0, 1.0)));
        script.finish(1);
        assert_eq!(script.start(1), None);
        script.finish(2);
        assert_eq!(script.tick(2), Some((0.0, 1.0)));
    }

    #[test]
    fn two_at_once_are_discounted_in_the_first_sample_only() {
        let mut script = Script::default();
        assert_eq!(script.start(0), Some((1.0, 1.0)));
        assert_eq!(script.start(0), None);
        assert_eq!(script.tick(1), Some((1.0, 1.0)));
        assert_eq!(script.tick(2), Some((2.0, 0.0)));
    }

    #[test]
    fn a_silent_connection_is_hardly_more_than_nothing_and_never_nothing() {
        let mut script = Script::default();
        assert_eq!(script.start(0), Some((1.0, 1.0)));
        script.tick(1);
        script.0.connection_idled(Time::from_secs(1));
        for second in 2..100 {
            assert_eq!(script.tick(second), Some((IDLE_CONCURRENCY, 0.0)));
        }
        assert_eq!((script.0.in_flight(), script.0.idle_connections()), (0, 1));
        script.0.connection_resumed(Time::from_secs(99));
        assert_eq!(script.tick(100), Some((1.0, 0.0)), "it is no other request");
        script.0.connection_idled(Time::from_secs(100));
        script.0.idle_connection_ended();
        assert_eq!(script.tick(101), Some((0.0, 0.0)));
        assert_eq!(script.tick(102), None);
    }

    #[test]
    fn a_silent_connection_never_averages_to_nothing_whatever_came_before() {
        let mut window = Window::new(Duration::from_secs(600), Aggregation::Linear);
        for second in 0..600 {
            window.record(Time::from_secs(second), 1000.1 / 3.0);
        }
        // Nine reports of ten are lost.
        for second in (600..6000).step_by(10) {
            window.record(Time::from_secs(second), IDLE_CONCURRENCY);
            assert!(window.average(Time::from_secs(second + 9)) > 0.0, "{second}");
        }
    }

    #[test]
    fn a_silent_connection_adds_nothing_to_requests() {
        let mut script = Script::default();
        script.start(0);
        script.start(0);
        script.tick(1);
        script.0.connection_idled(Time::from_secs(1));
        assert_eq!(script.tick(2), Some((1.0, 0.0)));
    }

    #[test]
    fn three_in_one_period() {
        let mut script = Script::default();
        for _ in 0..3 {
            script.start(0);
        }
        assert_eq!(script.tick(1), Some((2.0, 2.0)));
    }

    #[test]
    fn silence_is_reported_once_and_the_next_request_is_a_first_one_again() {
        let mut script = Script::default();
        script.start(0);
        script.finish(1);
        assert_eq!(script.tick(1), Some((0.0, 0.0)));
        assert_eq!(script.tick(2), Some((0.0, 0.0)));
        assert_eq!(script.tick(3), None);
        assert_eq!(script.start(4), Some((1.0, 1.0)));
    }

    #[test]
    fn a_request_that_came_and_went_in_no_time_is_never_told_twice() {
        let mut script = Script::default();
        script.start(0);
        script.finish(0);
        assert_eq!(script.tick(0), Some((0.0, 0.0)));
        assert_eq!(script.tick(1), None);
    }

    #[test]
    fn a_request_in_flight_keeps_the_tracking_alive() {
        let mut script = Script::default();
        script.start(1);
        assert_eq!(script.tick(1), Some((0.0, 0.0)), "no time has passed");
        assert_eq!(script.tick(2), Some((1.0, 0.0)));
        assert_eq!(script.0.in_flight(), 1);
    }

    #[test]
    fn while_a_request_waits_every_sample_after_the_first_wakes() {
        let mut script = Script::default();
        script.start(0);
        script.tick(1);
        for second in 2..10 {
            assert_eq!(script.tick(second), Some((1.0, 0.0)));
        }
    }

    #[test]
    fn beside_pods_the_first_sample_is_an_average_over_the_whole_period() {
        let told = |at: u64, requests: u32| {
            let mut reporter = Reporter::default();
            for _ in 0..requests {
                reporter.request_started(Time::from_millis(at));
            }
            [1500, 2500].map(|at| reporter.report_beside_pods(Time::from_millis(at)).map(pair))
        };
        // A quarter of a second of eight requests, one of which was announced.
        assert_eq!(told(1250, 8), [Some((1.0, 7.0)), Some((8.0, 0.0))]);
        assert_eq!(told(1490, 3), [Some((0.0, 2.0)), Some((3.0, 0.0))], "no more than was announced");
        assert_eq!(told(500, 3), [Some((2.0, 2.0)), Some((3.0, 0.0))]);
    }

    #[test]
    fn a_new_connection_hears_of_waiting_requests_without_discount() {
        let mut script = Script::default();
        script.start(0);
        script.start(0);
        assert_eq!(script.0.resync(Time::from_secs(0)).map(pair), Some((2.0, 2.0)));
        assert_eq!(script.tick(1), Some((2.0, 0.0)));
        script.finish(1);
        script.finish(1);
        assert_eq!(script.0.resync(Time::from_secs(2)), None);
    }
}
