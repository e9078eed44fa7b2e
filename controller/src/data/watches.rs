//! The watches of an activator: what it has to know of the cluster, as one stream of news for each of its tasks.
//!
//! Only what is news is told, so an API server that comes back after an outage, and tells everything anew, changes nothing
//! that is still so. While it is away everything stays in force.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::DeserializeGuard;
use kube::{Api, Client, Resource, ResourceExt};
use pilotlight_config::AutoscalerConfig;
use pilotlight_core::RevisionId;
use pilotlight_feed::{Change, Feed, Follower};
use pilotlight_kubernetes::{WatchParams, watch};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch as state};
use tokio::task::{JoinSet, coop::consume_budget};
use tracing::{info, warn};

use super::leader::holder;
use super::named::NamedPorts;
use super::slim;
use super::view::View;
use crate::crd::RequestAutoscaler;
use crate::facts::{AutoscalerFact, Name, PodFact, PodPhase, ServiceFact};
use crate::index::Fact;
use crate::ports::{CONFIG_MAP, PortTable};
use crate::slices::{MANAGED_BY, OURS};

/// The namespaces whose workloads are looked after. The default: all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope(Option<Vec<String>>);

impl Scope {
    /// These namespaces alone; none: all.
    pub fn of(namespaces: impl IntoIterator<Item = String>) -> Scope {
        let namespaces: Vec<String> = namespaces.into_iter().filter(|name| !name.is_empty()).collect();
        Scope(Some(namespaces).filter(|namespaces| !namespaces.is_empty()))
    }

    /// The objects of a kind, by one watch or by one for each namespace.
    fn apis<K>(&self, client: &Client) -> Vec<Api<K>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        match &self.0 {
            None => vec![Api::all(client.clone())],
            Some(namespaces) => namespaces.iter().map(|name| Api::namespaced(client.clone(), name)).collect(),
        }
    }
}

/// What is watched, and for whom.
pub(super) struct WatchedCluster {
    pub(super) client: Client,
    pub(super) scope: Scope,
    pub(super) system_namespace: String,
    /// The address of this activator.
    pub(super) own: IpAddr,
    /// The leader's port for stats.
    pub(super) stats_port: u16,
}

/// Slices that lead to activators, as they are told; `None`: gone.
pub(super) type SliceNews = (Arc<Name>, Option<Arc<NamedPorts>>);

/// News about the cluster.
enum News {
    Fact(Fact),
    Table(Arc<PortTable>),
    Config(Arc<BTreeMap<String, String>>),
    Activator(Arc<Name>, Option<IpAddr>),
    /// One of the watches has told all that there was at its start.
    Listed,
}

