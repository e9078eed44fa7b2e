//! Scale targets: the objects with a `scale` subresource that revisions are scaled by. Deployments are watched, StatefulSets
//! and ReplicaSets where a PodAutoscaler names one and the API server allows it. What no watch shows is read: before it is
//! told another number, and every half minute.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client, Resource};
use pilotlight_core::RevisionId;
use pilotlight_feed::{Change, Feed, Follower};
use pilotlight_kubernetes::knative::TargetRef;
use pilotlight_kubernetes::known::Known;
use pilotlight_kubernetes::scale::ScaleFact;
use pilotlight_kubernetes::{WatchParams, may_watch, watch};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, info};

use super::facts::id_of;

/// A scale target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TargetId {
    pub(crate) kind: TargetKind,
    /// Its namespace and its own name.
    pub(crate) name: RevisionId,
}

/// The kind of a scale target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum TargetKind {
    Deployment,
    StatefulSet,
    ReplicaSet,
    /// One that is never watched: its API version and kind.
    Other(Arc<str>),
}

impl TargetId {
    /// The target that a PodAutoscaler of this namespace names; `None`: it names nothing.
    pub(crate) fn of(namespace: &str, target: &TargetRef) -> Option<Self> {
        if target.name.is_empty() {
            return None;
        }
        let kind = match (target.api_version.as_str(), target.kind.as_str()) {
            ("apps/v1", "Deployment") => TargetKind::Deployment,
            ("apps/v1", "StatefulSet") => TargetKind::StatefulSet,
            ("apps/v1", "ReplicaSet") => TargetKind::ReplicaSet,
            (version, kind) => TargetKind::Other(format!("{version} {kind}").into()),
        };
        Some(TargetId { kind, name: RevisionId::new(namespace, &target.name) })
    }
}

/// All scale targets that are known, and whose each is.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    known: BTreeMap<TargetId, Known<ScaleFact>>,
    revision_of: BTreeMap<TargetId, Arc<RevisionId>>,
}

impl Targets {
    /// Takes in what a watch shows; `None`: the target is gone. Returns the revision that it belongs to.
    pub(crate) fn watched(&mut self, id: &TargetId, fact: Option<Arc<ScaleFact>>) -> Option<Arc<RevisionId>> {
        if fact.is_none() {
            self.known.remove(id);
        } else if let Some(known) = self.known.get_mut(id) {
            known.watched(fact);
        } else {
            self.known.entry(id.clone()).or_default().watched(fact);
        }
        self.revision_of.get(id).map(Arc::clone)
    }

    /// Takes in what a read or a write returned.
    pub(crate) fn answered(&mut self, id: &TargetId, fact: ScaleFact) {
        self.known.entry(id.clone()).or_default().written(fact);
    }

    /// Forgets what reads and writes returned.
    pub(crate) fn forget(&mut self, id: &TargetId) {
        if let Some(known) = self.known.get_mut(id) {
            known.missing();
        }
    }

    /// The pods that a target asks for; `None`: not known.
    pub(crate) fn replicas(&self, id: Option<&TargetId>) -> Option<u32> {
        Some(self.known.get(id?)?.current()?.replicas)
    }

    /// Whether a watch shows the target.
    pub(crate) fn is_watched(&self, id: &TargetId) -> bool {
        self.known.get(id).is_some_and(Known::is_watched)
    }

    /// Notes that a revision scales `now`, and no longer `before`.
    pub(crate) fn belongs(
        &mut self,
        revision: &Arc<RevisionId>,
        before: Option<&TargetId>,
        now: Option<&TargetId>,
    ) {
        if let Some(before) = before {
            self.revision_of.remove(before);
            if !self.is_watched(before) {
                self.known.remove(before);
            }
        }
        if let Some(now) = now {
            self.revision_of.insert(now.clone(), Arc::clone(revision));
        }
    }

    /// Whether a revision scales something of this kind.
    pub(crate) fn names(&self, kind: &TargetKind) -> bool {
        let first = TargetId { kind: kind.clone(), name: RevisionId::new("", "") };
        let mut from = self.revision_of.range((Bound::Included(first), Bound::Unbounded));
        from.next().is_some_and(|(id, _)| id.kind == *kind)
    }
}

/// The watches of kinds that few clusters scale: each begins once a PodAutoscaler names one.
pub(crate) struct NamedWatches {
    stateful_sets: NamedWatch,
    replica_sets: NamedWatch,
    tasks: JoinSet<()>,
}

