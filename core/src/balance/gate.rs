//! The queue in front of a revision's pods: who may go, where to, and who waits.
//!
//! Knative asks twice, first a breaker for a slot and then a balancer for a pod, and a request that finds none
//! starts over at the back. A gate asks once: a request leaves the queue only together with its pod, so order
//! is kept, limits hold per pod, and a pod that leaves takes only its own requests out of the count.
//!
//! Requests of one revision may come in at several ports, and not every pod need have each of them. Each port has a lane
//! of its own: requests wait in the order in which they arrived, but for those whose pods are all full.

use std::collections::BTreeMap;

use super::{Balancer, Load, Policy};
use crate::breaker::QueueFull;

/// A request's place in the line. Smaller came earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GateTicket {
    number: u64,
    lane: usize,
}

/// Requests on one side, pods `P` on the other, first come first served; `W` is what to call a waiter by. `K` names a lane:
/// pods serve some lanes, and without names each serves all requests.
///
/// It works like a bank with one line: [`ticket`](Gate::ticket), then [`enter`](Gate::enter), and if that has
/// no pod, [`wait`](Gate::wait). Whatever may free a pod returns who goes where now; the caller tells them.
/// A pod given out is returned with [`finish`](Gate::finish).
///
/// ```
/// use pilotlight_core::balance::{Gate, Policy};
/// let mut gate: Gate<&str, &str> = Gate::new(100);
/// let ticket = gate.ticket(&());
/// assert_eq!(gate.enter(ticket), None); // no pod yet
/// gate.wait(ticket, "alice").unwrap();
/// assert_eq!(gate.set_pods(Policy::FirstAvailable, Some(1), ["pod-1"]), [("alice", "pod-1")]);
/// ```
#[derive(Debug)]
pub struct Gate<P, W, K = ()> {
    balancer: Balancer,
    /// The limit of each pod; `None`: no limit.
    limit: Option<u32>,
    pods: Vec<P>,
    /// The load of each of `pods`, index by index. A suspended pod has a limit of 0.
    loads: Vec<Load>,
    /// Pods that are not listed any more, with the requests they still carry.
    leaving: Vec<(P, u32)>,
    /// Lanes stay once they were asked for: a revision has few ports.
    lanes: Vec<Lane<W, K>>,
    serves: fn(&P, &K) -> bool,
    next_ticket: u64,
    queue_depth: usize,
}

#[derive(Debug)]
struct Lane<W, K> {
    name: K,
    waiting: BTreeMap<GateTicket, W>,
    /// Whether each pod serves this lane, index by index; `None`: all do.
    served_by: Option<Box<[bool]>>,
}

impl<P: Clone + PartialEq, W> Gate<P, W> {
    /// A gate without pods, in front of which at most `queue_depth` requests may wait. Every pod serves every request.
    pub fn new(queue_depth: usize) -> Self {
        Gate::with_lanes(queue_depth, |_, ()| true)
    }
}

impl<P: Clone + PartialEq, W, K: Clone + PartialEq> Gate<P, W, K> {
    /// A gate without pods, in front of which at most `queue_depth` requests may wait, in all lanes together. `serves` says
    /// whether a pod serves a lane.
    pub fn with_lanes(queue_depth: usize, serves: fn(&P, &K) -> bool) -> Self {
        Gate {
            balancer: Balancer::new(Policy::LeastLoaded, 0),
            limit: None,
            pods: Vec::new(),
            loads: Vec::new(),
            leaving: Vec::new(),
            lanes: Vec::new(),
            serves,
            next_ticket: 0,
            queue_depth,
        }
    }

    /// The next place in the line, in this lane. A request keeps its ticket when it has to try again.
    pub fn ticket(&mut self, lane: &K) -> GateTicket {
        let known = self.lanes.iter().position(|known| known.name == *lane);
        let lane = known.unwrap_or_else(|| {
            let served_by = served_by(&self.pods, lane, self.serves);
            self.lanes.push(Lane { name: lane.clone(), waiting: BTreeMap::new(), served_by });
            self.lanes.len() - 1
        });
        self.next_ticket += 1;
        GateTicket { number: self.next_ticket, lane }
    }

