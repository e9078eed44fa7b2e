//! One value for each key, and followers that hear of each change: the seam between whoever knows where pods are and
//! whoever acts on it.
//!
//! A feed is level-triggered. A follower hears of every key that changed since it last looked, with the value the key
//! has *now*: what changed twice in between is told once, so a slow follower costs at most one entry a key. A follower
//! that comes later hears of everything there is first, in the order of the keys. The cost of a change does not depend on
//! how many keys there are.
//!
//! kube-rs has the same shape in `reflector::Store` and its subscribers; a watch of a cluster feeds this one.

use std::collections::hash_map::{self, HashMap};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

/// The publisher's end. Clones are the same feed.
///
/// ```
/// use pilotlight_feed::{Change, Feed};
/// let pods = Feed::default();
/// pods.set("hello", 1);
/// let mut follower = pods.follow();
/// pods.set("hello", 2);
/// pods.complete();
/// assert_eq!(follower.try_next(), Some(Change::Set("hello".into(), 2.into())));
/// assert_eq!(follower.try_next(), Some(Change::Complete));
/// assert_eq!(follower.try_next(), None);
/// ```
pub struct Feed<K, V> {
    shared: Arc<Shared<K, V>>,
    // Followers hold the receivers: the channel tells each side when the other has gone.
    publishers: watch::Sender<()>,
}

/// One step of a follower.
#[derive(Debug, PartialEq, Eq)]
pub enum Change<K, V> {
    /// The key has this value now.
    Set(Arc<K>, Arc<V>),
    /// The key is not there any more.
    Gone(Arc<K>),
    /// Everything there was has been told: a key that was not named does not exist. Told once.
    Complete,
}

/// A follower's end. Dropping it ends the following.
pub struct Follower<K, V> {
    shared: Arc<Shared<K, V>>,
    number: u64,
    arrived: Arc<Notify>,
    publishers: watch::Receiver<()>,
}

struct Shared<K, V> {
    state: Mutex<State<K, V>>,
}

struct State<K, V> {
    /// Hashed: a change finds its key without a walk. Whatever tells several keys puts them in order.
    values: HashMap<Arc<K>, Arc<V>>,
    is_complete: bool,
    followers: BTreeMap<u64, Pending<K>>,
    followers_so_far: u64,
}

/// What one follower has yet to hear, first changed first.
struct Pending<K> {
    queue: VecDeque<Entry<K>>,
    /// The keys in `queue`.
    keys: HashSet<Arc<K>>,
    arrived: Arc<Notify>,
}

enum Entry<K> {
    Key(Arc<K>),
    Complete,
}

impl<K: Hash + Ord, V: PartialEq> Feed<K, V> {
    /// Gives a key a value. False, and nobody hears of it, if that is the value it has.
    pub fn set(&self, key: K, value: V) -> bool {
        let mut state = self.shared.state.lock();
        let key = match state.values.entry(Arc::new(key)) {
            hash_map::Entry::Occupied(entry) if **entry.get() == value => return false,
            hash_map::Entry::Occupied(mut entry) => {
                entry.insert(Arc::new(value));
                Arc::clone(entry.key())
            }
            hash_map::Entry::Vacant(entry) => {
                let key = Arc::clone(entry.key());
                entry.insert(Arc::new(value));
                key
            }
        };
        state.tell(&key);
        true
    }

    /// Takes a key away. False if it is not there.
    pub fn remove(&self, key: &K) -> bool {
        let mut state = self.shared.state.lock();
        let Some((key, _)) = state.values.remove_entry(key) else { return false };
        state.tell(&key);
        true
    }

    /// Makes this the whole feed, as after a reconnect: what differs is told, what is not in it is gone, and the feed is
    /// complete.
    pub fn replace(&self, values: BTreeMap<K, V>) {
        let gone: Vec<Arc<K>> = {
            let state = self.shared.state.lock();
            state.sorted_keys().filter(|key| !values.contains_key(&**key)).collect()
        };
        for key in gone {
            self.remove(&key);
        }
        for (key, value) in values {
            self.set(key, value);
        }
        self.complete();
    }
}

impl<K: Hash + Ord, V> Feed<K, V> {
    /// Says that every key there is has been set: followers may take a key that is missing for one that does not exist.
    pub fn complete(&self) {
        let mut state = self.shared.state.lock();
        if !std::mem::replace(&mut state.is_complete, true) {
            for pending in state.followers.values_mut() {
                pending.push(Entry::Complete);
            }
        }
    }

