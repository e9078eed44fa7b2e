//! A timeline in fewer, longer steps: as many as fit on a screen or a page.

use crate::outcome::{Point, Timeline};

impl Timeline {
    /// The timeline in at most `most` steps, each as long as a whole number of the old ones.
    ///
    /// What was an average stays one; the wanted pods are those at the end; of latencies, the longest is the
    /// longest, and quantiles are averaged by the requests that ended, which is as near as can be told.
    pub fn thinned(&self, most: usize) -> Timeline {
        let merge = self.points.len().div_ceil(most.max(1)).max(1);
        if merge == 1 {
            return self.clone();
        }
        let points = self.points.chunks(merge).map(merged).collect();
        Timeline { step_s: self.step_s * merge as f64, points }
    }

    /// The end of the last step, in seconds from the start.
    pub fn end_s(&self) -> f64 {
        self.points.last().map_or(0.0, |last| last.at_s + self.step_s)
    }
}

fn merged(steps: &[Point]) -> Point {
    let mean = |of: fn(&Point) -> f64| steps.iter().map(of).sum::<f64>() / steps.len() as f64;
    let ended = |point: &Point| point.completions_per_s + point.failures_per_s;
    let all_ended: f64 = steps.iter().map(ended).sum();
    let by_requests = |of: fn(&Point) -> f64| match all_ended {
        0.0 => 0.0,
        all => steps.iter().map(|point| of(point) * ended(point)).sum::<f64>() / all,
    };
    let (first, last) = (&steps[0], &steps[steps.len() - 1]);
    Point {
        at_s: first.at_s,
        arrivals_per_s: mean(|p| p.arrivals_per_s),
        completions_per_s: mean(|p| p.completions_per_s),
        failures_per_s: mean(|p| p.failures_per_s),
        in_flight: mean(|p| p.in_flight),
        queued: mean(|p| p.queued),
        target: mean(|p| p.target),
        wanted: last.wanted,
        ready: mean(|p| p.ready),
        starting: mean(|p| p.starting),
        pending: mean(|p| p.pending),
        terminating: mean(|p| p.terminating),
        nodes: mean(|p| p.nodes),
        panic_fraction: mean(|p| p.panic_fraction),
        latency_p50_s: by_requests(|p| p.latency_p50_s),
        latency_p95_s: by_requests(|p| p.latency_p95_s),
        latency_max_s: steps.iter().map(|p| p.latency_max_s).fold(0.0, f64::max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_steps_keep_their_sums_and_their_longest() {
        let points = (0..7)
            .map(|at| Point {
                at_s: f64::from(at),
                arrivals_per_s: f64::from(at),
                completions_per_s: f64::from(at % 2),
                latency_p50_s: 1.0,
                latency_max_s: f64::from(at),
                wanted: f64::from(at),
                ..Point::default()
            })
            .collect();
        let thin = Timeline { step_s: 1.0, points }.thinned(4);
        assert_eq!((thin.step_s, thin.points.len(), thin.end_s()), (2.0, 4, 8.0));
        assert_eq!(thin.points.iter().map(|p| p.arrivals_per_s).collect::<Vec<_>>(), [0.5, 2.5, 4.5, 6.0]);
        assert_eq!(thin.points[1], Point { at_s: 2.0, ..thin.points[1] });
        assert_eq!(
            (thin.points[1].latency_p50_s, thin.points[1].latency_max_s, thin.points[1].wanted),
            (1.0, 3.0, 3.0)
        );
        assert_eq!(thin.points[3].latency_p50_s, 0.0);
    }

    #[test]
    fn a_short_timeline_stays_as_it_is() {
        let timeline = Timeline { step_s: 1.0, points: vec![Point::default(); 3] };
        assert_eq!(timeline.thinned(3), timeline);
        assert_eq!(Timeline::default().end_s(), 0.0);
    }
}
