//! Knative's formula as scripts one can check with a pencil: so many pods are ready, so much load is in the
//! stable and in the panic window, so many pods are decided on, with so much burst capacity to spare.
//!
//! Throughout, unless a script says otherwise: one pod takes 4/3 of the target, panic begins at twice the
//! ready pods, one decision may multiply or divide by 10, and the stable window is 60 s.

use std::time::Duration;

use pilotlight_core::{
    Averages, Decider, Decision, Reachability, RevisionSpec, Rule, ScalingMetric, ScalingMode,
    TargetBurstCapacity, Time,
};

/// One revision under the formula, at some moment.
#[derive(Clone)]
struct Script {
    spec: RevisionSpec,
    decider: Decider,
    now: Time,
    ready: u32,
    load: Averages,
}

/// A revision with a target per pod and a burst capacity, first seen with one pod.
fn target(target: f64, burst_capacity: f64) -> Script {
    script(1, RevisionSpec { target_burst_capacity: burst(burst_capacity), ..spec(target) })
}

fn script(first_seen_with: u32, spec: RevisionSpec) -> Script {
    Script {
        decider: Decider::new(START, &spec, first_seen_with),
        now: START,
        ready: first_seen_with,
        load: Averages { stable: 0.0, panic: 0.0 },
        spec,
    }
}

fn spec(target: f64) -> RevisionSpec {
    RevisionSpec {
        target,
        total: target / 0.75,
        panic_threshold: 2.0,
        max_scale_up_rate: 10.0,
        max_scale_down_rate: 10.0,
        ..RevisionSpec::default()
    }
}

fn burst(capacity: f64) -> TargetBurstCapacity {
    match capacity {
        -1.0 => TargetBurstCapacity::Unlimited,
        0.0 => TargetBurstCapacity::Off,
        capacity => TargetBurstCapacity::Of(capacity),
    }
}

impl Script {
    fn with(mut self, change: impl FnOnce(&mut RevisionSpec)) -> Self {
        change(&mut self.spec);
        self
    }

    fn at(&mut self, after_start: Duration) -> &mut Self {
        self.now = START + after_start;
        self
    }

    fn ready(&mut self, pods: u32) -> &mut Self {
        self.ready = pods;
        self
    }

    fn load(&mut self, stable: f64, panic: f64) -> &mut Self {
        self.load = Averages { stable, panic };
        self
    }

    fn decide(&mut self) -> Decision {
        self.decider.decide(self.now, &self.spec, self.ready, self.load)
    }

    #[track_caller]
    fn gives(&mut self, desired: u32, excess_burst_capacity: i32) -> &mut Self {
        let decision = self.decide();
        let got = (decision.desired, decision.excess_burst_capacity);
        assert_eq!(got, (desired, excess_burst_capacity), "{decision:?}");
        self
    }

    /// For scripts in which the same load is in both windows.
    #[track_caller]
    fn expect(&mut self, at: Duration, load: f64, desired: u32) -> &mut Self {
        let decision = self.at(at).load(load, load).decide();
        assert_eq!(decision.desired, desired, "{decision:?}");
        self
    }

    /// Which rule bound the number, were it decided again.
    fn rule(&self) -> Rule {
        self.clone().decide().rule
    }

    #[track_caller]
    fn calm(&mut self) -> &mut Self {
        assert_eq!(self.decider.mode(), ScalingMode::Stable);
        self
    }

