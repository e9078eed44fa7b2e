//! A restart of whoever decides changes no number of pods: one script for each state a revision can be in.
//!
//! Each script leads a revision into the state, and then goes on twice from the history it leaves behind: once from the
//! whole of it, which must decide on exactly as if nothing had happened, and once from what a status can hold, without
//! the load, which must leave the pods alone until a whole stable window has been seen.

use std::time::Duration;

use pilotlight_core::{
    ActivatorPath, Activity, Bound, History, Input, PodCounts, Revision, RevisionSpec, Rule, ScalingMode,
    Stat, Time,
};

/// A revision that is told once a second what its pods measured, and thinks every two seconds.
#[derive(Clone)]
struct Script {
    revision: Revision,
    now: Time,
    in_flight: f64,
    ready: u32,
    /// The number of pods that was applied last.
    scale: Option<u32>,
}

impl Script {
    fn start(spec: RevisionSpec) -> Script {
        let mut revision = Revision::new(START, spec, PodCounts::default());
        revision.step(START, Input::Path(ActivatorPath { populated_since: Some(START), probed: true }));
        Script { revision, now: START, in_flight: 0.0, ready: 0, scale: None }
    }

    fn ready(mut self, ready: u32) -> Script {
        self.ready = ready;
        self.step(Input::Pods(pods(ready)));
        self
    }

    fn load(mut self, in_flight: f64) -> Script {
        self.in_flight = in_flight;
        self
    }

    /// Lives on for so many seconds.
    fn live(mut self, seconds: u64) -> Script {
        for _ in 0..seconds {
            self.second();
        }
        self
    }

    fn second(&mut self) {
        self.now += Duration::from_secs(1);
        let stat = Stat { average_concurrent_requests: self.in_flight, ..Stat::default() };
        if self.ready > 0 {
            self.step(Input::Scraped(stat));
        } else if self.in_flight > 0.0 {
            self.step(Input::Pushed(stat));
        }
        if self.now.whole_seconds().is_multiple_of(2) {
            self.step(Input::Tick);
        }
    }

    fn step(&mut self, input: Input) {
        if let Some(plan) = self.revision.step(self.now, input) {
            self.scale = plan.scale.or(self.scale);
        }
    }

    /// The same revision under an autoscaler that has just been started, with this history.
    fn restarted(&self, history: &History) -> Script {
        let history: History = serde_json::from_str(&serde_json::to_string(history).unwrap()).unwrap();
        let revision = Revision::resume(self.now, self.revision.spec().clone(), pods(self.ready), history);
        Script { revision, ..self.clone() }
    }

    fn now_is_a_tick(&self, seconds_later: u64) -> bool {
        (self.now.whole_seconds() + seconds_later).is_multiple_of(2)
    }

    fn activity(&self) -> Activity {
        self.revision.evaluation().expect("evaluated").activity
    }

    /// A restart at this moment: it changes nothing.
    fn restart_changes_nothing(self) {
        let mut as_if_nothing_happened = self.clone();
        let mut whole = self.restarted(&self.revision.history());
        let status = self.revision.evaluation().expect("evaluated").history();
        let mut from_status = self.restarted(&status);
        let (window, delay) =
            (self.revision.spec().stable_window.as_secs(), self.revision.spec().scale_down_delay.as_secs());
        for second in 1..=3 * window + 2 * delay {
            as_if_nothing_happened.second();
            whole.second();
            from_status.second();
            if !self.now_is_a_tick(second) {
                continue;
            }
            assert_eq!(
                whole.revision.evaluation(),
                as_if_nothing_happened.revision.evaluation(),
                "{second} s after"
            );
            if second <= window {
                assert!(
                    from_status.scale >= self.scale,
                    "{second} s after: {:?}",
                    from_status.revision.evaluation()
                );
            }
        }
        assert_eq!(from_status.scale, as_if_nothing_happened.scale, "in the end both know the same");
    }
}