impl WatchedCluster {
    /// Has a view follow the workloads, the table of ports and the activators, in tasks of `tasks`. `complete` is called
    /// once everything there was at the start is settled.
    pub(super) fn follow(
        &self,
        tasks: &mut JoinSet<()>,
        view: View,
        complete: impl FnOnce() + Send + 'static,
    ) {
        let (news, heard) = mpsc::channel(BUFFER);
        let mut starting = Starting { tasks, news, watches: 0 };
        for api in self.scope.apis::<DeserializeGuard<RequestAutoscaler>>(&self.client) {
            let feed = Feed::default();
            let before = feed.clone();
            let read = move |object: &DeserializeGuard<RequestAutoscaler>| read_autoscaler(object, &before);
            starting.watch(api, WatchParams::default(), feed, read, |id, fact| {
                Some(News::Fact(Fact::Autoscaler(id, fact)))
            });
        }
        for api in self.scope.apis::<Service>(&self.client) {
            let told = |name, fact| Some(News::Fact(Fact::Service(name, fact)));
            let read = |service: &Service| {
                let (name, fact) = ServiceFact::read(service)?;
                Some((name, slim::service(fact)))
            };
            starting.watch(api, WatchParams::default(), Feed::default(), read, told);
        }
        for api in self.scope.apis::<Pod>(&self.client) {
            let told = |name, fact| Some(News::Fact(Fact::Pod(name, fact)));
            let read = |pod: &Pod| {
                let (name, fact) = PodFact::read(pod)?;
                Some((name, slim::pod(fact)))
            };
            starting.watch(api, WatchParams::default(), Feed::default(), read, told);
        }
        let maps = || Api::<ConfigMap>::namespaced(self.client.clone(), &self.system_namespace);
        // A table or settings that somebody deletes stay in force.
        let told = |_: Arc<String>, table: Option<Arc<PortTable>>| table.map(News::Table);
        starting.watch(maps(), named(CONFIG_MAP), Feed::default(), read_table, told);
        let told = |_: Arc<String>, data: Option<Arc<BTreeMap<String, String>>>| data.map(News::Config);
        let read = |map: &ConfigMap| Some((map.name_any(), map.data.clone().unwrap_or_default()));
        starting.watch(maps(), named(AUTOSCALER_CONFIG), Feed::default(), read, told);
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.system_namespace);
        let own = self.own;
        let read = move |pod: &Pod| {
            let (name, fact) = PodFact::read(pod)?;
            let ip = fact.ips.iter().find(|ip| ip.is_ipv6() == own.is_ipv6());
            Some((name, ip.copied().filter(|_| fact.phase == PodPhase::Ready)?))
        };
        let activators = WatchParams { labels: ACTIVATORS.to_owned(), ..WatchParams::default() };
        starting.watch(pods, activators, Feed::default(), read, |name, ip| {
            Some(News::Activator(name, ip.map(|ip| *ip)))
        });
        let missing = starting.watches;
        tasks.spawn(settle(heard, view, missing, complete));
    }

    /// Slices that lead to activators.
    pub(super) fn slices(&self, tasks: &mut JoinSet<()>) -> mpsc::Receiver<SliceNews> {
        let (news, heard) = mpsc::channel(BUFFER);
        for api in self.scope.apis::<EndpointSlice>(&self.client) {
            let feed = Feed::default();
            let mut slices = feed.follow();
            let ours = WatchParams { labels: format!("{MANAGED_BY}={OURS}"), ..WatchParams::default() };
            let own = self.own;
            tasks.spawn(watch(api, ours, feed, move |slice: &EndpointSlice| NamedPorts::read(slice, own)));
            let news = news.clone();
            tasks.spawn(async move {
                while let Some(change) = slices.next().await {
                    let told = match change {
                        Change::Set(name, slice) => (name, Some(slice)),
                        Change::Gone(name) => (name, None),
                        Change::Complete => continue,
                    };
                    if news.send(told).await.is_err() {
                        return;
                    }
                }
            });
        }
        heard
    }

    /// The port for stats of whichever controller leads; `None`: nobody does.
    pub(super) fn leader(&self, tasks: &mut JoinSet<()>) -> state::Receiver<Option<SocketAddr>> {
        let (sender, leader) = state::channel(None);
        let leases = Api::<Lease>::namespaced(self.client.clone(), &self.system_namespace);
        let feed = Feed::default();
        let mut holders = feed.follow();
        let read = |lease: &Lease| Some((lease.name_any(), holder(lease)));
        tasks.spawn(watch(leases, named(LEASE), feed, read));
        let port = self.stats_port;
        tasks.spawn(async move {
            while let Some(change) = holders.next().await {
                let ip = match change {
                    Change::Set(_, ip) => *ip,
                    Change::Gone(_) => None,
                    Change::Complete => continue,
                };
                let leader = ip.map(|ip| SocketAddr::new(ip, port));
                let is_news = sender.send_if_modified(|now| std::mem::replace(now, leader) != leader);
                match leader {
                    Some(leader) if is_news => info!(%leader, "A controller leads"),
                    None if is_news => warn!("No controller leads; requests that need pods are held"),
                    _ => {}
                }
            }
        });
        leader
    }
}

/// Watches that tell their news to one task.
struct Starting<'a> {
    tasks: &'a mut JoinSet<()>,
    news: mpsc::Sender<News>,
    watches: usize,
}

impl Starting<'_> {
    fn watch<O, K, V>(
        &mut self,
        api: Api<O>,
        params: WatchParams,
        feed: Feed<K, V>,
        read: impl Fn(&O) -> Option<(K, V)> + Send + 'static,
        told: impl Fn(Arc<K>, Option<Arc<V>>) -> Option<News> + Send + 'static,
    ) where
        O: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
        K: std::hash::Hash + Ord + Clone + Send + Sync + 'static,
        V: PartialEq + Send + Sync + 'static,
    {
        self.watches += 1;
        self.tasks.spawn(tell(feed.follow(), self.news.clone(), told));
        self.tasks.spawn(watch(api, params, feed, read));
    }
}

