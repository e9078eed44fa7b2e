//! Where requests can go, as scripts of what the cluster and the pods say, and against everything they might say.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use pilotlight_core::backends::{Answer, Backends, Destinations, Effect, Fact, Listing};
use pilotlight_core::{MeshMode, Time};
use proptest::prelude::*;

const INTERVAL: Duration = Duration::from_millis(200);

fn pod(n: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], n))
}

fn cluster_ip() -> SocketAddr {
    SocketAddr::from(([10, 96, 0, 1], 80))
}

fn pods(ids: &[u16]) -> BTreeSet<SocketAddr> {
    ids.iter().copied().map(pod).collect()
}

/// A script: what is said, and what is used after it.
struct Script {
    backends: Backends,
    now: Time,
    listing: Listing,
    asked: BTreeSet<SocketAddr>,
    asked_cluster_ip: bool,
}

impl Script {
    fn new(mesh: MeshMode) -> Self {
        let listing =
            Listing { cluster_ip: Some(cluster_ip()), mesh, trust_probes: true, ..Listing::default() };
        Script {
            backends: Backends::new(INTERVAL),
            now: Time::from_secs(1),
            listing,
            asked: BTreeSet::new(),
            asked_cluster_ip: false,
        }
    }

    /// With readiness that a probe cannot find out.
    fn without_trust(mut self) -> Self {
        self.listing.trust_probes = false;
        self
    }

    fn step(&mut self, input: Fact) {
        for effect in self.backends.step(self.now, input) {
            match effect {
                Effect::Probe(pods) => self.asked.extend(pods),
                Effect::ProbeClusterIp(address) => {
                    assert_eq!(address, cluster_ip());
                    self.asked_cluster_ip = true;
                }
                Effect::Use(destinations) => assert_eq!(*self.backends.using(), destinations),
            }
        }
    }

    fn list(&mut self, ready: &[u16], not_ready: &[u16]) -> &mut Self {
        (self.listing.ready, self.listing.not_ready) = (pods(ready), pods(not_ready));
        self.step(Fact::Listed(self.listing.clone()));
        self
    }

    fn asks(&mut self, expected: &[u16]) -> &mut Self {
        assert_eq!(self.asked, pods(expected), "asked");
        self
    }

    fn answer(&mut self, id: u16, answer: Answer) -> &mut Self {
        assert!(self.asked.remove(&pod(id)), "{id} was not asked");
        self.step(Fact::Answered(vec![(pod(id), answer)]));
        self
    }

    fn cluster_ip_answers(&mut self, passed: bool) -> &mut Self {
        assert!(std::mem::take(&mut self.asked_cluster_ip), "the ClusterIP was not asked");
        self.step(Fact::ClusterIpAnswered { address: cluster_ip(), passed });
        self
    }

    fn tick(&mut self) -> &mut Self {
        self.now = self.backends.wake_at().expect("something to find out");
        self.step(Fact::Tick);
        self
    }

    fn uses(&mut self, expected: &[u16]) -> &mut Self {
        assert_eq!(*self.backends.using(), Destinations::Pods(pods(expected)));
        self
    }

    fn uses_cluster_ip(&mut self, ready: usize) -> &mut Self {
        assert_eq!(*self.backends.using(), Destinations::ClusterIp { address: cluster_ip(), ready });
        self
    }

    fn rests(&mut self) -> &mut Self {
        assert_eq!(self.backends.wake_at(), None);
        assert!(self.asked.is_empty() && !self.asked_cluster_ip, "nobody is asked");
        self
    }
}

use Answer::{Passed, Refused, Silent};
use MeshMode::{Auto, Disabled, Enabled};

#[test]
fn on_one_machine_ready_pods_are_used_unasked_and_nothing_ticks() {
    let mut script = Script::new(Disabled);
    script.list(&[1, 2], &[]).uses(&[1, 2]).rests();
    script.list(&[2, 3], &[]).uses(&[2, 3]).rests();
    script.list(&[], &[]).uses(&[]).rests();
}

#[test]
fn a_pod_that_passes_is_used_whether_or_not_it_is_ready() {
    let mut script = Script::new(Auto);
    script.list(&[1], &[2]).uses(&[]).asks(&[1, 2]);
    script.answer(2, Passed).uses(&[2]);
    script.answer(1, Passed).uses(&[1, 2]).rests();
}

