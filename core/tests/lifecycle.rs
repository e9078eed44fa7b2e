//! The way between demand and the number of pods that is applied, as scripts: a revision in some state, the
//! pods demand calls for, and what is wanted, applied and waited for.
//!
//! Throughout, unless a script says otherwise: stable window 5 min, grace period 60 s, no retention,
//! activation timeout 151 s, and the activator answers the probe.

use std::time::Duration;

use pilotlight_core::{
    ActivatorPath, Activity, Bound, Lifecycle, Outcome, Reachability, RevisionSpec, TargetBurstCapacity, Time,
};

/// One revision and the facts it will be asked about.
#[derive(Clone)]
struct Script {
    spec: RevisionSpec,
    lifecycle: Lifecycle,
    now: Time,
    ready: u32,
    path: ActivatorPath,
}

/// Coming up for this long.
fn activating_for(elapsed: Duration) -> Script {
    Script {
        spec: spec(),
        lifecycle: Lifecycle::new(START),
        now: START + elapsed,
        ready: 0,
        path: ActivatorPath { populated_since: None, probed: true },
    }
}

/// It has had its one pod for this long.
fn active_for(elapsed: Duration) -> Script {
    let mut script = Script { ready: 1, ..activating_for(Duration::ZERO) };
    script.decide(Some(1));
    assert_eq!(script.lifecycle.activity(), Activity::Active { since: START });
    script.now = START + elapsed;
    script
}

/// Nothing has been wanted for this long; the pod may still be there.
fn inactive_for(elapsed: Duration) -> Script {
    let mut script = active_for(STABLE);
    script.decide(Some(0));
    let since = START + STABLE;
    assert_eq!(script.lifecycle.activity(), Activity::Inactive { since, timed_out: false });
    script.now = since + elapsed;
    script
}

fn spec() -> RevisionSpec {
    RevisionSpec {
        stable_window: STABLE,
        scale_to_zero_grace_period: GRACE,
        activation_timeout: s(151),
        target_burst_capacity: TargetBurstCapacity::Of(200.0),
        ..RevisionSpec::default()
    }
}

impl Script {
    fn with(mut self, change: impl FnOnce(&mut RevisionSpec)) -> Self {
        change(&mut self.spec);
        self
    }

    fn retention(self, retention: Duration) -> Self {
        self.with(|spec| spec.pod_retention = retention)
    }

    fn unreachable(self) -> Self {
        self.with(|spec| {
            spec.reachability = Reachability::Unreachable;
            spec.min_scale = 0; // what the resolution of settings does for these
        })
    }

    fn proxied_for(mut self, elapsed: Duration) -> Self {
        self.path.populated_since = Some(self.now - elapsed);
        self
    }

    fn not_probed(mut self) -> Self {
        self.path.probed = false;
        self
    }

    fn ready(mut self, pods: u32) -> Self {
        self.ready = pods;
        self
    }

    fn later(&mut self, by: Duration) -> &mut Self {
        self.now += by;
        self
    }

    /// Steps with the pods demand calls for; `None`: nothing decided yet.
    fn decide(&mut self, demand: Option<u32>) -> Outcome {
        self.lifecycle.step(self.now, &self.spec, demand, self.ready, self.path)
    }

    /// This many pods are wanted and applied, and there is nothing to wait for.
    #[track_caller]
    fn applies(&mut self, demand: Option<u32>, pods: u32) -> &mut Self {
        let outcome = self.decide(demand);
        let got = (outcome.want, outcome.apply, outcome.wake_at);
        assert_eq!(got, (Some(pods), Some(pods), None), "{outcome:?}");
        self
    }

    /// `want` is what is wanted, but pods are left alone, for this reason and until then.
    #[track_caller]
    fn leaves_pods(
        &mut self,
        demand: Option<u32>,
        want: Option<u32>,
        bound: Bound,
        wake_in: Option<Duration>,
    ) -> &mut Self {
        let outcome = self.decide(demand);
        let wake_at = wake_in.map(|wait| self.now + wait);
        assert_eq!(outcome, Outcome { want, apply: None, bound: Some(bound), wake_at });
        self
    }

