//! Sets by key, of which none is ever empty.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

/// Adds a member.
pub(crate) fn insert<A: Clone + Eq + Hash, K: Ord>(sets: &mut HashMap<A, BTreeSet<K>>, at: &A, key: K) {
    match sets.get_mut(at) {
        Some(set) => set.insert(key),
        None => sets.entry(at.clone()).or_default().insert(key),
    };
}

/// Removes a member; no set stays empty.
pub(crate) fn remove<A: Eq + Hash, K: Ord + Borrow<Q>, Q: Ord + ?Sized>(
    sets: &mut HashMap<A, BTreeSet<K>>,
    at: &A,
    key: &Q,
) {
    let Some(set) = sets.get_mut(at) else { return };
    set.remove(key);
    if set.is_empty() {
        sets.remove(at);
    }
}
