//! Scripts of a cluster that can be checked with a pencil: who has a place, an image, a node, and when.

use std::collections::BTreeMap;
use std::time::Duration;

use pilotlight_core::{Rng, Time};
use pilotlight_sim::cluster::{
    Capacity, Change, Cluster, ClusterEvent, ClusterSpec, NodeGroup, NodePhase, Phases, Placement, PodPhase,
    Room,
};

const SECOND: Duration = Duration::from_secs(1);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn at(seconds: u64) -> Time {
    Time::from_secs(seconds)
}

fn cluster(spec: &ClusterSpec) -> Cluster {
    Cluster::new(Time::EPOCH, spec).unwrap()
}

fn fixed(nodes: u32, pods: u32) -> ClusterSpec {
    ClusterSpec { capacity: Capacity::Fixed { nodes, room: Room::Pods(pods) }, ..ClusterSpec::default() }
}

fn group(group: NodeGroup) -> ClusterSpec {
    ClusterSpec { capacity: Capacity::Group(group), ..ClusterSpec::default() }
}

/// A pod that takes a second to become ready, and nothing else.
fn quick() -> Phases {
    Phases { ready: SECOND, ..Phases::default() }
}

fn events(cluster: &mut Cluster, until: Time) -> Vec<ClusterEvent> {
    std::iter::from_fn(|| cluster.advance(until)).collect()
}

/// The pods that became ready, each with the second.
fn ready(events: &[ClusterEvent]) -> Vec<(u64, u32)> {
    let ready = |event: &ClusterEvent| match event.change {
        Change::Pod { pod, phase: PodPhase::Ready } => Some((event.at.whole_seconds(), pod)),
        _ => None,
    };
    events.iter().filter_map(ready).collect()
}

/// The pods that were bound, each with its node.
fn bound(events: &[ClusterEvent]) -> Vec<(u32, u32)> {
    let bound = |event: &ClusterEvent| match event.change {
        Change::Pod { pod, phase: PodPhase::Scheduled { node } } => Some((pod, node)),
        _ => None,
    };
    events.iter().filter_map(bound).collect()
}

/// Phases of nodes, each with its second.
fn nodes(events: &[ClusterEvent]) -> Vec<(u64, u32, NodePhase)> {
    let node = |event: &ClusterEvent| match event.change {
        Change::Node { node, phase } => Some((event.at.whole_seconds(), node, phase)),
        Change::Pod { .. } => None,
    };
    events.iter().filter_map(node).collect()
}

#[test]
fn a_pod_goes_through_its_phases_one_after_the_other() {
    let mut cluster = cluster(&ClusterSpec::default());
    let phases = Phases {
        schedule: secs(1),
        provision: secs(100),
        pull: secs(20),
        cached_pull: secs(2),
        init: secs(3),
        ready: secs(4),
    };
    cluster.start(at(10), 7, phases);
    let pod = |seconds, phase| ClusterEvent { at: at(seconds), change: Change::Pod { pod: 7, phase } };
    assert_eq!(cluster.next_event(), Some(at(11)));
    assert_eq!(
        events(&mut cluster, at(100)),
        [
            pod(11, PodPhase::Scheduled { node: 0 }),
            pod(31, PodPhase::Pulled { fetched: true }),
            pod(34, PodPhase::Initialised),
            pod(38, PodPhase::Ready),
        ]
    );
    assert_eq!(cluster.next_event(), None);
}

#[test]
fn without_phases_a_pod_is_ready_at_once() {
    let mut cluster = cluster(&ClusterSpec::default());
    for pod in 0..1_000 {
        cluster.start(at(5), pod, Phases::default());
    }
    let events = events(&mut cluster, at(5));
    assert_eq!(ready(&events).len(), 1_000);
    assert!(events.iter().all(|event| event.at == at(5)));
    assert_eq!((cluster.pending(), cluster.nodes()), (0, 1));
}