    /// The value of a key now.
    pub fn get(&self, key: &K) -> Option<Arc<V>> {
        self.shared.state.lock().values.get(key).map(Arc::clone)
    }

    /// Everything there is now. For showing it: whoever acts on a feed follows it.
    pub fn snapshot(&self) -> BTreeMap<Arc<K>, Arc<V>> {
        let state = self.shared.state.lock();
        state.values.iter().map(|(key, value)| (Arc::clone(key), Arc::clone(value))).collect()
    }

    /// Follows from now on, beginning with everything there is.
    pub fn follow(&self) -> Follower<K, V> {
        let arrived = Arc::new(Notify::new());
        let mut state = self.shared.state.lock();
        let mut pending = Pending {
            queue: state.sorted_keys().map(Entry::Key).collect(),
            keys: state.values.keys().map(Arc::clone).collect(),
            arrived: Arc::clone(&arrived),
        };
        if state.is_complete {
            pending.queue.push_back(Entry::Complete);
        }
        let number = state.followers_so_far;
        state.followers_so_far += 1;
        state.followers.insert(number, pending);
        drop(state);
        let publishers = self.publishers.subscribe();
        Follower { shared: Arc::clone(&self.shared), number, arrived, publishers }
    }

    /// Returns when there is no follower.
    pub async fn closed(&self) {
        self.publishers.closed().await;
    }
}

impl<K: Hash + Ord, V> Follower<K, V> {
    /// The next change; waits for one. `None`: all publishers have gone, and everything has been told. May be dropped and
    /// called again.
    pub async fn next(&mut self) -> Option<Change<K, V>> {
        loop {
            if let Some(change) = self.try_next() {
                return Some(change);
            }
            tokio::select! {
                () = self.arrived.notified() => {}
                // The sender never sends: this is its end. What it said last may still be there.
                _ = self.publishers.changed() => return self.try_next(),
            }
        }
    }

    /// The next change, if there is one at this moment.
    pub fn try_next(&mut self) -> Option<Change<K, V>> {
        let mut state = self.shared.state.lock();
        let pending = state.followers.get_mut(&self.number)?;
        let key = match pending.queue.pop_front()? {
            Entry::Complete => return Some(Change::Complete),
            Entry::Key(key) => key,
        };
        pending.keys.remove(&key);
        Some(match state.values.get(&key) {
            Some(value) => Change::Set(key, Arc::clone(value)),
            None => Change::Gone(key),
        })
    }
}

impl<K: Hash + Ord, V> State<K, V> {
    fn sorted_keys(&self) -> impl Iterator<Item = Arc<K>> + use<K, V> {
        let mut keys: Vec<Arc<K>> = self.values.keys().map(Arc::clone).collect();
        keys.sort_unstable();
        keys.into_iter()
    }

    fn tell(&mut self, key: &Arc<K>) {
        for pending in self.followers.values_mut() {
            if pending.keys.insert(Arc::clone(key)) {
                pending.push(Entry::Key(Arc::clone(key)));
            }
        }
    }
}

impl<K> Pending<K> {
    fn push(&mut self, entry: Entry<K>) {
        self.queue.push_back(entry);
        self.arrived.notify_one();
    }
}

impl<K, V> Default for Feed<K, V> {
    /// Empty, and not complete: nobody knows yet what there is.
    fn default() -> Self {
        let state = State {
            values: HashMap::new(),
            is_complete: false,
            followers: BTreeMap::new(),
            followers_so_far: 0,
        };
        Feed { shared: Arc::new(Shared { state: Mutex::new(state) }), publishers: watch::Sender::new(()) }
    }
}

impl<K, V> Clone for Feed<K, V> {
    fn clone(&self) -> Self {
        Feed { shared: Arc::clone(&self.shared), publishers: self.publishers.clone() }
    }
}

impl<K, V> Drop for Follower<K, V> {
    fn drop(&mut self) {
        self.shared.state.lock().followers.remove(&self.number);
    }
}

impl<K, V> fmt::Debug for Feed<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("keys", &self.shared.state.lock().values.len()).finish()
    }
}

