//! Tuning: finds what there is to find, and nothing where there is nothing.

mod azure;

use std::time::Duration;

use pilotlight_core::Time;
use pilotlight_sim::assert::Expression;
use pilotlight_sim::parallel::Workers;
use pilotlight_sim::scenario::{Load, Platform, Scenario};
use pilotlight_sim::sweep::{Knob, Written};
use pilotlight_sim::traffic::{Arrival, Process, Traffic};
use pilotlight_sim::tune::{Effort, Goal, Plan, Space, TuneError, tune};

const LITTLE: Effort = Effort { points: 40, finalists: 4, rounds: 2, worlds: 4, trials: 8 };
const HOUR: Duration = Duration::from_secs(3_600);

/// Ten requests every 100 s: the defaults go to zero in between, and it takes 20 s to come back.
fn bursts() -> Scenario {
    let arrival = |index: u64| Arrival {
        at: Time::from_secs(index / 10 * 100) + Duration::from_millis(index % 10 * 200),
        service: None,
    };
    let load = Load::Open(Traffic::recorded((0..360).map(arrival).collect(), HOUR));
    let mut scenario = Scenario::new(load, HOUR, Duration::from_millis(500));
    scenario.pods.init = Duration::from_secs(20).into();
    scenario
}

fn space(scenario: &Scenario, knobs: &[&str]) -> Space {
    let knobs: Vec<Knob> = knobs.iter().map(|knob| knob.parse().unwrap()).collect();
    if knobs.is_empty() {
        Space::annotations(Written::default(), scenario).unwrap()
    } else {
        Space::new(Written::default(), knobs).unwrap()
    }
}

fn plan(goal: Goal) -> Plan {
    Plan { goal, effort: LITTLE, ..Plan::default() }
}

#[test]
fn an_objective_that_the_defaults_miss_is_kept_by_staying_awake_at_the_least_cost() {
    let scenario = bursts();
    let space = space(&scenario, &["scale-to-zero-pod-retention-period=0s,1m,2m,5m", "min-scale=0,1,2"]);
    let goal = Goal { slo: Some(Expression::parse("p95<2s").unwrap()), ..Goal::default() };
    let tuned = tune(&scenario, &space, &plan(goal), &mut Workers::all()).unwrap();
    assert!(tuned.is_recommended, "{}", tuned.report.reason);
    // One pod, all the time; a second would do nothing but cost.
    assert!(
        !tuned.settings.iter().any(|(name, value)| name == "min-scale" && value == "2"),
        "{:?}",
        tuned.settings
    );
    let judgement = tuned.judgement.unwrap();
    assert_eq!(judgement.slo_kept.map(|(defaults, _)| defaults), Some(0.0));
    assert!(judgement.latency.chosen < 1.0 && judgement.latency.defaults > 15.0, "{judgement:?}");
    assert!(judgement.smooth.is_unharmed);
    assert!(
        tuned.report.patch.contains("      annotations:\n        autoscaling.knative.dev/"),
        "{}",
        tuned.report.patch
    );
    assert!(tuned.report.reason.contains("on the load held out"), "{}", tuned.report.reason);
}

#[test]
fn a_load_the_defaults_serve_without_a_wait_keeps_the_defaults() {
    let minutes = Duration::from_secs(600);
    let load = Load::Open(Traffic::constant(2.0, minutes, Process::Uniform).unwrap());
    let scenario = Scenario::new(load, minutes, Duration::from_millis(100));
    let tuned = tune(&scenario, &space(&scenario, &[]), &plan(Goal::default()), &mut Workers::all()).unwrap();
    assert!(!tuned.is_recommended);
    assert!(tuned.report.reason.starts_with("Keep the defaults"), "{}", tuned.report.reason);
    assert_eq!((tuned.report.patch.as_str(), tuned.report.chosen), ("", tuned.report.defaults));
}

