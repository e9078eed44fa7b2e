//! Parts that several tests build scenarios of.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::time::Duration;

use pilotlight_core::Time;
use pilotlight_sim::dist::Distribution;
use pilotlight_sim::scenario::Load;
use pilotlight_sim::traffic::{Arrival, Process, Traffic};

pub fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub fn exponential(mean_s: f64) -> Distribution {
    Distribution::exponential(Duration::from_secs_f64(mean_s)).expect("a mean above zero")
}

pub fn lognormal(p50_s: f64, p99_s: f64) -> Distribution {
    let [p50, p99] = [p50_s, p99_s].map(Duration::from_secs_f64);
    Distribution::lognormal(p50, p99).expect("a tail above the median")
}

/// Requests at random, for longer than any test takes.
pub fn poisson(per_second: f64) -> Load {
    Load::Open(Traffic::constant(per_second, secs(1_000_000), Process::Poisson).expect("a legal rate"))
}

/// A request at each of these times.
pub fn at(times: &[Duration]) -> Load {
    let arrivals = times.iter().map(|&at| Arrival { at: Time::EPOCH + at, service: None });
    Load::Open(Traffic::recorded(arrivals.collect(), secs(1_000_000)))
}