    /// A pod for the holder of `ticket`, if one has room and nobody came earlier.
    // Whoever came earlier in another lane found all of that lane's pods full: this one takes none of theirs.
    pub fn enter(&mut self, ticket: GateTicket) -> Option<P> {
        let first = self.lanes[ticket.lane].waiting.first_key_value();
        let is_first = first.is_none_or(|(&first, _)| ticket < first);
        if is_first { self.take(ticket.lane) } else { None }
    }

    /// Puts the holder of `ticket` in line.
    pub fn wait(&mut self, ticket: GateTicket, waiter: W) -> Result<(), QueueFull> {
        let waiting = self.waiting();
        if waiting >= self.queue_depth {
            return Err(QueueFull { waiting });
        }
        self.lanes[ticket.lane].waiting.insert(ticket, waiter);
        Ok(())
    }

    /// Takes a waiter out of the line; `None` if it was not in it any more.
    pub fn leave(&mut self, ticket: GateTicket) -> Option<W> {
        self.lanes[ticket.lane].waiting.remove(&ticket)
    }

    /// Takes everybody out of the line, in order.
    pub fn leave_all(&mut self) -> Vec<W> {
        self.leave_lanes(|_| true)
    }

    /// Takes those out of the line whose lane no pod serves, in order.
    pub fn leave_unserved(&mut self) -> Vec<W> {
        let has_no_pods = self.has_no_pods();
        self.leave_lanes(|lane| has_no_pods || lane.is_unserved())
    }

    /// A request on `pod` has ended. Returns who takes the place.
    pub fn finish(&mut self, pod: &P) -> Option<(W, P)> {
        if let Some(i) = self.index(pod) {
            self.loads[i].in_flight = self.loads[i].in_flight.saturating_sub(1);
        } else if let Some(i) = self.leaving.iter().position(|(leaving, _)| leaving == pod) {
            self.leaving[i].1 = self.leaving[i].1.saturating_sub(1);
            if self.leaving[i].1 == 0 {
                self.leaving.swap_remove(i);
            }
        }
        self.call_next()
    }

    /// Replaces the list of pods. Those that stay, or come back, keep their requests in flight; suspensions end.
    /// Returns who goes where now.
    pub fn set_pods(
        &mut self,
        policy: Policy,
        limit: Option<u32>,
        pods: impl IntoIterator<Item = P>,
    ) -> Vec<(W, P)> {
        if policy != self.balancer.policy() {
            self.balancer = Balancer::new(policy, 0);
        }
        self.limit = limit;
        let old =
            std::mem::take(&mut self.pods).into_iter().zip(self.loads.drain(..).map(|load| load.in_flight));
        let mut busy: Vec<(P, u32)> =
            old.chain(self.leaving.drain(..)).filter(|&(_, in_flight)| in_flight > 0).collect();
        for pod in pods {
            let known = busy.iter().position(|(old, _)| *old == pod).map(|i| busy.swap_remove(i).1);
            self.pods.push(pod);
            self.loads.push(Load { in_flight: known.unwrap_or(0), limit });
        }
        self.leaving = busy;
        for lane in &mut self.lanes {
            lane.served_by = served_by(&self.pods, &lane.name, self.serves);
        }
        self.call_all()
    }

    /// Sends nothing more to `pod` until [`resume`](Gate::resume) or the next list.
    pub fn suspend(&mut self, pod: &P) {
        if let Some(i) = self.index(pod) {
            self.loads[i].limit = Some(0);
        }
    }

    /// Ends a suspension. Returns who goes where now.
    pub fn resume(&mut self, pod: &P) -> Vec<(W, P)> {
        if let Some(i) = self.index(pod) {
            self.loads[i].limit = self.limit;
        }
        self.call_all()
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.lanes.iter().map(|lane| lane.waiting.len()).sum()
    }

    /// How many requests pods carry, those of leaving pods included.
    pub fn in_flight(&self) -> u32 {
        let listed: u32 = self.loads.iter().map(|load| load.in_flight).sum();
        listed + self.leaving.iter().map(|(_, in_flight)| in_flight).sum::<u32>()
    }

