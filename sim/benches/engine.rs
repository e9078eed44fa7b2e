//! The cost of a simulated request, and of an event. Goals: two million requests a second on one core with everything on,
//! ten million events through the bare queue, a day at 100 requests a second within five seconds.
//!
//! Each bench prints its own figure per second; criterion's throughput says the same with an interval.
#![expect(clippy::disallowed_types, reason = "a bench has a clock")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pilotlight_core::{RevisionSpec, Rng, Time};
use pilotlight_sim::scenario::{Load, Platform, Scenario, Settings};
use pilotlight_sim::traffic::{Process, Source, Traffic, TrafficSpec};
use pilotlight_sim::{EventQueue, Outcome, Run, simulate};

/// The event queue alone, with as many events planned as a busy run has: take the next, plan another.
fn event_loop(c: &mut Criterion) {
    let mut group = c.benchmark_group("event queue");
    for planned in [100_u64, 10_000] {
        let mut rng = Rng::new(1);
        let mut queue = EventQueue::default();
        (0..planned).for_each(|event| queue.push(Time::from_nanos(rng.next_u64() % SECOND), event));
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("{planned} planned"), |b| {
            b.iter(|| {
                let (at, event) = queue.pop().expect("there is always one");
                queue.push(at + Duration::from_nanos(rng.next_u64() % SECOND), event);
                black_box(at)
            });
        });
    }
    group.finish();
}

/// Requests with everything on: windows, reports, histograms, a timeline; on as many pods as the target makes of the load.
fn requests(c: &mut Criterion) {
    let mut group = c.benchmark_group("requests");
    group.sample_size(10);
    for (pods, rate) in [(1, 1_000.0), (15, 15_000.0), (150, 50_000.0)] {
        let length = Duration::from_secs(if pods == 1 { 600 } else { 60 });
        let scenario = Scenario { platform: Platform::knative(), ..poisson(rate, length, SERVICE_TIME) };
        // In flight over pods, at 70 %.
        let total = rate * SERVICE_TIME.as_secs_f64() / f64::from(pods) / 0.7 * 1.02;
        let spec = RevisionSpec { target: 0.7 * total, total, ..RevisionSpec::default() };
        let settings = Settings::requests("pods", spec, 0);
        told(&format!("requests on {pods} pods"), &scenario, &settings, true);
        group.throughput(Throughput::Elements(outcome(&scenario, &settings, true).requests));
        group.bench_function(format!("{pods} pods"), |b| b.iter(|| outcome(&scenario, &settings, true)));
    }
    group.finish();
}

/// Long runs: a day at 100 requests a second, and a week in which a request comes every six hours.
fn long(c: &mut Criterion) {
    let mut group = c.benchmark_group("long");
    group.sample_size(10);
    let day = poisson(100.0, Duration::from_secs(86_400), Duration::from_millis(100));
    let defaults = Settings::requests("defaults", RevisionSpec::default(), 0);
    told("a day at 100 requests/s", &day, &defaults, false);
    group.bench_function("a day at 100 per second", |b| b.iter(|| outcome(&day, &defaults, false)));

    let week = Duration::from_secs(7 * 86_400);
    let source = Source::Constant { rate: 1.0 / 21_600.0, length: week, arrivals: Process::Uniform };
    let idle = Scenario::new(Load::Open(load(source)), week, Duration::from_millis(100));
    told("a week of idling", &idle, &defaults, false);
    group.bench_function("a week of idling", |b| b.iter(|| outcome(&idle, &defaults, false)));
    group.finish();
}

fn poisson(rate: f64, length: Duration, service_time: Duration) -> Scenario {
    let source = Source::Constant { rate, length, arrivals: Process::Poisson };
    Scenario::new(Load::Open(load(source)), length, service_time)
}

fn load(source: Source) -> Traffic {
    TrafficSpec::from(source).load(".".as_ref()).expect("a legal pattern")
}

fn outcome(scenario: &Scenario, settings: &Settings, timeline: bool) -> Outcome {
    simulate(black_box(scenario), black_box(settings), Run { seed: 1, timeline })
}

/// Runs once, and prints what a second of real time is worth.
fn told(name: &str, scenario: &Scenario, settings: &Settings, timeline: bool) {
    let begun = Instant::now();
    let outcome = outcome(scenario, settings, timeline);
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{name}: {:.2} s; {:.2} million requests/s, {:.2} million events/s; at most {} pods",
        seconds,
        outcome.requests as f64 / seconds / 1e6,
        outcome.events as f64 / seconds / 1e6,
        outcome.pods.peak,
    );
}

const SECOND: u64 = 1_000_000_000;
const SERVICE_TIME: Duration = Duration::from_millis(20);

criterion_group!(benches, event_loop, requests, long);
criterion_main!(benches);
