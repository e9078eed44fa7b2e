//! From any state, with Kubernetes' controllers acting and being seen whenever they like, the plan's writes come to an end;
//! meanwhile [`World`] checks after every write that something serves if something did, and that nothing is named that
//! cannot.

use std::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::slices::{Member, SliceFact, SlicePort, retained, wanted_of_activators, wanted_of_pods};

/// Something that happens.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The controller takes a step.
    Step,
    /// Kubernetes' controllers act.
    Kubernetes,
    /// The slices of others and the selector are seen as they are.
    Seen,
    /// From now on they are seen late.
    Lag,
    /// Milliseconds pass.
    Time(u64),
    /// An activator binds the port, leaves, dies, or comes.
    Bind(usize),
    Leave(usize),
    Die(usize),
    Join(u8),
    /// The table allots another port.
    Port(u16),
    /// A pod becomes ready, begins to end, or is gone.
    PodReady(u8),
    PodEnds(usize),
    PodGone(usize),
    /// The target asks for so many replicas.
    Replicas(Option<u32>),
    /// The core plans so.
    Mode(ServingMode),
    /// The selector goes or comes back.
    Selector(bool),
    /// An Endpoints object is there, of the target's pods or of others.
    Endpoints(bool),
    /// Everything is put back, or not any more.
    Restore(bool),
    /// The controller restarts.
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => Just(Event::Step),
        3 => Just(Event::Kubernetes),
        3 => Just(Event::Seen),
        1 => Just(Event::Lag),
        4 => (1_u64..7_000).prop_map(Event::Time),
        2 => (0_usize..4).prop_map(Event::Bind),
        1 => (0_usize..4).prop_map(Event::Leave),
        1 => (0_usize..4).prop_map(Event::Die),
        2 => (1_u8..9).prop_map(Event::Join),
        1 => (10_001_u16..10_004).prop_map(Event::Port),
        2 => (1_u8..9).prop_map(Event::PodReady),
        1 => (0_usize..4).prop_map(Event::PodEnds),
        1 => (0_usize..4).prop_map(Event::PodGone),
        1 => select(vec![None, Some(0), Some(1), Some(2)]).prop_map(Event::Replicas),
        1 => select(vec![ServingMode::Proxy, ServingMode::Serve]).prop_map(Event::Mode),
        1 => any::<bool>().prop_map(Event::Selector),
        1 => any::<bool>().prop_map(Event::Endpoints),
        1 => any::<bool>().prop_map(Event::Restore),
        1 => Just(Event::Restart),
    ]
}

fn way() -> impl Strategy<Value = PathWay> {
    let refused = PathWay::Refused { reason: "SharedService".to_owned(), message: "Two.".to_owned() };
    select(vec![
        PathWay::Always,
        PathWay::Always,
        PathWay::AtZero,
        PathWay::AtZero,
        PathWay::WakeOnly,
        refused,
    ])
}

/// Slices of ours as an earlier leader may have left them: at this or an earlier port, with members that may be dead, in
/// any stage.
#[derive(Clone, Debug)]
struct Left {
    at_old_port: bool,
    activators: Vec<(u8, bool)>,
    pods: Vec<(u8, bool)>,
}

fn left() -> impl Strategy<Value = Left> {
    let members = || vec((1_u8..6, any::<bool>()), 0..4);
    (any::<bool>(), members(), members()).prop_map(|(at_old_port, activators, pods)| Left {
        at_old_port,
        activators,
        pods,
    })
}