impl<K, V> fmt::Debug for Follower<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("number", &self.number).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::time::timeout;

    use super::*;

    fn told<V>(follower: &mut Follower<&'static str, V>) -> Vec<(&'static str, Option<Arc<V>>)> {
        std::iter::from_fn(|| follower.try_next())
            .filter_map(|change| match change {
                Change::Set(key, value) => Some((*key, Some(value))),
                Change::Gone(key) => Some((*key, None)),
                Change::Complete => None,
            })
            .collect()
    }

    #[test]
    fn what_changes_twice_is_told_once_with_the_value_it_has_now() {
        let feed = Feed::default();
        let mut follower = feed.follow();
        feed.set("a", 1);
        feed.set("b", 1);
        feed.set("a", 2);
        assert_eq!(told(&mut follower), [("a", Some(2.into())), ("b", Some(1.into()))]);
        assert!(!feed.set("a", 2), "the same value is no change");
        assert!(feed.remove(&"b") && !feed.remove(&"b"));
        assert_eq!(told(&mut follower), [("b", None)]);
    }

    #[test]
    fn a_key_that_changes_all_the_time_does_not_keep_others_back() {
        let feed = Feed::default();
        let mut follower = feed.follow();
        feed.set("a", 0);
        feed.set("b", 0);
        assert_eq!(follower.try_next(), Some(Change::Set("a".into(), 0.into())));
        feed.set("a", 1);
        assert_eq!(follower.try_next(), Some(Change::Set("b".into(), 0.into())));
    }

    #[test]
    fn a_snapshot_tells_only_what_differs() {
        let feed = Feed::default();
        feed.replace(BTreeMap::from([("a", 1), ("b", 1), ("c", 1)]));
        let mut follower = feed.follow();
        assert_eq!(told(&mut follower).len(), 3);
        feed.replace(BTreeMap::from([("a", 1), ("b", 2), ("d", 1)]));
        assert_eq!(told(&mut follower), [("c", None), ("b", Some(2.into())), ("d", Some(1.into()))]);
    }

    #[test]
    fn complete_comes_once_and_after_everything_there_was() {
        let feed = Feed::default();
        feed.set("a", 1);
        let mut early = feed.follow();
        assert!(matches!(early.try_next(), Some(Change::Set(..))));
        assert_eq!(early.try_next(), None, "nobody has said that this is all");
        feed.complete();
        feed.complete();
        assert_eq!([early.try_next(), early.try_next()], [Some(Change::Complete), None]);
        let mut late = feed.follow();
        assert!(matches!(late.try_next(), Some(Change::Set(..))));
        assert_eq!([late.try_next(), late.try_next()], [Some(Change::Complete), None]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_waits_for_a_change_and_for_the_publishers_end() {
        let feed = Feed::default();
        let mut follower = feed.follow();
        assert!(timeout(Duration::from_secs(1), follower.next()).await.is_err());
        let publisher = feed.clone();
        let publishing = tokio::spawn(async move {
            publisher.set("a", 1);
        });
        assert!(matches!(follower.next().await, Some(Change::Set(..))));
        publishing.await.unwrap();
        feed.set("b", 1);
        drop(feed);
        assert!(matches!(follower.next().await, Some(Change::Set(..))), "its last word counts");
        assert!(follower.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_publisher_hears_that_nobody_follows_any_more() {
        let feed = Feed::<&str, u8>::default();
        let [one, other] = [feed.follow(), feed.follow()];
        drop(one);
        assert!(timeout(Duration::from_secs(1), feed.closed()).await.is_err());
        drop(other);
        feed.closed().await;
    }

    proptest! {
        #[test]
        fn whoever_follows_ends_up_with_what_there_is(
            steps in prop::collection::vec((0u8..8, prop::option::of(0u8..4), 0usize..4), 0..200),
        ) {
            let feed = Feed::default();
            let mut follower = feed.follow();
            let (mut published, mut known) = (BTreeMap::new(), BTreeMap::new());
            let mut hear = |known: &mut BTreeMap<u8, u8>, changes: usize| {
                for _ in 0..changes {
                    match follower.try_next() {
                        Some(Change::Set(key, value)) => drop(known.insert(*key, *value)),
                        Some(Change::Gone(key)) => drop(known.remove(&*key)),
                        Some(Change::Complete) | None => {}
                    }
                }
            };
            for (key, value, heard) in steps {
                match value {
                    Some(value) => {
                        feed.set(key, value);
                        published.insert(key, value);
                    }
                    None => {
                        feed.remove(&key);
                        published.remove(&key);
                    }
                }
                hear(&mut known, heard);
            }
            hear(&mut known, 8);
            prop_assert_eq!(known, published);
        }
    }
}
