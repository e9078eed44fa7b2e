//! The cost of a sweep: 5,000 settings on an hour of a real trace, where that is at hand, or on an hour much like it.
//! Goal: 60 s on two cores. One pass each, timed whole: what is measured takes seconds.
#![expect(clippy::disallowed_types, reason = "a bench has a clock")]

#[path = "../tests/azure/mod.rs"]
mod azure;

use std::time::{Duration, Instant};

use pilotlight_core::{Rng, Time};
use pilotlight_sim::compare::Trials;
use pilotlight_sim::parallel::Workers;
use pilotlight_sim::scenario::{Load, Platform, Scenario};
use pilotlight_sim::sweep::{Grid, Written, sweep};
use pilotlight_sim::traffic::{Arrival, Traffic};

/// 10 x 5 x 5 x 5 x 4.
const KNOBS: [&str; 5] = [
    "window=6s,10s,20s,30s,45s,1m,90s,2m,3m,5m",
    "target-utilization-percentage=40,55,70,85,100",
    "panic-threshold-percentage=110,150,200,400,1000",
    "scale-down-delay=0s,15s,30s,1m,2m",
    "panic-window-percentage=5,10,30,100",
];

fn main() {
    let real = azure::scenario();
    let name = if real.is_some() { "the Azure trace" } else { "a made-up trace" };
    let mut scenario = real.unwrap_or_else(made_up);
    scenario.platform = Platform::knative();
    scenario.pods.init = Duration::from_millis(2_500).into();
    for container_concurrency in [4, 8, 0] {
        let written = Written { container_concurrency: container_concurrency.into(), ..Written::default() };
        let knobs = KNOBS.iter().map(|knob| knob.parse().expect("a knob")).collect();
        let grid = Grid::new(written, knobs).expect("legal settings");
        let (mut requests, mut events) = (0, 0);
        let began = Instant::now();
        sweep(&scenario, &grid, Trials::seeds(1, 1), &mut Workers::all(), |row| {
            let outcome = &row.outcomes.expect("legal settings")[0];
            requests += outcome.requests;
            events += outcome.events;
        });
        let seconds = began.elapsed().as_secs_f64();
        println!(
            "{} settings on {name}, container concurrency {container_concurrency}: {seconds:.1} s, \
             {:.2} M requests/s, {:.2} M events/s",
            grid.size(),
            requests as f64 / seconds / 1e6,
            events as f64 / seconds / 1e6,
        );
    }
}

/// As many requests in an hour, in bursts of 20 s every two minutes.
fn made_up() -> Scenario {
    let mut rng = Rng::new(1);
    let hour = Duration::from_secs(3_600);
    let arrival = |_| {
        let burst = Duration::from_secs(120 * rng.below(30) as u64);
        let service = Duration::from_secs_f64(-(1.0 - rng.unit()).ln() * 0.65);
        Arrival {
            at: Time::EPOCH + burst + Duration::from_secs_f64(20.0 * rng.unit()),
            service: Some(service),
        }
    };
    let traffic = Traffic::recorded((0..8_819).map(arrival).collect(), hour);
    Scenario::new(Load::Open(traffic), hour, Duration::from_secs(1))
}
