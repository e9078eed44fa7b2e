//! Scenarios that can be worked out by hand, and what must come out of them, to the number.

use std::time::Duration;

use pilotlight_core::{RevisionSpec, Time, TroubleReason};
use pilotlight_sim::cluster::{Capacity, ClusterSpec, NodeGroup, Room};
use pilotlight_sim::scenario::{
    FailingStarts, Load, Outage, Path, Platform, Scenario, Settings, Slowdown, UserStep, Users,
};
use pilotlight_sim::{Outcome, Run, simulate};

mod support;
use support::{at, ms, secs};

const SEED: Run = Run { seed: 1, timeline: false };

/// A target of 10 at 70 %, and nothing running in the beginning.
fn spec() -> RevisionSpec {
    RevisionSpec { target: 7.0, total: 10.0, initial_scale: 0, ..RevisionSpec::default() }
}

fn users(number: u32, think: Duration) -> Load {
    let steps = vec![UserStep { at: Time::EPOCH, users: number, spawn_rate: None }];
    Load::Closed(Users { steps, think: think.into() })
}

fn under(spec: RevisionSpec, scenario: &Scenario) -> Outcome {
    simulate(scenario, &Settings::requests("under trial", spec, 0), SEED)
}

#[test]
fn twenty_five_at_a_time_are_four_pods() {
    let scenario = Scenario::new(users(25, Duration::ZERO), secs(30), ms(100));
    let outcome = under(RevisionSpec { initial_scale: 1, ..spec() }, &scenario);
    assert_eq!(outcome.pods.peak, 4, "25 / 7");
    assert_eq!((outcome.requests, outcome.statuses[&200]), (7_500, 7_500), "25 in each of 300 rounds");
    assert_eq!(outcome.latency.p50, outcome.latency.max);
}

#[test]
fn a_request_at_zero_waits_exactly_as_long_as_its_pod_takes() {
    let mut scenario = Scenario::new(at(&[ms(5_200)]), secs(200), ms(100));
    scenario.pods.schedule = ms(300).into();
    scenario.pods.init = ms(1_500).into();
    scenario.pods.ready = ms(200).into();
    let outcome = under(spec(), &scenario);
    assert_eq!((outcome.cold_starts, outcome.cold_requests), (1, 1));
    assert_eq!((outcome.cold_start.max, outcome.queue.max), (2.0, 0.0));
    assert_eq!((outcome.latency.max, outcome.service.max), (2.1, 0.1));
    assert_eq!(outcome.pods.starting_seconds, 2.0);
    assert_eq!((outcome.pods.starts, outcome.pods.peak), (1, 1));
}

#[test]
fn after_the_last_request_the_pod_stays_for_a_stable_window() {
    let scenario = Scenario::new(at(&[ms(100)]), secs(300), ms(100));
    let outcome = under(spec(), &scenario);
    // Active from 0.1 s, so the first tick that may think of zero is that at 61.9 s. The activator stands in the path
    // anyway, so nothing is waited for but the next step, a millisecond later; and half a second of quiet.
    assert!((outcome.pods.ready_seconds - 61.801).abs() < 1e-9, "{:?}", outcome.pods);
    assert_eq!(outcome.pods.terminating_seconds, 0.5);
    assert_eq!(outcome.pods.starts, 1);
}

#[test]
fn a_pod_that_takes_one_at_a_time_makes_the_others_wait_their_turn() {
    let scenario = Scenario::new(users(5, secs(1_000)), secs(100), ms(100));
    let settings = Settings::fixed("one pod", 1, 1);
    let outcome = simulate(&scenario, &settings, SEED);
    assert_eq!(outcome.requests, 5);
    assert_eq!(outcome.queue.max, 0.4);
    assert_eq!(outcome.wait.mean, 0.2, "0, 100, 200, 300 and 400 ms");
    assert_eq!((outcome.cold_starts, outcome.cold_start.max), (0, 0.0));
}

#[test]
fn who_does_not_fit_into_the_queue_is_turned_away() {
    let mut scenario = Scenario::new(users(10, secs(1_000)), secs(100), ms(100));
    scenario.platform.activator_queue = 3;
    let outcome = simulate(&scenario, &Settings::fixed("one pod", 1, 2), SEED);
    assert_eq!((outcome.statuses[&200], outcome.statuses[&503]), (2 + 3, 5));
    // Without an activator, the queue-proxy has ten places for each of its slots.
    scenario.platform = Platform { path: Path::Never, ..Platform::local() };
    scenario.load = users(25, secs(1_000));
    let outcome = simulate(&scenario, &Settings::fixed("one pod", 1, 2), SEED);
    assert_eq!((outcome.statuses[&200], outcome.statuses[&503]), (2 + 20, 3));
}

