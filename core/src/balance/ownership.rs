//! Owners of pods: with a limit on each pod's concurrency, exactly one activator sends to it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// The activator that a pod belongs to; `None` if there are no activators.
///
/// All who know the same activators agree without talking (rendezvous hashing): an activator that joins takes pods from the
/// others and moves none between those, and one that leaves gives up its own only.
///
/// ```
/// use pilotlight_core::balance::pod_owner;
/// let activators = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse().unwrap()).into();
/// let owner = pod_owner("10.1.0.7:8080".parse().unwrap(), &activators);
/// assert!(owner.is_some_and(|owner| activators.contains(&owner)));
/// ```
pub fn pod_owner(pod: SocketAddr, activators: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    // Equal weights are next to impossible; the higher address would win, for all alike.
    activators.iter().copied().max_by_key(|activator| (weight(pod, *activator), *activator))
}

fn weight(pod: SocketAddr, activator: IpAddr) -> u64 {
    let words = [bits(activator), bits(pod.ip()), u128::from(pod.port())];
    let halves = words.into_iter().flat_map(|word| [word as u64, (word >> 64) as u64]);
    halves.fold(0, |hash, half| mix(hash ^ half))
}

fn bits(ip: IpAddr) -> u128 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// The step and the finalizer of SplitMix64: each bit of the input changes about half of the output's.
fn mix(input: u64) -> u64 {
    let input = input.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let input = (input ^ (input >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let input = (input ^ (input >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    input ^ (input >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn activators(numbers: impl IntoIterator<Item = u8>) -> BTreeSet<IpAddr> {
        numbers.into_iter().map(|number| IpAddr::from([10, 0, 0, number])).collect()
    }

    fn pod(number: u16) -> SocketAddr {
        let [high, low] = number.to_be_bytes();
        SocketAddr::from(([10, 1, high, low], 8080))
    }

    #[test]
    fn without_activators_nobody_owns_a_pod() {
        assert_eq!(pod_owner(pod(1), &BTreeSet::new()), None);
    }

    #[test]
    fn an_address_of_ipv4_is_the_same_in_an_ipv6_socket() {
        let mapped: BTreeSet<IpAddr> = activators(1..=5)
            .into_iter()
            .map(|ip| match ip {
                IpAddr::V4(ip) => IpAddr::from(ip.to_ipv6_mapped()),
                ip => ip,
            })
            .collect();
        for number in 0..100 {
            let owner = pod_owner(pod(number), &mapped).map(|ip| ip.to_canonical());
            assert_eq!(owner, pod_owner(pod(number), &activators(1..=5)));
        }
    }

    #[test]
    fn pods_are_shared_evenly() {
        let mut owned = BTreeMap::<_, u32>::new();
        for number in 0..3000 {
            *owned.entry(pod_owner(pod(number), &activators(1..=3))).or_default() += 1;
        }
        assert!(owned.len() == 3 && owned.values().all(|pods| (900..1100).contains(pods)), "{owned:?}");
    }

    proptest! {
        #[test]
        fn only_pods_of_an_activator_that_joins_or_leaves_move(
            numbers in prop::collection::btree_set(any::<u8>(), 1..8), other: u8, number: u16,
        ) {
            let without = activators(numbers.iter().copied().filter(|number| *number != other));
            let with = activators(numbers.into_iter().chain([other]));
            let other = IpAddr::from([10, 0, 0, other]);
            let (before, after) = (pod_owner(pod(number), &without), pod_owner(pod(number), &with));
            prop_assert!(after == before || after == Some(other));
        }
    }
}
