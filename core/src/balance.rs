//! How a request finds its pod: policies, who waits in which order, and which activator has which pods.
//!
//! Everything here is a value that is asked and answers: [`Balancer`] chooses among pods, [`Gate`] adds the queue
//! in front of them, [`Refusals`] says how long a pod is left out that refuses connections, [`share_of_pods`] and
//! [`revision_capacity`] share pods between activators, [`pod_owner`] gives each pod to one of them, [`choose_subset`] and [`owner`] place things on a ring so that
//! many processes agree without talking.
//! Knative's names: `lbPolicy`, `breaker`, `assignSlice`, `calculateCapacity`, `hash.ChooseSubset`.

mod gate;
mod ownership;
mod refused;
mod subset;

pub use gate::{Gate, GateTicket};
pub use ownership::pod_owner;
pub use refused::{FIRST_PAUSE, LONGEST_PAUSE, Refusals};
pub use subset::{choose_subset, owner};

use crate::{ConcurrencyLimit, Place, Rng};

/// A policy's knowledge of one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Requests this activator has in flight there.
    pub in_flight: u32,
    /// The most it may have; `None`: no limit.
    pub limit: Option<u32>,
}

impl Load {
    /// Whether one more request may go there.
    pub fn has_room(self) -> bool {
        self.limit.is_none_or(|limit| self.in_flight < limit)
    }
}

/// How to choose among pods that have room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The first in order: packs requests on few pods, so that the others fall idle and can go.
    FirstAvailable,
    /// The next one in order.
    RoundRobin,
    /// The less loaded of two drawn at random.
    PowerOfTwo,
    /// The least loaded of all; equals take turns.
    LeastLoaded,
}

impl Policy {
    /// The policy of Knative's activator for a container concurrency.
    pub fn knative(limit: ConcurrencyLimit) -> Policy {
        match limit.get() {
            None => Policy::PowerOfTwo,
            Some(..=3) => Policy::FirstAvailable,
            Some(_) => Policy::RoundRobin,
        }
    }

    /// The policy of Pilotlight's activator: it knows its own load on every pod exactly, so it neither draws lots nor
    /// deals in turn where the least loaded pod can simply be read off.
    pub fn pilotlight(limit: ConcurrencyLimit) -> Policy {
        match limit.get() {
            Some(..=3) => Policy::FirstAvailable,
            Some(_) | None => Policy::LeastLoaded,
        }
    }
}

/// Chooses a pod for each request.
///
/// ```
/// use pilotlight_core::balance::{Balancer, Load, Policy};
/// let mut balancer = Balancer::new(Policy::LeastLoaded, 0);
/// let busy = Load { in_flight: 2, limit: Some(5) };
/// let idle = Load { in_flight: 0, limit: Some(5) };
/// assert_eq!(balancer.pick(&[busy, idle]), Some(1));
/// ```
#[derive(Clone, Debug)]
pub struct Balancer {
    policy: Policy,
    /// Start of the next round; may lie past the end after pods left.
    next: usize,
    rng: Rng,
}

impl Balancer {
    /// A balancer; the seed matters to [`Policy::PowerOfTwo`] only.
    pub fn new(policy: Policy, seed: u64) -> Self {
        Balancer { policy, next: 0, rng: Rng::new(seed) }
    }

    /// The policy it follows.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// The index of the pod for one more request; `None` if no pod has room.
    pub fn pick(&mut self, loads: &[Load]) -> Option<usize> {
        self.pick_among(loads, |_| true)
    }

    /// The same among those pods whose index `may` be chosen.
    pub fn pick_among(&mut self, loads: &[Load], may: impl Fn(usize) -> bool) -> Option<usize> {
        let has_room = |i: usize| loads[i].has_room() && may(i);
        match self.policy {
            Policy::FirstAvailable => (0..loads.len()).find(|&i| has_room(i)),
            Policy::RoundRobin => {
                let start = if self.next < loads.len() { self.next } else { 0 };
                let chosen = around(start, loads.len()).find(|&i| has_room(i))?;
                self.next = chosen + 1;
                Some(chosen)
            }
            Policy::LeastLoaded => {
                let start = if self.next < loads.len() { self.next } else { 0 };
                let mut least: Option<usize> = None;
                for i in around(start, loads.len()).filter(|&i| has_room(i)) {
                    if least.is_none_or(|best| loads[i].in_flight < loads[best].in_flight) {
                        least = Some(i);
                    }
                    if loads[i].in_flight == 0 {
                        break;
                    }
                }
                self.next = least? + 1;
                least
            }
            Policy::PowerOfTwo => self.pick_of_two(loads, has_room),
        }
    }