/// The watch of one kind.
struct NamedWatch {
    /// `None`: the watch has begun.
    feed: Option<Feed<TargetId, ScaleFact>>,
    follower: Follower<TargetId, ScaleFact>,
}

impl NamedWatches {
    pub(crate) fn new() -> Self {
        NamedWatches {
            stateful_sets: NamedWatch::new(),
            replica_sets: NamedWatch::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Begins the watches of those kinds that are named now and were not before.
    pub(crate) fn begin(&mut self, client: &Client, is_named: impl Fn(&TargetKind) -> bool) {
        if self.stateful_sets.feed.is_some()
            && is_named(&TargetKind::StatefulSet)
            && let Some(feed) = self.stateful_sets.feed.take()
        {
            self.tasks.spawn(watch_if_allowed::<StatefulSet>(client.clone(), feed, stateful_set));
        }
        if self.replica_sets.feed.is_some()
            && is_named(&TargetKind::ReplicaSet)
            && let Some(feed) = self.replica_sets.feed.take()
        {
            self.tasks.spawn(watch_if_allowed::<ReplicaSet>(client.clone(), feed, replica_set));
        }
    }

    /// The next change of a target; `None`: it is gone.
    pub(crate) async fn next(&mut self) -> (Arc<TargetId>, Option<Arc<ScaleFact>>) {
        loop {
            let change = tokio::select! {
                Some(change) = self.stateful_sets.follower.next() => change,
                Some(change) = self.replica_sets.follower.next() => change,
                // The watches never end before their followers.
                else => std::future::pending().await,
            };
            match change {
                Change::Set(id, fact) => return (id, Some(fact)),
                Change::Gone(id) => return (id, None),
                // No revision waits for these kinds.
                Change::Complete => {}
            }
        }
    }
}

impl NamedWatch {
    fn new() -> Self {
        let feed = Feed::default();
        NamedWatch { follower: feed.follow(), feed: Some(feed) }
    }
}

/// Watches objects once this process may. Knative's role for the autoscaler does not say so, and may be changed meanwhile.
async fn watch_if_allowed<O>(
    client: Client,
    feed: Feed<TargetId, ScaleFact>,
    read: fn(&O) -> Option<(TargetId, ScaleFact)>,
) where
    O: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + 'static,
{
    let kind = O::kind(&()).into_owned();
    let mut is_told = false;
    loop {
        match may_watch::<O>(&client).await {
            Ok(true) => {
                info!(kind, "Watching scale targets");
                return watch(Api::<O>::all(client), WatchParams::default(), feed, read).await;
            }
            Ok(false) if !std::mem::replace(&mut is_told, true) => {
                info!(kind, "Scale targets may not be watched, and are read every half minute");
            }
            Ok(false) => {}
            Err(error) => debug!(kind, %error, "Cannot find out whether scale targets may be watched"),
        }
        sleep(ASK_AGAIN).await;
    }
}

/// From one reading of what no watch shows to the next.
pub(crate) const READ_INTERVAL: Duration = Duration::from_secs(30);
/// From one question for rights to the next.
const ASK_AGAIN: Duration = Duration::from_secs(300);
/// Reads a Deployment.
pub(crate) fn deployment(object: &Deployment) -> Option<(TargetId, ScaleFact)> {
    let replicas = object.spec.as_ref().and_then(|spec| spec.replicas);
    target(TargetKind::Deployment, &object.metadata, replicas)
}

/// Reads a StatefulSet.
pub(crate) fn stateful_set(object: &StatefulSet) -> Option<(TargetId, ScaleFact)> {
    let replicas = object.spec.as_ref().and_then(|spec| spec.replicas);
    target(TargetKind::StatefulSet, &object.metadata, replicas)
}

/// Reads a ReplicaSet.
pub(crate) fn replica_set(object: &ReplicaSet) -> Option<(TargetId, ScaleFact)> {
    let replicas = object.spec.as_ref().and_then(|spec| spec.replicas);
    target(TargetKind::ReplicaSet, &object.metadata, replicas)
}

/// Replicas that are left out are one.
fn target(kind: TargetKind, meta: &ObjectMeta, replicas: Option<i32>) -> Option<(TargetId, ScaleFact)> {
    let fact = ScaleFact {
        resource_version: meta.resource_version.clone().unwrap_or_default(),
        replicas: u32::try_from(replicas.unwrap_or(1)).unwrap_or(0),
    };
    Some((TargetId { kind, name: id_of(meta)? }, fact))
}
