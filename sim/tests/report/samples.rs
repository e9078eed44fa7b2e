//! Pages to look at and to test with: a fluid sketch of a service, close enough to a simulation for its charts to
//! have the right shapes. Nothing here is a measurement.

use std::collections::BTreeMap;

use pilotlight_core::Rng;
use pilotlight_sim::report::{Candidate, Gain, Page, ReportedRun, Sensitivity, Tuning};
use pilotlight_sim::{Outcome, PodUse, Point, Quantiles, Scaling, Timeline};

/// A service as the sketch sees it.
#[derive(Clone, Copy)]
pub(crate) struct Sketch {
    pub(crate) seconds: u32,
    pub(crate) step_s: u32,
    pub(crate) base_per_s: f64,
    pub(crate) start_up_s: u32,
    pub(crate) target: f64,
    pub(crate) min_scale: f64,
    pub(crate) max_scale: f64,
}

pub(crate) const SKETCH: Sketch = Sketch {
    seconds: 1_200,
    step_s: 1,
    base_per_s: 60.0,
    start_up_s: 14,
    target: 7.0,
    min_scale: 0.0,
    max_scale: 14.0,
};

impl Sketch {
    pub(crate) fn outcome(self, seed: u64) -> Outcome {
        let mut rng = Rng::new(seed);
        let (mut queue, mut ready, mut starting) = (0.0_f64, self.min_scale, Vec::<(u32, f64)>::new());
        let (mut average, mut quiet, mut points) = (0.0_f64, 0_u32, Vec::new());
        let (mut requests, mut failed, mut panics) = (0.0, 0.0, 0_u64);
        let (mut pods, mut worst) = (PodUse::default(), 0.0_f64);
        let step = f64::from(self.step_s);
        for at in (0..self.seconds).step_by(self.step_s as usize) {
            let phase = f64::from(at) / f64::from(self.seconds);
            let wave = (1.0 - (phase * 4.0 * std::f64::consts::PI).cos()) / 2.0;
            let burst = if (0.62..0.66).contains(&phase) { 3.6 } else { 1.0 };
            let noise = 0.85 + 0.3 * rng.unit();
            let arrivals = if phase < 0.04 { 0.0 } else { (self.base_per_s * wave * burst * noise).max(0.0) };
            starting.retain(|&(due, count)| {
                let is_ready = due <= at;
                ready += if is_ready { count } else { 0.0 };
                !is_ready
            });
            let capacity = ready * 10.0 / 0.4;
            let done = (arrivals + queue / step).min(capacity);
            queue = (queue + (arrivals - done) * step).max(0.0);
            let refused = (queue - 240.0).max(0.0);
            queue -= refused;
            let in_flight = done * 0.4 + queue;
            average += (in_flight - average) * (step / 30.0).min(1.0);
            quiet = if arrivals > 0.5 { 0 } else { quiet + self.step_s };
            let coming: f64 = starting.iter().map(|&(_, count)| count).sum();
            let is_panic = in_flight > 2.0 * ready * self.target && in_flight > 1.0;
            let wanted = match (is_panic, quiet > 40) {
                (true, _) => (in_flight / self.target).ceil().max(ready + coming),
                (_, true) => 0.0,
                _ => (average / self.target).ceil().max(1.0_f64.min(average * 20.0).floor()),
            }
            .clamp(self.min_scale, self.max_scale);
            if wanted > ready + coming {
                starting.push((at + self.start_up_s, wanted - ready - coming));
                pods.starts += (wanted - ready - coming) as u64;
            }
            ready = ready.min(wanted.max(if coming > 0.0 { ready } else { 0.0 }));
            let wait = if capacity > 0.0 { queue / capacity } else { f64::from(self.start_up_s) };
            let longest =
                if arrivals > 0.0 { 0.4 + wait * (1.2 + rng.unit()) + 0.3 * rng.unit() } else { 0.0 };
            let some = f64::from(u8::from(done > 0.0));
            panics +=
                u64::from(is_panic && points.last().is_none_or(|last: &Point| last.panic_fraction == 0.0));
            requests += arrivals * step;
            failed += refused;
            worst = worst.max(longest);
            pods.pod_seconds += (ready + coming) * step;
            pods.ready_seconds += ready * step;
            pods.starting_seconds += coming * step;
            pods.peak = pods.peak.max((ready + coming) as u32);
            pods.oracle_pod_seconds += (arrivals * 0.04).ceil() * step;
            points.push(Point {
                at_s: f64::from(at),
                arrivals_per_s: arrivals,
                completions_per_s: done,
                failures_per_s: refused / step,
                in_flight,
                queued: queue,
                target: ready * self.target,
                wanted,
                ready,
                starting: coming.min(6.0),
                pending: (coming - 6.0).max(0.0),
                panic_fraction: f64::from(u8::from(is_panic)),
                latency_p50_s: some * (0.38 + 0.02 * rng.unit() + wait * 0.7),
                latency_p95_s: some * (0.52 + 0.06 * rng.unit() + wait),
                latency_max_s: some * longest,
                ..Point::default()
            });
        }
        pods.utilization = requests * 0.04 / pods.ready_seconds.max(1.0);
        pods.over_provision = pods.pod_seconds / pods.oracle_pod_seconds.max(1.0);
        let requests = requests.round();
        let failed = failed.round();
        let latency = quantiles(0.391, worst);
        Outcome {
            seed,
            duration_s: f64::from(self.seconds),
            requests: requests as u64,
            statuses: BTreeMap::from([(200, (requests - failed) as u64), (503, failed as u64)]),
            latency,
            wait: quantiles(0.004, worst - 0.4),
            queue: quantiles(0.003, worst * 0.4),
            cold_start: quantiles(0.0, worst - 0.5),
            service: quantiles(0.386, 0.93),
            cold_starts: 2,
            cold_requests: (requests * 0.004) as u64,
            pods,
            scaling: Scaling {
                decisions: u64::from(self.seconds) / 2,
                ups: pods.starts,
                downs: pods.starts,
                panics,
                panic_seconds: points.iter().map(|point| point.panic_fraction * step).sum(),
                proxied_seconds: f64::from(self.seconds) * 0.4,
            },
            timeline: Some(Timeline { step_s: step, points }),
            events: requests as u64 * 6,
            ..Outcome::default()
        }
    }
}