const START: Time = Time::from_secs(1_000_000);

fn pods(ready: u32) -> PodCounts {
    PodCounts { ready, ..PodCounts::default() }
}

/// 7 of 10 requests in flight per pod.
fn spec() -> RevisionSpec {
    RevisionSpec { target: 7.0, total: 10.0, ..RevisionSpec::default() }
}

/// The five initial pods came up, and one of them has been enough for ten minutes.
fn calm() -> Script {
    let script = Script::start(RevisionSpec { initial_scale: 5, ..spec() });
    let script = script.load(3.0).live(4).ready(5).live(120).ready(1).live(600);
    assert_eq!(script.scale, Some(1));
    assert!(matches!(script.activity(), Activity::Active { .. }));
    script
}

#[test]
fn calm_with_an_initial_scale_of_five_and_one_pod() {
    calm().restart_changes_nothing();
}

#[test]
fn without_any_history_the_initial_scale_is_wanted_again() {
    // The fault that a history mends, and what an autoscaler still does that finds none.
    let mut forgetful = calm().restarted(&History::default());
    forgetful.step(Input::Tick);
    assert_eq!(forgetful.scale, Some(5));
}

#[test]
fn at_zero_for_ten_minutes() {
    let script =
        Script::start(spec()).load(3.0).live(4).ready(1).live(60).load(0.0).live(150).ready(0).live(600);
    assert_eq!(script.scale, Some(0));
    let asleep = script.activity();
    assert!(matches!(asleep, Activity::Inactive { timed_out: false, .. }), "{asleep:?}");
    // Not activating for ten minutes first, as without a history.
    let mut from_status = script.restarted(&script.revision.evaluation().expect("evaluated").history());
    from_status.step(Input::Tick);
    assert_eq!(from_status.activity(), asleep);
    let mut forgetful = script.restarted(&History::default());
    forgetful.step(Input::Tick);
    assert!(matches!(forgetful.activity(), Activity::Activating { .. }));
    script.restart_changes_nothing();
}

#[test]
fn at_zero_and_woken_right_after_the_restart() {
    let script =
        Script::start(spec()).load(3.0).live(4).ready(1).live(60).load(0.0).live(150).ready(0).live(600);
    let status = script.revision.evaluation().expect("evaluated").history();
    let mut woken = script.restarted(&status).load(25.0);
    woken.second();
    assert_eq!(woken.scale, Some(4), "ceil(25 / 7), at once");
}

#[test]
fn activating() {
    // Four pods are wanted, and none is there yet.
    let script = Script::start(spec()).load(25.0).live(5);
    assert_eq!(script.scale, Some(4));
    assert!(matches!(script.activity(), Activity::Activating { .. }));
    script.restart_changes_nothing();
}

#[test]
fn panicking() {
    let script = Script::start(spec()).load(6.0).live(4).ready(1).live(120).load(60.0).live(10).ready(9);
    let script = script.load(0.0).live(20);
    let decision = script.revision.decision().expect("decided");
    assert!(matches!(decision.mode, ScalingMode::Panic { .. }));
    assert_eq!((decision.rule, script.scale), (Rule::PanicHold, Some(9)));
    script.restart_changes_nothing();
}

#[test]
fn in_grace() {
    // Traffic is routed to the activator only since the last pod was not needed any more.
    let mut script = Script::start(spec());
    script.step(Input::Path(ActivatorPath::default()));
    let mut script = script.load(3.0).live(4).ready(1).live(120).load(0.0).live(62);
    script.step(Input::Path(ActivatorPath { populated_since: Some(script.now), probed: true }));
    let script = script.live(4);
    assert_eq!(script.scale, Some(1));
    assert_eq!(script.revision.evaluation().expect("evaluated").outcome.bound, Some(Bound::GracePeriod));
    let status = script.revision.evaluation().expect("evaluated").history();
    let zero = |mut script: Script| {
        let restarted = script.now;
        while script.scale != Some(0) {
            script.second();
            assert!(script.now - restarted < Duration::from_secs(300), "never");
        }
        script.now - restarted
    };
    let on_time = zero(script.clone());
    assert_eq!(zero(script.restarted(&script.revision.history())), on_time);
    assert_eq!(zero(script.restarted(&status)), on_time, "the status knows when it began, too");
}