#[test]
fn who_finds_no_room_gets_it_in_order_when_others_leave() {
    let mut cluster = cluster(&fixed(1, 2));
    for pod in 1..=5 {
        cluster.start(at(0), pod, quick());
    }
    let first = events(&mut cluster, at(10));
    assert_eq!(ready(&first), [(1, 1), (1, 2)]);
    let unschedulable = |event: &&ClusterEvent| {
        matches!(event.change, Change::Pod { phase: PodPhase::Unschedulable, .. }) && event.at == at(0)
    };
    assert_eq!(first.iter().filter(unschedulable).count(), 3);
    assert_eq!((cluster.pending(), cluster.next_event()), (3, None));

    // The third gives up; the next in line comes forward.
    cluster.remove(at(15), 3);
    cluster.remove(at(20), 2);
    cluster.remove(at(30), 1);
    assert_eq!(ready(&events(&mut cluster, at(40))), [(21, 4), (31, 5)]);
    let counters = cluster.counters();
    assert_eq!((counters.started, counters.ready, counters.removed), (5, 4, 3));
    assert_eq!(counters.unschedulable, 3);
}

#[test]
fn a_pod_that_is_removed_in_any_phase_leaves_its_place_to_the_next() {
    let phases =
        Phases { schedule: secs(10), pull: secs(10), cached_pull: secs(10), init: secs(10), ..quick() };
    for removed_at in [0, 5, 10, 15, 20, 25, 30, 31, 40] {
        let spec = ClusterSpec { max_starting: Some(1), image_on_first_nodes: true, ..fixed(1, 1) };
        let mut cluster = cluster(&spec);
        cluster.start(at(0), 1, phases);
        cluster.start(at(0), 2, phases);
        cluster.remove(at(removed_at), 1);
        let events = events(&mut cluster, at(1_000));
        let second = ready(&events).into_iter().filter(|&(_, pod)| pod == 2).collect::<Vec<_>>();
        assert_eq!(second, [(removed_at + 31, 2)], "removed at {removed_at} s");
        let firsts_end = events.iter().filter(|event| match event.change {
            Change::Pod { pod, .. } => pod == 1 && event.at > at(removed_at),
            Change::Node { .. } => false,
        });
        assert_eq!(firsts_end.count(), 0, "removed at {removed_at} s");
    }
}

#[test]
fn an_image_is_fetched_once_for_each_node() {
    let mut cluster = cluster(&fixed(2, 10));
    let phases = Phases { pull: secs(30), cached_pull: secs(2), ..Phases::default() };
    // The first two go to a node each, the third comes while the image is on its way, the fourth when it is there.
    for (start, pod) in [(0, 1), (5, 2), (10, 3), (40, 4)] {
        cluster.start(at(start), pod, phases);
    }
    let events = events(&mut cluster, at(100));
    assert_eq!(ready(&events), [(30, 1), (30, 3), (35, 2), (42, 4)]);
    assert_eq!(cluster.counters().fetched, 2);
}

#[test]
fn an_image_that_is_there_from_the_beginning_is_never_fetched() {
    let mut cluster = cluster(&ClusterSpec { image_on_first_nodes: true, ..fixed(2, 1) });
    let phases = Phases { pull: secs(30), cached_pull: secs(2), ..Phases::default() };
    cluster.start(at(0), 1, phases);
    cluster.start(at(0), 2, phases);
    assert_eq!(ready(&events(&mut cluster, at(100))), [(2, 1), (2, 2)]);
    assert_eq!(cluster.counters().fetched, 0);
}

#[test]
fn pods_are_spread_unless_they_are_to_be_packed() {
    let places = |placement| {
        let mut cluster = cluster(&ClusterSpec { placement, ..fixed(3, 2) });
        for pod in 0..5 {
            cluster.start(at(0), pod, quick());
        }
        // Room on nodes 0 and 1; which is taken depends on how full they are.
        cluster.remove(at(10), 0);
        cluster.start(at(10), 5, quick());
        bound(&events(&mut cluster, at(20)))
    };
    assert_eq!(places(Placement::Spread), [(0, 0), (1, 1), (2, 2), (3, 0), (4, 1), (5, 0)]);
    assert_eq!(places(Placement::Pack), [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 0)]);
}

#[test]
fn cores_make_room_for_whole_pods_only() {
    let room = Room::Cores { node_millicores: 4_000, pod_millicores: 1_500 };
    let capacity = Capacity::Fixed { nodes: 2, room };
    let mut cluster = cluster(&ClusterSpec { capacity, ..ClusterSpec::default() });
    for pod in 0..5 {
        cluster.start(at(0), pod, quick());
    }
    assert_eq!(ready(&events(&mut cluster, at(10))).len(), 4);
    assert_eq!(cluster.pending(), 1);
}