fn quantiles(p50: f64, max: f64) -> Quantiles {
    let at = |share: f64| p50 + (max - p50) * share;
    Quantiles { mean: at(0.02), p50, p90: at(0.05), p95: at(0.11), p99: at(0.4), p99_9: at(0.8), max }
}

pub(crate) fn single() -> Page {
    Page {
        title: "Two waves and a burst on a model server".into(),
        subtitle: "Waves of up to 60 requests/s with a burst to 190, 400 ms each, pods that start in 14 s; \
                   Knative's defaults with target 10 at 70 %."
            .into(),
        command: "pilotlight sim run burst.yaml --seed 7 --report burst.html".into(),
        seed: 7,
        scenario: "load:\n  sine: { low: 0, high: 60, period: 10m }\n  burst: { at: 12m24s, factor: 3.2, for: 48s }\n\
                   service:\n  time: { p50: 390ms, p99: 520ms }\n  start-up: 14s\nannotations:\n  target: \"10\"\n"
            .into(),
        runs: vec![ReportedRun::new("defaults", SKETCH.outcome(7))],
        tuning: None,
    }
}

pub(crate) fn comparison() -> Page {
    let sketches = [
        ("defaults", SKETCH),
        ("min-scale=2", Sketch { min_scale: 2.0, ..SKETCH }),
        ("target=5", Sketch { target: 3.5, max_scale: 24.0, ..SKETCH }),
    ];
    let mut runs: Vec<ReportedRun> =
        sketches.iter().map(|(name, sketch)| ReportedRun::new(*name, sketch.outcome(7))).collect();
    for run in &mut runs {
        for metric in ["p50", "p95", "p99", "wait-p95", "pod-seconds", "mean-pods"] {
            let value = run.outcome.metric(metric).unwrap_or_default();
            run.margins.insert(metric.into(), value * 0.03);
        }
    }
    Page {
        title: "Three settings on the same load".into(),
        subtitle: "The same arrivals for each; means of 10 seeds with their 95 % intervals.".into(),
        command: "pilotlight sim compare burst.yaml --set min-scale=2 --set target=5 --seeds 10".into(),
        runs,
        ..single()
    }
}

