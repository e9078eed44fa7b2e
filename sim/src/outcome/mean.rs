//! Several outcomes of the same settings as one: the mean of each number.

use std::collections::BTreeMap;

use super::{Outcome, PodUse, Quantiles, Scaling};

impl Outcome {
    /// The mean of every number over `outcomes`, which differ in their seeds; counts are rounded. A quantile is the
    /// mean of the quantiles, not that of all requests together. Seed and timeline are the first one's.
    ///
    /// # Panics
    /// If there is no outcome.
    pub fn mean(outcomes: &[Outcome]) -> Outcome {
        let first = outcomes.first().expect("a mean of at least one outcome");
        if outcomes.len() == 1 {
            return first.clone();
        }
        let number = outcomes.len() as f64;
        let mean = |of: &dyn Fn(&Outcome) -> f64| outcomes.iter().map(of).sum::<f64>() / number;
        let count = |of: &dyn Fn(&Outcome) -> u64| mean(&|outcome| of(outcome) as f64).round() as u64;
        let quantiles = |of: &dyn Fn(&Outcome) -> Quantiles| Quantiles {
            mean: mean(&|outcome| of(outcome).mean),
            p50: mean(&|outcome| of(outcome).p50),
            p90: mean(&|outcome| of(outcome).p90),
            p95: mean(&|outcome| of(outcome).p95),
            p99: mean(&|outcome| of(outcome).p99),
            p99_9: mean(&|outcome| of(outcome).p99_9),
            max: mean(&|outcome| of(outcome).max),
        };
        let codes = outcomes.iter().flat_map(|outcome| outcome.statuses.keys().copied());
        let statuses: BTreeMap<u16, u64> = codes
            .map(|code| (code, count(&|outcome| outcome.statuses.get(&code).copied().unwrap_or_default())))
            .collect();
        Outcome {
            seed: first.seed,
            duration_s: first.duration_s,
            requests: count(&|it| it.requests),
            retries: count(&|it| it.retries),
            statuses,
            abandoned: count(&|it| it.abandoned),
            lost: count(&|it| it.lost),
            latency: quantiles(&|it| it.latency),
            wait: quantiles(&|it| it.wait),
            queue: quantiles(&|it| it.queue),
            cold_start: quantiles(&|it| it.cold_start),
            service: quantiles(&|it| it.service),
            cold_starts: count(&|it| it.cold_starts),
            cold_requests: count(&|it| it.cold_requests),
            slo_fraction: first.slo_fraction.map(|_| mean(&|it| it.slo_fraction.unwrap_or_default())),
            pods: PodUse {
                pod_seconds: mean(&|it| it.pods.pod_seconds),
                ready_seconds: mean(&|it| it.pods.ready_seconds),
                starting_seconds: mean(&|it| it.pods.starting_seconds),
                terminating_seconds: mean(&|it| it.pods.terminating_seconds),
                pending_seconds: mean(&|it| it.pods.pending_seconds),
                peak: mean(&|it| f64::from(it.pods.peak)).round() as u32,
                starts: count(&|it| it.pods.starts),
                crashes: count(&|it| it.pods.crashes),
                node_seconds: mean(&|it| it.pods.node_seconds),
                utilization: mean(&|it| it.pods.utilization),
                oracle_pod_seconds: mean(&|it| it.pods.oracle_pod_seconds),
                over_provision: mean(&|it| it.pods.over_provision),
            },
            scaling: Scaling {
                decisions: count(&|it| it.scaling.decisions),
                ups: count(&|it| it.scaling.ups),
                downs: count(&|it| it.scaling.downs),
                panics: count(&|it| it.scaling.panics),
                panic_seconds: mean(&|it| it.scaling.panic_seconds),
                proxied_seconds: mean(&|it| it.scaling.proxied_seconds),
            },
            timeline: first.timeline.clone(),
            events: count(&|it| it.events),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_the_mean_of_its_kind() {
        let one = |requests, p95, answered| Outcome {
            requests,
            latency: Quantiles { p95, ..Quantiles::default() },
            statuses: [(200, answered)].into(),
            ..Outcome::default()
        };
        let mean = Outcome::mean(&[one(10, 0.5, 10), one(20, 1.5, 10), one(31, 1.0, 31)]);
        assert_eq!((mean.requests, mean.latency.p95, mean.statuses[&200]), (20, 1.0, 17));
    }

    #[test]
    fn the_mean_of_one_is_that_one_to_the_last_digit() {
        let one = Outcome { requests: 7, slo_fraction: Some(0.1 + 0.2), ..Outcome::default() };
        assert_eq!(Outcome::mean(std::slice::from_ref(&one)), one);
    }
}
