//! Objects of one kind, listed and watched, as a feed of what is needed of each.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;

use futures_util::StreamExt;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Resource, ResourceExt};
use pilotlight_feed::Feed;
use serde::de::DeserializeOwned;
use tracing::{debug, info, warn};

use crate::metrics::watch_errors;

/// The selection of objects to watch.
#[derive(Clone, Debug, Default)]
pub struct WatchParams {
    /// A label selector; empty: all.
    pub labels: String,
    /// A field selector; empty: all.
    pub fields: String,
}

/// Publishes the objects of `api` that `params` select, until nobody follows `feed` or the task is aborted. `read` turns
/// an object into the key and the value that are published; `None`: it is of no interest, or not any more.
///
/// Nothing is lost for good: a connection that breaks is watched anew from the last version seen, a version that has
/// expired is followed by a new list, of which the feed tells only what differs, and the feed is complete once the first
/// list is there. While the API server is away the feed keeps what it has.
pub async fn watch<O, K, V>(
    api: Api<O>,
    params: WatchParams,
    feed: Feed<K, V>,
    read: impl Fn(&O) -> Option<(K, V)> + Send,
) where
    O: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    K: Hash + Ord + Clone + Send + Sync,
    V: PartialEq + Send + Sync,
{
    let kind = O::kind(&()).into_owned();
    let errors = watch_errors(&kind);
    let config = watcher::Config {
        label_selector: Some(params.labels).filter(|labels| !labels.is_empty()),
        field_selector: Some(params.fields).filter(|fields| !fields.is_empty()),
        ..watcher::Config::default()
    };
    let mut events = watcher(api, config).default_backoff().boxed();
    // The list that is being read. Objects of no interest are left out, so a list ends what they were before.
    let mut listed = BTreeMap::new();
    // The key under which each object was published: its name alone does not say, once `read` is not interested any more.
    let mut keys = BTreeMap::new();
    let mut is_away = false;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = feed.closed() => return,
        };
        let Some(event) = event else { return };
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                errors.increment(1);
                if !std::mem::replace(&mut is_away, true) {
                    warn!(kind, %error, "Watch is broken, and tried again until it works");
                }
                continue;
            }
        };
        if std::mem::replace(&mut is_away, false) {
            info!(kind, "Watch works again");
        }
        match event {
            Event::Init => {
                listed.clear();
                keys.clear();
            }
            Event::InitApply(object) => {
                if let Some((key, value)) = read(&object) {
                    keys.insert(name(&object), key.clone());
                    listed.insert(key, value);
                }
            }
            Event::InitDone => {
                debug!(kind, objects = listed.len(), "Listed");
                feed.replace(std::mem::take(&mut listed));
            }
            Event::Apply(object) => {
                let read = read(&object);
                let before = match &read {
                    Some((key, _)) => keys.insert(name(&object), key.clone()),
                    None => keys.remove(&name(&object)),
                };
                if let Some(before) = before
                    && read.as_ref().is_none_or(|(key, _)| *key != before)
                {
                    feed.remove(&before);
                }
                if let Some((key, value)) = read {
                    feed.set(key, value);
                }
            }
            Event::Delete(object) => {
                if let Some(key) = keys.remove(&name(&object)) {
                    feed.remove(&key);
                }
            }
        }
    }
}

fn name<O: Resource>(object: &O) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}