pub(crate) fn search() -> Page {
    let mut rng = Rng::new(11);
    let mut candidates: Vec<Candidate> = (0..420)
        .map(|at| {
            let x = rng.unit();
            let cost = 6_000.0 + 30_000.0 * x * x;
            let floor = 0.25 + 9.0 / (1.0 + ((cost - 5_500.0) / 1_800.0).powi(2));
            let latency = floor * (1.0 + rng.unit() * rng.unit() * 2.5);
            Candidate {
                name: format!("window={}s target={}", 10 + at % 50, 3 + at % 9),
                cost,
                latency,
                is_feasible: at % 17 != 0,
            }
        })
        .collect();
    candidates.push(Candidate { name: "defaults".into(), cost: 14_100.0, latency: 4.9, is_feasible: true });
    let defaults = candidates.len() - 1;
    let mut tuning = Tuning {
        reason: "A shorter window with a longer retention of the last pod saves 38 % of the wait at the same cost: \
                 most of the waiting here is for pods that had just been taken away."
            .into(),
        searched: "420 settings of 4 parameters, 3 seeds each; chosen on the first half of the load, judged on the \
                   second"
            .into(),
        cost_metric: "pod-seconds".into(),
        latency_metric: "wait-p95".into(),
        candidates,
        defaults: Some(defaults),
        chosen: None,
        gains: vec![
            gain("wait-p95", 4.94, 1.62, Some((-0.74, -0.58))),
            gain("pod-seconds", 14_100.0, 13_870.0, Some((-0.035, 0.004))),
            gain("p99", 15.2, 9.85, Some((-0.42, -0.27))),
            gain("success", 0.9987, 1.0, None),
        ],
        sensitivities: [
            ("scale-to-zero-pod-retention-period", 0.61, "longer: fewer cold starts"),
            ("window", 0.22, "shorter: pods follow the load"),
            ("target", 0.12, "lower: more room for bursts"),
            ("panic-threshold-percentage", 0.02, ""),
        ]
        .map(|(setting, effect_fraction, about)| Sensitivity {
            setting: setting.into(),
            effect_fraction,
            about: about.into(),
        })
        .to_vec(),
        patch: "metadata:\n  annotations:\n    autoscaling.knative.dev/window: \"20s\"\n    \
                autoscaling.knative.dev/scale-to-zero-pod-retention-period: \"4m\"\n"
            .into(),
    };
    tuning.chosen = tuning.front().into_iter().rfind(|&at| tuning.candidates[at].cost <= 14_100.0);
    let chosen = Sketch { min_scale: 1.0, ..SKETCH };
    Page {
        title: "Settings for a model that loads for 14 s".into(),
        subtitle: "Searched for the lowest p95 wait at no more pod-seconds than the defaults.".into(),
        command: "pilotlight sim tune burst.yaml --minimize wait-p95 --report tune.html".into(),
        runs: vec![
            ReportedRun::new("defaults", SKETCH.outcome(3)),
            ReportedRun::new("chosen", chosen.outcome(3)),
        ],
        tuning: Some(tuning),
        ..single()
    }
}

fn gain(metric: &str, defaults: f64, chosen: f64, interval: Option<(f64, f64)>) -> Gain {
    Gain { metric: metric.into(), defaults, chosen, interval }
}