    /// Whether no pod is listed.
    pub fn has_no_pods(&self) -> bool {
        self.pods.is_empty()
    }

    /// Whether no pod that is listed serves the lane of `ticket`.
    pub fn is_unserved(&self, ticket: GateTicket) -> bool {
        self.has_no_pods() || self.lanes[ticket.lane].is_unserved()
    }

    /// Every pod and the requests it carries, leaving pods last.
    pub fn pods(&self) -> impl Iterator<Item = (&P, u32)> {
        let listed = self.pods.iter().zip(self.loads.iter().map(|load| load.in_flight));
        listed.chain(self.leaving.iter().map(|(pod, in_flight)| (pod, *in_flight)))
    }

    fn index(&self, pod: &P) -> Option<usize> {
        self.pods.iter().position(|listed| listed == pod)
    }

    fn take(&mut self, lane: usize) -> Option<P> {
        let i = match &self.lanes[lane].served_by {
            None => self.balancer.pick(&self.loads)?,
            Some(served_by) => self.balancer.pick_among(&self.loads, |i| served_by[i])?,
        };
        self.loads[i].in_flight += 1;
        Some(self.pods[i].clone())
    }

    /// Calls whoever waits longest, but for those whose pods are all full.
    fn call_next(&mut self) -> Option<(W, P)> {
        let mut passed_over = None;
        loop {
            let first = self.lanes.iter().filter_map(|lane| lane.waiting.keys().next());
            let ticket = first.copied().filter(|ticket| Some(*ticket) > passed_over).min()?;
            if let Some(pod) = self.take(ticket.lane) {
                return Some((self.leave(ticket)?, pod));
            }
            passed_over = Some(ticket);
        }
    }

    fn call_all(&mut self) -> Vec<(W, P)> {
        std::iter::from_fn(|| self.call_next()).collect()
    }

    fn leave_lanes(&mut self, leaves: impl Fn(&Lane<W, K>) -> bool) -> Vec<W> {
        let mut left = BTreeMap::new();
        for lane in self.lanes.iter_mut().filter(|lane| leaves(lane)) {
            left.append(&mut lane.waiting);
        }
        left.into_values().collect()
    }
}

impl<W, K> Lane<W, K> {
    fn is_unserved(&self) -> bool {
        self.served_by.as_ref().is_some_and(|served_by| !served_by.contains(&true))
    }
}

