//! Everything a revision's proxies have reported, averaged over the stable and the panic window.
//!
//! Knative's name for this is the metric collection (pkg/autoscaler/metrics).

use serde::{Deserialize, Serialize};

use crate::window::{Window, WindowHistory};
use crate::{RevisionSpec, ScalingMetric, Stat, Time};

/// The windows of one revision. Knows when it knows nothing.
#[derive(Clone, Debug)]
pub struct Collector {
    concurrency: WindowPair,
    requests: WindowPair,
}

/// The value of the scaling metric, over all pods, in the two windows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Averages {
    /// Over the stable window.
    pub stable: f64,
    /// Over the panic window.
    pub panic: f64,
}

/// One metric in its stable and its panic window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WindowPairHistory {
    /// The stable window.
    pub stable: WindowHistory,
    /// The panic window.
    pub panic: WindowHistory,
}

impl Collector {
    /// Empty windows of the lengths the spec asks for.
    pub fn new(spec: &RevisionSpec) -> Self {
        Collector { concurrency: WindowPair::new(spec), requests: WindowPair::new(spec) }
    }

    /// Windows that go on from what others remembered.
    pub(crate) fn resume(
        now: Time,
        spec: &RevisionSpec,
        concurrency: &WindowPairHistory,
        requests: &WindowPairHistory,
    ) -> Self {
        Collector {
            concurrency: WindowPair::resume(now, spec, concurrency),
            requests: WindowPair::resume(now, spec, requests),
        }
    }

    /// The state that [`Collector::resume`] needs: the windows of concurrency and of requests.
    pub(crate) fn history(&self) -> [WindowPairHistory; 2] {
        [self.concurrency.history(), self.requests.history()]
    }

    /// Takes in what a proxy measured. Traffic that came through an activator counts there, not here; what is
    /// reported for the same second adds up, so the sum over all reporters is the revision's load.
    pub fn record(&mut self, at: Time, stat: &Stat) {
        self.concurrency
            .record(at, stat.average_concurrent_requests - stat.average_proxied_concurrent_requests);
        self.requests.record(at, stat.request_count - stat.proxied_request_count);
    }

    /// The averages of the spec's metric, or `None` when nothing is known: no report for more than a stable
    /// window. A revision that nobody scrapes reads silence as zero instead.
    pub fn averages(&self, now: Time, spec: &RevisionSpec) -> Option<Averages> {
        let windows = match spec.scaling_metric {
            ScalingMetric::Concurrency => &self.concurrency,
            ScalingMetric::Rps => &self.requests,
        };
        if spec.scraped && windows.stable.is_empty(now) {
            return None;
        }
        Some(Averages { stable: windows.stable.average(now), panic: windows.panic.average(now) })
    }

    /// Follows a change of the windows' lengths. How samples are weighed stays as it was at creation.
    pub fn resize(&mut self, now: Time, spec: &RevisionSpec) {
        self.concurrency.resize(now, spec);
        self.requests.resize(now, spec);
    }
}

#[derive(Clone, Debug)]
struct WindowPair {
    stable: Window,
    panic: Window,
}

impl WindowPair {
    fn new(spec: &RevisionSpec) -> Self {
        WindowPair {
            stable: Window::new(spec.stable_window, spec.aggregation),
            panic: Window::new(spec.panic_window, spec.aggregation),
        }
    }

    fn resume(now: Time, spec: &RevisionSpec, history: &WindowPairHistory) -> Self {
        let resume = |length, history| Window::resume(now, length, spec.aggregation, history);
        WindowPair {
            stable: resume(spec.stable_window, &history.stable),
            panic: resume(spec.panic_window, &history.panic),
        }
    }

    fn history(&self) -> WindowPairHistory {
        WindowPairHistory { stable: self.stable.history(), panic: self.panic.history() }
    }

    fn record(&mut self, at: Time, value: f64) {
        self.stable.record(at, value);
        self.panic.record(at, value);
    }

    fn resize(&mut self, now: Time, spec: &RevisionSpec) {
        self.stable.resize(now, spec.stable_window);
        self.panic.resize(now, spec.panic_window);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(concurrent: f64, proxied: f64, requests: f64, proxied_requests: f64) -> Stat {
        Stat {
            average_concurrent_requests: concurrent,
            average_proxied_concurrent_requests: proxied,
            request_count: requests,
            proxied_request_count: proxied_requests,
            ..Stat::default()
        }
    }

    #[test]
    fn traffic_through_the_activator_is_counted_there_only() {
        let spec = RevisionSpec::default();
        let rps = RevisionSpec { scaling_metric: ScalingMetric::Rps, ..spec.clone() };
        let mut collector = Collector::new(&spec);
        collector.record(Time::from_secs(9), &stat(20.0, 10.0, 30.0, 20.0));
        let now = Time::from_secs(9);
        assert_eq!(collector.averages(now, &spec), Some(Averages { stable: 10.0, panic: 10.0 }));
        assert_eq!(collector.averages(now, &rps), Some(Averages { stable: 10.0, panic: 10.0 }));
    }

    #[test]
    fn silence_is_no_knowledge_when_scraped_and_zero_when_not() {
        let scraped = RevisionSpec::default();
        let unscraped = RevisionSpec { scraped: false, ..scraped.clone() };
        let collector = Collector::new(&scraped);
        assert_eq!(collector.averages(Time::from_secs(100), &scraped), None);
        assert_eq!(
            collector.averages(Time::from_secs(100), &unscraped),
            Some(Averages { stable: 0.0, panic: 0.0 })
        );
    }
}