#[test]
fn who_waits_too_long_is_told_so_or_leaves() {
    let mut scenario = Scenario::new(users(3, secs(1_000)), secs(100), secs(2));
    scenario.platform.request_timeout = secs(5);
    let settings = Settings::fixed("one pod", 1, 1);
    let outcome = simulate(&scenario, &settings, SEED);
    // 2 s, 4 s; the third would be done at 6 s.
    assert_eq!((outcome.statuses[&200], outcome.statuses[&504], outcome.abandoned), (2, 1, 0));

    scenario.clients.timeout = Some(secs(3));
    let outcome = simulate(&scenario, &settings, SEED);
    assert_eq!((outcome.statuses[&200], outcome.abandoned), (1, 2));
    assert_eq!(outcome.lost, 0);
}

#[test]
fn a_client_that_tries_again_is_one_request() {
    let mut scenario = Scenario::new(users(2, secs(1_000)), secs(100), secs(2));
    scenario.clients.timeout = Some(secs(3));
    scenario.clients.retries = 1;
    scenario.clients.backoff = secs(1);
    let outcome = simulate(&scenario, &Settings::fixed("one pod", 1, 1), SEED);
    // The second has done one second of its two at 3 s, pauses until 4 s and is done at 6 s.
    assert_eq!((outcome.requests, outcome.retries, outcome.statuses[&200]), (2, 1, 2));
    assert_eq!((outcome.latency.max, outcome.service.max), (6.0, 2.0));
}

#[test]
fn requests_that_share_a_core_take_as_long_as_all_of_them_together() {
    let mut scenario = Scenario::new(at(&[ms(0), ms(0), ms(50)]), secs(10), ms(100));
    scenario.app.slowdown = Slowdown { cores: Some(1.0), cores_per_request: 1.0, ..Slowdown::default() };
    let outcome = simulate(&scenario, &Settings::fixed("one pod", 1, 0), SEED);
    // Two at half speed until 50 ms: 25 ms done. Three at a third until the first two are done, 225 ms later; the
    // last one has 25 ms left and is alone.
    assert_eq!(outcome.service.max, 0.275);
    assert!((outcome.service.mean - (0.275 + 0.275 + 0.25) / 3.0).abs() < 1e-6, "{:?}", outcome.service);
    assert_eq!(outcome.wait.max, 0.0);
}

#[test]
fn what_a_crashing_pod_had_is_lost_and_told() {
    let mut scenario = Scenario::new(at(&[ms(0), ms(100), ms(950)]), secs(20), secs(2));
    scenario.pods.crash_after = Some(secs(1).into());
    scenario.pods.warm = Some(1);
    let mut patient = scenario.clone();
    let outcome = simulate(&scenario, &Settings::fixed("one pod", 1, 0), SEED);
    assert_eq!((outcome.lost, outcome.statuses[&502]), (3, 3), "nobody lives for two seconds");
    // Each pod lives for a second, and the next one starts 0.1 s, 0.2 s, 0.4 s ... after that.
    assert_eq!(outcome.pods.crashes, 7, "at 1.0, 2.1, 3.3, 4.7, 6.5, 9.1 and 13.3 s");

    patient.app.service_time = ms(100).into();
    patient.clients.retries = 1;
    let outcome = simulate(&patient, &Settings::fixed("one pod", 1, 0), SEED);
    assert_eq!((outcome.statuses.len(), outcome.statuses[&200]), (1, 3));
}

#[test]
fn a_request_that_a_dead_pod_refuses_keeps_its_place() {
    // One at a time, a second each. The pod dies at 2.5 s with the third request; the fourth, next in line, is refused.
    // The pod that replaces it starts 0.1 s later and is known at 2.8 s: the fourth is done at 3.8 s, and the latecomer,
    // of 2.4 s, at 4.8 s.
    let mut scenario = Scenario::new(at(&[ms(0), ms(0), ms(0), ms(0), ms(2_400)]), ms(4_900), secs(1));
    scenario.pods.crash_after = Some(ms(2_500).into());
    scenario.platform.endpoint_delay = ms(200);
    let outcome = simulate(&scenario, &Settings::fixed("one pod", 1, 1), SEED);
    assert_eq!((outcome.statuses[&200], outcome.statuses[&502], outcome.lost), (4, 1, 1));
    assert_eq!(outcome.latency.max, 3.8, "not 4.8 s, as if it had come last");
    assert_eq!(outcome.latency.mean, (1.0 + 2.0 + 3.8 + 2.4) / 4.0, "what is lost has no latency");
}