    fn pick_of_two(&mut self, loads: &[Load], has_room: impl Fn(usize) -> bool) -> Option<usize> {
        let (one, other) = match loads.len() {
            0 => return None,
            1 => (0, 0),
            2 => (0, 1),
            pods => {
                let one = self.rng.below(pods);
                let other = self.rng.below(pods - 1);
                (one, if other < one { other } else { other + 1 })
            }
        };
        let coin = self.rng.below(2);
        let by_load = |i: &usize| loads[*i].in_flight;
        let pair = if coin == 0 { [one, other] } else { [other, one] };
        pair.into_iter()
            .filter(|&i| has_room(i))
            .min_by_key(by_load)
            // Knative uses this policy without limits only; with them, both of the pair may be full.
            .or_else(|| (0..loads.len()).find(|&i| has_room(i)))
    }
}

/// The indices `0..len`, beginning at `start` and wrapping.
fn around(start: usize, len: usize) -> impl Iterator<Item = usize> {
    (start..len).chain(0..start)
}

/// The pods among `pods` (counted in an order all activators agree on) that the activator at `self_index` of `activators`
/// may use, so that limits hold without the activators talking to each other.
///
/// Each gets an equal run of neighbours; what cannot be divided goes one each to the first activators. With
/// more activators than pods, each has one pod and shares it. An activator that does not know its place, or
/// has no peers, uses every pod.
///
/// ```
/// use pilotlight_core::balance::assign_pods;
/// assert_eq!(assign_pods(10, Some(1), 3), [3, 4, 5]);
/// assert_eq!(assign_pods(10, Some(0), 3), [0, 1, 2, 9]);
/// ```
pub fn assign_pods(pods: usize, self_index: Option<usize>, activators: usize) -> Vec<usize> {
    let Some(index) = self_index.filter(|&index| index < activators) else {
        return (0..pods).collect();
    };
    if pods <= 1 || activators == 1 {
        return (0..pods).collect();
    }
    if activators > pods {
        return vec![index % pods];
    }
    let (share, left_over) = (pods / activators, pods % activators);
    let extra = (index < left_over).then(|| pods - left_over + index);
    (index * share..(index + 1) * share).chain(extra).collect()
}

/// The pods among `pods` (counted in an order all activators agree on) that an activator sends to. Without a limit no pod can be
/// overrun, so every activator uses every pod; under one, each has its own ([`assign_pods`]).
///
/// ```
/// use pilotlight_core::{Place, balance::share_of_pods};
/// let second_of_two = Place { index: Some(1), activators: 2 };
/// assert_eq!(share_of_pods(4, Some(10), second_of_two), [2, 3]);
/// assert_eq!(share_of_pods(4, None, second_of_two), [0, 1, 2, 3]);
/// ```
pub fn share_of_pods(pods: usize, limit: Option<u32>, place: Place) -> Vec<usize> {
    match limit {
        Some(_) => assign_pods(pods, place.index, place.activators),
        None => (0..pods).collect(),
    }
}

/// How many requests one activator may have in flight for a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// At most so many; none while no pod is ready.
    Limited(u32),
    /// As many as come.
    Unlimited,
}

