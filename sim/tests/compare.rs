//! Comparing settings: what is common cancels, and what is noise is called so.

mod support;

use std::num::NonZeroUsize;
use std::time::Duration;

use pilotlight_core::{RevisionSpec, Time};
use pilotlight_sim::compare::{Comparison, Noise, Trials, Verdict, compare};
use pilotlight_sim::parallel::Workers;
use pilotlight_sim::scenario::{Load, Scenario, Settings};
use pilotlight_sim::traffic::{Arrival, Process, Traffic};
use support::exponential;

const FIVE_MINUTES: Duration = Duration::from_secs(300);

fn scenario() -> Scenario {
    let load = Load::Open(Traffic::constant(20.0, FIVE_MINUTES, Process::Poisson).unwrap());
    let mut scenario = Scenario::new(load, FIVE_MINUTES, Duration::from_millis(100));
    scenario.app.service_time = exponential(0.1);
    scenario
}

/// Twenty at once every 30 s.
fn trace() -> Scenario {
    let arrival = |index: u64| Arrival { at: Time::from_secs(index / 20 * 30), service: None };
    let load = Load::Open(Traffic::recorded((0..200).map(arrival).collect(), FIVE_MINUTES));
    Scenario { load, ..scenario() }
}

fn fixed(pods: u32) -> Settings {
    Settings::fixed(&format!("{pods} pods"), pods, 1)
}

fn compared(scenario: &Scenario, settings: &[Settings], trials: Trials) -> Comparison {
    compare(scenario, settings, trials, &mut Workers::all())
}

#[test]
fn more_pods_cost_exactly_so_much_more_and_wait_less_beyond_noise() {
    let comparison = compared(&scenario(), &[fixed(3), fixed(4)], Trials::seeds(1, 6));
    assert_eq!(comparison.noise, Noise::Everything);
    let cost = comparison.difference(1, "pod-seconds").unwrap();
    assert_eq!(
        (cost.change.mean, cost.change.range, cost.verdict),
        (300.0, Some((300.0, 300.0)), Verdict::Worse)
    );
    assert_eq!(cost.relative.unwrap().mean, 1.0 / 3.0);
    let wait = comparison.difference(1, "wait-mean").unwrap();
    assert_eq!(wait.verdict, Verdict::Better);
    assert!(wait.change.range.unwrap().1 < 0.0);
}

#[test]
fn settings_meet_the_same_requests_so_that_equal_ones_do_not_differ_at_all() {
    let comparison = compared(&scenario(), &[fixed(3), fixed(3)], Trials::seeds(9, 3));
    assert_eq!(comparison.contenders[0].outcomes, comparison.contenders[1].outcomes);
    assert_eq!(comparison.difference(1, "wait-p95").unwrap().verdict, Verdict::Noise);
    let waits = comparison.contenders[0].values("wait-p95").unwrap();
    assert!(waits[0] != waits[1] && waits[1] != waits[2], "seeds differ: {waits:?}");
}

#[test]
fn one_trial_says_nothing_about_noise() {
    let comparison = compared(&scenario(), &[fixed(1), fixed(9)], Trials::seeds(1, 1));
    assert_eq!(comparison.noise, Noise::None);
    let wait = comparison.difference(1, "wait-p95").unwrap();
    assert_eq!((wait.verdict, wait.change.range), (Verdict::Noise, None));
    assert!(wait.change.mean < -1.0, "and yet it is a great difference");
}

#[test]
fn of_a_trace_seeds_vary_all_but_the_arrivals_and_blocks_vary_them_too() {
    let seeds = compared(&trace(), &[fixed(4)], Trials::seeds(1, 4));
    assert_eq!(seeds.noise, Noise::AllButArrivals);
    assert!(seeds.contenders[0].outcomes.iter().all(|outcome| outcome.requests == 200));
    let blocks = Trials { blocks: Some(Duration::from_secs(50)), ..Trials::seeds(1, 8) };
    let blocks = compared(&trace(), &[fixed(4)], blocks);
    assert_eq!(blocks.noise, Noise::Blocks);
    let requests: Vec<u64> = blocks.contenders[0].outcomes.iter().map(|outcome| outcome.requests).collect();
    assert!(requests.iter().any(|&count| count != 200), "{requests:?}");
    assert!(requests.iter().all(|&count| (100..=400).contains(&count)), "{requests:?}");
}

#[test]
fn the_result_is_the_same_on_any_number_of_threads() {
    let settings = [fixed(2), Settings::requests("defaults", RevisionSpec::default(), 4)];
    let on = |threads| {
        let mut workers = Workers::threads(NonZeroUsize::new(threads).unwrap());
        compare(&scenario(), &settings, Trials::seeds(3, 4), &mut workers)
    };
    assert_eq!(on(1), on(5));
}

#[test]
fn what_was_not_measured_is_not_compared() {
    let comparison = compared(&scenario(), &[fixed(2), fixed(3)], Trials::seeds(1, 2));
    assert_eq!(comparison.difference(1, "slo"), None);
    assert_eq!(comparison.estimate(1, "no-such-metric"), None);
}