#[test]
fn in_a_crash_loop_starts_come_later_each_time_and_requests_are_answered_after_the_third() {
    let mut scenario = Scenario::new(at(&[ms(200), ms(3_600), ms(12_000), ms(13_000)]), secs(20), ms(100));
    let failing = |until, reason| FailingStarts { fraction: 1.0, after: secs(1).into(), until, reason };
    scenario.pods.failing_starts = Some(failing(Some(Time::from_secs(10)), TroubleReason::Exited));
    let outcome = under(spec(), &scenario);
    // Starts at 0.2, 1.3, 2.5, 3.9, 5.7, 8.3 s fail a second later. The next one is due at 12.5 s; the request at 12 s
    // has it tried at once.
    assert_eq!((outcome.pods.starts, outcome.pods.crashes), (7, 6));
    // The first request is answered at 3.5 s, with the third failure, the second in the pause after it.
    assert_eq!((outcome.statuses[&503], outcome.statuses[&200]), (2, 2));
    assert_eq!((outcome.latency.max, outcome.lost), (0.1, 0));

    // With patient clients nobody minds: one of the retries has a start tried that succeeds.
    scenario.clients.retries = 8;
    let outcome = under(spec(), &scenario);
    assert_eq!((outcome.statuses.len(), outcome.statuses[&200]), (1, 4));

    // What lasts is given up with the first failure, and tried again as before.
    scenario.clients.retries = 0;
    scenario.load = at(&[ms(200), ms(1_250)]);
    scenario.pods.failing_starts = Some(failing(None, TroubleReason::CannotStart));
    let outcome = under(spec(), &scenario);
    assert_eq!((outcome.statuses.len(), outcome.statuses[&503]), (1, 2));
    assert_eq!(outcome.pods.starts, 8, "at 12.5 s, and 6.4 s after its end");
}

#[test]
fn starts_that_fail_at_times_delay_the_pods_and_lose_no_request() {
    let mut scenario = Scenario::new(users(25, Duration::ZERO), secs(60), ms(100));
    scenario.pods.failing_starts = Some(FailingStarts {
        fraction: 0.5,
        after: ms(500).into(),
        until: None,
        reason: TroubleReason::Exited,
    });
    let outcome = under(RevisionSpec { initial_scale: 1, ..spec() }, &scenario);
    assert!(outcome.pods.crashes > 0, "{:?}", outcome.pods);
    assert_eq!((outcome.pods.peak, outcome.lost, outcome.statuses.len()), (4, 0, 1));
}

#[test]
fn a_full_cluster_keeps_pods_waiting_until_nodes_come() {
    let mut scenario = Scenario::new(users(30, Duration::ZERO), secs(120), ms(100));
    let group = NodeGroup::new(1, 3, Room::Pods(2));
    scenario.cluster = ClusterSpec { capacity: Capacity::Group(group), ..ClusterSpec::default() };
    scenario.pods.provision = secs(30).into();
    let outcome = under(RevisionSpec { initial_scale: 1, ..spec() }, &scenario);
    // Five pods are wanted (30 / 7); two fit, the others wait for up to 10 s of scanning and 30 s for nodes.
    assert_eq!(outcome.pods.peak, 5);
    assert!((60.0..130.0).contains(&outcome.pods.pending_seconds), "{:?}", outcome.pods);
    assert_eq!(outcome.statuses.len(), 1);
}

#[test]
fn an_autoscaler_that_was_away_takes_up_where_the_load_is() {
    let mut scenario = Scenario::new(users(25, Duration::ZERO), secs(120), ms(100));
    // Back after the activator's report of that second: what it says anew does not count twice.
    scenario.platform.autoscaler_outages = vec![Outage { at: Time::from_secs(20), lasts: ms(30_600) }];
    let outcome = under(RevisionSpec { initial_scale: 1, ..spec() }, &scenario);
    assert_eq!(outcome.pods.peak, 4);
    assert_eq!((outcome.statuses.len(), outcome.cold_starts), (1, 0));
    assert_eq!(outcome.scaling.downs, 0, "{:?}", outcome.scaling);
}

#[test]
fn pods_that_are_there_from_the_beginning_are_no_restart() {
    let mut scenario = Scenario::new(users(1, secs(10)), secs(300), ms(100));
    let spec = RevisionSpec { min_scale: 3, ..spec() };
    let outcome = under(spec.clone(), &scenario);
    assert_eq!((outcome.scaling.panics, outcome.pods.peak), (0, 3));

    scenario.platform.autoscaler_outages = vec![Outage { at: Time::from_secs(100), lasts: secs(10) }];
    let outcome = under(spec, &scenario);
    // A restart at 110 s remembers what was decided, but not the load: panic holds that, from the first decision, at
    // 111.9 s, until the tick at 171.9 s, the first that is more than a stable window after 110 s.
    assert_eq!((outcome.scaling.panics, outcome.scaling.panic_seconds), (1, 60.0));
}