#[test]
fn held_by_scale_down_delay() {
    let spec = RevisionSpec { scale_down_delay: Duration::from_secs(300), ..spec() };
    let script = Script::start(spec).load(30.0).live(4).ready(5).live(200).load(3.0).live(150);
    let decision = script.revision.decision().expect("decided");
    assert_eq!((decision.rule, script.scale), (Rule::ScaleDownDelay, Some(5)));
    script.restart_changes_nothing();
}

#[test]
fn one_pod_stays_until_a_whole_window_was_seen() {
    // An average over the first second after a restart says 0 where the minute before said 1.
    let script = Script::start(spec()).load(3.0).live(4).ready(1).live(600).load(0.0).live(20);
    let status = script.revision.evaluation().expect("evaluated").history();
    let mut restarted = script.restarted(&status);
    for _ in 0..60 {
        restarted.second();
        restarted.step(Input::Tick);
        let evaluation = restarted.revision.evaluation().expect("evaluated");
        assert_eq!((evaluation.outcome.want, restarted.scale), (Some(1), Some(1)), "{evaluation:?}");
    }
}

#[test]
fn a_history_is_short_where_there_is_little_to_remember() {
    let json = serde_json::to_string(&Script::start(spec()).revision.history()).unwrap();
    assert!(json.len() < 800, "{} bytes: {json}", json.len());
    let empty: History = serde_json::from_str("{}").unwrap();
    assert_eq!(empty, History::default());
}

#[test]
fn windows_of_another_length_are_resized() {
    let script = calm();
    let history = script.revision.history();
    let spec = RevisionSpec { stable_window: Duration::from_secs(120), ..script.revision.spec().clone() };
    let mut resumed = Revision::resume(script.now, spec.clone(), pods(1), history);
    let mut resized = script.revision.clone();
    resized.step(script.now, Input::Spec(Box::new(spec)));
    for seconds in [2, 4, 6] {
        let now = script.now + Duration::from_secs(seconds);
        assert_eq!(resumed.step(now, Input::Tick), resized.step(now, Input::Tick));
        assert_eq!(resumed.decision(), resized.decision());
    }
}

#[test]
fn without_the_load_pods_are_held_until_every_activator_was_heard_of_for_a_whole_window() {
    let spec = RevisionSpec {
        target: 2.0,
        total: 2.0,
        stable_window: Duration::from_secs(6),
        panic_window: Duration::from_secs(1),
        ..RevisionSpec::default()
    };
    let active = Activity::Active { since: START };
    let history = History { activity: Some(active), initialized: true, ..History::default() };
    let mut revision = Revision::resume(START, spec, pods(4), history);
    let mut decided = Vec::new();
    for second in 0..18 {
        let now = START + Duration::from_secs(second);
        // Scraped from the beginning, which says nothing about what comes through activators.
        revision.step(now, Input::Scraped(Stat::default()));
        // Two activators find the way here one after the other, each with a half of 7.
        for (name, from) in [("one", 2), ("other", 5)] {
            if second >= from {
                let stat =
                    Stat { pod_name: name.to_owned(), average_concurrent_requests: 3.5, ..Stat::default() };
                revision.step(now, Input::Pushed(stat));
            }
        }
        if second % 2 == 1 {
            revision.step(now, Input::Tick);
            decided.push(revision.decision().expect("decided").desired);
        }
    }
    // 7 in flight, 2 a pod.
    assert_eq!(decided, [4; 9]);
    assert_eq!(revision.decision().expect("decided").mode, ScalingMode::Stable, "held no longer than that");
}
