//! The watches of a cluster's revisions and of the objects that lead to their pods, as one feed of what the activator
//! needs of each revision.
//!
//! Watched are Revisions, private Services, and the Endpoints of private and public Services: by label, so that nothing
//! of other applications is listed or kept. EndpointSlices take the place of Endpoints where the process may read them;
//! Knative's role for the activator does not say so.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client};
use pilotlight_core::{RevisionEndpoints, RevisionId};
use pilotlight_feed::{Change, Feed, Follower};
use pilotlight_kubernetes::knative::Revision;
use pilotlight_kubernetes::{WatchParams, labels, may_watch, watch};
use tokio::task::JoinSet;
use tokio::task::coop::consume_budget;
use tracing::{debug, info};

use super::facts::{Address, ListKey, RevisionFacts, ServiceFacts, of_endpoints, of_slice};
use super::index::{EndpointIndex, IndexParams, Outcome};

/// The object that lists addresses of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressSource {
    /// Endpoints, which Knative's role for the activator allows.
    Endpoints,
    /// EndpointSlices.
    Slices,
}

impl AddressSource {
    /// EndpointSlices, if this process may list and watch them in every namespace. Endpoints if not, and if the API server
    /// does not say.
    pub async fn find(client: &Client) -> AddressSource {
        match may_watch::<EndpointSlice>(client).await {
            Ok(true) => AddressSource::Slices,
            Ok(false) => AddressSource::Endpoints,
            Err(error) => {
                debug!(%error, "Cannot find out whether EndpointSlices may be read");
                AddressSource::Endpoints
            }
        }
    }
}

/// Publishes every revision of the cluster to `feed`, until nobody follows it or the task is aborted. The feed is complete
/// once revisions, Services and addresses have been listed.
pub(crate) async fn publish(
    client: Client,
    source: AddressSource,
    params: IndexParams,
    feed: Feed<RevisionId, RevisionEndpoints>,
) {
    info!(?source, "Watching revisions");
    let mut watches = JoinSet::new();
    let (revisions, lists, services) = (Feed::default(), Feed::default(), Feed::default());
    let watched = Watched {
        revisions: revisions.follow(),
        lists: lists.follow(),
        services: services.follow(),
        missing: 3,
    };
    let all = WatchParams::default();
    watches.spawn(watch(Api::<Revision>::all(client.clone()), all, revisions, RevisionFacts::of));
    let private = labelled(&[labels::PRIVATE]);
    watches.spawn(watch(Api::<Service>::all(client.clone()), private, services, ServiceFacts::of));
    let both = labelled(&[labels::PRIVATE, labels::PUBLIC]);
    match source {
        AddressSource::Endpoints => {
            watches.spawn(watch(Api::<Endpoints>::all(client), both, lists, of_endpoints))
        }
        AddressSource::Slices => {
            watches.spawn(watch(Api::<EndpointSlice>::all(client), both, lists, of_slice))
        }
    };
    tokio::select! {
        () = watched.publish(EndpointIndex::new(params), &feed) => {}
        () = feed.closed() => {}
    }
}

fn labelled(sides: &[&str]) -> WatchParams {
    let labels = format!("{} in ({})", labels::SERVICE_TYPE, sides.join(","));
    WatchParams { labels, ..WatchParams::default() }
}

/// The watched objects, as they are told.
struct Watched {
    revisions: Follower<RevisionId, RevisionFacts>,
    lists: Follower<ListKey, Box<[Address]>>,
    services: Follower<RevisionId, ServiceFacts>,
    /// Kinds that have not been listed yet.
    missing: u32,
}

/// One step.
enum Told {
    Revision(Arc<RevisionId>, Option<Arc<RevisionFacts>>),
    List(Arc<ListKey>, Option<Arc<Box<[Address]>>>),
    Service(Arc<RevisionId>, Option<Arc<ServiceFacts>>),
    Listed,
}

impl Watched {
    async fn publish(mut self, mut index: EndpointIndex, feed: &Feed<RevisionId, RevisionEndpoints>) {
        while let Some(told) = self.next().await {
            let outcome = match told {
                Told::Revision(id, facts) => index.revision(&id, facts),
                Told::List(key, addresses) => index.list(&key, addresses),
                Told::Service(id, facts) => index.service(&id, facts),
                Told::Listed => {
                    self.missing -= 1;
                    if self.missing == 0 {
                        info!("All revisions are known");
                        feed.complete();
                    }
                    None
                }
            };
            match outcome {
                Some(Outcome::Set(id, endpoints)) => drop(feed.set(id, *endpoints)),
                Some(Outcome::Gone(id)) => drop(feed.remove(&id)),
                None => {}
            }
            // Yields now and then: a first list of thousands of objects must not block the runtime's thread.
            consume_budget().await;
        }
    }

    async fn next(&mut self) -> Option<Told> {
        tokio::select! {
            Some(change) = self.revisions.next() => Some(told(change, Told::Revision)),
            Some(change) = self.lists.next() => Some(told(change, Told::List)),
            Some(change) = self.services.next() => Some(told(change, Told::Service)),
            else => None,
        }
    }
}

fn told<K, V>(change: Change<K, V>, of: impl FnOnce(Arc<K>, Option<Arc<V>>) -> Told) -> Told {
    match change {
        Change::Set(key, value) => of(key, Some(value)),
        Change::Gone(key) => of(key, None),
        Change::Complete => Told::Listed,
    }
}