#[test]
fn no_more_pods_start_at_once_than_may() {
    let mut cluster = cluster(&ClusterSpec { max_starting: Some(2), ..ClusterSpec::default() });
    let phases = Phases { init: secs(4), ready: secs(6), ..Phases::default() };
    for pod in 0..5 {
        cluster.start(at(0), pod, phases);
    }
    // All have their place, but the starts go two by two; one that is removed lets another start.
    cluster.remove(at(3), 0);
    assert_eq!(ready(&events(&mut cluster, at(100))), [(10, 1), (13, 2), (20, 3), (23, 4)]);
}

#[test]
fn a_pod_whose_node_is_busy_lets_others_start() {
    let spec = ClusterSpec { max_starting_per_node: Some(1), placement: Placement::Pack, ..fixed(2, 2) };
    let mut cluster = cluster(&spec);
    for pod in 0..3 {
        cluster.start(at(0), pod, Phases { ready: secs(10), ..Phases::default() });
    }
    // 0 and 1 share a node, so 2 overtakes 1.
    assert_eq!(ready(&events(&mut cluster, at(100))), [(10, 0), (10, 2), (20, 1)]);
}

/// From three nodes to five in about a minute, and back a quarter of an hour after they are empty.
#[test]
fn a_group_grows_by_as_many_nodes_as_pods_need_and_shrinks_when_they_are_empty() {
    let mut cluster = cluster(&group(NodeGroup::new(3, 5, Room::Pods(2))));
    let phases = Phases { provision: secs(60), ..quick() };
    assert_eq!((cluster.nodes(), cluster.next_event()), (3, None));
    for pod in 0..12 {
        cluster.start(at(13), pod, phases);
    }
    let grown = events(&mut cluster, at(500));
    // The next scan is at 20 s. Six pods need three more nodes; two may come.
    let (asked, up, gone) = (NodePhase::Requested, NodePhase::Up, NodePhase::Removed);
    assert_eq!(nodes(&grown), [(20, 3, asked), (20, 4, asked), (80, 3, up), (80, 4, up)]);
    let pods = |range: std::ops::Range<u32>, at| range.map(move |pod| (at, pod));
    assert_eq!(ready(&grown), pods(0..6, 14).chain(pods(6..10, 81)).collect::<Vec<_>>());
    assert_eq!((cluster.pending(), cluster.nodes(), cluster.next_event()), (2, 5, None));

    // The last two come in where others leave. All leave at 505 s, which the scan at 510 s sees.
    for pod in 0..2 {
        cluster.remove(at(501), pod);
    }
    for pod in 2..12 {
        cluster.remove(at(505), pod);
    }
    assert_eq!(cluster.next_event(), Some(at(501)));
    let shrunk = events(&mut cluster, at(10_000));
    assert_eq!(nodes(&shrunk), [(1_410, 4, gone), (1_410, 3, gone)]);
    assert_eq!((cluster.nodes(), cluster.next_event()), (3, None));
    let counters = cluster.counters();
    assert_eq!((counters.nodes_added, counters.nodes_removed), (2, 2));
}

#[test]
fn no_node_is_asked_for_twice_for_the_same_pods() {
    let mut cluster = cluster(&group(NodeGroup::new(0, 100, Room::Pods(4))));
    let phases = Phases { provision: secs(60), ..quick() };
    for pod in 0..4 {
        cluster.start(at(5), pod, phases);
    }
    // While their node is coming, four more need one more; a ninth needs a third.
    for pod in 4..8 {
        cluster.start(at(25), pod, phases);
    }
    cluster.start(at(35), 8, phases);
    assert_eq!(events(&mut cluster, at(36)).len(), 9 + 2);
    assert_eq!(cluster.nodes(), 0);
    let later = events(&mut cluster, at(200));
    let up: Vec<u64> = nodes(&later).into_iter().filter(|n| n.2 == NodePhase::Up).map(|n| n.0).collect();
    assert_eq!(up, [70, 90, 100]);
    assert_eq!(ready(&later).len(), 9);
}

#[test]
fn a_node_that_is_needed_in_time_stays() {
    let spec = NodeGroup { idle: secs(60), ..NodeGroup::new(0, 1, Room::Pods(1)) };
    let mut cluster = cluster(&group(spec));
    cluster.start(at(0), 1, Phases { provision: secs(30), ..quick() });
    cluster.remove(at(100), 1);
    cluster.start(at(159), 2, quick());
    assert_eq!(ready(&events(&mut cluster, at(1_000))), [(31, 1), (160, 2)]);
    assert_eq!(cluster.nodes(), 1);
    cluster.remove(at(1_001), 2);
    // Seen at 1,010 s, removed at 1,070 s.
    assert_eq!(cluster.next_event(), Some(at(1_070)));
    assert_eq!(nodes(&events(&mut cluster, at(2_000))), [(1_070, 0, NodePhase::Removed)]);
}