    #[track_caller]
    fn is(&self, activity: Activity) {
        assert_eq!(self.lifecycle.activity(), activity);
    }
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const START: Time = Time::from_secs(1_000_000);
const STABLE: Duration = s(300);
const GRACE: Duration = s(60);

// ---- Down to zero ----

#[test]
fn one_pod_stays_until_the_revision_was_active_for_a_stable_window() {
    // From one pod or from ten: how many there are now is the driver's to compare.
    let outcome = active_for(STABLE - s(1)).decide(Some(0));
    assert_eq!((outcome.want, outcome.apply), (Some(1), Some(1)));
    assert_eq!(outcome.bound, Some(Bound::RecentlyActive));
    assert_eq!(outcome.wake_at, Some(START + STABLE));
}

#[test]
fn first_the_activator_takes_over_then_the_pods_go() {
    // Knative looks again after 3 s if the activator was in the path already; here the next step follows at once.
    let mut script = active_for(STABLE);
    script.leaves_pods(Some(0), Some(0), Bound::Deactivating, None);
    script.is(Activity::Inactive { since: START + STABLE, timed_out: false });
    let mut proxied = active_for(STABLE).proxied_for(STABLE);
    proxied.leaves_pods(Some(0), Some(0), Bound::Deactivating, Some(Duration::from_millis(1)));
    proxied.applies(Some(0), 0); // at once: its grace period is over already
}

#[test]
fn pods_go_when_the_grace_period_is_over() {
    inactive_for(GRACE).applies(Some(0), 0);
    inactive_for(GRACE - s(1)).leaves_pods(Some(0), Some(0), Bound::GracePeriod, Some(s(1)));
}

#[test]
fn the_grace_period_counts_from_when_the_activator_took_over() {
    let nearly = || inactive_for(GRACE - s(1));
    nearly().proxied_for(GRACE).applies(Some(0), 0);
    nearly().proxied_for(GRACE).retention(s(42)).applies(Some(0), 0);
    nearly().proxied_for(GRACE - s(1)).leaves_pods(Some(0), Some(0), Bound::GracePeriod, Some(s(1)));
    inactive_for(s(1)).proxied_for(s(50)).leaves_pods(Some(0), Some(0), Bound::GracePeriod, Some(s(10)));
}

#[test]
fn retention_keeps_the_pods_beyond_the_grace_period() {
    let mut retained = inactive_for(GRACE).retention(2 * GRACE);
    retained.leaves_pods(Some(0), Some(0), Bound::PodRetention, Some(GRACE));
    retained.later(GRACE).applies(Some(0), 0);
    // An annotation of 0 over a ConfigMap of twice the grace period resolves to 0.
    inactive_for(GRACE).retention(Duration::ZERO).applies(Some(0), 0);
    inactive_for(GRACE).retention(10 * GRACE).unreachable().applies(Some(0), 0);
}

#[test]
fn pods_stay_until_the_activator_answers_the_probe() {
    let mut script = inactive_for(GRACE).not_probed();
    script.leaves_pods(Some(0), Some(0), Bound::AwaitingActivator, None);
    script.later(10 * GRACE).leaves_pods(Some(0), Some(0), Bound::AwaitingActivator, None);
    script.path.probed = true;
    script.applies(Some(0), 0);
}

#[test]
fn an_activator_that_is_always_in_the_path_needs_no_probe() {
    let unlimited = |spec: &mut RevisionSpec| spec.target_burst_capacity = TargetBurstCapacity::Unlimited;
    inactive_for(GRACE).not_probed().with(unlimited).applies(Some(0), 0);
}

#[test]
fn zero_can_be_forbidden() {
    let pinned = |mut script: Script| {
        script.spec.enable_scale_to_zero = false;
        script
    };
    let outcome = pinned(inactive_for(GRACE)).decide(Some(0));
    assert_eq!((outcome.apply, outcome.bound), (Some(1), Some(Bound::ScaleToZeroOff)));
    pinned(inactive_for(GRACE)).with(|spec| spec.min_scale = 2).applies(Some(0), 2);
    assert_eq!(pinned(active_for(s(1))).decide(None).apply, None);
}

// ---- Coming up ----

#[test]
fn a_revision_that_comes_up_is_left_alone_until_its_time_is_over() {
    let mut script = activating_for(s(75));
    script.leaves_pods(Some(0), None, Bound::Activating, Some(s(76)));
    assert_eq!(
        activating_for(s(75)).decide(None),
        Outcome { want: None, apply: None, bound: None, wake_at: Some(START + s(151)) }
    );
}

#[test]
fn a_revision_that_did_not_come_up_in_time_is_given_up() {
    for after in [s(151), s(152)] {
        let mut late = activating_for(after);
        late.applies(Some(0), 0);
        late.is(Activity::Inactive { since: START + after, timed_out: true });
    }
    // A progress deadline of 5 s of its own, and the 30 s that are always added.
    let mut short = activating_for(s(36)).with(|spec| spec.activation_timeout = s(35));
    short.applies(Some(0), 0);
    assert_eq!(activating_for(s(152)).decide(Some(0)).bound, Some(Bound::ActivationTimeout));
}

#[test]
fn after_a_timeout_the_inactive_time_begins_anew() {
    let mut script = activating_for(s(152));
    script.applies(Some(0), 0).later(s(2)).decide(Some(0));
    script.is(Activity::Inactive { since: script.now, timed_out: false });
    script.leaves_pods(Some(0), Some(0), Bound::GracePeriod, Some(GRACE));
}

#[test]
fn initial_scale_is_a_minimum_until_it_was_reached_once() {
    let initial = |scale| move |spec: &mut RevisionSpec| spec.initial_scale = scale;
    let mut two = activating_for(s(1)).with(initial(2));
    two.applies(Some(1), 2);
    assert_eq!(two.decide(Some(1)).bound, Some(Bound::InitialScale));
    activating_for(s(1)).with(initial(5)).ready(4).applies(Some(1), 5);

    let mut reached = activating_for(s(0)).with(initial(2)).ready(2);
    reached.applies(Some(2), 2).later(s(120));
    let outcome = reached.decide(Some(0));
    assert_eq!((outcome.apply, outcome.bound), (Some(1), Some(Bound::RecentlyActive)));
    assert_eq!(outcome.wake_at, Some(START + STABLE));
}

#[test]
fn an_unreachable_revision_need_not_reach_its_initial_scale() {
    let mut script = activating_for(s(1)).with(|spec| spec.initial_scale = 2).unreachable();
    script.applies(Some(1), 1);
}

#[test]
fn initial_scale_may_exceed_the_maximum_until_it_was_reached_once() {
    let mut script = activating_for(s(1)).with(|spec| {
        spec.initial_scale = 5;
        spec.max_scale = Some(3);
    });
    script.applies(Some(1), 5).applies(Some(7), 3);
    script.ready(5).applies(Some(1), 5).applies(Some(1), 1);
}

// ---- Minimum and maximum ----

#[test]
fn min_scale_holds_unless_the_revision_is_unreachable() {
    let two = |spec: &mut RevisionSpec| spec.min_scale = 2;
    for reachability in [Reachability::Reachable, Reachability::Unknown] {
        let mut held = inactive_for(GRACE).with(two).with(|spec| spec.reachability = reachability);
        held.applies(Some(0), 2);
    }
    assert_eq!(inactive_for(GRACE).with(two).decide(Some(0)).bound, Some(Bound::MinScale));
    inactive_for(GRACE).with(two).unreachable().applies(Some(0), 0);
}

#[test]
fn max_scale_caps_demand() {
    let mut capped = active_for(s(1)).with(|spec| spec.max_scale = Some(8));
    capped.applies(Some(10), 8).applies(Some(8), 8).applies(Some(7), 7);
    assert_eq!(capped.decide(Some(10)).bound, Some(Bound::MaxScale));
}

#[test]
fn without_a_decision_nothing_is_applied() {
    for mut script in [active_for(s(1)), active_for(2 * STABLE), inactive_for(GRACE)] {
        let before = script.lifecycle.activity();
        assert_eq!(script.decide(None), Outcome { want: None, apply: None, bound: None, wake_at: None });
        script.is(before);
    }
}

// ---- Activity ----

#[test]
fn a_revision_is_active_once_its_pods_are_ready() {
    let mut script = activating_for(s(3));
    script.applies(Some(1), 1).is(Activity::Activating { since: START });
    script.ready = 1;
    script.later(s(2)).applies(Some(1), 1).is(Activity::Active { since: START + s(5) });
    script.later(s(2)).applies(Some(4), 4).is(Activity::Active { since: START + s(5) });
}

#[test]
fn pods_that_are_ready_make_a_revision_active_before_anything_was_decided() {
    let mut script = activating_for(s(3)).ready(1);
    assert_eq!(script.decide(None).want, None);
    script.is(Activity::Active { since: START + s(3) });
}

#[test]
fn a_revision_that_lost_its_pods_is_coming_up_again() {
    for demand in [Some(1), None] {
        let mut script = active_for(s(9)).ready(0);
        script.decide(demand);
        script.is(Activity::Activating { since: START + s(9) });
    }
}

#[test]
fn min_scale_counts_as_what_is_needed_to_be_active() {
    let mut script = active_for(s(9)).with(|spec| spec.min_scale = 3).ready(2);
    script.applies(Some(1), 3).is(Activity::Activating { since: START + s(9) });
}

#[test]
fn demand_wakes_an_inactive_revision() {
    let mut script = inactive_for(GRACE).ready(0);
    let now = script.now;
    script.applies(Some(2), 2).is(Activity::Activating { since: now });
    let mut still_there = inactive_for(s(1));
    let now = still_there.now;
    still_there.applies(Some(2), 2).is(Activity::Active { since: now });
}

#[test]
fn a_revision_with_an_initial_scale_of_zero_begins_inactive() {
    let mut script = activating_for(s(0)).with(|spec| spec.initial_scale = 0);
    let asleep = Activity::Inactive { since: START, timed_out: false };
    script.decide(None);
    script.is(asleep);
    // From now on one pod is needed, but as long as nobody asks for one it stays as it is.
    script.later(s(2)).decide(None);
    script.is(asleep);
    script.applies(Some(1), 1).is(Activity::Activating { since: START + s(2) });
}

#[test]
fn an_inactive_revision_stays_so_without_a_decision_though_pods_are_ready() {
    let mut script = inactive_for(s(9)).ready(1);
    let before = script.lifecycle.activity();
    script.decide(None);
    script.is(before);
}

#[test]
fn no_wake_up_call_is_for_the_moment_it_is_answered() {
    let mut script = activating_for(s(0));
    let deadline = script.decide(Some(0)).wake_at.expect("there is something to wait for");
    script.now = deadline;
    assert_eq!(script.decide(Some(0)).wake_at, None, "else a driver in virtual time would never get past it");
}
