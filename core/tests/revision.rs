//! One revision from facts to plans: when it thinks, what it thinks about, who serves, and what it says of it.

use std::time::Duration;

use pilotlight_core::{
    ActivatorPath, Input, PodCounts, Revision, RevisionSpec, ServingMode, Stat, TargetBurstCapacity, Time,
    Trigger,
};

fn s(seconds: u64) -> Time {
    Time::from_secs(1_000_000 + seconds)
}
fn pods(ready: u32) -> PodCounts {
    PodCounts { ready, ..PodCounts::default() }
}
fn in_flight(concurrency: f64) -> Stat {
    Stat { average_concurrent_requests: concurrency, ..Stat::default() }
}
/// Target 7 of 10 per pod, and no initial scale: it may begin with nothing.
fn spec() -> RevisionSpec {
    RevisionSpec { target: 7.0, total: 10.0, initial_scale: 0, ..RevisionSpec::default() }
}
fn revision(ready: u32) -> Revision {
    Revision::new(s(0), spec(), pods(ready))
}
fn trigger(revision: &Revision) -> Trigger {
    revision.evaluation().expect("evaluated").trigger
}

#[test]
fn before_the_first_decision_a_request_is_acted_on_at_once() {
    // Knative waits for the first tick here.
    let mut revision = revision(0);
    let plan = revision.step(s(0), Input::Pushed(in_flight(25.0))).expect("a plan at once");
    assert_eq!((plan.scale, trigger(&revision)), (Some(4), Trigger::Demand));
}

#[test]
fn at_zero_a_request_is_acted_on_at_once() {
    let mut revision = revision(0);
    revision.step(s(0), Input::Scraped(in_flight(0.0)));
    let plan = revision.step(s(1), Input::Tick).expect("a tick is always evaluated");
    assert_eq!((plan.mode, revision.decision().expect("decided").desired), (ServingMode::Proxy, 0));
    assert_eq!(revision.step(s(1), Input::Pushed(in_flight(0.0))), None, "nothing in flight is no demand");
    let plan = revision.step(s(1), Input::Pushed(in_flight(1.0))).expect("a plan at once");
    assert_eq!(plan.scale, Some(1));
}

#[test]
fn above_zero_reports_wait_for_the_tick() {
    let mut revision = revision(1);
    revision.step(s(0), Input::Pushed(in_flight(5.0)));
    assert_eq!(revision.step(s(1), Input::Pushed(in_flight(500.0))), None);
    assert_eq!(revision.step(s(1), Input::Scraped(in_flight(500.0))), None);
    let plan = revision.step(s(1), Input::Tick).expect("a plan");
    assert_eq!(plan.scale, Some(72), "(5 + 1000) / 2 over 7");
}

#[test]
fn scraped_load_never_decides_by_itself() {
    assert_eq!(revision(0).step(s(0), Input::Scraped(in_flight(25.0))), None);
}

#[test]
fn changes_are_evaluated_without_deciding_anew() {
    let mut revision = revision(1);
    revision.step(s(0), Input::Pushed(in_flight(5.0)));
    revision.step(s(1), Input::Scraped(in_flight(500.0)));
    let path = ActivatorPath { populated_since: Some(s(0)), probed: true };
    for input in [Input::Pods(pods(2)), Input::Path(path), Input::Spec(Box::new(spec())), Input::Wake] {
        let plan = revision.step(s(1), input).expect("a plan");
        assert_eq!((plan.scale, trigger(&revision)), (Some(1), Trigger::Change));
        assert_eq!(revision.evaluation().expect("evaluated").new_decision(), None);
    }
    assert_eq!(revision.decision().expect("it stands").stable, 5.0);
}