#[test]
fn a_node_that_comes_too_late_for_its_pods_goes_again() {
    let spec = NodeGroup { idle: secs(60), ..NodeGroup::new(0, 3, Room::Pods(1)) };
    let mut cluster = cluster(&group(spec));
    cluster.start(at(0), 1, Phases { provision: secs(30), ..quick() });
    cluster.remove(at(10), 1);
    let (asked, up, gone) = (NodePhase::Requested, NodePhase::Up, NodePhase::Removed);
    assert_eq!(nodes(&events(&mut cluster, at(500))), [(0, 0, asked), (30, 0, up), (90, 0, gone)]);
}

#[test]
fn more_nodes_than_the_minimum_go_if_nobody_needs_them() {
    let spec = NodeGroup { initial: 4, ..NodeGroup::new(1, 10, Room::Pods(1)) };
    let mut cluster = cluster(&group(spec));
    cluster.start(at(3), 1, quick());
    let gone = nodes(&events(&mut cluster, at(3_600)));
    assert_eq!(gone, [3, 2, 1].map(|node| (900, node, NodePhase::Removed)));
    assert_eq!(cluster.nodes(), 1);
}

#[test]
fn a_cluster_that_cannot_be_is_refused_with_all_faults() {
    let room = Room::Cores { node_millicores: 500, pod_millicores: 1_000 };
    let spec = ClusterSpec {
        capacity: Capacity::Group(NodeGroup {
            min: 9,
            max: 5,
            scan: Duration::ZERO,
            ..NodeGroup::new(1, 5, room)
        }),
        max_starting: Some(0),
        ..ClusterSpec::default()
    };
    let faults = Cluster::new(Time::EPOCH, &spec).unwrap_err();
    assert_eq!(
        faults.to_string(),
        "max_starting: \"0\" must be at least 1\n\
         room: \"500m\" is too small a node: a pod asks for 1000m\n\
         min: \"9\" is more than the maximum, 5\n\
         scan: \"0s\" must be above 0s"
    );
    let faults = Cluster::new(Time::EPOCH, &fixed(0, 0)).unwrap_err();
    assert_eq!(faults.iter().count(), 2);
    let outside = NodeGroup { initial: 6, ..NodeGroup::new(1, 5, Room::Pods(1)) };
    let faults = Cluster::new(Time::EPOCH, &group(outside)).unwrap_err();
    assert_eq!(faults.to_string(), "initial: \"6\" is not between the minimum, 1, and the maximum, 5");
}

/// Changes of a cluster from outside.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Start(u32, Phases),
    Remove(u32),
}

/// A life of some minutes: pods of any speed come and go at any time, some of them at the same.
fn life(rng: &mut Rng) -> Vec<(Time, Deed)> {
    let mut now = Time::EPOCH;
    let mut present = Vec::new();
    let span = |rng: &mut Rng, most: usize| Duration::from_millis(rng.below(most) as u64 / 500 * 500);
    (0..300)
        .map(|number| {
            now += span(rng, 8_000);
            if rng.unit() < 0.45 && !present.is_empty() {
                return (now, Deed::Remove(present.swap_remove(rng.below(present.len()))));
            }
            present.push(number);
            let phases = Phases {
                schedule: span(rng, 2_000),
                provision: span(rng, 60_000),
                pull: span(rng, 30_000),
                cached_pull: span(rng, 2_000),
                init: span(rng, 3_000),
                ready: span(rng, 20_000),
            };
            (now, Deed::Start(number, phases))
        })
        .collect()
}

fn any_cluster(rng: &mut Rng) -> ClusterSpec {
    let room = Room::Pods(1 + rng.below(4) as u32);
    let group = NodeGroup { idle: secs(40), ..NodeGroup::new(rng.below(3) as u32, 12, room) };
    let some = |rng: &mut Rng| Some(1 + rng.below(6) as u32).filter(|_| rng.unit() < 0.5);
    ClusterSpec {
        capacity: match rng.below(3) {
            0 => Capacity::Unlimited,
            1 => Capacity::Fixed { nodes: 1 + rng.below(6) as u32, room },
            _ => Capacity::Group(group),
        },
        placement: if rng.unit() < 0.5 { Placement::Spread } else { Placement::Pack },
        max_starting: some(rng),
        max_starting_per_node: some(rng),
        image_on_first_nodes: rng.unit() < 0.5,
    }
}

