//! Choosing the same few out of many everywhere, by hashing names onto a ring.
//!
//! Knative's `hash.ChooseSubset`, slot for slot, because its controllers and ours may look at the same objects.

use std::collections::{BTreeMap, BTreeSet};

/// Chooses `n` of `names` for `target`, in the order in which they are chosen.
///
/// Different targets get different subsets, so load spreads; adding or removing a name moves few targets.
/// `n` of 0, or as many as there are distinct names, chooses all of them, sorted.
pub fn choose_subset<'a>(names: &[&'a str], n: usize, target: &str) -> Vec<&'a str> {
    let names: BTreeSet<&str> = names.iter().copied().collect();
    if n == 0 || n >= names.len() {
        return names.into_iter().collect();
    }
    let universe = universe(names.len());
    let hash = |salt: &str| fnv1a_64([target.as_bytes(), salt.as_bytes()].concat().as_slice()) % universe;
    let step = hash("step-angle-salt");
    let mut angle = hash("start-angle-salt");

    let mut ring = slots(&names, target, universe);
    let mut chosen = Vec::with_capacity(n);
    for _ in 0..n {
        let next = ring.range(angle..).next().or_else(|| ring.first_key_value());
        let Some((&slot, _)) = next else { break };
        chosen.extend(ring.remove(&slot));
        angle = (angle + step) % universe;
    }
    chosen
}

/// Which of `buckets` owns `key` (`namespace/name`); `None` if there are no buckets.
///
/// ```
/// use pilotlight_core::balance::owner;
/// let buckets = ["as-bucket-00-of-02", "as-bucket-01-of-02"];
/// assert_eq!(owner(&buckets, "knative-testing/succulent"), Some("as-bucket-00-of-02"));
/// ```
pub fn owner<'a>(buckets: &[&'a str], key: &str) -> Option<&'a str> {
    choose_subset(buckets, 1, key).first().copied()
}

/// Every name's place on the ring. A place already taken is left to whoever sorts first.
fn slots<'a>(names: &BTreeSet<&'a str>, target: &str, universe: u64) -> BTreeMap<u64, &'a str> {
    let mut ring = BTreeMap::new();
    for &name in names {
        let mut text = format!("{name}{target}");
        let mut hash = fnv1a_64(text.as_bytes());
        while ring.contains_key(&(hash % universe)) {
            text.push_str(&format!("{hash:x}"));
            hash = fnv1a_64(text.as_bytes());
        }
        ring.insert(hash % universe, name);
    }
    ring
}

/// The number of slots on the ring. Knative's is fixed and would search for ever with more names than slots.
fn universe(names: usize) -> u64 {
    const KNATIVE_SLOTS: usize = 2048;
    if names <= KNATIVE_SLOTS { KNATIVE_SLOTS as u64 } else { (2 * names).next_power_of_two() as u64 }
}

/// FNV-1a, 64 bit.
fn fnv1a_64(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TARGET: &str = "hello-00001";

    fn addresses() -> Vec<String> {
        (1..=8).map(|i| format!("10.0.0.{i}")).collect()
    }

    fn chosen(n: usize) -> Vec<String> {
        let all = addresses();
        let names: Vec<&str> = all.iter().map(String::as_str).collect();
        choose_subset(&names, n, TARGET).into_iter().map(|ip| ip.replace("10.0.0", "")).collect()
    }

    #[test]
    fn fnv_gives_the_published_values() {
        assert_eq!(fnv1a_64(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a_64(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a_64(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn names_land_on_knatives_slots() {
        let all = addresses();
        let ring = slots(&all.iter().map(String::as_str).collect(), TARGET, 2048);
        let expected = [
            (211, "10.0.0.3"),
            (321, "10.0.0.1"),
            (648, "10.0.0.4"),
            (1196, "10.0.0.8"),
            (1255, "10.0.0.7"),
            (1685, "10.0.0.5"),
            (1874, "10.0.0.6"),
            (2014, "10.0.0.2"),
        ];
        assert_eq!(ring.into_iter().collect::<Vec<_>>(), expected);
        assert_eq!(fnv1a_64(b"hello-00001start-angle-salt") % 2048, 1116);
        assert_eq!(fnv1a_64(b"hello-00001step-angle-salt") % 2048, 1380);
    }

    #[test]
    fn subsets_are_knatives_in_knatives_order() {
        assert_eq!(chosen(3), [".8", ".4", ".6"]);
        assert_eq!(chosen(5), [".8", ".4", ".6", ".7", ".5"]);
    }

    #[test]
    fn zero_or_enough_chooses_all() {
        assert_eq!(chosen(0).len(), 8);
        assert_eq!(chosen(8).len(), 8);
        assert_eq!(chosen(99).len(), 8);
        assert_eq!(choose_subset(&["a", "a", "b"], 2, TARGET), ["a", "b"]);
    }

    #[test]
    fn owners_are_knatives() {
        let buckets = ["as-bucket-01-of-02", "as-bucket-00-of-02"];
        assert_eq!(owner(&buckets, "knative-testing/succulent"), Some("as-bucket-00-of-02"));
        assert_eq!(owner(&buckets, "knative-testing/plant"), Some("as-bucket-01-of-02"));
        assert_eq!(owner(&buckets[..1], "any/thing"), Some("as-bucket-01-of-02"));
        assert_eq!(owner(&[], "any/thing"), None);
    }

    #[test]
    fn more_names_than_knatives_slots_still_end() {
        let names: Vec<String> = (0..3000).map(|i| format!("name-{i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(choose_subset(&names, 10, TARGET).len(), 10);
    }

    proptest! {
        #[test]
        fn a_subset_has_the_size_asked_for_and_ignores_the_order_of_names(
            names in prop::collection::btree_set("[a-z]{1,6}", 1..40), n in 1usize..50, target in "[a-z]{0,8}",
        ) {
            let sorted: Vec<&str> = names.iter().map(String::as_str).collect();
            let reversed: Vec<&str> = sorted.iter().rev().copied().collect();
            let chosen = choose_subset(&sorted, n, &target);
            prop_assert_eq!(chosen.len(), n.min(names.len()));
            prop_assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), chosen.len());
            prop_assert_eq!(choose_subset(&reversed, n, &target), chosen);
        }
    }
}
