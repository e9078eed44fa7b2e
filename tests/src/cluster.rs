//! A small Kubernetes cluster around an API server, in process and over real sockets: controllers of Deployments and of
//! endpoints, a node whose pods are local processes, and a proxy of Services.
//!
//! All parts use nothing but a [`kube::Client`].

mod addresses;
pub mod api;
mod deployments;
mod endpoints;
mod ingress;
mod knative;
mod kubelet;
mod log;
mod names;
mod objects;
pub mod plain;
mod proxy;
mod queue;
mod server;
mod store;
mod whole;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::Api;
use tokio::task::JoinSet;

pub use self::addresses::AddressRange;
pub use self::ingress::{Ingress, IngressLoad, Outcomes};
pub use self::knative::{ACTIVATOR_SERVICE, Revision, RevisionSpec, RevisionStatus, SYSTEM_NAMESPACE};
pub use self::kubelet::{Image, Kubelet, Pace};
pub use self::log::Log;
pub use self::names::{Names, local_port};
pub use self::proxy::ServiceProxy;
pub use self::server::Server;
pub use self::whole::{Cluster, ClusterParams};

use self::deployments::Deployments;
use self::endpoints::EndpointControllers;
use self::knative::{KnativeController, Shared};
use self::store::Store;

/// What every Kubernetes has beside its API server, on one node. Dropping it ends all pods.
pub struct SmallCluster {
    /// The node.
    pub kubelet: Kubelet,
    /// The proxy of Services.
    pub proxy: ServiceProxy,
    /// Names of Services.
    pub names: Names,
    /// Sayings of all parts and pods. They are printed if a test fails.
    pub log: Log,
    client: Client,
    addresses: AddressRange,
    stores: Stores,
    tasks: JoinSet<()>,
}

/// The objects that several parts follow.
struct Stores {
    pods: Arc<Store<Pod>>,
    deployments: Arc<Store<Deployment>>,
    services: Arc<Store<Service>>,
    endpoints: Arc<Store<Endpoints>>,
    slices: Arc<Store<EndpointSlice>>,
}

impl SmallCluster {
    /// Starts it around this API server. Its node knows the [images of this project](images).
    pub fn start(client: &Client) -> anyhow::Result<SmallCluster> {
        let (log, mut tasks) = (Log::default(), JoinSet::new());
        let addresses = AddressRange::from_env()?;
        let stores = Stores {
            pods: Store::watch(Api::all(client.clone()), &mut tasks, log.clone()),
            deployments: Store::watch(Api::all(client.clone()), &mut tasks, log.clone()),
            services: Store::watch(Api::all(client.clone()), &mut tasks, log.clone()),
            endpoints: Store::watch(Api::all(client.clone()), &mut tasks, log.clone()),
            slices: Store::watch(Api::all(client.clone()), &mut tasks, log.clone()),
        };
        let Stores { pods, deployments, services, endpoints, slices } = &stores;
        Deployments::start(client.clone(), NODE, deployments, pods, &mut tasks, &log);
        EndpointControllers::start(client.clone(), services, pods, endpoints, slices, &mut tasks, &log);
        let kubelet = Kubelet::start(NODE, client.clone(), addresses.clone(), images(), pods, &log)?;
        let proxy = ServiceProxy::start(services, slices, &mut tasks, &log);
        let names = Names::new(services);
        Ok(SmallCluster { kubelet, proxy, names, log, client: client.clone(), addresses, stores, tasks })
    }

    /// Starts what Knative's controller does for scaling. Its queue-proxies get these variables besides Knative's own.
    pub fn start_knative(&mut self, queue_proxy_env: BTreeMap<String, String>) {
        let Stores { pods, deployments, services, endpoints, .. } = &self.stores;
        let shared = Shared { pods, deployments, services, endpoints };
        KnativeController::start(&self.client, &shared, queue_proxy_env, &mut self.tasks, &self.log);
    }

    /// An address that nothing else of the cluster has.
    pub fn take_address(&self) -> anyhow::Result<IpAddr> {
        self.addresses.take()
    }
}

impl Drop for SmallCluster {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- what the cluster said\n{}---", self.log);
        }
    }
}

/// The images of every node: `sample`, the sample application, and `queue-proxy`.
pub fn images() -> BTreeMap<String, Image> {
    let binary = crate::binary();
    let sample = Image {
        program: binary.to_owned(),
        args: ["sample", "--host", "{ip}"].map(str::to_owned).to_vec(),
        env: BTreeMap::new(),
    };
    let queue_proxy = Image {
        program: binary.with_file_name("pilotlight-queue-proxy"),
        args: Vec::new(),
        env: BTreeMap::new(),
    };
    BTreeMap::from([("sample".to_owned(), sample), ("queue-proxy".to_owned(), queue_proxy)])
}

/// The app of pods without a queue-proxy: the program `plain_app`.
pub fn plain_image(program: impl Into<PathBuf>) -> Image {
    let env = BTreeMap::from([("BIND".to_owned(), "{ip}".to_owned())]);
    Image { program: program.into(), args: Vec::new(), env }
}

/// The name of the only node.
pub const NODE: &str = "n1";
