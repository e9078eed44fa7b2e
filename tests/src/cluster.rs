//! A small Kubernetes cluster around an API server, in process and over real sockets: controllers of Deployments and of
//! endpoints, a node whose pods are local processes, and a proxy of Services.
//!
//! All parts use nothing but a [`kube::Client`].

mod addresses;
mod deployments;
mod endpoints;
mod kubelet;
mod log;
mod names;
mod objects;
mod proxy;
mod queue;
mod store;

use std::collections::BTreeMap;
use std::thread;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::Api;
use tokio::task::JoinSet;

pub use self::addresses::AddressRange;
pub use self::kubelet::{Image, Kubelet, Pace};
pub use self::log::Log;
pub use self::names::{Names, local_port};
pub use self::proxy::ServiceProxy;

use self::deployments::Deployments;
use self::endpoints::EndpointControllers;
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
    addresses: AddressRange,
    _tasks: JoinSet<()>,
}

impl SmallCluster {
    /// Starts it around this API server. Its node knows the [images of this project](images).
    pub fn start(client: &Client) -> anyhow::Result<SmallCluster> {
        let log = Log::default();
        let mut tasks = JoinSet::new();
        let addresses = AddressRange::from_env()?;
        let client = || client.clone();
        let pods: std::sync::Arc<Store<Pod>> = Store::watch(Api::all(client()), &mut tasks, log.clone());
        let deployments: std::sync::Arc<Store<Deployment>> =
            Store::watch(Api::all(client()), &mut tasks, log.clone());
        let services: std::sync::Arc<Store<Service>> =
            Store::watch(Api::all(client()), &mut tasks, log.clone());
        let endpoints: std::sync::Arc<Store<Endpoints>> =
            Store::watch(Api::all(client()), &mut tasks, log.clone());
        let slices: std::sync::Arc<Store<EndpointSlice>> =
            Store::watch(Api::all(client()), &mut tasks, log.clone());
        Deployments::start(client(), NODE, &deployments, &pods, &mut tasks, &log);
        EndpointControllers::start(client(), &services, &pods, &endpoints, &slices, &mut tasks, &log);
        let kubelet = Kubelet::start(NODE, client(), addresses.clone(), images(), &pods, &log)?;
        let proxy = ServiceProxy::start(client(), addresses.clone(), &services, &slices, &mut tasks, &log);
        let names = Names::new(&services);
        Ok(SmallCluster { kubelet, proxy, names, log, addresses, _tasks: tasks })
    }

    /// An address that nothing else of the cluster has.
    pub fn take_address(&self) -> anyhow::Result<std::net::IpAddr> {
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
    let sample =
        Image { program: binary.to_owned(), args: ["sample", "--host", "{ip}"].map(str::to_owned).to_vec() };
    let queue_proxy = Image { program: binary.with_file_name("pilotlight-queue-proxy"), args: Vec::new() };
    BTreeMap::from([("sample".to_owned(), sample), ("queue-proxy".to_owned(), queue_proxy)])
}

/// The name of the only node.
pub const NODE: &str = "n1";