#[test]
fn where_probes_are_no_proof_a_pod_waits_for_the_cluster_to_say_it_is_ready() {
    let mut script = Script::new(Auto).without_trust();
    script.list(&[], &[1]).asks(&[1]).answer(1, Passed).uses(&[]);
    script.list(&[1], &[]).asks(&[1]).answer(1, Passed).uses(&[1]).rests();
    // In a mode that trusts the cluster there is nothing to ask at all.
    let mut script = Script::new(Disabled).without_trust();
    script.list(&[], &[1]).uses(&[]).rests();
    script.list(&[1], &[2]).uses(&[1]).rests();
}

#[test]
fn who_fails_is_asked_again_after_the_interval_and_no_sooner() {
    let mut script = Script::new(Auto);
    script.list(&[], &[1]).asks(&[1]);
    assert_eq!(script.backends.wake_at(), None, "the answer may still come");
    script.answer(1, Refused).uses(&[]);
    assert_eq!(script.backends.wake_at(), Some(script.now + INTERVAL));
    script.step(Fact::Tick);
    script.asks(&[]);
    script.tick().asks(&[1]).answer(1, Passed).uses(&[1]).rests();
}

#[test]
fn silence_leads_to_the_cluster_ip_if_that_answers() {
    for silent in [&[1u16, 2][..], &[1]] {
        let mut script = Script::new(Auto);
        script.list(silent, &[3]);
        for &id in silent {
            script.answer(id, Silent);
        }
        script.answer(3, Silent).uses(&[]);
        script.cluster_ip_answers(true).uses_cluster_ip(silent.len()).rests();
        // From now on only readiness counts.
        script.list(&[1], &[2, 3, 4]).uses_cluster_ip(1).rests();
        script.list(&[], &[4]).uses_cluster_ip(0).rests();
    }
}

#[test]
fn a_cluster_ip_that_does_not_answer_is_no_way_out() {
    let mut script = Script::new(Auto);
    script.list(&[1], &[]).answer(1, Silent).cluster_ip_answers(false).uses(&[]);
    script.tick().answer(1, Silent).cluster_ip_answers(false).uses(&[]);
    script.tick().answer(1, Passed).uses(&[1]).rests();
}

#[test]
fn an_answer_that_only_a_pod_gives_keeps_the_pods() {
    let mut script = Script::new(Auto);
    script.list(&[1, 2], &[]).answer(1, Refused).answer(2, Silent).uses(&[]);
    assert!(!script.asked_cluster_ip);
    script.tick().asks(&[1, 2]);
}

#[test]
fn once_a_mesh_is_found_pods_are_not_asked_again_until_the_mode_changes() {
    let mut script = Script::new(Auto);
    script.list(&[1], &[]).answer(1, Silent).cluster_ip_answers(true).uses_cluster_ip(1);
    // No pods: the ClusterIP must answer anew, but pods are still out of reach.
    script.list(&[], &[]).uses(&[]).rests();
    script.list(&[2], &[]).asks(&[]).cluster_ip_answers(false).uses(&[]);
    script.tick().asks(&[]).cluster_ip_answers(true).uses_cluster_ip(1);
    script.listing.mesh = Disabled;
    script.list(&[2], &[]).uses(&[2]).rests();
}

#[test]
fn enabled_uses_the_cluster_ip_even_if_pods_would_answer() {
    let mut script = Script::new(Enabled);
    script.list(&[1], &[2]).asks(&[]).uses(&[]).cluster_ip_answers(true).uses_cluster_ip(1).rests();
    let mut script = Script::new(Enabled);
    script.listing.cluster_ip = None;
    script.list(&[1], &[]).uses(&[]).rests();
}

#[test]
fn disabled_never_uses_the_cluster_ip_and_trusts_ready_pods() {
    let mut script = Script::new(Disabled);
    script.list(&[1], &[2]).uses(&[1]).asks(&[2]).answer(2, Silent).uses(&[1]);
    script.list(&[], &[2]).asks(&[2]).answer(2, Silent).uses(&[]);
    script.tick().answer(2, Silent);
    assert!(!script.asked_cluster_ip);
    script.tick().answer(2, Passed).uses(&[2]).rests();
}

#[test]
fn a_pod_not_ready_any_more_is_kept_only_if_it_still_passes() {
    let mut script = Script::new(Disabled);
    script.list(&[1, 2], &[]).uses(&[1, 2]);
    // In use until it has answered: a slow answer must not cost its requests.
    script.list(&[], &[1, 2]).uses(&[1, 2]).asks(&[1, 2]);
    script.answer(1, Passed).answer(2, Silent).uses(&[1]);
    // As long as anything is asked, so is it.
    script.tick().asks(&[1, 2]).answer(1, Refused).uses(&[]).answer(2, Passed).uses(&[2]);
    let mut script = Script::new(Disabled).without_trust();
    script.list(&[1], &[]).uses(&[1]).list(&[], &[1]).uses(&[]).rests();
}