/// Whether each of the pods serves a lane; `None`: all do.
fn served_by<P, K>(pods: &[P], lane: &K, serves: fn(&P, &K) -> bool) -> Option<Box<[bool]>> {
    let served_by: Box<[bool]> = pods.iter().map(|pod| serves(pod, lane)).collect();
    served_by.contains(&false).then_some(served_by)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type TestGate = Gate<u32, u64>;

    /// Lane 0 is served by all pods, lane 1 by those with even numbers, lane 2 by those above 3.
    fn serves(pod: &u32, lane: &u8) -> bool {
        match lane {
            0 => true,
            1 => pod.is_multiple_of(2),
            _ => *pod > 3,
        }
    }

    fn arrive(gate: &mut TestGate, name: u64) -> Result<Option<u32>, QueueFull> {
        let ticket = gate.ticket(&());
        match gate.enter(ticket) {
            Some(pod) => Ok(Some(pod)),
            None => gate.wait(ticket, name).map(|()| None),
        }
    }

    #[test]
    fn waiters_go_first_come_first_served_when_pods_come() {
        let mut gate = TestGate::new(10);
        for name in 1..=4 {
            assert_eq!(arrive(&mut gate, name), Ok(None));
        }
        assert_eq!(gate.set_pods(Policy::FirstAvailable, Some(1), [7, 8]), [(1, 7), (2, 8)]);
        assert_eq!(arrive(&mut gate, 5), Ok(None), "a newcomer must not overtake");
        assert_eq!(gate.finish(&8), Some((3, 8)));
        assert_eq!(gate.finish(&7), Some((4, 7)));
        assert_eq!(gate.finish(&7), Some((5, 7)));
    }

    #[test]
    fn a_full_queue_refuses() {
        let mut gate = TestGate::new(1);
        assert_eq!(arrive(&mut gate, 1), Ok(None));
        assert_eq!(arrive(&mut gate, 2), Err(QueueFull { waiting: 1 }));
    }

    #[test]
    fn who_tries_again_keeps_the_place() {
        let mut gate = TestGate::new(10);
        gate.set_pods(Policy::FirstAvailable, Some(1), [1, 2]);
        let early = gate.ticket(&());
        assert_eq!(gate.enter(early), Some(1));
        assert_eq!(arrive(&mut gate, 20), Ok(Some(2)));
        assert_eq!(arrive(&mut gate, 30), Ok(None));
        // Pod 1 refused the connection.
        gate.suspend(&1);
        assert_eq!(gate.finish(&1), None);
        assert_eq!(gate.enter(early), None);
        gate.wait(early, 10).unwrap();
        assert_eq!(gate.finish(&2), Some((10, 2)));
        assert_eq!(gate.resume(&1), [(30, 1)]);
    }

    #[test]
    fn requests_of_a_leaving_pod_do_not_hold_up_its_successor() {
        let mut gate = TestGate::new(10);
        gate.set_pods(Policy::FirstAvailable, Some(1), [1]);
        assert_eq!(arrive(&mut gate, 1), Ok(Some(1)));
        gate.set_pods(Policy::FirstAvailable, Some(1), [2]);
        assert_eq!(arrive(&mut gate, 2), Ok(Some(2)));
        assert_eq!(gate.in_flight(), 2);
        assert_eq!(gate.finish(&1), None);
        assert_eq!(gate.in_flight(), 1);
    }

    #[test]
    fn a_pod_that_comes_back_still_carries_its_requests() {
        let mut gate = TestGate::new(10);
        gate.set_pods(Policy::FirstAvailable, Some(1), [1]);
        assert_eq!(arrive(&mut gate, 1), Ok(Some(1)));
        gate.set_pods(Policy::FirstAvailable, Some(1), []);
        gate.set_pods(Policy::FirstAvailable, Some(1), [1]);
        assert_eq!(arrive(&mut gate, 2), Ok(None));
        assert_eq!(gate.finish(&1), Some((2, 1)));
    }

    #[test]
    fn lowering_the_limit_lets_running_requests_end() {
        let mut gate = TestGate::new(10);
        gate.set_pods(Policy::LeastLoaded, Some(2), [1]);
        assert_eq!(arrive(&mut gate, 1), Ok(Some(1)));
        assert_eq!(arrive(&mut gate, 2), Ok(Some(1)));
        gate.set_pods(Policy::LeastLoaded, Some(1), [1]);
        assert_eq!(arrive(&mut gate, 3), Ok(None));
        assert_eq!(gate.finish(&1), None);
        assert_eq!(gate.finish(&1), Some((3, 1)));
    }

    #[test]
    fn who_waits_for_one_port_does_not_hold_up_another() {
        let mut gate: Gate<u32, &str, u8> = Gate::with_lanes(10, serves);
        gate.set_pods(Policy::LeastLoaded, Some(1), [1, 2]);
        let [high, even, any, later] = [2, 1, 0, 1].map(|lane| gate.ticket(&lane));
        assert_eq!((gate.enter(high), gate.is_unserved(high)), (None, true));
        gate.wait(high, "high").unwrap();
        assert_eq!(gate.enter(even), Some(2));
        assert_eq!(gate.enter(any), Some(1));
        assert_eq!((gate.enter(later), gate.is_unserved(later)), (None, false));
        gate.wait(later, "later").unwrap();
        assert_eq!(gate.finish(&1), None, "pod 1 serves neither of those who wait");
        assert_eq!(gate.finish(&2), Some(("later", 2)));
        assert_eq!(gate.set_pods(Policy::LeastLoaded, Some(1), [2, 5]), [("high", 5)]);
    }

    #[test]
    fn those_whose_port_no_pod_has_can_be_told_apart() {
        let mut gate: Gate<u32, &str, u8> = Gate::with_lanes(10, serves);
        for (lane, name) in [(2, "one"), (1, "two"), (2, "three")] {
            let ticket = gate.ticket(&lane);
            gate.wait(ticket, name).unwrap();
        }
        gate.set_pods(Policy::LeastLoaded, Some(0), [2]);
        assert_eq!(gate.leave_unserved(), ["one", "three"]);
        assert_eq!(gate.leave_unserved(), [""; 0]);
        assert_eq!(gate.leave_all(), ["two"]);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Arrive(u8),
        Leave(usize),
        Finish(usize),
        SetPods(Vec<u32>, Option<u32>),
        Suspend(u32),
        Resume(u32),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            5 => (0u8..3).prop_map(Op::Arrive),
            1 => (0usize..20).prop_map(Op::Leave),
            4 => (0usize..20).prop_map(Op::Finish),
            1 => (prop::collection::btree_set(0u32..6, 0..5), prop::option::of(1u32..4))
                .prop_map(|(pods, limit)| Op::SetPods(pods.into_iter().collect(), limit)),
            1 => (0u32..6).prop_map(Op::Suspend),
            1 => (0u32..6).prop_map(Op::Resume),
        ]
    }

    proptest! {
        /// Against a plain model: nobody is lost or served twice, order is kept in each lane, limits hold, and nobody waits
        /// while a pod that serves the lane has room.
        #[test]
        fn nobody_is_lost_and_order_is_kept(ops in prop::collection::vec(op(), 0..120)) {
            let mut gate: Gate<u32, u64, u8> = Gate::with_lanes(8, serves);
            let mut line: Vec<(u64, u8, GateTicket)> = Vec::new();
            let mut running: Vec<u32> = Vec::new();
            for (name, op) in (0u64..).zip(ops) {
                let called = match op {
                    Op::Arrive(lane) => {
                        let ticket = gate.ticket(&lane);
                        match gate.enter(ticket) {
                            Some(pod) => {
                                prop_assert!(serves(&pod, &lane));
                                prop_assert!(!line.iter().any(|(_, waiting, _)| serves(&pod, waiting)));
                                running.push(pod);
                            }
                            None => match gate.wait(ticket, name) {
                                Ok(()) => line.push((name, lane, ticket)),
                                Err(full) => prop_assert_eq!(full.waiting, 8),
                            },
                        }
                        vec![]
                    }
                    Op::Leave(i) => {
                        if i < line.len() {
                            let (name, _, ticket) = line.remove(i);
                            prop_assert_eq!(gate.leave(ticket), Some(name));
                            prop_assert_eq!(gate.leave(ticket), None);
                        }
                        vec![]
                    }
                    Op::Finish(i) if i < running.len() => {
                        let pod = running.swap_remove(i);
                        gate.finish(&pod).into_iter().collect()
                    }
                    Op::Finish(_) => vec![],
                    Op::SetPods(pods, limit) => gate.set_pods(Policy::LeastLoaded, limit, pods),
                    Op::Suspend(pod) => { gate.suspend(&pod); vec![] }
                    Op::Resume(pod) => gate.resume(&pod),
                };
                for (name, pod) in called {
                    let at = line.iter().position(|(_, lane, _)| serves(&pod, lane)).unwrap();
                    prop_assert_eq!(name, line.remove(at).0, "whoever waited longest for this pod");
                    running.push(pod);
                }
                prop_assert_eq!(gate.waiting(), line.len());
                prop_assert_eq!(gate.in_flight() as usize, running.len());
                for (_, lane, _) in &line {
                    let mut pods = gate.pods.iter().zip(&gate.loads);
                    prop_assert!(!pods.any(|(pod, load)| load.has_room() && serves(pod, lane)));
                }
                for (&pod, in_flight) in gate.pods() {
                    prop_assert_eq!(running.iter().filter(|&&p| p == pod).count(), in_flight as usize);
                }
            }
        }
    }
}
