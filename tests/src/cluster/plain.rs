//! A whole cluster without Knative: Pilotlight's controllers and activators as its pods, and plain Deployments and Services
//! that RequestAutoscalers scale.

mod leftovers;
mod load;
mod parts;
mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt};
use parking_lot::Mutex;
use pilotlight_controller::crd::RequestAutoscaler;
use rustix::process::Signal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;

pub use self::leftovers::Leftovers;
pub use self::load::{PlainLoad, Tally, Way};
pub use self::parts::{Part, SYSTEM_NAMESPACE};
pub use self::workload::{AppPort, WorkloadSpec};

use super::endpoints::{MANAGED_BY, SERVICE_NAME};
use super::objects::{is_ending, is_ready};
use super::server::Server;
use super::whole::create;
use super::{SmallCluster, plain_image};
use crate::eventually;

/// A cluster to start.
pub struct PlainParams {
    /// The program `clustered`, which is Pilotlight's parts.
    pub parts: PathBuf,
    /// The program `plain_app`, which workloads run.
    pub app: PathBuf,
    /// Pods of the controller.
    pub controllers: u32,
    /// Pods of the activator.
    pub activators: u32,
    /// The time between a change of slices and its effect on Services.
    pub lag: Duration,
    /// The defaults of all workloads, with Knative's keys.
    pub config: BTreeMap<String, String>,
}

impl PlainParams {
    /// One controller and one activator, a proxy that lags by 200 ms, and the shortest stable window that Knative allows.
    pub fn quick(parts: impl Into<PathBuf>, app: impl Into<PathBuf>) -> PlainParams {
        let config = [("stable-window", "6s"), ("scale-to-zero-grace-period", "1s")];
        PlainParams {
            parts: parts.into(),
            app: app.into(),
            controllers: 1,
            activators: 1,
            lag: Duration::from_millis(200),
            config: config.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        }
    }
}

/// A running cluster. Dropping it ends everything.
pub struct PlainCluster {
    /// The node and what is around it.
    pub small: SmallCluster,
    /// A client of the API server.
    pub client: Client,
    /// The namespace of the test's workloads.
    pub namespace: String,
    /// The API server. It goes last.
    pub server: Server,
    /// Replicas that each Deployment of the namespace was given, one after the other.
    replicas: Arc<Mutex<BTreeMap<String, Vec<i32>>>>,
}

impl PlainCluster {
    /// Starts it and waits until controllers and activators are ready.
    pub async fn start(params: PlainParams) -> anyhow::Result<PlainCluster> {
        let server = Server::start().await;
        let client = server.client();
        let namespace = server.namespace().await;
        let small = SmallCluster::start(&client)?;
        small.proxy.set_lag(params.lag);
        small.kubelet.add_image("plain", plain_image(&params.app));
        let replicas = Arc::<Mutex<BTreeMap<String, Vec<i32>>>>::default();
        let (noted, of) = (Arc::clone(&replicas), namespace.clone());
        small.stores.deployments.on_change(move |deployment, _| {
            if deployment.namespace().as_ref() == Some(&of) {
                let now = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
                let mut noted = noted.lock();
                let row = noted.entry(deployment.name_any()).or_default();
                if row.last() != Some(&now) {
                    row.push(now);
                }
            }
        });
        let cluster = PlainCluster { small, client, namespace, server, replicas };
        cluster.install(&params).await?;
        cluster.has_ready_parts(Part::Controller, params.controllers).await;
        cluster.has_ready_parts(Part::Activator, params.activators).await;
        Ok(cluster)
    }

    /// Waits until exactly so many pods of a part are there, all ready.
    pub async fn has_ready_parts(&self, part: Part, count: u32) {
        eventually(&format!("{count} ready pods of the {part:?}"), PARTS_START, async || {
            let pods = self.parts(part).await;
            (pods.len() == count as usize && pods.iter().all(is_ready)).then_some(())
        })
        .await;
    }