#[test]
fn a_pod_that_has_left_is_gone_at_once_whatever_it_answers_later() {
    let mut script = Script::new(Auto);
    script.list(&[1, 2], &[]).answer(1, Passed).uses(&[1]);
    script.list(&[3], &[]).uses(&[]).asks(&[2, 3]);
    script.answer(2, Passed).uses(&[]).answer(3, Passed).uses(&[3]).rests();
}

#[test]
fn a_pod_listed_while_another_is_silent_is_asked_at_once() {
    let mut script = Script::new(Auto);
    script.list(&[], &[1]).asks(&[1]);
    script.list(&[], &[1, 2]).asks(&[1, 2]).answer(2, Passed).uses(&[2]);
    script.answer(1, Silent).uses(&[2]);
    assert!(!script.asked_cluster_ip, "one pod was reached");
}

#[test]
fn without_a_cluster_ip_nothing_changes() {
    let mut script = Script::new(Auto);
    script.listing.cluster_ip = None;
    script.list(&[1], &[]).answer(1, Silent).uses(&[]);
    script.listing.cluster_ip = Some(cluster_ip());
    script.list(&[1], &[]).answer(1, Silent).cluster_ip_answers(true).uses_cluster_ip(1);
}

#[test]
fn losing_the_last_pod_is_news_enough_for_one_round() {
    let mut script = Script::new(Auto);
    script.list(&[1], &[]).answer(1, Passed).uses(&[1]);
    script.list(&[2], &[]).uses(&[]).answer(2, Silent);
    assert!(!script.asked_cluster_ip, "who has just lost a pod looks once more");
    script.tick().answer(2, Silent).cluster_ip_answers(true).uses_cluster_ip(1);
}

#[test]
fn a_pod_that_answers_before_the_cluster_ip_wins() {
    let mut script = Script::new(Auto);
    script.list(&[1], &[]).answer(1, Silent);
    script.list(&[1, 2], &[]).answer(2, Passed).uses(&[2]);
    script.cluster_ip_answers(true).uses(&[2]);
}

#[derive(Clone, Debug)]
enum Op {
    List {
        ready: BTreeSet<u16>,
        not_ready: BTreeSet<u16>,
        has_cluster_ip: bool,
    },
    Mode(MeshMode, bool),
    /// Some of the pods that were asked answer.
    Answer(Vec<(usize, Answer)>),
    AnswerClusterIp(bool),
    Wait,
}

fn answer() -> impl Strategy<Value = Answer> {
    prop::sample::select(vec![Passed, Refused, Silent])
}

fn op() -> impl Strategy<Value = Op> {
    let ids = || prop::collection::btree_set(1u16..6, 0..5);
    prop_oneof![
        4 => (ids(), ids(), any::<bool>())
            .prop_map(|(ready, not_ready, has_cluster_ip)| Op::List { ready, not_ready, has_cluster_ip }),
        1 => (prop::sample::select(vec![Auto, Enabled, Disabled]), any::<bool>())
            .prop_map(|(mesh, trust)| Op::Mode(mesh, trust)),
        6 => prop::collection::vec((0usize..5, answer()), 1..4).prop_map(Op::Answer),
        3 => any::<bool>().prop_map(Op::AnswerClusterIp),
        2 => Just(Op::Wait),
    ]
}

/// A cluster that remembers what it said and was asked.
#[derive(Default)]
struct World {
    listing: Listing,
    asked: Vec<SocketAddr>,
    asked_cluster_ip: Vec<SocketAddr>,
    using: Destinations,
    now: Time,
}

impl World {
    fn step(&mut self, backends: &mut Backends, input: Fact) -> Result<(), TestCaseError> {
        for effect in backends.step(self.now, input) {
            match effect {
                Effect::Probe(pods) => {
                    prop_assert!(!pods.is_empty());
                    for pod in pods {
                        prop_assert!(!self.asked.contains(&pod), "asked twice at once");
                        prop_assert!(self.is_listed(&pod));
                        self.asked.push(pod);
                    }
                }
                Effect::ProbeClusterIp(address) => {
                    prop_assert_eq!(Some(address), self.listing.cluster_ip);
                    prop_assert_ne!(self.listing.mesh, Disabled);
                    self.asked_cluster_ip.push(address);
                }
                Effect::Use(destinations) => {
                    prop_assert_ne!(&destinations, &self.using, "told twice");
                    self.using = destinations;
                }
            }
        }
        prop_assert_eq!(&self.using, backends.using());
        self.check(backends)
    }

