//! Watches of several kinds and namespaces, as one stream of facts.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, SelectAll, unfold};
use kube::api::Api;
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource};
use pilotlight_feed::{Change, Feed};
use pilotlight_kubernetes::{WatchParams, watch};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

/// Watches that are under way. They end with this.
pub(crate) struct Sources<F> {
    client: Client,
    /// The namespaces that are watched; empty: all.
    namespaces: Vec<String>,
    facts: SelectAll<BoxStream<'static, Option<F>>>,
    /// Watches that have not told yet what there is.
    incomplete: usize,
    tasks: JoinSet<()>,
}

/// The next thing that a watch tells.
#[derive(Debug)]
pub(crate) enum Told<F> {
    /// A fact.
    Fact(F),
    /// Every watch has told what there is.
    Complete,
}

impl<F: Send + 'static> Sources<F> {
    pub(crate) fn new(client: Client, namespaces: Vec<String>) -> Self {
        Sources { client, namespaces, facts: SelectAll::new(), incomplete: 0, tasks: JoinSet::new() }
    }

    /// Watches objects of one kind in every namespace that is watched.
    pub(crate) fn watch<O, K, V>(
        &mut self,
        read: fn(&O) -> Option<(K, V)>,
        fact: impl Fn(Arc<K>, Option<Arc<V>>) -> F + Copy + Send + 'static,
    ) where
        O: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + 'static,
        K: Hash + Ord + Clone + Send + Sync + 'static,
        V: PartialEq + Send + Sync + 'static,
    {
        if self.namespaces.is_empty() {
            return self.watch_in(Api::all(self.client.clone()), "", read, fact);
        }
        for namespace in self.namespaces.clone() {
            let api = Api::namespaced(self.client.clone(), &namespace);
            self.watch_in(api, "", read, fact);
        }
    }

    /// Watches the objects of `api` that a label selector selects.
    pub(crate) fn watch_in<O, K, V>(
        &mut self,
        api: Api<O>,
        labels: &str,
        read: fn(&O) -> Option<(K, V)>,
        fact: impl Fn(Arc<K>, Option<Arc<V>>) -> F + Copy + Send + 'static,
    ) where
        O: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
        K: Hash + Ord + Clone + Send + Sync + 'static,
        V: PartialEq + Send + Sync + 'static,
    {
        let feed = Feed::default();
        let told = unfold(feed.follow(), move |mut follower| async move {
            let told = match follower.next().await? {
                Change::Set(key, value) => Some(fact(key, Some(value))),
                Change::Gone(key) => Some(fact(key, None)),
                Change::Complete => None,
            };
            Some((told, follower))
        });
        self.facts.push(told.boxed());
        self.incomplete += 1;
        let params = WatchParams { labels: labels.to_owned(), ..WatchParams::default() };
        self.tasks.spawn(watch(api, params, feed, read));
    }

    /// The next fact.
    pub(crate) async fn next(&mut self) -> Told<F> {
        loop {
            match self.facts.next().await {
                Some(Some(fact)) => return Told::Fact(fact),
                Some(None) => {
                    self.incomplete -= 1;
                    if self.incomplete == 0 {
                        return Told::Complete;
                    }
                }
                // The watches never end before their followers.
                None => std::future::pending().await,
            }
        }
    }
}