/// The capacity one activator has for a revision.
///
/// `assigned_pods` are those this activator sends to itself; 0 when it sends to a virtual address instead and
/// only knows that `backends` pods stand behind it, shared with all `activators`.
pub fn revision_capacity(
    limit: ConcurrencyLimit,
    assigned_pods: usize,
    backends: usize,
    activators: usize,
) -> Capacity {
    if backends == 0 {
        return Capacity::Limited(0);
    }
    let Some(limit) = limit.get().map(u64::from) else { return Capacity::Unlimited };
    let capacity = if assigned_pods > 0 {
        limit.saturating_mul(assigned_pods as u64)
    } else {
        // At least 1: fewer slots than activators must not starve any of them.
        (limit.saturating_mul(backends as u64) / activators.max(1) as u64).max(1)
    };
    Capacity::Limited(capacity.min(u64::from(MAX_CAPACITY)) as u32)
}

/// The greatest limit Knative's breaker knows.
const MAX_CAPACITY: u32 = i32::MAX as u32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn loads(limit: Option<u32>, in_flight: &[u32]) -> Vec<Load> {
        in_flight.iter().map(|&in_flight| Load { in_flight, limit }).collect()
    }

    /// Sends `requests` that never end and tells where each went.
    fn send(balancer: &mut Balancer, loads: &mut [Load], requests: usize) -> Vec<usize> {
        let mut chosen = Vec::new();
        for _ in 0..requests {
            let Some(pod) = balancer.pick(loads) else { break };
            loads[pod].in_flight += 1;
            chosen.push(pod);
        }
        chosen
    }

    #[test]
    fn first_available_packs_the_lowest_address() {
        let mut pods = loads(Some(3), &[0; 5]);
        let mut balancer = Balancer::new(Policy::knative(3.into()), 0);
        assert_eq!(send(&mut balancer, &mut pods, 3), [0, 0, 0]);
        assert_eq!(send(&mut balancer, &mut pods, 1), [1]);
    }

    #[test]
    fn round_robin_spreads_and_starts_over_when_pods_left() {
        let mut pods = loads(Some(5), &[0; 3]);
        let mut balancer = Balancer::new(Policy::knative(5.into()), 0);
        assert_eq!(send(&mut balancer, &mut pods, 3), [0, 1, 2]);
        assert_eq!(balancer.pick(&pods[..2]), Some(0));
    }

    #[test]
    fn round_robin_skips_full_pods() {
        let mut balancer = Balancer::new(Policy::RoundRobin, 0);
        assert_eq!(balancer.pick(&loads(Some(1), &[1, 1, 0])), Some(2));
        assert_eq!(balancer.pick(&loads(Some(1), &[1, 1, 1])), None);
    }

    #[test]
    fn least_loaded_is_exact_and_equals_take_turns() {
        let mut balancer = Balancer::new(Policy::LeastLoaded, 0);
        assert_eq!(balancer.pick(&loads(None, &[3, 1, 2])), Some(1));
        let mut pods = loads(None, &[0; 3]);
        let mut balancer = Balancer::new(Policy::LeastLoaded, 0);
        assert_eq!(send(&mut balancer, &mut pods, 6), [0, 1, 2, 0, 1, 2]);
        // Short requests that never overlap take turns as well.
        let idle = loads(None, &[0; 3]);
        let turns: Vec<_> = (0..4).filter_map(|_| balancer.pick(&idle)).collect();
        assert_eq!(turns, [0, 1, 2, 0]);
    }

    #[test]
    fn power_of_two_takes_the_lighter_and_tosses_a_coin_between_equals() {
        let mut balancer = Balancer::new(Policy::PowerOfTwo, 7);
        for _ in 0..20 {
            assert_eq!(balancer.pick(&loads(None, &[5, 4])), Some(1));
        }
        let equal = loads(None, &[2, 2]);
        let firsts = (0..1000).filter(|_| balancer.pick(&equal) == Some(0)).count();
        assert!((400..600).contains(&firsts), "{firsts} of 1000");
    }

    #[test]
    fn nobody_is_chosen_where_nobody_has_room() {
        for policy in [Policy::FirstAvailable, Policy::RoundRobin, Policy::PowerOfTwo, Policy::LeastLoaded] {
            assert_eq!(Balancer::new(policy, 1).pick(&[]), None, "{policy:?}");
            assert_eq!(Balancer::new(policy, 1).pick(&loads(Some(1), &[1, 1, 1, 1])), None, "{policy:?}");
        }
    }

    #[test]
    fn policies_by_container_concurrency() {
        use Policy::*;
        assert_eq!(
            [0, 1, 3, 4].map(|limit| Policy::knative(limit.into())),
            [PowerOfTwo, FirstAvailable, FirstAvailable, RoundRobin]
        );
        assert_eq!(
            [0, 1, 3, 4].map(|limit| Policy::pilotlight(limit.into())),
            [LeastLoaded, FirstAvailable, FirstAvailable, LeastLoaded]
        );
    }

    #[test]
    fn pods_are_shared_as_knative_shares_them() {
        assert_eq!(assign_pods(1, Some(0), 2), [0]);
        assert_eq!(assign_pods(1, Some(1), 2), [0]);
        assert_eq!(assign_pods(2, Some(2), 3), [0]);
        assert_eq!(assign_pods(10, Some(1), 3), [3, 4, 5]);
        assert_eq!(assign_pods(150, Some(4), 5), (120..150).collect::<Vec<_>>());
        assert_eq!(assign_pods(6, Some(0), 4), [0, 4]);
        assert_eq!(assign_pods(5, Some(0), 2).len(), 3);
        assert_eq!(assign_pods(5, Some(1), 2).len(), 2);
        assert_eq!(assign_pods(3, None, 2), [0, 1, 2]);
        assert_eq!(assign_pods(0, Some(0), 2), [0usize; 0]);
    }

    #[test]
    fn capacity_follows_knatives_cases() {
        use Capacity::*;
        assert_eq!(revision_capacity(10.into(), 0, 10, 5), Limited(20));
        assert_eq!(revision_capacity(10.into(), 0, 10, 200), Limited(1));
        assert_eq!(revision_capacity(10.into(), 0, 0, 5), Limited(0));
        assert_eq!(revision_capacity(0.into(), 0, 1, 1), Unlimited);
        assert_eq!(revision_capacity(0.into(), 10, 10, 1), Unlimited);
        assert_eq!(revision_capacity(10.into(), assign_pods(3, Some(0), 2).len(), 3, 2), Limited(20));
        assert_eq!(revision_capacity(10.into(), assign_pods(3, Some(1), 2).len(), 3, 2), Limited(10));
        assert_eq!(revision_capacity(42.into(), assign_pods(6, Some(0), 4).len(), 6, 4), Limited(84));
        assert_eq!(revision_capacity(u32::MAX.into(), 3, 3, 1), Limited(i32::MAX as u32));
    }

    proptest! {
        #[test]
        fn every_pod_has_an_activator_and_no_two_unless_pods_are_scarce(pods in 0usize..200, activators in 1usize..40) {
            let mut seen = vec![0u32; pods];
            let mut shares = Vec::new();
            for index in 0..activators {
                let share = assign_pods(pods, Some(index), activators);
                shares.push(share.len());
                for pod in share {
                    seen[pod] += 1;
                }
            }
            prop_assert!(seen.iter().all(|&n| n >= 1));
            if pods > 1 && activators <= pods {
                prop_assert!(seen.iter().all(|&n| n == 1));
                prop_assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
            } else if pods > 1 {
                prop_assert!(shares.iter().all(|&n| n == 1));
            }
        }

        #[test]
        fn a_pick_has_room_and_is_found_whenever_there_is_one(
            in_flight in prop::collection::vec(0u32..4, 0..12),
            limit in prop::option::of(0u32..5),
            policy in prop::sample::select(vec![
                Policy::FirstAvailable, Policy::RoundRobin, Policy::PowerOfTwo, Policy::LeastLoaded,
            ]),
            seed: u64,
        ) {
            let pods = loads(limit, &in_flight);
            let mut balancer = Balancer::new(policy, seed);
            for _ in 0..3 {
                match balancer.pick(&pods) {
                    Some(pod) => {
                        prop_assert!(pods[pod].has_room());
                        if policy == Policy::LeastLoaded {
                            prop_assert_eq!(Some(&in_flight[pod]), in_flight.iter().min());
                        }
                    }
                    None => prop_assert!(!pods.iter().any(|load| load.has_room())),
                }
            }
        }
    }
}