#[test]
fn an_objective_nothing_can_keep_keeps_the_defaults_and_says_so() {
    let scenario = bursts();
    let goal = Goal { slo: Some(Expression::parse("p50<100ms").unwrap()), ..Goal::default() };
    let tuned =
        tune(&scenario, &space(&scenario, &["min-scale=0,1"]), &plan(goal), &mut Workers::all()).unwrap();
    assert_eq!((tuned.is_recommended, tuned.judgement), (false, None));
    assert!(
        tuned.report.reason.contains("none of the settings tried keeps the objective"),
        "{}",
        tuned.report.reason
    );
}

#[test]
fn the_same_seed_finds_the_same() {
    let scenario = bursts();
    let space = space(&scenario, &["window=default,2m", "scale-down-delay=default,2m", "min-scale=0,1"]);
    let run = || tune(&scenario, &space, &plan(Goal::default()), &mut Workers::all()).unwrap();
    assert_eq!(run(), run());
}

#[test]
fn goals_and_parts_that_make_no_sense_are_refused() {
    let scenario = bursts();
    let space = space(&scenario, &["min-scale=0,1"]);
    let refused = |plan: Plan| tune(&scenario, &space, &plan, &mut Workers::all()).unwrap_err();
    let goal = Goal { cost: "success".to_owned(), ..Goal::default() };
    assert_eq!(refused(plan(goal)), TuneError::Goal("success".to_owned()));
    let parts = Plan { training_fraction: 1.0, ..Plan::default() };
    assert_eq!(
        refused(parts).to_string(),
        "the training part is 1 of the load; it must be between 0.1 and 0.9"
    );
}

#[test]
fn on_the_real_trace_whatever_is_recommended_holds_on_the_half_it_was_not_chosen_on() {
    let Some(mut scenario) = azure::scenario() else { return };
    scenario.platform = Platform::knative();
    scenario.pods.init = Duration::from_millis(2_500).into();
    let written = Written { container_concurrency: 8.into(), ..Written::default() };
    let knobs = [
        "window=6s,15s,30s,default",
        "scale-down-delay=0s,15s,1m",
        "target-utilization-percentage=50,default,90",
    ];
    let space = Space::new(written, knobs.iter().map(|knob| knob.parse().unwrap()).collect()).unwrap();
    let tuned = tune(&scenario, &space, &plan(Goal::default()), &mut Workers::all()).unwrap();
    let Some(judgement) = tuned.judgement else { return };
    if tuned.is_recommended {
        assert!(judgement.cost.chosen <= judgement.cost.defaults, "{judgement:?}");
        assert!(judgement.latency.chosen <= judgement.latency.defaults, "{judgement:?}");
        assert!(judgement.smooth.is_unharmed);
    }
}

#[test]
fn a_search_that_is_stopped_tells_the_best_so_far_and_recommends_nothing() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let scenario = bursts();
    let space = space(&scenario, &["scale-to-zero-pod-retention-period=0s,1m,2m,5m", "min-scale=0,1,2"]);
    let stopped_after = |runs: usize| {
        let stop = Arc::new(AtomicBool::new(runs == 0));
        let (flag, mut seen) = (stop.clone(), 0);
        let mut workers = Workers::all().stopped_by(stop).on_progress(move |_| {
            seen += 1;
            flag.fetch_or(seen >= runs, Ordering::Relaxed);
        });
        tune(&scenario, &space, &plan(Goal::default()), &mut workers)
    };
    assert_eq!(stopped_after(0), Err(TuneError::Stopped));
    let tuned = stopped_after(30).unwrap();
    assert!(!tuned.is_recommended && tuned.judgement.is_none());
    assert!(tuned.report.reason.starts_with("The search was stopped"), "{}", tuned.report.reason);
    let shares: f64 = tuned.report.sensitivities.iter().map(|s| s.effect_fraction).sum();
    assert!(shares <= 1.0 + 1e-9, "{shares}");
}
