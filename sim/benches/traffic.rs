//! The cost of one arrival, by pattern and process, and of one sample of a distribution. The simulator asks
//! for an arrival and a service time with every request: goal, 30 ns for a Poisson arrival at a constant rate.

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pilotlight_core::Rng;
use pilotlight_sim::dist::Distribution;
use pilotlight_sim::traffic::{Traffic, TrafficSpec};

/// Arrivals in each iteration.
const BATCH: u64 = 10_000;

fn load(yaml: &str) -> Traffic {
    let spec: TrafficSpec = yaml.parse().expect("a legal text");
    spec.load(Path::new(".")).expect("legal numbers")
}

fn arrivals(c: &mut Criterion) {
    let mut group = c.benchmark_group("arrival");
    group.throughput(Throughput::Elements(BATCH));
    let mut bench = |name: &str, traffic: &Traffic| {
        let enough = traffic.arrivals(1).take(BATCH as usize).count() as u64;
        assert_eq!(enough, BATCH, "a bench of fewer arrivals than counted would be a lie");
        let mut seed = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                seed += 1;
                traffic
                    .arrivals(black_box(seed))
                    .take(BATCH as usize)
                    .fold(0, |sum, arrival| sum ^ arrival.at.as_nanos())
            });
        });
    };
    for process in ["uniform", "poisson", "gamma:cv=0.5", "gamma:cv=2"] {
        let with = format!("for: 24h, arrivals: '{process}'");
        bench(&format!("constant, {process}"), &load(&format!("constant: {{rate: 100, {with}}}")));
    }
    for (name, pattern) in [
        ("steps", "steps: {steps: [{rate: 100, for: 30s}, {rate: 500, for: 5m}]}"),
        ("ramp", "ramp: {from: 0, to: 1000, for: 10m}"),
        ("sine", "sine: {mean: 100, amplitude: 80, period: 1m, for: 24h}"),
        ("diurnal", "diurnal: {trough: 10, peak: 100}"),
        ("bursts", "bursts: {base: 10, burst: 500, length: 5s, every: 60s, for: 24h}"),
        ("mmpp", "mmpp: {states: [{rate: 10, mean: 10s}, {rate: 200, mean: 5s}], for: 24h}"),
        ("concurrent", "concurrent: {requests: 25, every: 1s, for: 24h}"),
        ("concurrent scaled by 1.5", "[{concurrent: {requests: 25, every: 1s, for: 24h}}, {scale: 1.5}]"),
        (
            "merge of 8",
            "merge: [{constant: {rate: 10, for: 24h}}, {constant: {rate: 10, for: 24h}}, {constant: {rate: 10, for: 24h}}, \
             {constant: {rate: 10, for: 24h}}, {constant: {rate: 10, for: 24h}}, {constant: {rate: 10, for: 24h}}, \
             {constant: {rate: 10, for: 24h}}, {constant: {rate: 10, for: 24h}}]",
        ),
    ] {
        bench(name, &load(pattern));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let recorded = |name: &str, text: String, more: &str| {
        std::fs::write(folder.path().join(name), text).expect("writable");
        let spec: TrafficSpec = format!("trace: {{file: {name}{more}}}").parse().expect("a legal text");
        spec.load(folder.path()).expect("a legal file")
    };
    let lines: String = (0..20_000).map(|at| format!("{}.{:02},0.1\n", at / 100, at % 100)).collect();
    bench("recorded", &recorded("plain.csv", format!("t_start_s,duration_s\n{lines}"), ""));
    let counts = "n\n".to_owned() + &"6000\n".repeat(10);
    bench("counts per minute", &recorded("counts.csv", counts, ", format: per-minute"));
    group.finish();
}

fn samples(c: &mut Criterion) {
    let mut group = c.benchmark_group("sample");
    let mut bench = |name: &str, distribution: &Distribution| {
        let mut rng = Rng::new(1);
        group.bench_function(name, |b| b.iter(|| black_box(distribution).sample(&mut rng)));
    };
    for text in [
        "100ms",
        "exponential:100ms",
        "lognormal:p50=100ms,p99=1s",
        "gamma:mean=100ms,cv=0.5",
        "gamma:mean=100ms,cv=2",
        "uniform:10ms..20ms",
        "percentiles:p50=80ms,p90=200ms,p99=1s",
    ] {
        bench(text, &text.parse().expect("a legal text"));
    }
    let measured: Vec<Duration> = (0..10_000).map(Duration::from_micros).collect();
    bench("empirical of 10,000", &Distribution::empirical("it", &measured).expect("not empty"));
    group.finish();
}

criterion_group!(benches, arrivals, samples);
criterion_main!(benches);
