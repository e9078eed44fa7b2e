//! The autoscaler's decisions: the cases the controller publishes, and scripts that can be checked with a pencil.

use std::time::Duration;

use pilotlight_core::Time;
use pilotlight_sim::hpa::{
    Behavior, CpuUsage, Hpa, HpaDecision, HpaMetric, HpaSpec, Limit, Measure, NoProposal, PodSample,
    PodState, Policy, PolicyStep, Reason, Rules, SYNC_PERIOD, Select,
};

/// Late enough for everything to be past its beginnings.
const LATE: u64 = 100_000;

fn at(seconds: u64) -> Time {
    Time::from_secs(seconds)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn cpu_percent(target_percent: u32) -> HpaSpec {
    spec(vec![HpaMetric::CpuUtilization { target_percent }])
}

fn spec(metrics: Vec<HpaMetric>) -> HpaSpec {
    HpaSpec { name: None, min_replicas: 1, max_replicas: 1_000, metrics, behavior: None }
}

fn in_flight(target: u64) -> HpaMetric {
    HpaMetric::Pods { name: "in_flight".to_owned(), measure: Measure::InFlight, target_milli: target * 1_000 }
}

fn with(behavior: Behavior) -> HpaSpec {
    HpaSpec { behavior: Some(behavior), ..spec(vec![in_flight(10)]) }
}

/// A pod that is ready, and has long been.
fn idle() -> PodSample {
    let state = PodState::Running { started_at: at(0), is_ready: true, since: at(30) };
    PodSample { state, cpu: None, requests_per_second: None, in_flight: None }
}

fn using(millicores: u64) -> PodSample {
    PodSample { cpu: Some(CpuUsage { millicores, at: at(LATE), window: SYNC_PERIOD }), ..idle() }
}

/// One that started lately and is not ready.
fn unready(millicores: u64) -> PodSample {
    let state = PodState::Running { started_at: at(LATE - 60), is_ready: false, since: at(LATE - 60) };
    PodSample { state, ..using(millicores) }
}

fn pending() -> PodSample {
    PodSample { state: PodState::Pending, ..idle() }
}

/// One sync over pods that each request a core.
fn once(spec: HpaSpec, current: u32, pods: &[PodSample]) -> HpaDecision {
    Hpa::new(spec, 1_000).sync(at(LATE), current, pods)
}

/// The call of the metrics, before anything limits it.
fn recommended(decision: &HpaDecision) -> u32 {
    match decision.reason {
        Reason::Metric { recommended, .. } => recommended,
        other => panic!("no metric decided: {other:?}"),
    }
}

fn all_using(levels: &[u64]) -> Vec<PodSample> {
    levels.iter().map(|&level| using(level)).collect()
}

/// Syncs every 15 seconds with all pods ready, and load for so many of them: each answers to 10 in flight.
struct Script {
    hpa: Hpa,
    now: Time,
    replicas: u32,
}

impl Script {
    fn new(spec: HpaSpec, replicas: u32) -> Self {
        Script { hpa: Hpa::new(spec, 1_000), now: at(LATE), replicas }
    }

    /// One sync now; the next one is 15 s later.
    fn load(&mut self, pods_worth: u32) -> HpaDecision {
        let each = f64::from(pods_worth) * 10.0 / f64::from(self.replicas);
        let pods = vec![PodSample { in_flight: Some(each), ..idle() }; self.replicas as usize];
        let decision = self.hpa.sync(self.now, self.replicas, &pods);
        self.replicas = decision.desired;
        self.now += SYNC_PERIOD;
        decision
    }

    /// The replicas after each of so many syncs under the same load.
    fn syncs(&mut self, count: usize, pods_worth: u32) -> Vec<u32> {
        (0..count).map(|_| self.load(pods_worth).desired).collect()
    }
}

#[test]
fn twice_the_target_doubles_and_half_of_it_halves_the_pods() {
    assert_eq!(once(cpu_percent(80), 4, &[using(1_600); 4]).desired, 8);
    // The documentation's: 200m where 100m are wanted doubles, 50m halves.
    let plain = || spec(vec![HpaMetric::Cpu { target_millicores: 100 }]);
    assert_eq!(once(plain(), 2, &[using(200); 2]).desired, 4);
    assert_eq!(recommended(&once(plain(), 2, &[using(50); 2])), 1);
}

#[test]
fn what_is_not_a_whole_pod_counts_as_one() {
    // The controller's own cases: 30 % wanted and 50 % used by three; 50 % wanted and 28 % used by five.
    assert_eq!(recommended(&once(cpu_percent(30), 3, &all_using(&[300, 500, 700]))), 5);
    assert_eq!(recommended(&once(cpu_percent(50), 5, &all_using(&[100, 300, 500, 250, 250]))), 3);
}

#[test]
fn within_a_tenth_of_the_target_nothing_changes() {
    for (millicores, expected) in [(900, 10), (899, 9), (1_100, 10), (1_109, 10), (1_110, 12)] {
        let decision = once(cpu_percent(100), 10, &[using(millicores); 10]);
        assert_eq!(recommended(&decision), expected, "{millicores}m");
    }
}

#[test]
fn tolerances_are_those_of_each_direction() {
    let mut behavior = Behavior::default();
    behavior.scale_up.tolerance_fraction = Some(0.0);
    behavior.scale_down.tolerance_fraction = Some(0.5);
    for (millicores, expected) in [(1_010, 11), (1_000, 10), (500, 10), (490, 5)] {
        let spec = HpaSpec { behavior: Some(behavior.clone()), ..cpu_percent(100) };
        assert_eq!(recommended(&once(spec, 10, &[using(millicores); 10])), expected, "{millicores}m");
    }
}

#[test]
fn on_the_way_up_pods_that_are_not_ready_count_as_idle() {
    // The controller's own cases, 30 % wanted. Of the first, two thirds of 60 % are 40 %.
    let pods = [unready(300), using(500), using(700)];
    assert_eq!(recommended(&once(cpu_percent(30), 3, &pods)), 4);
    // 40 % alone, but 13 % of all three: the direction would turn, so nothing changes.
    let pods = [using(400), unready(500), unready(700)];
    assert_eq!(recommended(&once(cpu_percent(30), 3, &pods)), 3);
    // Pending ones as well.
    let pods = [pending(), using(500), using(700)];
    assert_eq!(recommended(&once(cpu_percent(30), 3, &pods)), 4);
}

#[test]
fn on_the_way_down_pods_that_are_not_ready_do_not_count() {
    // The controller's own case: 30 % of the three that are ready, 50 % wanted.
    let pods = [using(100), using(300), using(500), unready(250), unready(250)];
    assert_eq!(recommended(&once(cpu_percent(50), 5, &pods)), 2);
}

#[test]
fn pods_that_are_not_measured_speak_against_every_change() {
    let missing = idle();
    // The controller's own cases: down, they count as using all they request; up, as using nothing.
    let cases: &[(u32, &[PodSample], u32)] = &[
        (100, &[using(400), using(95), missing, missing], 3),
        (100, &[using(1_000), missing], 2),
        (100, &[using(1_900), missing], 2),
        (100, &[using(600), missing], 2),
        (50, &[unready(100), using(450), missing], 3),
        (50, &[unready(100), using(2_000), missing], 4),
        (50, &[unready(100), using(100), using(100), missing], 3),
    ];
    for (number, &(target, pods, expected)) in cases.iter().enumerate() {
        let decision = once(cpu_percent(target), pods.len() as u32, pods);
        assert_eq!(recommended(&decision), expected, "case {number}");
    }
    // Pods count as using all of their request where more than that is wanted.
    let pods = [using(1_500), missing];
    assert_eq!(recommended(&once(cpu_percent(200), 2, &pods)), 2);
    // And so they do where it is no percentage.
    let plain = spec(vec![HpaMetric::Cpu { target_millicores: 100 }]);
    assert_eq!(recommended(&once(plain, 4, &[using(10), using(10), missing, missing])), 3);
}

#[test]
fn the_cpu_of_a_pods_first_minutes_counts_only_after_it_was_ready_for_a_whole_window() {
    let pod = |started, since, measured| PodSample {
        state: PodState::Running { started_at: at(started), is_ready: true, since: at(since) },
        cpu: Some(CpuUsage { millicores: 1_000, at: at(measured), window: secs(15) }),
        ..idle()
    };
    let counts = |pod| match once(cpu_percent(100), 1, &[pod]).reason {
        Reason::Metric { .. } => true,
        Reason::Unknown { why: NoProposal::NotMeasured, .. } => false,
        other => panic!("{other:?}"),
    };
    assert!(!counts(pod(LATE - 60, LATE - 20, LATE - 6)), "measured from a second before it was ready");
    assert!(counts(pod(LATE - 60, LATE - 20, LATE - 5)));
    assert!(!counts(pod(LATE - 299, LATE - 2, LATE)), "within its first five minutes");
    assert!(counts(pod(LATE - 300, LATE - 2, LATE)), "after them");
}

#[test]
fn a_pod_that_lost_its_readiness_still_counts_unless_it_never_had_it() {
    let counts = |since: u64| {
        let state = PodState::Running { started_at: at(LATE - 1_000), is_ready: false, since: at(since) };
        let decision = once(cpu_percent(100), 1, &[PodSample { state, ..using(2_000) }]);
        matches!(decision.reason, Reason::Metric { .. })
    };
    assert!(counts(LATE - 100));
    // A change within 30 s of its start was no loss: it was never ready.
    assert!(!counts(LATE - 971));
    assert!(counts(LATE - 970));
    // Metrics that pods measure themselves know none of this.
    let state = PodState::Running { started_at: at(LATE - 10), is_ready: false, since: at(LATE - 10) };
    let pod = PodSample { state, in_flight: Some(20.0), ..idle() };
    assert_eq!(recommended(&once(spec(vec![in_flight(10)]), 1, &[pod])), 2);
}

#[test]
fn pods_that_go_do_not_count() {
    let going = PodSample { state: PodState::Terminating, ..using(4_000) };
    assert_eq!(once(cpu_percent(80), 2, &[using(1_600), using(1_600), going]).desired, 4);
}

#[test]
fn the_metric_that_calls_for_the_most_pods_decides() {
    let metrics = || vec![HpaMetric::CpuUtilization { target_percent: 50 }, in_flight(10)];
    let pod = |millicores, requests| PodSample { in_flight: Some(requests), ..using(millicores) };
    let decision = once(spec(metrics()), 4, &[pod(500, 15.0); 4]);
    assert_eq!((recommended(&decision), decision.proposals.len()), (6, 2));
    assert!(matches!(decision.reason, Reason::Metric { metric: 1, .. }));
    // Down only as far as all of them go.
    let decision = once(spec(metrics()), 4, &[pod(100, 7.5); 4]);
    assert_eq!(recommended(&decision), 3);
}

#[test]
fn a_metric_that_is_not_known_stands_in_the_way_of_fewer_pods_and_not_of_more() {
    let metrics = || vec![HpaMetric::CpuUtilization { target_percent: 50 }, in_flight(10)];
    let decision = once(spec(metrics()), 4, &[using(1_000); 4]);
    assert_eq!(decision.desired, 8);
    let decision = once(spec(metrics()), 4, &[using(100); 4]);
    assert_eq!(decision.desired, 4);
    assert_eq!(decision.reason, Reason::Unknown { metric: 1, why: NoProposal::NotMeasured });
    // Without pods or without a request, there is nothing to go by at all.
    let decision = once(cpu_percent(50), 4, &[]);
    assert_eq!(decision.reason, Reason::Unknown { metric: 0, why: NoProposal::NoPods });
    let decision = Hpa::new(cpu_percent(50), 0).sync(at(LATE), 4, &[using(100); 4]);
    assert_eq!(decision.reason, Reason::Unknown { metric: 0, why: NoProposal::NoRequest });
}

#[test]
fn outside_the_bounds_the_metrics_are_not_looked_at() {
    let bounds = HpaSpec { min_replicas: 2, max_replicas: 5, ..cpu_percent(50) };
    let decision = once(bounds.clone(), 7, &[using(5_000); 7]);
    assert_eq!((decision.desired, decision.reason), (5, Reason::AboveMaximum));
    let decision = once(bounds.clone(), 1, &[using(5_000)]);
    assert_eq!((decision.desired, decision.reason), (2, Reason::BelowMinimum));
    let decision = once(bounds, 0, &[]);
    assert_eq!((decision.desired, decision.reason), (0, Reason::Disabled));
}

#[test]
fn without_behavior_the_pods_at_most_double_or_become_four() {
    let grown = |from: u32, max_replicas| {
        let spec = HpaSpec { max_replicas, ..cpu_percent(10) };
        let decision = once(spec, from, &vec![using(1_000); from as usize]);
        let Reason::Metric { limit, .. } = decision.reason else { panic!("{decision:?}") };
        (decision.desired, limit)
    };
    assert_eq!(grown(1, 100), (4, Limit::ScaleUpSpeed));
    assert_eq!(grown(3, 100), (6, Limit::ScaleUpSpeed));
    assert_eq!(grown(5, 10), (10, Limit::Maximum));
    assert_eq!(grown(5, 8), (8, Limit::Maximum));
}

#[test]
fn without_behavior_fewer_pods_need_five_minutes_of_lower_load() {
    let mut script = Script::new(spec(vec![in_flight(10)]), 8);
    assert_eq!(script.load(8).desired, 8);
    // The recommendation of 8 at 0 s counts up to and including 300 s, the twentieth sync after it.
    assert_eq!(script.syncs(20, 2), [8; 20]);
    let decision = script.load(2);
    assert_eq!(decision.desired, 2);
    // A higher one in between starts the wait anew, for as many pods as it called for.
    let mut script = Script::new(spec(vec![in_flight(10)]), 8);
    script.syncs(10, 2);
    assert_eq!(script.load(5).desired, 8);
    assert_eq!(script.syncs(12, 2), [[8; 10].as_slice(), &[5; 2]].concat());
}

#[test]
fn by_default_behavior_adds_four_pods_or_doubles_them_every_sync() {
    let mut script = Script::new(with(Behavior::default()), 1);
    assert_eq!(script.syncs(5, 100), [5, 10, 20, 40, 80]);
    let mut script = Script::new(with(Behavior::default()), 6);
    let decision = script.load(100);
    assert_eq!(decision.desired, 12);
    assert!(matches!(decision.reason, Reason::Metric { limit: Limit::ScaleUpSpeed, stabilized: 100, .. }));
}

#[test]
fn by_default_behavior_waits_five_minutes_and_then_goes_all_the_way() {
    let mut script = Script::new(with(Behavior::default()), 8);
    script.load(8);
    // A recommendation exactly as old as the window no longer counts here.
    assert_eq!(script.syncs(20, 2), [[8; 19].as_slice(), &[2]].concat());
}

fn rules(window: u64, select: Select, policies: &[(PolicyStep, u64)]) -> Rules {
    let policy = |&(step, period)| Policy { step, period: secs(period) };
    Rules {
        stabilization_window: secs(window),
        select,
        policies: policies.iter().map(policy).collect(),
        tolerance_fraction: None,
    }
}

/// The stories the feature was proposed with (KEP-853).
#[test]
fn pods_grow_as_fast_and_shrink_as_slowly_as_policies_say() {
    // As fast as possible: nine times as many more, every minute.
    let scale_up = rules(0, Select::Max, &[(PolicyStep::Percent(900), 60)]);
    let mut script = Script::new(with(Behavior { scale_up, ..Behavior::default() }), 1);
    assert_eq!(script.syncs(12, 1_000), [[10; 4], [100; 4], [1_000; 4]].concat());

    // One pod a minute, both ways; four syncs each.
    let one = || rules(0, Select::Max, &[(PolicyStep::Pods(1), 60)]);
    let mut script = Script::new(with(Behavior { scale_up: one(), scale_down: one() }), 2);
    assert_eq!(script.syncs(12, 50), [[3; 4], [4; 4], [5; 4]].concat());
    assert_eq!(script.syncs(8, 1), [[4; 4], [3; 4]].concat());

    // Never down.
    let scale_down = rules(0, Select::Disabled, &[(PolicyStep::Percent(100), 15)]);
    let mut script = Script::new(with(Behavior { scale_down, ..Behavior::default() }), 9);
    assert_eq!(script.syncs(50, 1), [9; 50]);
}

#[test]
fn of_several_policies_the_chosen_one_counts() {
    let policies = [(PolicyStep::Pods(4), 60), (PolicyStep::Percent(10), 60)];
    let first = |from: u32, load: u32, select| {
        let (scale_up, scale_down) = (rules(0, select, &policies), rules(0, select, &policies));
        Script::new(with(Behavior { scale_up, scale_down }), from).load(load).desired
    };
    // Four of a hundred, or ten in a hundred of them. The controller counts in floating point, where 100 x 1.1 is
    // a little more than 110, and rounds up.
    assert_eq!(first(100, 500, Select::Max), 111);
    assert_eq!(first(100, 500, Select::Min), 104);
    assert_eq!(first(100, 5, Select::Max), 90);
    assert_eq!(first(100, 5, Select::Min), 96);
    // The documentation's: while more than 40 remain, the percentage is the faster one; then four at a time.
    assert_eq!(first(40, 5, Select::Max), 36);
    assert_eq!(first(30, 5, Select::Max), 26);
    assert_eq!(first(80, 5, Select::Max), 72);
    assert_eq!(first(72, 5, Select::Max), 64);
}

#[test]
fn growing_waits_for_the_lowest_recommendation_of_its_window() {
    let scale_up = Rules { stabilization_window: secs(60), ..Rules::scale_up() };
    let mut script = Script::new(with(Behavior { scale_up, ..Behavior::default() }), 2);
    assert_eq!(script.load(2).desired, 2);
    assert_eq!(script.load(10).desired, 2);
    assert_eq!(script.syncs(2, 5), [2; 2]);
    // The 2 at 0 s counts until 45 s; the lowest since is 5.
    let decision = script.load(10);
    assert_eq!(decision.desired, 5);
    assert!(matches!(decision.reason, Reason::Metric { recommended: 10, stabilized: 5, .. }));
}

#[test]
fn what_was_removed_lately_may_come_back_at_once() {
    let slow = || rules(0, Select::Max, &[(PolicyStep::Pods(2), 60)]);
    let mut script = Script::new(with(Behavior { scale_up: slow(), scale_down: slow() }), 10);
    assert_eq!(script.load(1).desired, 8);
    // Ten a minute ago: twelve are allowed now.
    assert_eq!(script.load(100).desired, 12);
}

#[test]
fn behavior_still_keeps_to_the_bounds() {
    let bounds = HpaSpec { min_replicas: 3, max_replicas: 6, ..with(Behavior::default()) };
    let mut script = Script::new(bounds, 4);
    let decision = script.load(50);
    assert_eq!(decision.desired, 6);
    assert!(matches!(decision.reason, Reason::Metric { limit: Limit::Maximum, .. }));
    script.syncs(19, 1);
    let decision = script.load(1);
    assert_eq!(decision.desired, 3);
    assert!(matches!(decision.reason, Reason::Metric { limit: Limit::Minimum, recommended: 1, .. }));
}

#[test]
fn a_decision_says_what_it_follows_from() {
    let said = |spec: HpaSpec, current: u32, pods: &[PodSample]| {
        let mut hpa = Hpa::new(spec, 1_000);
        let decision = hpa.sync(at(LATE), current, pods);
        hpa.explain(&decision)
    };
    let metric = |target| spec(vec![in_flight(target)]);
    let busy = PodSample { in_flight: Some(12.5), ..idle() };
    let bounds = HpaSpec { min_replicas: 2, max_replicas: 5, ..metric(2) };
    let cases = [
        (said(metric(10), 1, &[busy]), "in_flight is at 12.5 (target 10): 1 to 2 pods"),
        (said(metric(12), 1, &[busy]), "in_flight is at 12.5 (target 12): stays at 1 pod"),
        (
            said(metric(50), 2, &[busy; 2]),
            "in_flight is at 12.5 (target 50): stays at 2 pods; 1 now, 2 within the stabilization window",
        ),
        (said(metric(2), 1, &[busy]), "in_flight is at 12.5 (target 2): 1 to 4 pods; no faster towards 7"),
        (
            said(bounds.clone(), 4, &[busy; 4]),
            "in_flight is at 12.5 (target 2): 4 to 5 pods; 25 is above the maximum",
        ),
        (said(bounds.clone(), 1, &[busy]), "below the minimum: 1 to 2 pods"),
        (said(bounds.clone(), 6, &[busy; 6]), "above the maximum: 6 to 5 pods"),
        (said(bounds, 0, &[]), "no pods are asked for: autoscaling is off"),
        (
            said(cpu_percent(80), 2, &[busy; 2]),
            "cpu is not known, no pod that counts has been measured: stays at 2 pods",
        ),
    ];
    for (said, expected) in cases {
        assert_eq!(said, expected);
    }
}
