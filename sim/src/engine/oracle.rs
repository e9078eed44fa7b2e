//! The pods of an autoscaler that knows every request beforehand: in each second, just enough for the
//! work that was asked for in it.

use std::collections::VecDeque;
use std::time::Duration;

use pilotlight_core::Time;

/// Adds up the pods needed, second by second, in memory of the longest request.
#[derive(Clone, Debug)]
pub(super) struct Oracle {
    /// The load one pod can carry at once; infinite where requests on a pod do nothing to each other.
    per_pod: f64,
    /// The end of the time that counts: what is left to do then is not its work, as the pods after it are not ours.
    end: Time,
    /// The second the front of `seconds` stands for.
    first: u64,
    seconds: VecDeque<Second>,
    /// Requests that were running throughout, at the beginning of the first second.
    level: f64,
    pod_seconds: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    /// Work of requests that begin or end within this second, in seconds.
    partly: f64,
    /// Change in the number of requests that run throughout, as of this second.
    change: f64,
}

impl Oracle {
    pub(super) fn new(per_pod: f64, end: Time) -> Self {
        Oracle { per_pod, end, first: 0, seconds: VecDeque::new(), level: 0.0, pod_seconds: 0.0 }
    }

    /// A request that would be served at once, for as long as its work takes. In order of arrival.
    pub(super) fn add(&mut self, arrival: Time, work: Duration) {
        if arrival >= self.end {
            return;
        }
        self.close_until(arrival.whole_seconds());
        let end = (arrival + work).min(self.end);
        let (from, to) = (arrival.whole_seconds(), end.whole_seconds());
        if from == to {
            self.second(from).partly += (end - arrival).as_secs_f64();
            return;
        }
        self.second(from).partly += 1.0 - fraction(arrival);
        self.second(to).partly += fraction(end);
        self.second(from + 1).change += 1.0;
        self.second(to).change -= 1.0;
    }

    /// Pod-seconds altogether.
    pub(super) fn finish(mut self) -> f64 {
        self.close_until(self.first + self.seconds.len() as u64);
        self.pod_seconds
    }

    fn close_until(&mut self, second: u64) {
        while self.first < second {
            let Some(closed) = self.seconds.pop_front() else {
                // No request runs: all changes have been taken back.
                self.first = second;
                self.level = 0.0;
                return;
            };
            self.first += 1;
            self.level += closed.change;
            // The time may end within the last second.
            let is_last = self.first > self.end.whole_seconds();
            let length = if is_last { fraction(self.end) } else { 1.0 };
            if length == 0.0 {
                return;
            }
            let load = self.level + closed.partly / length;
            // Sums of many small parts must not ask for a pod more; and where a pod carries anything, it takes one.
            let least = if load > 0.0 { 1.0 } else { 0.0 };
            self.pod_seconds += (load / self.per_pod - 1e-9).ceil().max(least) * length;
        }
    }

    fn second(&mut self, second: u64) -> &mut Second {
        let index = (second - self.first) as usize;
        if index >= self.seconds.len() {
            self.seconds.resize(index + 1, Second::default());
        }
        &mut self.seconds[index]
    }
}

/// How far into its second a time is.
fn fraction(time: Time) -> f64 {
    (time.as_nanos() % 1_000_000_000) as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needed(per_pod: f64, requests: &[(u64, u64)]) -> f64 {
        needed_until(Time::from_secs(1_000), per_pod, requests)
    }

    fn needed_until(end: Time, per_pod: f64, requests: &[(u64, u64)]) -> f64 {
        let mut oracle = Oracle::new(per_pod, end);
        for &(arrival_ms, work_ms) in requests {
            oracle.add(Time::from_millis(arrival_ms), Duration::from_millis(work_ms));
        }
        oracle.finish()
    }

    #[test]
    fn a_second_with_any_work_needs_a_pod_and_one_without_needs_none() {
        assert_eq!(needed(10.0, &[(0, 100)]), 1.0);
        assert_eq!(needed(10.0, &[(100, 100), (5_000, 100)]), 2.0);
        assert_eq!(needed(10.0, &[]), 0.0);
        assert_eq!(needed(f64::INFINITY, &[(100, 100), (100, 900), (5_000, 100)]), 2.0);
    }

    #[test]
    fn a_long_request_needs_its_pod_in_every_second_it_touches() {
        assert_eq!(needed(1.0, &[(500, 3_000)]), 4.0);
        assert_eq!(
            needed(1.0, &[(500, 3_000), (1_500, 1_000)]),
            4.0 + 2.0,
            "half, one and a half, one and a half, half"
        );
    }

    #[test]
    fn what_comes_after_the_end_is_not_counted() {
        // Pods of one request each: from 0 s, 1 s, 2 s ... 9 s on, until 10 s.
        let requests: Vec<(u64, u64)> = (0..10).map(|at| (at * 1_000, 60_000)).collect();
        assert_eq!(needed_until(Time::from_secs(10), 1.0, &requests), 55.0);
        assert_eq!(needed_until(Time::from_secs(60), 10.0, &[(59_900, 200)]), 1.0, "not two seconds");
        assert_eq!(needed_until(Time::from_millis(2_500), 1.0, &[(0, 60_000)]), 2.5);
        assert_eq!(needed_until(Time::from_millis(2_500), 1.0, &[(2_250, 250), (2_500, 9)]), 0.5);
    }

    #[test]
    fn full_pods_are_not_overfull() {
        let requests: Vec<(u64, u64)> = (0..10).map(|i| (i * 100, 1_000)).collect();
        // Ten at once from the first second's end on; the pods carry five each.
        assert_eq!(needed(5.0, &requests), 2.0 + 1.0);
        assert_eq!(needed(1.0, &[(0, 1_000); 7]), 7.0);
    }
}
