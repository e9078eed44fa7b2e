mod convergence;
mod world;

use std::time::Duration;

use pilotlight_core::ServingMode;

use super::*;
use crate::selector::Selector;
use crate::slices::{SliceKind, SliceWrite, Stage};
use world::{World, at, member, slice};

/// The writes in a word each.
fn words(plan: &PathPlan) -> Vec<&'static str> {
    let word = |write: &PathWrite| match write {
        PathWrite::Slice(SliceWrite::Create(_)) => "create",
        PathWrite::Slice(SliceWrite::Replace(_)) => "replace",
        PathWrite::Slice(SliceWrite::Delete { name, .. }) if name == "web-native" => "delete native",
        PathWrite::Slice(SliceWrite::Delete { name, .. }) if name == "web-mirror" => "delete mirror",
        PathWrite::Slice(SliceWrite::Delete { .. }) => "delete",
        PathWrite::DeleteEndpoints(_) => "delete Endpoints",
    };
    plan.writes.iter().map(word).collect()
}

impl World {
    /// Steps at this second: the writes, and the reason of the condition.
    fn at(&mut self, seconds: u64) -> (Vec<&'static str>, String) {
        self.now = at(seconds);
        let plan = self.step();
        (words(&plan), plan.intercepting.reason)
    }

    fn activators(&self) -> (Vec<String>, Vec<String>) {
        self.named(SliceKind::Activators)
    }

    fn pods(&self) -> (Vec<String>, Vec<String>) {
        self.named(SliceKind::Pods)
    }

    /// Always, and everything has settled at the second 10.
    fn settled() -> Self {
        let mut world = World::without_selector();
        (0..4).for_each(|second| drop(world.at(second)));
        assert_eq!(world.at(10), (vec![], "Always".to_owned()));
        world
    }

    fn asleep(way: PathWay) -> Self {
        let mut world = World::new(way);
        world.pods.clear();
        world.replicas = Some(0);
        world.kubernetes();
        world.at(0);
        world
    }
}

fn ips(addresses: &[&str]) -> Vec<String> {
    addresses.iter().map(|ip| (*ip).to_owned()).collect()
}

