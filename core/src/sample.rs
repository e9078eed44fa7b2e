//! The pods to ask, and what their answers say about all of them.
//!
//! Asking every pod of a large revision every second is dear and adds little: a sample whose mean is within
//! the wanted error at 95 % confidence is enough. Knative's name for this is the stats scraper.

use std::time::Duration;

use crate::{Rng, Stat, Time};

/// How many of `pods` pods to ask: all of up to three, at most 16.
///
/// ```
/// assert_eq!([0, 3, 10, 100, 100_000].map(pilotlight_core::sample_size), [0, 3, 7, 14, 16]);
/// ```
pub fn sample_size(pods: usize) -> usize {
    if pods <= 3 {
        return pods;
    }
    // 1.96 standard deviations for 95 % confidence, variance 100, error margin 5 requests.
    const X: f64 = 1.96 * 1.96 * 100.0 / 25.0;
    let pods = pods as f64;
    (pods * X / (pods + X - 1.0)).ceil() as usize
}

/// A pod that may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate<T> {
    /// The pod, however the driver names it.
    pub pod: T,
    /// When it started.
    pub started: Time,
}

/// The order in which to ask pods until [`sample_size`] of them have answered: those that have seen a whole
/// stable window first, then the young ones, whose averages say less. Only the group the sample is cut from
/// is shuffled.
pub fn ask_order<T>(now: Time, stable_window: Duration, pods: Vec<Candidate<T>>, rng: &mut Rng) -> Vec<T> {
    let wanted = sample_size(pods.len());
    let (mut old, mut young): (Vec<_>, Vec<_>) =
        pods.into_iter().partition(|pod| now - pod.started >= stable_window);
    if old.len() < wanted {
        rng.shuffle(&mut young);
    } else {
        rng.shuffle(&mut old);
    }
    old.into_iter().chain(young).map(|candidate| candidate.pod).collect()
}

/// The sum over all `pods` pods, by `answers` from a sample: their mean, times the number of pods. `None` if fewer than
/// [`sample_size`] have answered, or if there are no pods: half a sum would look like half the load. Knative's
/// `scrapePods` fails in the same way, and the autoscaler decides on what the windows hold.
pub fn extrapolate(answers: &[Stat], pods: usize) -> Option<Stat> {
    if pods == 0 || answers.len() < sample_size(pods) {
        return None;
    }
    let total =
        |field: fn(&Stat) -> f64| answers.iter().map(field).sum::<f64>() / answers.len() as f64 * pods as f64;
    Some(Stat {
        pod_name: SCRAPER.to_owned(),
        average_concurrent_requests: total(|s| s.average_concurrent_requests),
        average_proxied_concurrent_requests: total(|s| s.average_proxied_concurrent_requests),
        request_count: total(|s| s.request_count),
        proxied_request_count: total(|s| s.proxied_request_count),
        ..Stat::default()
    })
}

/// The name under which a scrape's sum is recorded.
const SCRAPER: &str = "service-scraper";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_sizes_are_the_published_ones() {
        let table = [
            (0, 0),
            (1, 1),
            (2, 2),
            (3, 3),
            (4, 4),
            (5, 4),
            (6, 5),
            (8, 6),
            (10, 7),
            (11, 7),
            (20, 9),
            (25, 10),
            (30, 11),
            (50, 12),
            (100, 14),
            (200, 15),
            (1000, 16),
            (100_000, 16),
        ];
        for (pods, expected) in table {
            assert_eq!(sample_size(pods), expected, "{pods} pods");
        }
    }

    #[test]
    fn pods_that_saw_a_whole_window_are_asked_first() {
        let now = Time::from_secs(1_000);
        let pods = |n: u64, age: u64| {
            (0..n).map(move |i| Candidate { pod: age + i, started: Time::from_secs(1_000 - age) })
        };
        let window = Duration::from_secs(60);
        // 25 pods, 5 of them old: 10 are asked, all the old ones among them.
        let order = ask_order(now, window, pods(20, 10).chain(pods(5, 100)).collect(), &mut Rng::new(1));
        let mut first: Vec<u64> = order[..5].to_vec();
        first.sort_unstable();
        assert_eq!(first, [100, 101, 102, 103, 104]);
        assert_eq!(order.len(), 25);
    }

    #[test]
    fn a_sample_speaks_for_all_pods() {
        let stat = |concurrency| Stat { average_concurrent_requests: concurrency, ..Stat::default() };
        let of = |answers: &[f64], pods| {
            let answers: Vec<Stat> = answers.iter().copied().map(stat).collect();
            extrapolate(&answers, pods).unwrap().average_concurrent_requests
        };
        assert!((of(&[2.0, 4.0, 6.0, 8.0, 10.0], 6) - 36.0).abs() < 1e-9);
        assert!((of(&[3.0, 5.0, 3.0], 3) - 11.0).abs() < 1e-9);
        assert_eq!((extrapolate(&[], 3), extrapolate(&[], 0)), (None, None));
    }

    #[test]
    fn half_a_sum_is_no_sum() {
        // Seven of ten pods are asked.
        let answers = vec![Stat::default(); 7];
        assert!(extrapolate(&answers, 10).is_some());
        assert_eq!(extrapolate(&answers[..6], 10), None);
    }
}