impl World {
    fn leave_behind(&mut self, left: &Left) {
        let seen = self.seen();
        let subject = crate::slices::SliceSubject {
            namespace: seen.namespace.clone(),
            service: "web".to_owned(),
            service_uid: self.service.uid.clone(),
            autoscaler: seen.autoscaler.clone(),
            autoscaler_uid: seen.autoscaler_uid.clone(),
            families: crate::slices::Families { v4: true, v6: false },
            prefers_near: false,
            names_pods: true,
        };
        let members = |kind: &str, numbers: &[(u8, bool)]| -> Vec<Member> {
            let staged = |(number, is_leaving): &(u8, bool)| {
                let stage = if *is_leaving { Stage::Leaving { since: at(0) } } else { Stage::Serving };
                Member { stage, ..member(kind, *number) }
            };
            numbers.iter().map(staged).collect()
        };
        let port = if left.at_old_port { 10_500 } else { self.port };
        let ports = [SlicePort::of(&self.service.ports[0], port)];
        let named = members("a", &left.activators);
        for activator in &named {
            // Nothing was named that had not been bound.
            self.bound.entry(activator.name.clone()).or_default().insert(port);
        }
        let activators = wanted_of_activators(at(0), &subject, &ports, &named, &[]);
        let pod = |member: Member| crate::slices::PodMember {
            member,
            ports: std::collections::BTreeMap::from([("http".to_owned(), 8080)]),
        };
        let pods: Vec<_> = members("p", &left.pods).into_iter().map(pod).collect();
        let pods = wanted_of_pods(at(0), &subject, &self.service.ports, &pods, &[]);
        for slice in activators.into_iter().chain(pods) {
            let fact = SliceFact::read(&slice).unwrap().1;
            let all = [named.clone(), members("p", &left.pods)].concat();
            assert!(retained(at(0), &subject, &fact, &all).is_some());
            self.put(slice);
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Step => drop(World::step(self)),
            Event::Kubernetes => self.kubernetes(),
            Event::Seen => self.lagging = None,
            Event::Lag => self.lag(),
            Event::Time(millis) => self.now += Duration::from_millis(millis),
            Event::Bind(number) => {
                if let Some(name) = self.activators.get(number).map(|member| member.name.clone()) {
                    self.bind(&[&name]);
                }
            }
            Event::Leave(number) if number < self.activators.len() => self.leaves(number),
            Event::Die(number) if number < self.activators.len() => {
                let member = self.activators.remove(number);
                self.bound.remove(&member.name);
            }
            Event::Join(number) => {
                let is_there = |each: &Member| each.name == format!("a-{number}");
                if !self.activators.iter().any(is_there) {
                    // It comes once it listens on every port that slices name.
                    let slices = self.of_kind(SliceKind::Activators);
                    let named = slices.iter().flat_map(|slice| &slice.ports).map(|port| port.number);
                    self.bound.insert(format!("a-{number}"), named.collect());
                    self.activators.push(member("a", number));
                }
            }
            Event::Port(port) => self.port = port,
            Event::PodReady(number) => {
                let is_there = |pod: &ReadyPod| pod.member.name == format!("p-{number}");
                if !self.pods.iter().any(is_there) {
                    self.pod_is_ready(number);
                }
            }
            Event::PodEnds(number) if number < self.pods.len() => {
                self.pods[number].member.stage = Stage::Leaving { since: self.now };
            }
            Event::PodGone(number) if number < self.pods.len() => drop(self.pods.remove(number)),
            Event::Leave(_) | Event::Die(_) | Event::PodEnds(_) | Event::PodGone(_) => {}
            Event::Replicas(replicas) => self.replicas = replicas,
            Event::Mode(mode) => self.mode = mode,
            Event::Selector(true) => self.service.selector = Selector::parse("app=web").unwrap(),
            Event::Selector(false) => self.service.selector = Selector::default(),
            Event::Endpoints(is_of_target) => {
                self.endpoints = Some((self.endpoints.map_or(1, |(version, _)| version + 1), is_of_target));
                // A watch tells of the change, sooner or later; here at once.
                self.asked = EndpointsSeen::Unknown;
            }
            Event::Restore(true) => self.restoring = Restoring::Gently,
            Event::Restore(false) => self.restoring = Restoring::No,
            Event::Restart => {
                self.before = None;
                self.asked = EndpointsSeen::Unknown;
            }
        }
    }