#[test]
fn without_data_the_last_decision_stands() {
    let mut revision = revision(1);
    assert_eq!(revision.step(s(0), Input::Tick).expect("a plan").scale, None, "nothing is known yet");
    revision.step(s(0), Input::Pushed(in_flight(25.0)));
    // At exactly a window's length there is data still, and it says zero; a second later there is none.
    revision.step(s(59), Input::Tick);
    assert_eq!(revision.decision().expect("decided").desired, 4);
    let plan = revision.step(s(61), Input::Tick).expect("a plan");
    assert_eq!(plan.scale, Some(4));
    assert_eq!(revision.evaluation().expect("evaluated").new_decision(), None);
    assert_eq!(
        revision.evaluation().expect("evaluated").why(&spec()),
        "no report from the pods: the last decision stands"
    );
}

#[test]
fn a_revision_that_nobody_scrapes_reads_silence_as_zero() {
    let mut revision = Revision::new(s(0), RevisionSpec { scraped: false, ..spec() }, pods(0));
    revision.step(s(500), Input::Tick);
    assert_eq!(revision.decision().expect("decided").desired, 0);
}

/// Who serves when `ready` pods, each good for 10, have `load` in flight and `burst` is asked for.
fn mode(ready: u32, load: f64, burst: TargetBurstCapacity) -> ServingMode {
    let spec = RevisionSpec { target_burst_capacity: burst, ..spec() };
    let mut revision = Revision::new(s(0), spec, pods(ready));
    let undecided = revision.step(s(0), Input::Tick).expect("a plan");
    assert_eq!(undecided.mode, ServingMode::Proxy, "nobody knows yet");
    revision.step(s(0), Input::Scraped(in_flight(load)));
    revision.step(s(0), Input::Tick).expect("a plan").mode
}

#[test]
fn pods_serve_directly_when_they_have_room_for_the_burst() {
    let of = TargetBurstCapacity::Of;
    // Only the sign of what is left over counts, and zero is room.
    assert_eq!(mode(10, 50.0, of(49.0)), ServingMode::Serve);
    assert_eq!(mode(10, 50.0, of(50.0)), ServingMode::Serve);
    assert_eq!(mode(10, 50.0, of(50.5)), ServingMode::Proxy);
    assert_eq!(mode(10, 50.0, of(92.0)), ServingMode::Proxy);
    assert_eq!(mode(1, 50.0, TargetBurstCapacity::Off), ServingMode::Serve);
    assert_eq!(mode(100, 50.0, TargetBurstCapacity::Unlimited), ServingMode::Proxy);
}

#[test]
fn with_the_default_settings_two_idle_pods_are_proxied_and_three_are_not() {
    for (ready, excess, expected) in [(2, -11, ServingMode::Proxy), (3, 89, ServingMode::Serve)] {
        let mut revision =
            Revision::new(s(0), RevisionSpec { min_scale: ready, ..RevisionSpec::default() }, pods(ready));
        revision.step(s(0), Input::Scraped(in_flight(0.0)));
        let plan = revision.step(s(0), Input::Tick).expect("a plan");
        assert_eq!(revision.decision().expect("decided").excess_burst_capacity, excess);
        assert_eq!((plan.mode, plan.activators), (expected, 3 + ready));
    }
}

#[test]
fn at_zero_the_activator_serves_whatever_the_burst_capacity() {
    assert_eq!(mode(0, 0.0, TargetBurstCapacity::Off), ServingMode::Proxy);
    assert_eq!(mode(0, 0.0, TargetBurstCapacity::Of(0.5)), ServingMode::Proxy);
}

#[test]
fn new_windows_take_effect_with_the_settings() {
    let mut revision = revision(1);
    for second in 0..60 {
        revision.step(s(second), Input::Scraped(in_flight(if second < 50 { 60.0 } else { 0.0 })));
    }
    revision.step(s(59), Input::Tick);
    assert_eq!(revision.decision().expect("decided").stable, 50.0);
    let short = RevisionSpec { stable_window: Duration::from_secs(20), ..spec() };
    revision.step(s(59), Input::Spec(Box::new(short)));
    revision.step(s(59), Input::Tick);
    assert_eq!(revision.decision().expect("decided").stable, 30.0);
}