fn act(cluster: &mut Cluster, now: Time, deed: Deed) {
    match deed {
        Deed::Start(pod, phases) => cluster.start(now, pod, phases),
        Deed::Remove(pod) => cluster.remove(now, pod),
    }
}

#[test]
fn how_often_it_is_asked_changes_nothing() {
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let (spec, life) = (any_cluster(&mut rng), life(&mut rng));
        let end = life.last().unwrap().0 + secs(600);

        let mut seldom = cluster(&spec);
        life.iter().for_each(|&(now, deed)| act(&mut seldom, now, deed));
        let expected = events(&mut seldom, end);

        let mut often = cluster(&spec);
        let mut seen = Vec::new();
        for (now, deed) in life.into_iter().map(|(now, deed)| (now, Some(deed))).chain([(end, None)]) {
            while let Some(at) = often.next_event().filter(|&at| at <= now) {
                let before = seen.len();
                seen.extend(std::iter::from_fn(|| often.advance(at)));
                assert!(seen.len() > before, "seed {seed}: nothing happens at {at:?}");
            }
            deed.inspect(|&deed| act(&mut often, now, deed));
        }
        assert_eq!(seen, expected, "seed {seed}");
        assert_eq!(often.counters(), seldom.counters(), "seed {seed}");
        assert_eq!(often.nodes(), seldom.nodes(), "seed {seed}");
    }
}

#[test]
fn nodes_never_hold_more_than_fits_and_pods_pass_every_phase_in_order() {
    for seed in 200..400 {
        let mut rng = Rng::new(seed);
        let (spec, life) = (any_cluster(&mut rng), life(&mut rng));
        let room = match &spec.capacity {
            Capacity::Unlimited => u32::MAX,
            Capacity::Fixed { room, .. } | Capacity::Group(NodeGroup { room, .. }) => room.pods(),
        };
        let end = life.last().unwrap().0 + secs(600);
        let mut cluster = cluster(&spec);
        let mut last = Time::EPOCH;
        // The node of each pod that is there, and how many phases the pod has behind it.
        let mut pods: BTreeMap<u32, (Option<u32>, u32)> = BTreeMap::new();
        for (now, deed) in life.into_iter().map(|(now, deed)| (now, Some(deed))).chain([(end, None)]) {
            while let Some(ClusterEvent { at, change }) = cluster.advance(now) {
                assert!(last <= at && at <= now, "seed {seed}");
                last = at;
                let Change::Pod { pod, phase } = change else { continue };
                let (node, passed) = pods.get_mut(&pod).unwrap();
                let number = match phase {
                    PodPhase::Unschedulable => 0,
                    PodPhase::Scheduled { node: at } => {
                        *node = Some(at);
                        1
                    }
                    PodPhase::Pulled { .. } => 2,
                    PodPhase::Initialised => 3,
                    PodPhase::Ready => 4,
                };
                assert!(number == *passed + 1 || number == 0 && *passed == 0, "seed {seed}");
                *passed = number;
            }
            match deed {
                Some(Deed::Start(pod, _)) => drop(pods.insert(pod, (None, 0))),
                Some(Deed::Remove(pod)) => drop(pods.remove(&pod)),
                None => {}
            }
            deed.inspect(|&deed| act(&mut cluster, now, deed));
            let mut on_node: BTreeMap<u32, u32> = BTreeMap::new();
            for node in pods.values().filter_map(|(node, _)| *node) {
                *on_node.entry(node).or_default() += 1;
            }
            assert!(on_node.values().all(|&count| count <= room), "seed {seed}");
        }
        // In the end all are ready but those for whom there is no room, and nobody waits while there is.
        let waiting = pods.values().filter(|(_, passed)| *passed == 0).count();
        assert_eq!(waiting as u32, cluster.pending(), "seed {seed}");
        assert!(pods.values().all(|&(_, passed)| passed == 4 || passed == 0), "seed {seed}");
        let has_room = (pods.len() - waiting) < room as usize * cluster.nodes() as usize;
        assert!(waiting == 0 || !has_room, "seed {seed}");
    }
}