    /// The pods of a part, those that are ending among them; none while the API server is away.
    pub async fn parts(&self, part: Part) -> Vec<Pod> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        api.list(&ListParams::default().labels(&part.selector()))
            .await
            .map(|list| list.items)
            .unwrap_or_default()
    }

    /// Deletes a pod of a part, which ends politely and is replaced.
    pub async fn end_part(&self, pod: &str) -> anyhow::Result<()> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        api.delete(pod, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Sends a signal to the process of a part. False: it does not run.
    pub fn signal_part(&self, pod: &str, signal: Signal) -> bool {
        self.small.kubelet.signal(SYSTEM_NAMESPACE, pod, parts::CONTAINER, signal)
    }

    /// The pod of the controller that leads, as the Lease has it.
    pub async fn leader(&self) -> Option<String> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        let holder = api.get_opt(parts::LEASE).await.ok()??.spec?.holder_identity?;
        // The identity is NAME_ADDRESS.
        holder.rsplit_once('_').map(|(pod, _)| pod.to_owned())
    }

    /// Objects of the test's namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates a workload's Deployment, Service and RequestAutoscaler.
    pub async fn create(&self, spec: &WorkloadSpec) -> anyhow::Result<()> {
        create(&self.api::<Deployment>(), &serde_json::from_value(spec.deployment())?).await?;
        create(&self.api::<Service>(), &serde_json::from_value(spec.service())?).await?;
        self.create_autoscaler(spec).await
    }

    /// Creates a workload's RequestAutoscaler.
    pub async fn create_autoscaler(&self, spec: &WorkloadSpec) -> anyhow::Result<()> {
        create(&self.api::<RequestAutoscaler>(), &serde_json::from_value(spec.autoscaler())?).await
    }

    /// Changes an object by a merge patch, as a user.
    pub async fn patch<K>(&self, name: &str, patch: Value) -> anyhow::Result<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let by = PatchParams { field_manager: Some(USER.to_owned()), ..PatchParams::default() };
        Ok(self.api::<K>().patch(name, &by, &Patch::Merge(patch)).await?)
    }

    /// Applies an object, as a user whose tool is server-side apply.
    pub async fn apply<K>(&self, name: &str, object: Value) -> anyhow::Result<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Serialize,
    {
        Ok(self.api::<K>().patch(name, &PatchParams::apply(USER), &Patch::Apply(object)).await?)
    }

    /// Deletes an object.
    pub async fn delete<K>(&self, name: &str) -> anyhow::Result<()>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        self.api::<K>().delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Waits until an object of the test's namespace meets a condition.
    pub async fn until<K>(&self, what: &str, name: &str, within: Duration, meets: impl Fn(&K) -> bool) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let api = self.api::<K>();
        let met = async || api.get_opt(name).await.ok().flatten().filter(&meets);
        eventually(what, within, met).await
    }

    /// Waits until a condition of a RequestAutoscaler has this status and reason.
    pub async fn has_condition(
        &self,
        name: &str,
        type_: &str,
        (status, reason): (&str, &str),
        within: Duration,
    ) -> RequestAutoscaler {
        let what = format!("{type_} of {name} is {status}, {reason}");
        self.until(&what, name, within, |autoscaler: &RequestAutoscaler| {
            let conditions =
                autoscaler.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            conditions
                .iter()
                .any(|each| each.type_ == type_ && each.status == status && each.reason == reason)
        })
        .await
    }

    /// Waits until all requests to a workload's Service pass the activators, and every node has heard of it.
    pub async fn passes(&self, spec: &WorkloadSpec, within: Duration) {
        self.has_condition(&spec.name, "Intercepting", ("True", "Always"), within).await;
        eventually(&format!("the slices of {} have its ports", spec.name), within, async || {
            let labels = format!("{SERVICE_NAME}={},{MANAGED_BY}=pilotlight.dev", spec.name);
            let slices =
                self.api::<EndpointSlice>().list(&ListParams::default().labels(&labels)).await.ok()?.items;
            let names = |slice: &EndpointSlice| -> BTreeSet<String> {
                slice.ports.iter().flatten().filter_map(|port| port.name.clone()).collect()
            };
            let wanted: BTreeSet<String> = spec.ports.iter().map(|port| port.name.to_owned()).collect();
            (!slices.is_empty() && slices.iter().all(|slice| names(slice) == wanted)).then_some(())
        })
        .await;
        self.takes_connections(spec, within).await;
    }

    /// Waits until every port of a workload's Service takes connections. One without a byte wakes nobody.
    pub async fn takes_connections(&self, spec: &WorkloadSpec, within: Duration) {
        self.small.proxy.caught_up().await;
        for port in &spec.ports {
            eventually(&format!("{} takes connections at {}", spec.name, port.name), within, async || {
                TcpStream::connect(self.address(&spec.name, port)?).await.ok().map(drop)
            })
            .await;
        }
    }

    /// Waits until a Deployment is told to have so many pods and has them, all ready and none ending.
    pub async fn has_scale(&self, name: &str, pods: usize, within: Duration) {
        eventually(&format!("{name} has {pods} pods"), within, async || {
            let deployment = self.api::<Deployment>().get_opt(name).await.ok()??;
            let is_told = deployment.spec?.replicas == i32::try_from(pods).ok();
            let all = self.pods_of(name).await?;
            (is_told && all.len() == pods && all.iter().all(|pod| is_ready(pod) && !is_ending(pod)))
                .then_some(())
        })
        .await;
    }

    /// The pods of a Deployment, those that are ending among them; `None`: the API server is away.
    pub async fn pods_of(&self, name: &str) -> Option<Vec<Pod>> {
        let params = ListParams::default().labels(&format!("app={name}"));
        Some(self.api::<Pod>().list(&params).await.ok()?.items)
    }

    /// Replicas that a Deployment was given so far, one after the other.
    pub fn replicas_of(&self, name: &str) -> Vec<i32> {
        self.replicas.lock().get(name).cloned().unwrap_or_default()
    }
}

/// The field manager of a test's own changes.
pub const USER: &str = "kubectl-of-a-test";
/// Time for parts to start, on a machine that is busy with other tests.
const PARTS_START: Duration = Duration::from_secs(60);