#[test]
fn a_sentence_shows_numbers_as_people_write_them() {
    let why = |load: f64| {
        let mut revision = Revision::new(s(0), RevisionSpec { target: 0.7 * 3.0, ..spec() }, pods(1));
        revision.step(s(0), Input::Pushed(in_flight(load)));
        revision.evaluation().expect("evaluated").why(revision.spec())
    };
    assert_eq!(why(2.0), "woken by a request: 2 in flight; 2.1 per pod (10 x 21 %): 1 pod");
    assert_eq!(why(0.0025), "woken by a request: 0.0025 in flight; 2.1 per pod (10 x 21 %): 1 pod");
}

#[test]
fn the_reason_is_the_last_word_that_bound_the_number() {
    let mut revision = Revision::new(s(0), RevisionSpec { max_scale: Some(3), ..spec() }, pods(1));
    revision.step(s(0), Input::Wake);
    assert_eq!(revision.evaluation().expect("evaluated").reason(), "no-change");
    revision.step(s(0), Input::Pushed(in_flight(20.0)));
    assert_eq!(revision.evaluation().expect("evaluated").reason(), "stable-demand");
    revision.step(s(1), Input::Scraped(in_flight(30.0)));
    revision.step(s(1), Input::Tick);
    let evaluation = revision.evaluation().expect("evaluated");
    assert_eq!(evaluation.reason(), "max-scale");
    assert_eq!(
        evaluation.why(revision.spec()),
        "panic: average 25 in flight over 60 s (25 over 6 s); 7 per pod (10 x 70 %): 4 pods; lowered to max-scale 3"
    );
}

#[test]
fn the_way_to_zero_is_told_in_words() {
    let mut revision = revision(1);
    revision.step(s(0), Input::Path(ActivatorPath { populated_since: Some(s(0)), probed: true }));
    let mut told = Vec::new();
    let mut live = |revision: &mut Revision, second: u64, load: f64| {
        revision.step(s(second), Input::Scraped(in_flight(load)));
        revision.step(s(second), Input::Tick);
        let why = revision.evaluation().expect("evaluated").why(revision.spec());
        if told.last() != Some(&why) {
            told.push(why);
        }
    };
    for second in (0..=20).step_by(2) {
        live(&mut revision, second, 7.0);
    }
    for second in (22..=200).step_by(2) {
        live(&mut revision, second, 0.0);
    }
    assert_eq!(
        told.first().map(String::as_str),
        Some("average 7 in flight over 60 s; 7 per pod (10 x 70 %): 1 pod")
    );
    assert_eq!(
        told[told.len() - 2..],
        [
            "average 0 in flight over 60 s; 7 per pod (10 x 70 %): 0 pods; no request for 60 s: the activator takes over \
             before the last pod goes",
            "average 0 in flight over 60 s; 7 per pod (10 x 70 %): 0 pods; no request for 60 s; the next one starts a pod \
             again",
        ]
    );
    // The way there is no new decision, and the sentence is the reason alone.
    revision.step(s(201), Input::Wake);
    assert_eq!(
        revision.evaluation().expect("evaluated").why(revision.spec()),
        "no request for 60 s; the next one starts a pod again"
    );
}

/// Stats of three seconds that come together, as after a change of leases, are three seconds' load and not one's.
#[test]
fn a_stat_counts_in_the_second_of_its_timestamp() {
    let mut revision = Revision::new(s(100), spec(), PodCounts { ready: 1, ..PodCounts::default() });
    for second in 100..103 {
        let stat = Stat { timestamp: Some(s(second)), ..in_flight(10.0) };
        revision.step(s(102), Input::Pushed(stat));
    }
    revision.step(s(103), Input::Tick);
    assert_eq!(revision.decision().expect("decided").stable, 10.0);
    // A clock that is ahead of ours does not lead into the future.
    let ahead = Stat { timestamp: Some(s(500)), ..in_flight(10.0) };
    revision.step(s(103), Input::Pushed(ahead));
    revision.step(s(105), Input::Tick);
    assert_eq!(revision.decision().expect("decided").stable, 10.0);
}
