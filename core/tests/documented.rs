//! Every number that `docs/algorithm.md` works out, worked out again by the code.

use std::time::Duration;

use pilotlight_core::{
    ActivatorPath, Aggregation, Averages, Bound, Collector, Decider, Evaluation, Input, PodCounts,
    RequestKind, RequestStats, Revision, RevisionSpec, Rule, ServingMode, Stat, TargetBurstCapacity, Time,
    Trigger, Window, cadence, num_activators, sample_size,
};

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn in_flight(concurrency: f64) -> Stat {
    Stat { average_concurrent_requests: concurrency, ..Stat::default() }
}

/// Ten in flight per pod at 70 %.
fn ten_at_70_percent() -> RevisionSpec {
    RevisionSpec { target: 7.0, total: 10.0, ..RevisionSpec::default() }
}

// ---- A revision with a driver around it ----

/// A revision, its pods and its load, driven at the times production keeps. Pods are ready 3 s after they are
/// asked for and gone at once; the route follows the plan within the step.
struct World {
    revision: Revision,
    coming_up: Vec<(Time, u32)>,
    wake_at: Option<Time>,
    path: ActivatorPath,
    /// Every evaluation with its time since the start, in milliseconds.
    journal: Vec<(u64, Evaluation)>,
}

impl World {
    fn new(spec: RevisionSpec, ready: u32) -> Self {
        let pods = PodCounts { ready, ..PodCounts::default() };
        World {
            revision: Revision::new(START, spec, pods),
            coming_up: Vec::new(),
            wake_at: None,
            path: ActivatorPath::default(),
            journal: Vec::new(),
        }
    }

    /// Lives until `end_s`, with `load` in flight in each second.
    fn run(mut self, end_s: u64, load: impl Fn(u64) -> f64) -> Self {
        for tenth in 0..end_s * 10 {
            let now = START + Duration::from_millis(tenth * 100);
            let second = tenth / 10;
            let just_before = now - Duration::from_nanos(1);
            let at = |cadence: cadence::Cadence| cadence.next(just_before) < now + Duration::from_millis(100);
            if let Some(&(ready_at, ready)) = self.coming_up.first()
                && ready_at <= now
            {
                self.coming_up.remove(0);
                self.step(now, Input::Pods(PodCounts { ready, ..PodCounts::default() }));
            }
            if tenth == 0 && load(0) > 0.0 {
                // The activator tells of the first request at once.
                self.step(now, Input::Pushed(in_flight(1.0)));
            } else if at(cadence::SCRAPE) {
                // What was told at once is not told again.
                let told = f64::from(u8::from(second == 0 && load(0) > 0.0));
                self.step(now, Input::Scraped(in_flight(load(second) - told)));
            }
            if at(cadence::TICK) {
                self.step(now, Input::Tick);
            } else if self.wake_at.is_some_and(|wake_at| wake_at <= now) {
                self.step(now, Input::Wake);
            }
        }
        self
    }

    fn step(&mut self, now: Time, input: Input) {
        let Some(plan) = self.revision.step(now, input) else { return };
        let evaluation = self.revision.evaluation().expect("a plan comes of an evaluation").clone();
        self.wake_at = plan.wake_at;
        let ready = evaluation.pods.ready;
        let expected = self.coming_up.last().map_or(ready, |&(_, pods)| pods);
        if let Some(scale) = plan.scale.filter(|&scale| scale != expected) {
            self.coming_up.push((if scale > ready { now + s(3) } else { now }, scale));
        }
        self.journal.push(((now - START).as_millis() as u64, evaluation));
        let proxied = plan.mode == ServingMode::Proxy;
        if proxied != self.path.probed {
            self.path = ActivatorPath { populated_since: proxied.then_some(now), probed: proxied };
            self.step(now, Input::Path(self.path));
        }
    }
}

/// A whole number of two-second periods after the epoch.
const START: Time = Time::from_secs(1_000_000);

impl World {
    /// The evaluations made at ticks of these seconds (they come 0.9 s into them).
    #[track_caller]
    fn ticks(&self, seconds: &[u64]) -> Vec<&Evaluation> {
        let find = |second: &u64| {
            let tick = |(ms, evaluation): &&(u64, Evaluation)| {
                *ms == second * 1000 + 900 && evaluation.trigger == Trigger::Tick
            };
            &self.journal.iter().find(tick).unwrap_or_else(|| panic!("no tick in second {second}")).1
        };
        seconds.iter().map(find).collect()
    }