    fn check(&self, backends: &Backends) -> Result<(), TestCaseError> {
        let Listing { ready, not_ready, mesh, trust_probes, .. } = &self.listing;
        match &self.using {
            Destinations::Pods(used) => {
                prop_assert!(used.iter().all(|pod| self.is_listed(pod)), "a removed pod stays");
                let unready = used.iter().any(|pod| !ready.contains(pod));
                prop_assert!(*trust_probes || !unready, "used before it is ready");
                if *mesh == Disabled {
                    prop_assert!(ready.is_subset(used), "a ready pod is missing");
                }
                let missing = ready
                    .union(not_ready)
                    .any(|pod| !used.contains(pod) && (ready.contains(pod) || *trust_probes));
                let no_way = *mesh == Enabled && self.listing.cluster_ip.is_none();
                let is_busy = !self.asked.is_empty() || !self.asked_cluster_ip.is_empty();
                let is_stuck = !is_busy && backends.wake_at().is_none();
                // Out of reach, and the way round does not exist: only the next listing can help.
                let is_cut_off = self.listing.cluster_ip.is_none() && *mesh == Auto;
                prop_assert!(!missing || !is_stuck || no_way || is_cut_off, "nobody looks for a pod");
            }
            Destinations::ClusterIp { ready: count, .. } => {
                prop_assert_ne!(*mesh, Disabled);
                prop_assert!(!ready.is_empty() || !not_ready.is_empty());
                prop_assert_eq!(*count, ready.len());
                prop_assert_eq!(backends.wake_at(), None);
            }
        }
        Ok(())
    }

    fn is_listed(&self, pod: &SocketAddr) -> bool {
        self.listing.ready.contains(pod) || self.listing.not_ready.contains(pod)
    }

    fn list(&mut self, backends: &mut Backends) -> Result<(), TestCaseError> {
        self.step(backends, Fact::Listed(self.listing.clone()))
    }

    fn tick(&mut self, backends: &mut Backends) -> Result<(), TestCaseError> {
        if let Some(at) = backends.wake_at() {
            self.now = at;
            self.step(backends, Fact::Tick)?;
        }
        Ok(())
    }
}

proptest! {
    /// Whatever is said and answered, and in whatever order: nothing that has left is used, nothing usable is
    /// forgotten, and as soon as every pod passes, every pod is used.
    #[test]
    fn removed_pods_never_stay_and_passing_pods_are_never_missing(ops in prop::collection::vec(op(), 0..60)) {
        let mut backends = Backends::new(INTERVAL);
        let mut world = World::default();
        for op in ops {
            world.now += Duration::from_millis(7);
            match op {
                Op::List { ready, not_ready, has_cluster_ip } => {
                    world.listing.not_ready = not_ready.difference(&ready).copied().map(pod).collect();
                    world.listing.ready = ready.into_iter().map(pod).collect();
                    world.listing.cluster_ip = has_cluster_ip.then(cluster_ip);
                    world.list(&mut backends)?;
                }
                Op::Mode(mesh, trust_probes) => {
                    (world.listing.mesh, world.listing.trust_probes) = (mesh, trust_probes);
                    world.list(&mut backends)?;
                }
                Op::Answer(answers) => {
                    let mut batch = Vec::new();
                    for (i, answer) in answers {
                        if !world.asked.is_empty() {
                            batch.push((world.asked.swap_remove(i % world.asked.len()), answer));
                        }
                    }
                    world.step(&mut backends, Fact::Answered(batch))?;
                }
                Op::AnswerClusterIp(passed) => {
                    if let Some(address) = world.asked_cluster_ip.pop() {
                        world.step(&mut backends, Fact::ClusterIpAnswered { address, passed })?;
                    }
                }
                Op::Wait => world.tick(&mut backends)?,
            }
        }
        // Peace: everybody who is asked passes.
        for _ in 0..4 {
            while let Some(pod) = world.asked.pop() {
                world.step(&mut backends, Fact::Answered(vec![(pod, Passed)]))?;
            }
            while let Some(address) = world.asked_cluster_ip.pop() {
                world.step(&mut backends, Fact::ClusterIpAnswered { address, passed: true })?;
            }
            world.tick(&mut backends)?;
        }
        if let Destinations::Pods(used) = &world.using {
            let Listing { ready, not_ready, trust_probes, cluster_ip, mesh } = &world.listing;
            let is_reachable = *mesh == Disabled || cluster_ip.is_some();
            if is_reachable {
                prop_assert!(ready.is_subset(used));
                prop_assert!(!trust_probes || not_ready.is_subset(used));
            }
        }
    }
}
