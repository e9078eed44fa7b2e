//! Whole lives of revisions, decided by Knative's own code: ours must decide the same, every time.
//!
//! Vectors: `tests/conformance/kpa-traces.jsonl`, or the folder named by `PILOTLIGHT_CONFORMANCE`. One JSON
//! object a line: a spec, and the events of one revision's life, each tick with the answer it must give.

use std::path::PathBuf;
use std::time::Duration;

use pilotlight_core::{
    Aggregation, Input, PodCounts, Reachability, Revision, RevisionSpec, ScalingMetric, Stat,
    TargetBurstCapacity, Time,
};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Trace {
    name: String,
    spec: Spec,
    initial_ready: u32,
    events: Vec<Vec<Value>>,
}

#[derive(Deserialize)]
struct Spec {
    scaling_metric: ScalingMetric,
    target_value: f64,
    total_value: f64,
    target_burst_capacity: f64,
    panic_threshold: f64,
    max_scale_up_rate: f64,
    max_scale_down_rate: f64,
    stable_window_s: f64,
    panic_window_s: f64,
    scale_down_delay_s: f64,
    activation_scale: u32,
    reachable: bool,
    aggregation: Aggregation,
    scraped: bool,
}

#[derive(Debug, Deserialize)]
struct Expected {
    valid: bool,
    stable: Option<f64>,
    panic: Option<f64>,
    desired: Option<u32>,
    ebc: Option<i32>,
    panicking: Option<bool>,
}

impl Spec {
    fn resolve(self) -> RevisionSpec {
        RevisionSpec {
            scaling_metric: self.scaling_metric,
            target: self.target_value,
            total: self.total_value,
            target_burst_capacity: match self.target_burst_capacity {
                -1.0 => TargetBurstCapacity::Unlimited,
                0.0 => TargetBurstCapacity::Off,
                burst => TargetBurstCapacity::Of(burst),
            },
            panic_threshold: self.panic_threshold,
            max_scale_up_rate: self.max_scale_up_rate,
            max_scale_down_rate: self.max_scale_down_rate,
            stable_window: Duration::from_secs_f64(self.stable_window_s),
            panic_window: Duration::from_secs_f64(self.panic_window_s),
            scale_down_delay: Duration::from_secs_f64(self.scale_down_delay_s),
            activation_scale: (self.activation_scale > 0).then_some(self.activation_scale),
            reachability: if self.reachable { Reachability::Reachable } else { Reachability::Unreachable },
            aggregation: self.aggregation,
            scraped: self.scraped,
            ..RevisionSpec::default()
        }
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test may be told where other vectors are")]
fn every_decision_equals_knatives() {
    let folder = std::env::var_os("PILOTLIGHT_CONFORMANCE").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/conformance")),
        PathBuf::from,
    );
    let file = folder.join("kpa-traces.jsonl");
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let traces: Vec<Trace> = text
        .lines()
        .zip(1..)
        .map(|(line, number)| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{}:{number}: {error}", file.display()))
        })
        .collect();
    let (mut evaluations, mut differences) = (0, Vec::new());
    for trace in traces {
        replay(trace, &mut evaluations, &mut differences);
    }
    assert!(evaluations > 0, "{} holds no evaluation", file.display());
    assert!(
        differences.is_empty(),
        "{} of {evaluations} evaluations differ, the first of them:\n{}",
        differences.len(),
        differences[..differences.len().min(10)].join("\n")
    );
    println!("{evaluations} evaluations match");
}

fn replay(trace: Trace, evaluations: &mut usize, differences: &mut Vec<String>) {
    let start = Time::from_secs(1_700_000_000);
    let ready = |pods| PodCounts { ready: pods, ..PodCounts::default() };
    let mut revision = Revision::new(start, trace.spec.resolve(), ready(trace.initial_ready));
    for event in trace.events {
        let now = start + Duration::from_millis(event[1].as_u64().expect("a time in milliseconds"));
        let number = |at: usize| event[at].as_f64().expect("a number");
        match event[0].as_str().expect("a kind of event") {
            "stat" => {
                let stat = Stat {
                    average_concurrent_requests: number(2),
                    average_proxied_concurrent_requests: number(3),
                    request_count: number(4),
                    proxied_request_count: number(5),
                    ..Stat::default()
                };
                revision.step(now, Input::Scraped(stat));
            }
            "ready" => {
                revision.step(now, Input::Pods(ready(event[2].as_u64().expect("a number of pods") as u32)));
            }
            "spec" => {
                let spec: Spec = serde_json::from_value(event[2].clone()).expect("a spec");
                revision.step(now, Input::Spec(Box::new(spec.resolve())));
            }
            "tick" => {
                let expected: Expected = serde_json::from_value(event[2].clone()).expect("an expectation");
                revision.step(now, Input::Tick);
                *evaluations += 1;
                if let Err(difference) = compare(&revision, &expected) {
                    differences.push(format!("{} at {} ms: {difference}", trace.name, event[1]));
                }
            }
            other => panic!("{}: unknown event {other}", trace.name),
        }
    }
}

fn compare(revision: &Revision, expected: &Expected) -> Result<(), String> {
    let decision = revision.evaluation().expect("a tick is always evaluated").new_decision();
    let got = decision.map(|d| (d.desired, d.excess_burst_capacity, d.is_panicking()));
    let want = expected.valid.then(|| {
        let missing = "a valid expectation names desired, ebc and panicking";
        (expected.desired.expect(missing), expected.ebc.expect(missing), expected.panicking.expect(missing))
    });
    if got != want {
        return Err(format!("decided {decision:?}, not {expected:?}"));
    }
    for (got, want) in
        [(decision.map(|d| d.stable), expected.stable), (decision.map(|d| d.panic), expected.panic)]
    {
        if let (Some(got), Some(want)) = (got, want)
            && (got - want).abs() > 1e-6
        {
            return Err(format!("averages {decision:?}, not {expected:?}"));
        }
    }
    Ok(())
}