    #[track_caller]
    fn panicking_since(&mut self, after_start: Duration) -> &mut Self {
        assert_eq!(self.decider.mode(), ScalingMode::Panic { since: START + after_start });
        self
    }
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
const fn min(minutes: u64) -> Duration {
    s(60 * minutes)
}

/// A whole number of two-second slots after the epoch.
const START: Time = Time::from_secs(1_000_000);

#[test]
fn demand_is_load_over_target() {
    target(10.0, 100.0).load(50.0, 50.0).gives(5, -137); // 13.3 - 100 - 50 = -136.7
    target(10.0, 101.0).load(50.0, 10.0).gives(5, -98).calm();
    target(10.0, 101.0).load(100.0, 10.0).gives(10, -98).calm();
    target(10.0, 75.0).load(1.0, 0.0).gives(1, -62); // a tenth of a pod is a pod
    target(10.0, 100.0).ready(5).load(50.0, 50.0).gives(5, -84);
}

#[test]
fn requests_per_second_are_reckoned_the_same() {
    let rps = |spec: &mut RevisionSpec| spec.scaling_metric = ScalingMetric::Rps;
    target(10.0, 100.0).with(rps).load(100.0, 99.0).gives(10, -186);
    target(10.0, 101.0).with(rps).load(50.0, 50.0).gives(5, -138);
}

#[test]
fn no_load_is_no_pods() {
    target(10.0, 75.0).load(0.0, 0.0).gives(0, -62);
    target(10.0, 100.0).load(0.0, 0.0).gives(0, -87);
}

#[test]
fn activation_scale_raises_any_demand_but_not_none() {
    let two = |spec: &mut RevisionSpec| spec.activation_scale = Some(2);
    target(10.0, 75.0).with(two).load(0.0, 0.0).gives(0, -62);
    let mut woken = target(10.0, 75.0).with(two);
    woken.load(1.0, 0.0).gives(2, -62);
    assert_eq!(woken.rule(), Rule::ActivationScale);
}

#[test]
fn panic_begins_at_twice_the_ready_pods_and_lasts_a_stable_window() {
    let mut burst = target(1.0, 98.0);
    burst.ready(10).load(11.0, 25.0).gives(25, -110).panicking_since(s(0));

    let mut fading = burst.clone();
    fading.at(s(30)).ready(40).load(30.0, 41.0).gives(41, -86).panicking_since(s(0));
    let mut over = burst.clone();
    over.at(s(62)).ready(55).load(50.0, 56.0).gives(50, -81).calm();
    let mut growing = burst.clone();
    growing.at(s(30)).ready(40).load(30.0, 80.0).gives(80, -125).panicking_since(s(30));
}

#[test]
fn panic_ends_strictly_after_a_stable_window() {
    let mut burst = target(1.0, 98.0);
    burst.ready(10).load(11.0, 25.0).gives(25, -110);
    burst.at(s(60)).load(1.0, 1.0).gives(25, -86).panicking_since(s(0));
    assert_eq!(burst.rule(), Rule::PanicHold);
    burst.at(s(60) + Duration::from_nanos(1)).gives(1, -86).calm();
}

#[test]
fn under_twice_the_ready_pods_there_is_no_panic() {
    let mut calm = target(10.0, 98.0);
    calm.ready(8).load(100.0, 100.0).gives(10, -92).calm();
    calm.load(50.0, 50.0).gives(5, -42).calm();
}

#[test]
fn a_revision_grows_by_its_rate_each_time() {
    let mut growing = target(1.0, 101.0);
    growing.ready(1).load(6.0, 6.0).gives(6, -106);
    growing.ready(6).load(36.0, 36.0).gives(36, -129);
    growing.ready(36).load(216.0, 216.0).gives(216, -269);
    target(1.0, 101.0).ready(1296).load(1296.0, 1296.0).gives(1296, 331).calm();
}

#[test]
fn burst_capacity_can_be_off_or_unlimited() {
    target(181.0, -1.0).load(21.0, 26.0).gives(1, -1);
    target(10.0, 0.0).load(50.0, 49.0).gives(5, 0);
}

#[test]
fn in_panic_the_higher_of_both_windows_counts() {
    // First seen with 5 pods: in panic since the start, and never below 5.
    let panicking = || script(5, RevisionSpec { target_burst_capacity: burst(100.0), ..spec(1.0) });
    panicking().at(s(5)).load(50.0, 30.0).gives(50, -124);
    panicking().at(s(5)).load(20.0, 30.0).gives(30, -124);
    target(10.0, 84.0).load(50.0, 100.0).gives(10, -171).panicking_since(s(0));
}

#[test]
fn panic_holds_the_highest_number_until_it_is_over() {
    let mut script = target(10.0, 93.0);
    script.load(100.0, 100.0).gives(10, -180);
    script.ready(10).load(100.0, 1000.0).gives(100, -960);
    script.at(s(30)).load(1.0, 1.0).gives(100, 39);
    assert_eq!(script.rule(), Rule::PanicHold);
    script.at(s(61)).gives(1, 39).calm();
}

#[test]
fn rates_limit_one_decision() {
    let down_by = |rate| move |spec: &mut RevisionSpec| spec.max_scale_down_rate = rate;
    let mut up = target(1.0, 1982.0).with(|spec| spec.max_scale_up_rate = 1.1);
    up.ready(2).load(3.0, 3.1).gives(3, -1983); // ceil(2.2)
    target(10.0, 1982.0).with(down_by(1.1)).ready(100).load(1.0, 1.0).gives(90, -650); // floor(90.9)

    let mut capped = target(10.0, 61.0);
    capped.load(1000.0, 1001.0).gives(10, -1049);
    assert_eq!(capped.rule(), Rule::ScaleUpRate);
    target(10.0, 61.0).ready(10).load(1000.0, 1001.0).gives(100, -929);
    let mut held = target(10.0, 61.0);
    held.ready(100).load(1.0, 1.0).gives(10, 1271);
    assert_eq!(held.rule(), Rule::ScaleDownRate);
    target(10.0, 61.0).ready(10).load(1.0, 1.0).gives(1, 71);
}

#[test]
fn an_unreachable_revision_falls_at_once() {
    let mut unreachable = target(10.0, 1982.0).with(|spec| {
        spec.max_scale_down_rate = 1.1;
        spec.reachability = Reachability::Unreachable;
    });
    unreachable.ready(100).load(1.0, 1.0).gives(1, -650);
}

#[test]
fn with_no_pod_ready_rates_are_those_of_one_and_room_is_that_of_none() {
    target(10.0, 81.0).ready(0).load(1000.0, 888.0).gives(10, -969); // 0 - 81 - 888
}

#[test]
fn new_settings_count_from_the_next_decision() {
    let mut script = target(10.0, 77.0);
    script.load(100.0, 101.0).gives(10, -165);
    script.spec = RevisionSpec { target_burst_capacity: burst(71.0), ..spec(1.0) };
    script.ready(10).gives(100, -159);
}

#[test]
fn a_revision_first_seen_with_several_pods_starts_in_panic() {
    for pods in [0, 1] {
        let mut fresh = script(pods, spec(10.0));
        fresh.calm().load(0.0, 0.0);
        assert_eq!(fresh.decide().desired, 0);
    }
    // An autoscaler restarted under load must not take pods away before its windows have filled.
    let mut restarted = script(2, spec(10.0));
    restarted.panicking_since(s(0));
    restarted.expect(s(2), 0.0, 2).expect(s(60), 0.0, 2).expect(s(62), 0.0, 0).calm();
}

/// Scale-down delay of 5 minutes; panic is out of reach.
fn delayed() -> Script {
    let patient = RevisionSpec { panic_threshold: 100.0, scale_down_delay: min(5), ..spec(10.0) };
    script(1, patient)
}

#[test]
fn a_lower_number_is_followed_once_it_has_held_for_the_delay() {
    delayed()
        .expect(s(2), 40.0, 4)
        .expect(min(5), 0.0, 4)
        .expect(min(5) + s(2), 0.0, 0)
        .expect(min(9), 40.0, 4)
        .expect(min(10), 30.0, 4)
        .expect(min(11), 0.0, 4)
        .expect(min(14), 0.0, 3)
        .expect(min(15), 0.0, 0);
}

#[test]
fn the_delay_is_named_as_what_held_the_pods() {
    let mut script = delayed();
    script.expect(s(2), 40.0, 4).expect(min(5), 0.0, 4);
    assert_eq!(script.rule(), Rule::ScaleDownDelay);
}

#[test]
fn an_unreachable_revision_does_not_wait_for_the_delay() {
    let mut script = delayed();
    script.expect(s(2), 40.0, 4);
    script.spec.reachability = Reachability::Unreachable;
    script.expect(min(1) + s(2), 0.0, 0);
    // Nor did it forget: reachable again within the delay, the four pods are still remembered.
    script.spec.reachability = Reachability::Reachable;
    script.expect(min(1) + s(4), 0.0, 4);
}

#[test]
fn without_a_delay_a_lower_number_is_followed_at_once() {
    let mut script = script(1, RevisionSpec { panic_threshold: 100.0, ..spec(10.0) });
    script.expect(s(0), 40.0, 4).expect(Duration::from_millis(500), 20.0, 2);
}

#[test]
fn the_delay_is_fixed_when_the_revision_is_first_seen() {
    let mut script = script(1, RevisionSpec { panic_threshold: 100.0, ..spec(10.0) });
    script.expect(s(0), 40.0, 4);
    script.spec.scale_down_delay = min(5);
    script.expect(s(2), 20.0, 2);
}

#[test]
fn absurd_numbers_saturate() {
    let mut script = target(0.01, 100.0).with(|spec| spec.max_scale_up_rate = 1e300);
    script.load(1e300, 1e300).gives(u32::MAX, i32::MIN);
}