    /// Milliseconds, reason and applied pods, wherever one of the latter two is new.
    fn turns(&self) -> Vec<(u64, String, Option<u32>)> {
        let mut turns: Vec<(u64, String, Option<u32>)> = Vec::new();
        for (ms, evaluation) in
            self.journal.iter().filter(|(_, evaluation)| evaluation.reason() != "no-change")
        {
            let turn = (*ms, evaluation.reason(), evaluation.plan.scale);
            if turns.last().is_none_or(|last| (&last.1, last.2) != (&turn.1, turn.2)) {
                turns.push(turn);
            }
        }
        turns
    }
}

// ---- What is measured ----

#[test]
fn reports_of_one_second_add_up_to_the_load() {
    let spec = RevisionSpec::default();
    let mut collector = Collector::new(&spec);
    let pods = Stat {
        average_concurrent_requests: 4.0 * 10.0,
        average_proxied_concurrent_requests: 4.0 * 6.0,
        ..Stat::default()
    };
    for stat in [pods, in_flight(14.0), in_flight(10.0)] {
        collector.record(START, &stat);
    }
    assert_eq!(collector.averages(START, &spec), Some(Averages { stable: 40.0, panic: 40.0 }));
}

#[test]
fn two_requests_of_half_a_second_are_one_in_flight() {
    let mut stats = RequestStats::new(START);
    for start_ms in [0, 500] {
        let start = START + Duration::from_millis(start_ms);
        stats.request_started(start, RequestKind::Direct);
        stats.request_finished(start + Duration::from_millis(500), RequestKind::Direct);
    }
    let stat = stats.report(START + s(1));
    assert_eq!((stat.average_concurrent_requests, stat.request_count), (1.0, 2.0));
}

#[test]
fn the_defaults_are_these() {
    let spec = RevisionSpec::default();
    assert_eq!([spec.stable_window, spec.panic_window, spec.activation_timeout], [s(60), s(6), s(600 + 30)]);
    assert_eq!(
        [spec.scale_to_zero_grace_period, spec.pod_retention, spec.scale_down_delay],
        [s(30), s(0), s(0)]
    );
    assert_eq!([spec.panic_threshold, spec.max_scale_up_rate, spec.max_scale_down_rate], [2.0, 1000.0, 2.0]);
    assert_eq!([spec.target, spec.total, spec.activator_capacity], [70.0, 100.0, 100.0]);
    assert_eq!(spec.target_burst_capacity, TargetBurstCapacity::Of(211.0));
}

#[test]
fn large_revisions_are_sampled() {
    assert_eq!([3, 10, 100, 1000, 100_000].map(sample_size), [3, 7, 14, 16, 16]);
}

// ---- Windows ----

fn window(length_s: u64, aggregation: Aggregation) -> Window {
    Window::new(s(length_s), aggregation)
}

fn record(window: &mut Window, values: impl IntoIterator<Item = (u64, f64)>) {
    values.into_iter().for_each(|(second, value)| window.record(START + s(second), value));
}

#[test]
fn a_linear_window_is_the_mean_of_the_seconds_it_has_seen() {
    let mut young = window(60, Aggregation::Linear);
    record(&mut young, [(0, 10.0), (1, 20.0), (2, 30.0)]);
    assert_eq!(young.average(START + s(2)), 20.0);

    let mut gap = window(60, Aggregation::Linear);
    record(&mut gap, [(0, 10.0), (9, 10.0)]);
    assert_eq!(gap.average(START + s(9)), 2.0);

    let mut full = window(6, Aggregation::Linear);
    record(&mut full, (0..6).map(|second| (second, 60.0)));
    full.record(START + s(6), 0.0);
    assert_eq!(full.average(START + s(6)), 50.0);
}

#[test]
fn silence_is_not_zero() {
    let mut linear = window(6, Aggregation::Linear);
    record(&mut linear, [(0, 1.0), (1, 2.0), (2, 3.0), (3, 4.0), (4, 5.0), (5, 6.0)]);
    let readings = [5, 6, 7, 8, 9, 10, 11].map(|second| linear.average(START + s(second)));
    assert_eq!(readings, [3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 0.0]);
    assert!(!linear.is_empty(START + s(11)) && linear.is_empty(START + s(12)));
}

