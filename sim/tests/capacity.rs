//! Capacity against answers that are known.

mod support;

use std::time::Duration;

use pilotlight_core::Time;
use pilotlight_sim::assert::Expression;
use pilotlight_sim::capacity::{CapacityError, LoadUnit, Question, load_carried, pods_needed};
use pilotlight_sim::parallel::Workers;
use pilotlight_sim::scenario::{Load, Scenario, Settings, UserStep, Users};
use pilotlight_sim::traffic::{Process, Traffic};
use support::exponential;

const FIVE_MINUTES: Duration = Duration::from_secs(300);

fn slo(text: &str) -> Expression {
    Expression::parse(text).unwrap()
}

fn open(rate: f64, process: Process) -> Scenario {
    let load = Load::Open(Traffic::constant(rate, FIVE_MINUTES, process).unwrap());
    Scenario::new(load, FIVE_MINUTES, Duration::from_millis(100))
}

/// Each thinks for 900 ms and then waits for 100 ms, or longer.
fn users() -> Scenario {
    let users = Users {
        steps: vec![UserStep { at: Time::EPOCH, users: 1, spawn_rate: Some(10.0) }],
        think: exponential(0.9),
    };
    let mut scenario = Scenario::new(Load::Closed(users), FIVE_MINUTES, Duration::from_millis(100));
    scenario.app.service_time = exponential(0.1);
    scenario
}

#[test]
fn one_server_carries_what_the_theory_of_queues_says() {
    let mut scenario = open(1.0, Process::Poisson);
    scenario.app.service_time = exponential(0.1);
    // M/M/1 at 10/s: latency is exponential, p95 = 3.0 / (10 - load). Below 1 s up to 7.0/s.
    let answer = load_carried(
        &scenario,
        &Settings::fixed("one", 1, 1),
        &Question::new(slo("p95<1s"), 1e3),
        &mut Workers::all(),
    )
    .unwrap();
    assert_eq!(answer.unit, LoadUnit::RequestsPerSecond);
    // All five of five minutes each must keep it: a little less than on average.
    assert!((5.5..7.1).contains(&answer.value.unwrap()), "{:?}", answer.value);
    let (at, beyond) = (answer.at.unwrap(), answer.beyond.unwrap());
    assert_eq!(at.kept, 5);
    assert!(beyond.kept < 5 && beyond.value <= at.value * 1.011, "{} {}", at.value, beyond.value);
    assert!(at.metric("p95").unwrap().mean < 1.0);
}

#[test]
fn a_closed_loop_counts_users_and_twice_the_pods_carry_about_twice_as_many() {
    let question = Question::new(slo("p95<1s"), 1e4);
    let carried = |pods| {
        let answer =
            load_carried(&users(), &Settings::fixed("", pods, 1), &question, &mut Workers::all()).unwrap();
        assert_eq!((answer.unit, answer.is_monotonic), (LoadUnit::Users, true));
        let (at, beyond) = (answer.at.unwrap().value, answer.beyond.unwrap().value);
        assert_eq!(beyond, at + 1.0, "to the user");
        at
    };
    let (two, four) = (carried(2), carried(4));
    // No server does more than 10/s, and no user less than 0.5/s while a p95 of 1 s is kept.
    assert!((10.0..40.0).contains(&two), "{two}");
    assert!((1.8..2.8).contains(&(four / two)), "{two} {four}");
}

#[test]
fn the_pods_a_load_needs_carry_it_and_one_less_does_not() {
    // 35 requests a second of 100 ms each, evenly spaced, one at a time: 3.5 pods.
    let scenario = open(35.0, Process::Uniform);
    let question = Question::new(slo("p99<200ms"), 64.0);
    let answer =
        pods_needed(&scenario, |pods| Settings::fixed("", pods, 1), &question, &mut Workers::all()).unwrap();
    assert_eq!((answer.unit, answer.value, answer.is_monotonic), (LoadUnit::Pods, Some(4.0), true));
    assert_eq!(answer.beyond.unwrap().value, 3.0);
}

#[test]
fn what_cannot_be_kept_at_all_has_no_answer() {
    let question = Question::new(slo("p50<50ms"), 64.0);
    let scenario = open(1.0, Process::Uniform);
    let carried =
        load_carried(&scenario, &Settings::fixed("", 1, 1), &question, &mut Workers::all()).unwrap();
    assert_eq!((carried.value, carried.at), (None, None));
    let pods =
        pods_needed(&scenario, |pods| Settings::fixed("", pods, 1), &question, &mut Workers::all()).unwrap();
    assert_eq!((pods.value, pods.beyond.unwrap().value), (None, 64.0));
}

#[test]
fn what_is_kept_up_to_the_most_has_no_border() {
    let question = Question::new(slo("p50<1s"), 5.0);
    let scenario = open(1.0, Process::Uniform);
    let answer = load_carried(&scenario, &Settings::fixed("", 4, 1), &question, &mut Workers::all()).unwrap();
    assert_eq!((answer.value, answer.beyond), (Some(5.0), None));
}

#[test]
fn a_load_without_requests_and_numbers_without_sense_are_refused() {
    let question = Question::new(slo("p50<1s"), 5.0);
    let nothing = Load::Open(Traffic::recorded(Vec::new(), FIVE_MINUTES));
    let scenario = Scenario { load: nothing, ..open(1.0, Process::Uniform) };
    let ask = |question: &Question| {
        load_carried(&scenario, &Settings::fixed("", 1, 1), question, &mut Workers::all())
    };
    assert_eq!(ask(&question), Err(CapacityError::NoLoad));
    let error = ask(&Question { sure_fraction: 1.5, ..question }).unwrap_err();
    assert_eq!(error.to_string(), "sure_fraction is 1.5, and not above 0 and up to 1");
}