fn said(writes: &[&'static str], reason: &str) -> (Vec<&'static str>, String) {
    (writes.to_vec(), reason.to_owned())
}

#[test]
fn a_selector_that_goes_leaves_nothing_behind() {
    let mut world = World::without_selector();
    assert_eq!(world.at(0), said(&[], "StaleEndpoints"), "whose Endpoints those are is not known yet");
    assert_eq!(world.at(0), said(&["create"], "StaleEndpoints"), "ours first");
    assert_eq!(world.activators(), (ips(&["10.0.0.1", "10.0.0.2"]), vec![]));
    let all = ["delete Endpoints", "delete native", "delete mirror"];
    assert_eq!(world.at(1), said(&all, "StaleEndpoints"), "then the rest, Endpoints before their mirror");
    assert_eq!(world.at(2), said(&[], "Always"));

    let plan = step(&world.seen());
    assert_eq!(plan.path.populated_since, Some(at(2)), "not before the last thing beside ours was gone");
    assert!(!plan.path.probed && !plan.sees_all && !plan.may_sleep);
    assert_eq!(plan.wake_at, Some(at(7)));
    world.now = at(7);
    let plan = step(&world.seen());
    assert!(plan.path.probed && plan.sees_all && plan.may_sleep);
    assert_eq!((plan.wake_at, plan.traffic), (None, TrafficPath::Activator));
}

#[test]
fn a_leader_that_starts_reads_the_time_from_the_slices_and_writes_nothing() {
    let mut world = World::settled();
    world.before = None;
    world.asked = EndpointsSeen::Unknown;
    world.unheard = ["a-1", "a-2"].map(str::to_owned).into();
    world.now = at(100);
    let plan = world.step();
    assert_eq!((words(&plan), plan.ask_endpoints.len()), (vec![], 0));
    assert_eq!(plan.path.populated_since, Some(at(1)), "the slice was written then");
    // One has answered: the other one stays as well.
    world.unheard.remove("a-1");
    assert_eq!(world.at(101), said(&[], "Always"));
}

#[test]
fn endpoints_of_anybody_else_are_left_alone_and_refused() {
    let mut world = World::without_selector();
    world.endpoints = Some((1, false));
    world.at(0);
    assert_eq!(world.at(1), said(&[], "ForeignEndpoints"));
    let plan = step(&world.seen());
    assert!(
        plan.intercepting
            .message
            .starts_with("Endpoints web has addresses that are not of the target's pods")
    );

    let mut world = World::without_selector();
    world.put(slice("web-else", "mesh.example.com", &[[10, 9, 0, 1].into()]));
    world.at(0);
    assert_eq!(world.at(1), said(&[], "ForeignEndpoints"));
    let message = step(&world.seen()).intercepting.message;
    assert!(
        message.contains("EndpointSlice web-else of Service web belongs to mesh.example.com"),
        "{message}"
    );

    // Ours that stand already stay, and no number of pods rests on them.
    let mut world = World::settled();
    world.put(slice("web-else", "mesh.example.com", &[[10, 9, 0, 1].into()]));
    assert_eq!(world.at(20), said(&[], "ForeignEndpoints"));
    assert_eq!(step(&world.seen()).path, ActivatorPath::default());
}

#[test]
fn endpoints_that_come_back_are_deleted_again() {
    let mut world = World::settled();
    world.endpoints = Some((9, true));
    world.kubernetes();
    assert_eq!(world.at(20), said(&[], "StaleEndpoints"), "a mirror: who is it of?");
    assert_eq!(world.at(20), said(&["delete Endpoints", "delete mirror"], "StaleEndpoints"));
    assert_eq!(world.at(21), said(&[], "Always"));
}

#[test]
fn a_selector_that_comes_back_is_told_with_its_writer_and_the_remedy() {
    let remedies = [
        ("argocd-controller", "RespectIgnoreDifferences=true"),
        ("kustomize-controller", "spec.ignore"),
        ("helm-controller", "spec.driftDetection.ignore"),
        ("helm", "chart"),
        ("kubectl-client-side-apply", "manifest that is applied"),
        ("terraform", "where it is written"),
    ];
    for (manager, remedy) in remedies {
        let mut world = World::settled();
        world.service.selector = Selector::parse("app=web").unwrap();
        world.service.selector_managers = vec![manager.to_owned()];
        world.kubernetes();
        assert_eq!(world.at(20), said(&[], "SelectorPresent"), "ours stays as long as the core plans Proxy");
        let plan = step(&world.seen());
        let message = plan.intercepting.message;
        assert!(message.contains(manager) && message.contains(remedy), "{message}");
        assert_eq!((plan.sees_all, plan.may_sleep), (false, false), "some requests pass by");
        world.mode = ServingMode::Serve;
        assert_eq!(world.at(21), said(&["replace"], "SelectorPresent"), "as AtZero has it: pods serve");
    }
}

#[test]
fn no_port_is_named_before_it_is_bound() {
    let mut world = World::without_selector();
    world.bound.clear();
    world.at(0);
    world.endpoints = None;
    world.slices.clear();
    world.asked = EndpointsSeen::Absent;
    assert_eq!(world.at(1), said(&[], "PortsPending"));
    world.bind(&["a-2"]);
    assert_eq!(world.at(2), said(&["create"], "Pending"));
    assert_eq!(world.activators(), (ips(&["10.0.0.2"]), vec![]));
    world.bind(&["a-1"]);
    assert_eq!(world.at(3), said(&["replace"], "Always"));
    assert_eq!(world.activators(), (ips(&["10.0.0.1", "10.0.0.2"]), vec![]));
}

#[test]
fn a_port_that_is_replaced_stays_named_until_the_new_one_is_bound() {
    let mut world = World::settled();
    world.port = 10_100;
    assert_eq!(world.at(20), said(&[], "PortsPending"));
    assert_eq!(world.of_kind(SliceKind::Activators)[0].ports[0].number, 10_007);
    world.bind(&["a-1", "a-2"]);
    assert_eq!(world.at(21), said(&["replace"], "Pending"));
    assert_eq!(world.at(22), said(&[], "Always"));
    let plan = step(&world.seen());
    assert_eq!(plan.path.populated_since, Some(at(22)), "other ports are another path");
}

#[test]
fn an_activator_leaves_in_two_steps() {
    let mut world = World::settled();
    world.now = at(20);
    world.leaves(0);
    assert_eq!(world.at(20), said(&["replace"], "Always"));
    assert_eq!(world.activators(), (ips(&["10.0.0.2"]), ips(&["10.0.0.1"])));
    assert_eq!(step(&world.seen()).wake_at, Some(at(25)));
    assert_eq!(world.at(24), said(&[], "Always"));
    assert_eq!(world.at(25), said(&["replace"], "Always"));
    assert_eq!(world.activators(), (ips(&["10.0.0.2"]), vec![]));
    // One that leaves is not named for the first time.
    world.activators.push(member("a", 3));
    world.bind(&["a-3"]);
    world.leaves(2);
    assert_eq!(world.at(26), said(&[], "Always"));
}

#[test]
fn the_time_to_leave_counts_from_the_write_and_not_from_the_wish() {
    let mut world = World::settled();
    world.now = at(20);
    world.leaves(0);
    assert_eq!(world.at(60), said(&["replace"], "Always"), "the write was late");
    assert_eq!(world.at(64), said(&[], "Always"));
    assert_eq!(world.at(65), said(&["replace"], "Always"));
}

#[test]
fn a_dead_activator_goes_at_once() {
    let mut world = World::settled();
    world.activators.remove(0);
    assert_eq!(world.at(20), said(&["replace"], "Always"));
    assert_eq!(world.activators(), (ips(&["10.0.0.2"]), vec![]));
    assert_eq!(step(&world.seen()).path.populated_since, Some(at(3)), "the path is as it was");
}

#[test]
fn without_activators_traffic_goes_to_the_pods_and_comes_back() {
    let mut world = World::settled();
    world.activators.clear();
    assert_eq!(world.at(20), said(&["create", "delete"], "NoActivators"));
    assert_eq!(world.pods(), (ips(&["10.1.0.1"]), vec![]));
    let plan = step(&world.seen());
    assert_eq!(
        (plan.traffic, plan.path, plan.sees_all),
        (TrafficPath::Pods, ActivatorPath::default(), false)
    );
    world.pod_is_ready(2);
    assert_eq!(world.at(30), said(&["replace"], "NoActivators"), "pods' slices are kept up to date");

    world.activators = vec![member("a", 7)];
    world.bind(&["a-7"]);
    assert_eq!(world.at(40), said(&["create"], "Pending"));
    assert_eq!(world.at(41), said(&[], "FailedOpen"));
    assert_eq!(
        world.at(45),
        said(&["replace"], "FailedOpen"),
        "pods end once every node knows the activators"
    );
    assert_eq!(world.pods(), (vec![], ips(&["10.1.0.1", "10.1.0.2"])));
    assert_eq!(world.at(49), said(&[], "FailedOpen"));
    assert_eq!(world.at(50), said(&["delete"], "FailedOpen"));
    assert_eq!(world.at(51), said(&[], "Always"));
}

#[test]
fn without_activators_a_sleeping_target_must_be_woken() {
    for way in [PathWay::Always, PathWay::AtZero, PathWay::WakeOnly] {
        let mut world = if way == PathWay::Always { World::settled() } else { World::asleep(way) };
        world.replicas = Some(0);
        world.pods.clear();
        assert!(!step(&world.seen()).must_wake);
        world.activators.iter_mut().for_each(|member| member.stage = Stage::Leaving { since: at(20) });
        world.now = at(20);
        let plan = world.step();
        assert!(plan.must_wake && !plan.may_sleep);
        assert_eq!(world.activators().0.len(), 2, "those that leave serve for as long as nothing else does");
        assert_eq!(world.at(200), said(&[], "NoActivators"));
        world.activators.clear();
        world.at(201);
        assert_eq!(world.activators(), (vec![], vec![]));
    }
}

#[test]
fn at_zero_goes_down_in_order_and_comes_back() {
    let mut world = World::new(PathWay::AtZero);
    assert_eq!(world.at(10), said(&[], "Standby"));
    world.mode = ServingMode::Proxy;
    assert_eq!(world.at(20), said(&["create"], "Pending"));
    assert_eq!(world.at(21), said(&[], "AtZero"));
    let plan = step(&world.seen());
    assert_eq!(
        (plan.path.populated_since, plan.may_sleep, plan.wake_at),
        (Some(at(21)), false, Some(at(26)))
    );
    world.now = at(26);
    let plan = step(&world.seen());
    assert!(plan.path.probed && plan.may_sleep && !plan.sees_all, "the core looks at demand again");
    world.replicas = Some(0);
    world.pods.clear();
    world.kubernetes();
    assert_eq!(world.at(30), said(&[], "AtZero"));

    // A wake: ours stays until a pod has been ready for `propagation`.
    world.mode = ServingMode::Serve;
    world.replicas = Some(1);
    assert_eq!(world.at(40), said(&[], "AtZero"));
    world.pod_is_ready(1);
    assert_eq!(world.at(41), said(&[], "AtZero"));
    world.kubernetes();
    assert_eq!(world.at(44), said(&[], "AtZero"));
    assert_eq!(step(&world.seen()).wake_at, Some(at(45)));
    assert_eq!(world.at(45), said(&["replace"], "AtZero"));
    assert_eq!(world.activators(), (vec![], ips(&["10.0.0.1", "10.0.0.2"])));
    assert_eq!(step(&world.seen()).wake_at, Some(at(50)));
    assert_eq!(world.at(50), said(&["delete"], "Standby"));
    assert_eq!(world.at(51), said(&[], "Standby"));
}

#[test]
fn load_that_comes_back_turns_the_way_to_zero_around() {
    let mut world = World::new(PathWay::AtZero);
    world.mode = ServingMode::Proxy;
    world.at(10);
    world.mode = ServingMode::Serve;
    assert_eq!(world.at(12), said(&["replace"], "AtZero"), "pods serve");
    world.mode = ServingMode::Proxy;
    assert_eq!(world.at(13), said(&["replace"], "Pending"));
    assert_eq!(world.at(14), said(&[], "AtZero"));
    assert_eq!(step(&world.seen()).path.populated_since, Some(at(14)), "it stands anew");
}

#[test]
fn a_pod_that_dies_on_the_way_back_keeps_the_activators() {
    let mut world = World::asleep(PathWay::AtZero);
    world.replicas = Some(1);
    world.now = at(10);
    world.pod_is_ready(1);
    world.kubernetes();
    assert_eq!(world.at(15), said(&["replace"], "AtZero"));
    world.pods.clear();
    assert_eq!(world.at(16), said(&["replace"], "Pending"), "ready once more");
    assert_eq!(world.at(30), said(&[], "AtZero"));
}

#[test]
fn replicas_that_are_not_known_change_nothing() {
    let mut world = World::asleep(PathWay::AtZero);
    world.replicas = None;
    assert_eq!(world.at(10), said(&[], "AtZero"));
    let mut world = World::new(PathWay::AtZero);
    world.replicas = None;
    assert_eq!(world.at(10), said(&[], "Standby"));
}

#[test]
fn whoever_is_only_woken_is_never_led_to_zero() {
    let mut world = World::new(PathWay::WakeOnly);
    world.mode = ServingMode::Proxy;
    assert_eq!(world.at(10), said(&[], "Standby"));
    world.replicas = Some(0);
    world.pods.clear();
    world.kubernetes();
    assert_eq!(world.at(20), said(&["create"], "Pending"));
    world.at(21);
    world.now = at(30);
    let plan = step(&world.seen());
    assert!(plan.path.probed && !plan.may_sleep);
}

#[test]
fn a_deleted_request_autoscaler_leaves_once_pods_serve() {
    let mut world = World::asleep(PathWay::AtZero);
    world.restoring = Restoring::Gently;
    assert_eq!(world.at(10), said(&[], "Restoring"), "nothing else serves");
    world.replicas = Some(1);
    world.pod_is_ready(1);
    world.kubernetes();
    assert_eq!(world.at(15), said(&["replace"], "Restoring"));
    assert_eq!(step(&world.seen()).restored, Restored::No);
    assert_eq!(world.at(20), said(&["delete"], "Restoring"));
    assert_eq!(step(&world.seen()).restored, Restored::Yes);

    let mut world = World::asleep(PathWay::AtZero);
    world.restoring = Restoring::AtOnce;
    assert_eq!(world.at(10).0, ["delete"], "the time is over");
}

#[test]
fn a_service_without_selector_is_left_with_slices_of_its_pods() {
    let mut world = World::settled();
    world.restoring = Restoring::Gently;
    assert_eq!(world.at(20), said(&["create"], "Restoring"));
    assert_eq!(world.at(24), said(&[], "Restoring"));
    assert_eq!(world.at(25), said(&["replace"], "Restoring"));
    assert_eq!(world.at(30), said(&["delete"], "Restoring"));
    assert_eq!(step(&world.seen()).restored, Restored::ByOurSlices);
    assert_eq!(world.at(31).0, Vec::<&str>::new());

    world.service.selector = Selector::parse("app=web").unwrap();
    world.kubernetes();
    assert_eq!(world.at(40), said(&["replace"], "Restoring"), "Kubernetes' own serve");
    assert_eq!(world.at(45), said(&["delete"], "Restoring"));
    assert_eq!(step(&world.seen()).restored, Restored::Yes);
}

#[test]
fn pods_are_waited_for_though_every_activator_has_gone() {
    let mut world = World::settled();
    world.replicas = Some(0);
    world.pods.clear();
    world.activators.clear();
    world.restoring = Restoring::Gently;
    world.at(20);
    assert_eq!(step(&world.seen()).restored, Restored::No, "nothing would lead to the pod that comes");
    world.replicas = Some(1);
    world.pod_is_ready(1);
    world.at(21);
    world.at(31);
    assert_eq!(
        (world.of_kind(SliceKind::Pods).len(), step(&world.seen()).restored),
        (1, Restored::ByOurSlices)
    );
}

#[test]
fn a_refusal_is_told_and_takes_nothing_away_that_serves_alone() {
    let refused = || PathWay::Refused { reason: "SharedService".to_owned(), message: "Two.".to_owned() };
    let mut world = World::new(refused());
    world.mode = ServingMode::Proxy;
    world.replicas = Some(0);
    assert_eq!(world.at(10), said(&[], "SharedService"), "nothing of ours is written");
    let mut world = World::asleep(PathWay::AtZero);
    world.way = refused();
    assert_eq!(world.at(10), said(&[], "SharedService"));
    assert_eq!(world.activators().0.len(), 2);
}

#[test]
fn a_family_without_activators_does_not_stand() {
    let mut world = World::settled();
    world.service.cluster_ips.push("fd00::7".parse().unwrap());
    world.at(20);
    assert_eq!(world.at(21), said(&[], "Pending"));
    for (number, activator) in world.activators.iter_mut().enumerate() {
        activator.ips.push(format!("fd00::a:{number}").parse().unwrap());
    }
    world.at(22);
    assert_eq!(world.of_kind(SliceKind::Activators).len(), 2);
    assert_eq!(world.at(23), said(&[], "Always"));
}

#[test]
fn the_clock_of_another_leader_may_be_ahead() {
    let mut world = World::settled();
    world.before = None;
    world.now = at(0);
    let plan = step(&world.seen());
    assert_eq!(plan.path.populated_since, Some(at(0)));
    assert_eq!(plan.wake_at, Some(at(0) + PROPAGATION));
    assert_eq!(PROPAGATION, Duration::from_secs(5));
}