    /// Nothing happens any more but the controller and Kubernetes.
    fn settles(&mut self) -> PathPlan {
        self.lagging = None;
        for _ in 0..MOST_STEPS {
            self.kubernetes();
            let seen = self.slices.clone();
            let plan = World::step(self);
            match plan.wake_at {
                _ if !plan.writes.is_empty() || !plan.ask_endpoints.is_empty() || self.slices != seen => {}
                Some(due) => {
                    assert!(due > self.now, "a step that is due now was not taken");
                    self.now = due;
                }
                None => return plan,
            }
        }
        panic!("it does not come to an end: {:?}", step(&self.seen()));
    }

    fn ready(&self, kind: SliceKind) -> Vec<IpAddr> {
        let facts = self.of_kind(kind);
        let mut ready: Vec<IpAddr> = facts
            .iter()
            .flat_map(|fact| &fact.endpoints)
            .filter(|each| each.is_ready)
            .map(|each| each.ip)
            .collect();
        ready.sort();
        ready
    }

    /// What must hold at the end.
    fn is_as_it_should_be(&self, plan: &PathPlan) {
        let is_bound = |member: &&Member| {
            member.is_serving()
                && self.bound.get(&member.name).is_some_and(|ports| ports.contains(&self.port))
        };
        let mut usable: Vec<IpAddr> =
            self.activators.iter().filter(is_bound).map(|each| each.ips[0]).collect();
        usable.sort();
        let ready = self.pods.iter().filter(|pod| pod.member.is_serving());
        let mut pods: Vec<IpAddr> = ready.map(|pod| pod.member.ips[0]).collect();
        pods.sort();
        let has_selector = !self.service.selector.is_empty();
        let is_refused = matches!(self.way, PathWay::Refused { .. });
        let is_restoring = self.restoring == Restoring::Gently;
        let is_foreign = !has_selector && self.endpoints.is_some_and(|(_, is_of_target)| !is_of_target);
        let activators = self.ready(SliceKind::Activators);
        if (is_restoring || is_refused) && has_selector && !pods.is_empty() {
            assert!(
                self.of_kind(SliceKind::Activators).is_empty() && self.of_kind(SliceKind::Pods).is_empty()
            );
            assert_eq!(plan.restored, if is_restoring { Restored::Yes } else { Restored::No });
        }
        if is_restoring || is_refused || is_foreign {
            return;
        }
        match has_selector {
            false if !usable.is_empty() => {
                assert_eq!(activators, usable);
                assert_eq!(self.slices.len(), 1, "nothing is beside ours: {:?}", self.slices.keys());
                assert_eq!(self.endpoints, None);
                assert!(plan.path.probed && plan.may_sleep == (self.way != PathWay::WakeOnly));
                assert_eq!(plan.sees_all, self.way == PathWay::Always);
            }
            false if !self.activators.iter().any(Member::is_serving) => {
                // Without a ready pod, whoever leaves stays named.
                assert!(pods.is_empty() || (activators.is_empty() && self.ready(SliceKind::Pods) == pods));
                assert!(!plan.path.probed);
            }
            true if self.replicas == Some(0) && !usable.is_empty() => assert_eq!(activators, usable),
            true if self.replicas.is_some_and(|replicas| replicas > 0)
                && (self.mode == ServingMode::Serve || self.way == PathWay::WakeOnly)
                && !pods.is_empty() =>
            {
                assert_eq!(self.of_kind(SliceKind::Activators).len(), 0);
            }
            _ => {}
        }
    }
}

/// More steps than any state needs until nothing is left to write.
const MOST_STEPS: usize = 40;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn every_state_comes_to_rest_without_a_gap(
        way in way(), left in left(), rounds in vec(vec(event(), 0..25), 1..4),
    ) {
        let mut world = World::new(way);
        world.leave_behind(&left);
        for events in rounds {
            events.into_iter().for_each(|event| world.happens(event));
            let plan = world.settles();
            world.is_as_it_should_be(&plan);
        }
    }
}