#[test]
fn a_weighted_window_follows_a_step_quickly() {
    let step = |aggregation, seconds: u64| {
        let mut window = window(60, aggregation);
        record(&mut window, (0..60).map(|second| (second, 0.0)));
        record(&mut window, (60..60 + seconds).map(|second| (second, 10.0)));
        (window.average(START + s(59 + seconds)) * 100.0).round() / 100.0
    };
    assert_eq!(
        [1, 3, 5, 10, 60].map(|seconds| step(Aggregation::Linear, seconds)),
        [0.17, 0.5, 0.83, 1.67, 10.0]
    );
    assert_eq!(
        [1, 3, 5, 10, 60].map(|seconds| step(Aggregation::WeightedExponential, seconds)),
        [2.0, 4.88, 6.72, 8.93, 10.0]
    );
}

#[test]
fn the_newest_second_weighs_more_in_a_short_weighted_window() {
    let newest = |length_s| {
        let mut window = window(length_s, Aggregation::WeightedExponential);
        window.record(START, 1.0);
        (window.average(START) * 1000.0).round() / 1000.0
    };
    assert_eq!([6, 10, 20, 30, 42, 60].map(newest), [0.785, 0.602, 0.369, 0.264, 0.2, 0.2]);
}

// ---- Demand, rates and what holds them ----

fn decide(decider: &mut Decider, spec: &RevisionSpec, at_s: u64, ready: u32, load: f64) -> (u32, Rule) {
    let decision = decider.decide(START + s(at_s), spec, ready, Averages { stable: load, panic: load });
    (decision.desired, decision.rule)
}

#[test]
fn twenty_five_in_flight_are_four_pods_of_seven() {
    let spec = ten_at_70_percent();
    let pods = |load| decide(&mut Decider::new(START, &spec, 1), &spec, 0, 1, load).0;
    assert_eq!([0.0, 0.1, 7.0, 7.1, 25.0, 70.0].map(pods), [0, 1, 1, 2, 4, 10]);
}

#[test]
fn the_burst_goes_as_the_timeline_says() {
    let load = |second| if (100..120).contains(&second) { 50.0 } else { 5.0 };
    let world = World::new(ten_at_70_percent(), 1).run(200, load);
    let rows: Vec<_> = world
        .ticks(&[99, 101, 103, 105, 107, 109, 119, 121, 125, 165, 167, 169, 175, 177])
        .into_iter()
        .map(|evaluation| {
            let d = evaluation.new_decision().expect("there is data");
            (
                evaluation.at.whole_seconds() - START.whole_seconds(),
                d.stable,
                d.panic,
                d.ready_pods,
                d.desired,
                d.rule,
                d.is_panicking(),
            )
        })
        .collect();
    assert_eq!(
        rows,
        [
            (99, 5.0, 5.0, 1, 1, Rule::StableDemand, false),
            (101, 6.5, 20.0, 1, 3, Rule::PanicDemand, true),
            (103, 8.0, 35.0, 1, 5, Rule::PanicDemand, true),
            (105, 9.5, 50.0, 3, 8, Rule::PanicDemand, true),
            (107, 11.0, 50.0, 5, 8, Rule::PanicDemand, true),
            (109, 12.5, 50.0, 8, 8, Rule::PanicDemand, true),
            (119, 20.0, 50.0, 8, 8, Rule::PanicDemand, true),
            (121, 20.0, 35.0, 8, 8, Rule::PanicHold, true),
            (125, 20.0, 5.0, 8, 8, Rule::PanicHold, true),
            (165, 15.5, 5.0, 8, 8, Rule::PanicHold, true),
            (167, 14.0, 5.0, 8, 4, Rule::ScaleDownRate, false),
            (169, 12.5, 5.0, 4, 2, Rule::StableDemand, false),
            (175, 8.0, 5.0, 2, 2, Rule::StableDemand, false),
            (177, 6.5, 5.0, 2, 1, Rule::StableDemand, false),
        ]
    );
}

#[test]
fn pods_are_halved_at_most() {
    let spec = RevisionSpec::default();
    let mut decider = Decider::new(START, &spec, 1);
    let mut pods = vec![100];
    for tick in 1..8 {
        let ready = pods[tick - 1];
        pods.push(decide(&mut decider, &spec, tick as u64 * 2, ready, 0.0).0);
    }
    assert_eq!(pods, [100, 50, 25, 12, 6, 3, 1, 0]);
}

#[test]
fn activation_scale_is_a_floor_under_any_demand() {
    let spec = RevisionSpec { activation_scale: Some(5), ..ten_at_70_percent() };
    let pods = |load| decide(&mut Decider::new(START, &spec, 0), &spec, 0, 5, load);
    assert_eq!(pods(0.0).0, 2, "none: only the rate holds the five");
    assert_eq!([pods(1.0), pods(27.0)], [(5, Rule::ActivationScale); 2]);
    assert_eq!(pods(36.0), (6, Rule::StableDemand));
}