/// Tells what a follower hears. The buffer is bounded: a reader that is slow hears of the last change of each object alone.
async fn tell<K: std::hash::Hash + Ord, V>(
    mut follower: Follower<K, V>,
    news: mpsc::Sender<News>,
    told: impl Fn(Arc<K>, Option<Arc<V>>) -> Option<News>,
) {
    while let Some(change) = follower.next().await {
        let told = match change {
            Change::Set(key, value) => told(key, Some(value)),
            Change::Gone(key) => told(key, None),
            Change::Complete => Some(News::Listed),
        };
        if let Some(told) = told
            && news.send(told).await.is_err()
        {
            return;
        }
    }
}

/// Has a view take in the news. News that are there at the same time are settled together: a first list of many pods of one
/// workload is one change.
async fn settle(
    mut heard: mpsc::Receiver<News>,
    mut view: View,
    mut missing: usize,
    complete: impl FnOnce() + Send,
) {
    let mut complete = Some(complete);
    let mut batch = Vec::with_capacity(BUFFER);
    while heard.recv_many(&mut batch, BUFFER).await > 0 {
        let mut changed = BTreeSet::new();
        for news in batch.drain(..) {
            match news {
                News::Fact(fact) => changed.extend(view.learn(fact)),
                News::Table(table) => view.table(table),
                News::Config(data) => changed.extend(take_config(&mut view, &data)),
                News::Activator(name, ip) => changed.extend(view.activator(&name, ip)),
                News::Listed => missing = missing.saturating_sub(1),
            }
            // Yields now and then: a first list of thousands of objects must not block the runtime's thread.
            consume_budget().await;
        }
        for id in changed {
            view.settle(&id);
            consume_budget().await;
        }
        if missing == 0
            && let Some(complete) = complete.take()
        {
            info!("All workloads are known");
            complete();
        }
    }
}

fn take_config(view: &mut View, data: &BTreeMap<String, String>) -> BTreeSet<RevisionId> {
    match AutoscalerConfig::from_map(data).value {
        Ok(config) => view.config(config),
        Err(faults) => {
            let faults = faults.to_string().replace('\n', "; ");
            warn!(config_map = AUTOSCALER_CONFIG, faults, "An illegal change of a ConfigMap is not followed");
            BTreeSet::new()
        }
    }
}

/// Reads a RequestAutoscaler. One that cannot be parsed any more stays as it was.
fn read_autoscaler(
    object: &DeserializeGuard<RequestAutoscaler>,
    before: &Feed<RevisionId, AutoscalerFact>,
) -> Option<(RevisionId, AutoscalerFact)> {
    match &object.0 {
        Ok(autoscaler) => {
            let (id, fact) = AutoscalerFact::read(autoscaler)?;
            Some((id, slim::autoscaler(fact)))
        }
        Err(invalid) => {
            let id = RevisionId::new(invalid.metadata.namespace.clone()?, invalid.metadata.name.clone()?);
            warn!(workload = %id, error = %invalid.error, "A RequestAutoscaler cannot be read; its last form stays in force");
            let last = AutoscalerFact::clone(&*before.get(&id)?);
            Some((id, last))
        }
    }
}

fn read_table(map: &ConfigMap) -> Option<(String, PortTable)> {
    let (table, faults) = PortTable::decode(map);
    for fault in faults {
        warn!(config_map = CONFIG_MAP, fault, "A line of the table of ports cannot be used");
    }
    Some((map.name_any(), table))
}

fn named(name: &str) -> WatchParams {
    WatchParams { fields: format!("metadata.name={name}"), ..WatchParams::default() }
}

/// The ConfigMap of the cluster's defaults, with Knative's keys.
const AUTOSCALER_CONFIG: &str = "config-autoscaler";
/// The Lease of the controller that leads.
const LEASE: &str = "pilotlight";
/// The label selector of the activators' pods.
const ACTIVATORS: &str = "app.kubernetes.io/name=pilotlight,app.kubernetes.io/component=activator";
/// The most news that wait to be taken in.
const BUFFER: usize = 256;