/// knative/serving#10355: initialScale 3 and scaleDownDelay 10m. Two of the pods go as soon as the revision is ready:
/// the initial scale is the reconciler's, the delay's window has never seen it.
#[test]
fn a_scale_down_delay_does_not_hold_the_pods_of_the_initial_scale() {
    let mut scenario = Scenario::new(at(&[]), secs(1_200), ms(100));
    let spec = RevisionSpec { initial_scale: 3, scale_down_delay: secs(600), ..spec() };
    let warm = under(spec.clone(), &scenario);
    // The tick at 1.9 s decides on 3 / 2 = 1 pod, that at 601.9 s on none: the delay's last slot with a 1 is over.
    // The activator stands in the path, so the last pod goes with the next step, a millisecond later.
    assert!((warm.pods.ready_seconds - (3.0 * 1.9 + 600.001)).abs() < 1e-6, "{:?}", warm.pods);
    assert_eq!((warm.pods.peak, warm.scaling.panics), (3, 0));

    // As if `pilotlight run` had brought them up.
    scenario.pods.warm = Some(0);
    let live = under(spec, &scenario);
    assert_eq!((live.pods.ready_seconds, live.pods.peak), (warm.pods.ready_seconds, warm.pods.peak));
}

#[test]
fn a_deaf_autoscaler_wakes_a_service_as_soon_as_it_hears() {
    let mut scenario = Scenario::new(at(&[secs(10)]), secs(100), ms(100));
    scenario.platform.autoscaler_outages = vec![Outage { at: Time::from_secs(5), lasts: secs(20) }];
    let outcome = under(spec(), &scenario);
    assert_eq!((outcome.cold_start.max, outcome.statuses[&200]), (15.0, 1));
}

#[test]
fn the_activator_leaves_the_path_when_there_is_room_and_stands_in_for_none() {
    let mut scenario = Scenario::new(users(3, ms(100)), secs(300), ms(100));
    scenario.platform = Platform::knative();
    let roomy = RevisionSpec { initial_scale: 1, min_scale: 3, target_burst_capacity: burst(5.0), ..spec() };
    let outcome = under(roomy, &scenario);
    assert!(outcome.scaling.proxied_seconds < 5.0, "{:?}", outcome.scaling);
    let always = RevisionSpec { initial_scale: 1, target_burst_capacity: burst(1_000.0), ..spec() };
    let outcome = under(always, &scenario);
    assert_eq!(outcome.scaling.proxied_seconds, 300.0);
    assert_eq!(outcome.statuses.len(), 1);
}

#[test]
fn requests_in_flight_to_a_leaving_pod_are_answered() {
    // Twenty users leave one after the other; pods are stopped while others are still being served.
    let steps = [(0, 40), (60, 20), (120, 4), (180, 0)];
    let steps = steps.map(|(s, users)| UserStep { at: Time::from_secs(s), users, spawn_rate: Some(5.0) });
    let load = Load::Closed(Users { steps: steps.to_vec(), think: ms(50).into() });
    let mut scenario = Scenario::new(load, secs(400), ms(700));
    scenario.platform = Platform::knative();
    scenario.pods.init = secs(2).into();
    let outcome = under(spec(), &scenario);
    assert!(outcome.pods.peak >= 5 && outcome.scaling.downs >= 3, "{outcome:?}");
    assert_eq!((outcome.statuses.len(), outcome.lost, outcome.abandoned), (1, 0, 0));
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
    let mut scenario = Scenario::new(support::poisson(20.0), secs(600), ms(100));
    scenario.app.service_time = support::exponential(0.2);
    scenario.pods.init = support::exponential(3.0);
    let json = |seed| {
        let settings = Settings::requests("under trial", spec(), 0);
        serde_json::to_string(&simulate(&scenario, &settings, Run { seed, timeline: true })).unwrap()
    };
    assert_eq!(json(1), json(1));
    assert_ne!(json(1), json(2));
}

#[test]
fn idle_time_is_skipped_and_nothing_else() {
    // A request every six hours; between them nothing is there, or a pod that must stay.
    let arrivals: Vec<Duration> = (0..4).map(|i| secs(100 + i * 21_600)).collect();
    let week = Scenario::new(at(&arrivals), secs(7 * 86_400), ms(100));
    let hour = Scenario::new(at(&arrivals[..1]), secs(3_600), ms(100));
    for min_scale in [0, 1] {
        let spec = RevisionSpec { min_scale, ..spec() };
        let (week, hour) = (under(spec.clone(), &week), under(spec, &hour));
        // Ticks alone would be three hundred thousand.
        assert!(week.events < 10_000, "{}", week.events);
        assert_eq!(week.cold_starts, if min_scale == 0 { 4 } else { 0 });
        if min_scale == 0 {
            let difference = week.pods.pod_seconds - 4.0 * hour.pods.pod_seconds;
            assert!(difference.abs() < 1e-6, "{difference}");
        }
    }
}

fn burst(requests: f64) -> pilotlight_core::TargetBurstCapacity {
    pilotlight_core::TargetBurstCapacity::Of(requests)
}
