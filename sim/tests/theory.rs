//! Queueing theory and the simulator give the same answers, where the former has one.

use std::time::Duration;

use pilotlight_core::Time;
use pilotlight_sim::dist::Distribution;
use pilotlight_sim::scenario::{Load, Scenario, Settings, UserStep, Users};
use pilotlight_sim::{Outcome, Run, simulate};

mod support;
use support::{exponential, lognormal, poisson};

/// One pod that works on `servers` requests at once, for a long time.
fn run(load: Load, hours: u64, service: Distribution, servers: u32) -> Outcome {
    let mut scenario = Scenario::new(load, Duration::from_secs(3_600 * hours), Duration::ZERO);
    scenario.app.service_time = service;
    scenario.platform.activator_queue = u32::MAX;
    scenario.platform.request_timeout = Duration::MAX;
    simulate(&scenario, &Settings::fixed("one pod", 1, servers), Run { seed: 7, timeline: false })
}

fn assert_near(measured: f64, expected: f64, what: &str) {
    let off = measured / expected - 1.0;
    assert!(off.abs() < 0.02, "{what}: {measured} is off from {expected} by {:.2} %", off * 100.0);
}

/// The probability that a request finds all of `c` servers busy, at an offered load of `a` (Erlang's C formula).
fn erlang_c(c: u32, a: f64) -> f64 {
    let mut blocked = 1.0;
    for servers in 1..=c {
        blocked = a * blocked / (f64::from(servers) + a * blocked);
    }
    let utilization = a / f64::from(c);
    blocked / (1.0 - utilization * (1.0 - blocked))
}

#[test]
fn erlangs_formula_is_the_published_one() {
    // Two servers, one erlang: a third of the requests wait.
    assert!((erlang_c(2, 1.0) - 1.0 / 3.0).abs() < 1e-12);
}

#[test]
fn an_open_loop_waits_as_long_as_m_m_c() {
    for (servers, rate) in [(1, 7.0), (4, 32.0), (20, 180.0)] {
        let service_s = 0.1;
        let outcome = run(poisson(rate), 20, exponential(service_s), servers);
        let a = rate * service_s;
        let expected = erlang_c(servers, a) * service_s / (f64::from(servers) - a);
        assert_near(outcome.wait.mean, expected, &format!("wait of M/M/{servers}"));
        assert_near(outcome.service.mean, service_s, "service");
        assert_near(outcome.pods.utilization, a / f64::from(servers), "utilization");
    }
}

#[test]
fn an_open_loop_waits_as_long_as_m_g_1() {
    // Pollaczek and Khinchine: rate x second moment / 2 (1 - utilization).
    let (p50, p99): (f64, f64) = (0.05, 0.3);
    let sigma = (p99 / p50).ln() / 2.326_347_874_040_841;
    let (mean, second_moment) = (p50 * (sigma * sigma / 2.0).exp(), p50 * p50 * (2.0 * sigma * sigma).exp());
    let rate = 0.7 / mean;
    let outcome = run(poisson(rate), 40, lognormal(p50, p99), 1);
    assert_near(outcome.wait.mean, rate * second_moment / (2.0 * (1.0 - 0.7)), "wait of M/G/1");
    let constant = run(poisson(7.0), 20, Duration::from_millis(100).into(), 1);
    assert_near(constant.wait.mean, 7.0 * 0.01 / (2.0 * 0.3), "wait of M/D/1");
}

#[test]
fn a_closed_loop_is_as_busy_as_the_machine_repairmans() {
    // N users who think for Z and are served by c servers in S, all exponential: a birth-death chain.
    for (users, servers) in [(20_u32, 1_u32), (50, 4)] {
        let (think_s, service_s) = (1.0, 0.1);
        let mut weights = vec![1.0];
        for n in 1..=users {
            let arrivals = f64::from(users - n + 1) / think_s;
            let departures = f64::from(n.min(servers)) / service_s;
            weights.push(weights[n as usize - 1] * arrivals / departures);
        }
        let sum: f64 = weights.iter().sum();
        let mean_present: f64 = (0..).zip(&weights).map(|(n, w)| f64::from(n) * w / sum).sum();
        let throughput = (f64::from(users) - mean_present) / think_s;
        let expected = mean_present / throughput;

        let steps = vec![UserStep { at: Time::EPOCH, users, spawn_rate: None }];
        let load = Load::Closed(Users { steps, think: exponential(think_s) });
        let outcome = run(load, 20, exponential(service_s), servers);
        assert_near(outcome.latency.mean, expected, &format!("response time of {users} users"));
        let rate = outcome.requests as f64 / outcome.duration_s;
        assert_near(rate, throughput, &format!("throughput of {users} users"));
    }
}
