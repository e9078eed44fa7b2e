//! What one decision costs: the autoscaler makes one for every revision every two seconds, and the simulator
//! makes them back to back. Goals: one tick within a microsecond, 10,000 revisions within 20 ms of one core.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use pilotlight_core::balance::{Balancer, Load, Policy};
use pilotlight_core::{
    Aggregation, Breaker, Input, PodCounts, Reachability, Revision, RevisionSpec, Rng, ScalingMetric, Stat,
    TargetBurstCapacity, Time,
};

const START: Time = Time::from_secs(1_700_000_000);

/// A revision whose windows are full: some load in every one of the last `seconds` seconds.
fn filled(spec: RevisionSpec, seconds: u64, seed: u64) -> Revision {
    let mut rng = Rng::new(seed);
    let ready = PodCounts { ready: 4, ..PodCounts::default() };
    let mut revision = Revision::new(START - Duration::from_secs(seconds), spec, ready);
    for ago in (0..seconds).rev() {
        revision.step(START - Duration::from_secs(ago), Input::Scraped(load(rng.unit() * 400.0)));
    }
    revision.step(TICK, Input::Tick);
    assert!(revision.decision().is_some(), "a bench of ticks that decide nothing would be a lie");
    revision
}

fn load(concurrency: f64) -> Stat {
    Stat { average_concurrent_requests: concurrency, request_count: concurrency * 10.0, ..Stat::default() }
}

fn spec(aggregation: Aggregation) -> RevisionSpec {
    RevisionSpec { aggregation, ..RevisionSpec::default() }
}

/// Ticks come half a second after the newest sample, so that windows are read as they are in production.
const TICK: Time = Time::from_millis(1_700_000_000_500);

fn decision(c: &mut Criterion) {
    let mut group = c.benchmark_group("decision");
    for (name, aggregation) in
        [("linear", Aggregation::Linear), ("weighted-exponential", Aggregation::WeightedExponential)]
    {
        let mut revision = filled(spec(aggregation), 60, 1);
        group.bench_function(name, |b| b.iter(|| revision.step(black_box(TICK), Input::Tick)));
    }

    let mut revision = filled(spec(Aggregation::Linear), 60, 1);
    let mut now = TICK;
    group.bench_function("with one scrape recorded", |b| {
        b.iter(|| {
            now += Duration::from_secs(1);
            revision.step(now, Input::Scraped(black_box(load(123.0))));
            revision.step(now, Input::Tick)
        });
    });
    group.finish();
}

/// No two neighbours alike: windows from 6 s to 10 min, both aggregations, both metrics, delays, panic, zero.
fn mixed_spec(i: u64) -> RevisionSpec {
    let stable_s = [6, 30, 60, 60, 60, 600][(i % 6) as usize];
    RevisionSpec {
        scaling_metric: if i.is_multiple_of(5) { ScalingMetric::Rps } else { ScalingMetric::Concurrency },
        aggregation: if i.is_multiple_of(4) { Aggregation::WeightedExponential } else { Aggregation::Linear },
        stable_window: Duration::from_secs(stable_s),
        panic_window: Duration::from_secs((stable_s / 10).max(1)),
        scale_down_delay: Duration::from_secs(if i.is_multiple_of(3) { 300 } else { 0 }),
        target_burst_capacity: match i % 7 {
            0 => TargetBurstCapacity::Off,
            1 => TargetBurstCapacity::Unlimited,
            _ => TargetBurstCapacity::Of(211.0),
        },
        reachability: if i.is_multiple_of(11) { Reachability::Unreachable } else { Reachability::Reachable },
        ..RevisionSpec::default()
    }
}

fn fleet(c: &mut Criterion) {
    let mut revisions: Vec<Revision> = (0..10_000)
        .map(|i| {
            let spec = mixed_spec(i);
            let seconds = spec.stable_window.as_secs();
            filled(spec, seconds, i)
        })
        .collect();
    c.bench_function("tick of 10,000 revisions", |b| {
        b.iter(|| {
            for revision in &mut revisions {
                black_box(revision.step(black_box(TICK), Input::Tick));
            }
        });
    });
}

fn data_plane(c: &mut Criterion) {
    let mut breaker = Breaker::new(10, 100);
    c.bench_function("breaker/acquire and release", |b| {
        b.iter(|| {
            let admission = breaker.acquire();
            breaker.release();
            admission
        });
    });
    c.bench_function("breaker/queue, grant and release", |b| {
        b.iter_batched_ref(
            || {
                let mut full = Breaker::new(1, 100);
                full.acquire().expect("there is room");
                full
            },
            |full| {
                let ticket = full.acquire();
                full.release();
                ticket
            },
            BatchSize::SmallInput,
        );
    });

    let mut group = c.benchmark_group("balance");
    for pods in [1usize, 8, 100] {
        let mut rng = Rng::new(7);
        let loads: Vec<Load> =
            (0..pods).map(|_| Load { in_flight: 1 + rng.below(8) as u32, limit: Some(10) }).collect();
        for (name, policy) in [
            ("first-available", Policy::FirstAvailable),
            ("round-robin", Policy::RoundRobin),
            ("power-of-two", Policy::PowerOfTwo),
            ("least-loaded", Policy::LeastLoaded),
        ] {
            let mut balancer = Balancer::new(policy, 7);
            group.bench_with_input(BenchmarkId::new(name, pods), &loads, |b, loads| {
                b.iter(|| balancer.pick(black_box(loads)));
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .without_plots();
    targets = decision, fleet, data_plane
}
criterion_main!(benches);
