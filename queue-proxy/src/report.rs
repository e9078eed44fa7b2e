//! Load of the app: counted request by request, averaged once a second, served to the autoscaler.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, header};
use parking_lot::Mutex;
use pilotlight_core::cadence::REPORT;
use pilotlight_core::{RequestKind, RequestStats, Stat};
use pilotlight_net::headers::STATS_CONTENT_TYPE;
use pilotlight_net::{Admin, Body, Clock, Response, wire};
use tokio::time::sleep_until;

/// Counts requests, and makes a [`Stat`] of them every second. All clones are the same reporter.
#[derive(Clone)]
pub(crate) struct Reporter {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Clock,
    stats: Mutex<RequestStats>,
    // The latest report as it goes over the wire; scrapes only copy a pointer.
    latest: Mutex<Bytes>,
}

impl Reporter {
    /// Begins to count and to report, as the pod `pod`, as long as the runtime lives.
    pub(crate) fn start(clock: Clock, pod: String) -> Self {
        let first = Stat { pod_name: pod.clone(), ..Stat::default() };
        let reporter = Reporter {
            shared: Arc::new(Shared {
                clock,
                stats: Mutex::new(RequestStats::new(clock.now())),
                latest: Mutex::new(wire::encode_stat(&first).into()),
            }),
        };
        tokio::spawn(reporter.clone().report_every_second(pod));
        reporter
    }

    /// Counts a request that arrived; it is in flight until the guard is dropped.
    pub(crate) fn request_started(&self, kind: RequestKind) -> Counted {
        self.shared.stats.lock().request_started(self.shared.clock.now(), kind);
        Counted { reporter: self.clone(), kind }
    }

    /// The latest report, encoded.
    pub(crate) fn latest(&self) -> Bytes {
        self.shared.latest.lock().clone()
    }

    async fn report_every_second(self, pod: String) {
        let Shared { clock, stats, latest } = &*self.shared;
        let started = clock.now();
        let mut last = started;
        loop {
            sleep_until(clock.instant_at(REPORT.next(clock.now()))).await;
            let now = clock.now();
            let measured = stats.lock().report(now);
            let stat = Stat {
                pod_name: pod.clone(),
                process_uptime: Some(now - started),
                ..per_second(measured, now - last)
            };
            last = now;
            *latest.lock() = wire::encode_stat(&stat).into();
        }
    }
}

/// The autoscaler's port: the latest report, whatever content type the scraper says it accepts.
pub(crate) fn server(reporter: &Reporter) -> Admin {
    let reporter = reporter.clone();
    Admin::new().route("/metrics", move |_| {
        let mut response = Response::new(Body::full(reporter.latest()));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(STATS_CONTENT_TYPE));
        std::future::ready(response)
    })
}

/// A request in flight.
pub(crate) struct Counted {
    reporter: Reporter,
    kind: RequestKind,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Shared { clock, stats, .. } = &*self.reporter.shared;
        stats.lock().request_finished(clock.now(), self.kind);
    }
}

/// Turns counts into rates. The period counts as one second however the timer wobbled, as in Knative; but a process
/// that was stopped for ten seconds does not report the requests of ten seconds as those of one.
fn per_second(measured: Stat, since_last: Duration) -> Stat {
    let seconds = since_last.as_secs_f64().round().max(REPORT.period.as_secs_f64());
    Stat {
        request_count: measured.request_count / seconds,
        proxied_request_count: measured.proxied_request_count / seconds,
        ..measured
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::sleep;

    async fn sleep_until_tick(reporter: &Reporter) {
        let clock = reporter.shared.clock;
        sleep_until(clock.instant_at(REPORT.next(clock.now()))).await;
        // The reporter waits for the same moment; let it go first.
        sleep(Duration::from_millis(1)).await;
    }

    fn latest(reporter: &Reporter) -> Stat {
        wire::decode_stat(&reporter.latest()).unwrap()
    }

    #[test]
    fn counts_are_rates_even_over_a_longer_period() {
        let measured = Stat { request_count: 39.0, proxied_request_count: 10.0, ..Stat::default() };
        let over = |millis| per_second(measured.clone(), Duration::from_millis(millis));
        assert_eq!((over(10_000).request_count, over(10_000).proxied_request_count), (3.9, 1.0));
        assert_eq!((over(1_040).request_count, over(200).request_count), (39.0, 39.0));
    }

    #[tokio::test(start_paused = true)]
    async fn before_the_first_tick_only_the_pod_is_known() {
        let reporter = Reporter::start(Clock::start(), "pod-1".to_owned());
        assert_eq!(latest(&reporter), Stat { pod_name: "pod-1".to_owned(), ..Stat::default() });
    }

    #[tokio::test(start_paused = true)]
    async fn two_requests_of_half_a_second_one_after_the_other_average_one() {
        let reporter = Reporter::start(Clock::start(), "pod-1".to_owned());
        sleep_until_tick(&reporter).await;
        for _ in 0..2 {
            let request = reporter.request_started(RequestKind::Direct);
            sleep(Duration::from_millis(499)).await;
            drop(request);
        }
        sleep_until_tick(&reporter).await;
        let stat = latest(&reporter);
        assert_eq!(stat.request_count, 2.0);
        assert!((stat.average_concurrent_requests - 1.0).abs() < 0.01, "{stat:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_request_counts_once_and_weighs_in_every_report() {
        let reporter = Reporter::start(Clock::start(), "pod-1".to_owned());
        sleep_until_tick(&reporter).await;
        let request = reporter.request_started(RequestKind::Proxied);
        for count in [1.0, 0.0, 0.0] {
            sleep_until_tick(&reporter).await;
            let stat = latest(&reporter);
            assert_eq!((stat.request_count, stat.proxied_request_count), (count, count));
            assert!((stat.average_proxied_concurrent_requests - 1.0).abs() < 0.01, "{stat:?}");
        }
        drop(request);
        sleep_until_tick(&reporter).await;
        sleep_until_tick(&reporter).await;
        assert_eq!(latest(&reporter).average_concurrent_requests, 0.0);
    }

    #[tokio::test(start_paused = true)]
    async fn uptime_grows_a_second_a_report() {
        let reporter = Reporter::start(Clock::start(), "pod-1".to_owned());
        sleep_until_tick(&reporter).await;
        let uptime = || latest(&reporter).process_uptime.unwrap();
        let first = uptime();
        sleep_until_tick(&reporter).await;
        assert_eq!((uptime() - first).as_secs_f64().round(), 1.0);
    }

    #[test]
    fn a_report_fits_the_scrapers_limit_whatever_the_numbers() {
        let stat = Stat {
            pod_name: "p".repeat(253),
            average_concurrent_requests: f64::MAX,
            average_proxied_concurrent_requests: f64::MAX,
            request_count: f64::MAX,
            proxied_request_count: f64::MAX,
            process_uptime: Some(Duration::MAX),
            timestamp: None,
        };
        assert!(wire::encode_stat(&stat).len() <= 336);
    }
}