#[test]
fn a_delay_of_a_minute_ends_after_a_minute() {
    let spec = RevisionSpec { scale_down_delay: s(60), panic_threshold: 100.0, ..ten_at_70_percent() };
    let mut decider = Decider::new(START, &spec, 1);
    assert_eq!(decide(&mut decider, &spec, 1, 4, 25.0), (4, Rule::StableDemand));
    for second in (3..=59).step_by(2) {
        assert_eq!(decide(&mut decider, &spec, second, 4, 14.0), (4, Rule::ScaleDownDelay));
    }
    assert_eq!(decide(&mut decider, &spec, 61, 4, 14.0), (2, Rule::StableDemand));
}

// ---- Who serves ----

#[test]
fn idle_pods_leave_this_much_room() {
    let spec = RevisionSpec::default();
    let idle = |ready| {
        let load = Averages { stable: 0.0, panic: 0.0 };
        let decision = Decider::new(START, &spec, 1).decide(START, &spec, ready, load);
        (decision.excess_burst_capacity, num_activators(ready, &spec))
    };
    assert_eq!([0, 1, 2, 3, 10].map(idle), [(-211, 3), (-111, 4), (-11, 5), (89, 6), (789, 13)]);
}

// ---- Bounds ----

#[test]
fn bounds_are_applied_in_this_order() {
    let bounded = |spec: RevisionSpec, load: f64| {
        let mut revision = Revision::new(START, spec, PodCounts { ready: 1, ..PodCounts::default() });
        revision.step(START, Input::Scraped(in_flight(load)));
        let plan = revision.step(START, Input::Tick).expect("a tick is evaluated");
        (plan.scale, revision.evaluation().and_then(|evaluation| evaluation.outcome.bound))
    };
    let base = || RevisionSpec { min_scale: 2, max_scale: Some(6), ..ten_at_70_percent() };
    assert_eq!(bounded(base(), 5.0), (Some(2), Some(Bound::MinScale)));
    assert_eq!(bounded(base(), 25.0), (Some(4), None));
    assert_eq!(bounded(base(), 70.0), (Some(6), Some(Bound::MaxScale)));
    let fresh = || RevisionSpec { initial_scale: 8, ..base() };
    assert_eq!(bounded(fresh(), 25.0), (Some(8), Some(Bound::InitialScale)));
    assert_eq!(bounded(fresh(), 70.0), (Some(6), Some(Bound::MaxScale)));
}

// ---- The way to zero ----

fn thirty_seconds_of_load(burst: TargetBurstCapacity) -> World {
    let spec = RevisionSpec { initial_scale: 0, target_burst_capacity: burst, ..ten_at_70_percent() };
    World::new(spec, 0).run(130, |second| if second < 30 { 5.0 } else { 0.0 })
}

fn turn(ms: u64, reason: &str, scale: Option<u32>) -> (u64, String, Option<u32>) {
    (ms, reason.to_owned(), scale)
}

#[test]
fn with_the_activator_in_the_path_the_last_pod_goes_a_minute_after_the_load() {
    let world = thirty_seconds_of_load(TargetBurstCapacity::Of(211.0));
    assert_eq!(
        world.turns(),
        [
            turn(0, "stable-demand", Some(1)),
            turn(89_900, "deactivating", None),
            turn(90_000, "idle", Some(0)),
        ]
    );
    let stable =
        world.ticks(&[29, 59, 87, 89]).into_iter().map(|e| e.new_decision().expect("there is data").stable);
    assert_eq!(stable.collect::<Vec<_>>(), [5.0, 2.5, 0.166_667, 0.0]);
}

#[test]
fn with_the_activator_out_of_the_path_the_grace_period_comes_on_top() {
    assert_eq!(
        thirty_seconds_of_load(TargetBurstCapacity::Off).turns(),
        [
            turn(0, "stable-demand", Some(1)),
            turn(89_900, "deactivating", None),
            turn(89_900, "grace-period", None),
            turn(119_900, "idle", Some(0)),
        ]
    );
}

#[test]
fn after_a_single_request_the_pod_stays_a_window_from_when_it_was_ready() {
    let spec = RevisionSpec { initial_scale: 0, ..ten_at_70_percent() };
    let world = World::new(spec, 0).run(80, |second| if second < 1 { 1.0 } else { 0.0 });
    assert_eq!(
        world.turns(),
        [
            turn(0, "stable-demand", Some(1)),
            turn(61_900, "recently-active", Some(1)),
            turn(63_000, "deactivating", None),
            turn(63_100, "idle", Some(0)),
        ]
    );
}
