//! Objects of one kind as last seen: a watch keeps them current, and tells who wants to know of each change.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Resource, ResourceExt};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::log::Log;

/// Namespace and name.
pub(crate) type Key = (String, String);

/// The key of an object.
pub(crate) fn key_of(object: &impl ResourceExt) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// Objects of one kind, by key.
pub(crate) struct Store<K> {
    objects: Mutex<BTreeMap<Key, Arc<K>>>,
    listeners: Mutex<Vec<Arc<Listener<K>>>>,
    is_listed: watch::Sender<bool>,
}

type Listener<K> = dyn Fn(&K, Presence) + Send + Sync;

/// Whether an object is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    There,
    /// Not any more: the object is as it was at last.
    Gone,
}

impl<K> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// Watches all objects that `api` reaches, until `tasks` are aborted.
    pub(crate) fn watch(api: Api<K>, tasks: &mut JoinSet<()>, log: Log) -> Arc<Store<K>> {
        let store = Arc::new(Store {
            objects: Mutex::default(),
            listeners: Mutex::default(),
            is_listed: watch::Sender::new(false),
        });
        let kept = Arc::clone(&store);
        tasks.spawn(async move { kept.keep(api, &log).await });
        store
    }

    /// Calls `listener` with each object that has changed, and with the last state of each that is gone. Objects that
    /// are there already count as changed.
    pub(crate) fn on_change(&self, listener: impl Fn(&K, Presence) + Send + Sync + 'static) {
        let listener: Arc<Listener<K>> = Arc::new(listener);
        self.listeners.lock().push(Arc::clone(&listener));
        self.all().iter().for_each(|object| listener(object, Presence::There));
    }

    /// The object with this key.
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.objects.lock().get(key).cloned()
    }

    /// All objects, in the order of their keys.
    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        self.objects.lock().values().cloned().collect()
    }

    /// The objects of one namespace, in the order of their names.
    pub(crate) fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let objects = self.objects.lock();
        let from = objects.range((namespace.to_owned(), String::new())..);
        from.take_while(|((each, _), _)| each == namespace).map(|(_, object)| Arc::clone(object)).collect()
    }

    /// Waits until the first list is there.
    pub(crate) async fn listed(&self) {
        // The sender is a field of this store.
        let _ = self.is_listed.subscribe().wait_for(|is_listed| *is_listed).await;
    }

    /// Takes the answer to a write of our own, before the watch tells of it.
    pub(crate) fn put(&self, object: K) {
        let object = Arc::new(object);
        if self.set(&object) {
            self.tell(&object, Presence::There);
        }
    }

    async fn keep(&self, api: Api<K>, log: &Log) {
        let mut events = watcher(api, watcher::Config::default()).backoff(Pauses(FIRST_PAUSE)).boxed();
        let mut listed = BTreeMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(object)) => {
                    listed.insert(key_of(&object), Arc::new(object));
                }
                Ok(Event::InitDone) => self.replace(std::mem::take(&mut listed)),
                Ok(Event::Apply(object)) => self.put(object),
                Ok(Event::Delete(object)) => self.remove(&object),
                Err(error) => log.say("watch", format!("{}: {error}", K::kind(&()))),
            }
        }
    }

    fn replace(&self, listed: BTreeMap<Key, Arc<K>>) {
        let gone: Vec<_> =
            self.all().into_iter().filter(|each| !listed.contains_key(&key_of(&**each))).collect();
        gone.iter().for_each(|object| self.remove(object));
        let changed: Vec<_> = listed.into_values().filter(|object| self.set(object)).collect();
        self.is_listed.send_replace(true);
        changed.iter().for_each(|object| self.tell(object, Presence::There));
    }

    /// Keeps the newer of what is there and this. False if nothing changes.
    fn set(&self, object: &Arc<K>) -> bool {
        let mut objects = self.objects.lock();
        let before = objects.get(&key_of(&**object));
        let is_newer = before.is_none_or(|before| match (version(&**before), version(&**object)) {
            (Some(before), Some(now)) => before < now,
            _ => before.resource_version() != object.resource_version(),
        });
        if is_newer {
            objects.insert(key_of(&**object), Arc::clone(object));
        }
        is_newer
    }

    fn remove(&self, object: &K) {
        let mut objects = self.objects.lock();
        let key = key_of(object);
        // Another object may have the name by now.
        if objects.get(&key).is_some_and(|each| each.uid() == object.uid()) {
            objects.remove(&key);
            drop(objects);
            self.tell(object, Presence::Gone);
        }
    }

    fn tell(&self, object: &K, presence: Presence) {
        let listeners = self.listeners.lock().clone();
        listeners.iter().for_each(|listener| listener(object, presence));
    }
}

/// The version as a number, which it is on every API server there is.
fn version(object: &impl ResourceExt) -> Option<u64> {
    object.resource_version()?.parse().ok()
}

/// Pauses between failures in a row, each twice the one before.
struct Pauses(Duration);

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST_PAUSE);
        Some(pause)
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.0 = FIRST_PAUSE;
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
