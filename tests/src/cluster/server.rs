//! The API server of a test: ours in this process, or a real one.

use std::env;
use std::sync::atomic::{AtomicU32, Ordering};

use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::json;

use super::addresses::AddressRange;
use super::api::ApiServer;

/// An API server.
pub enum Server {
    /// Ours.
    InProcess(ApiServer),
    /// The one that `KUBECONFIG` names.
    Real(Client),
}

impl Server {
    /// Ours, unless `KUBECONFIG` names one **and** [`AddressRange::VARIABLE`] says which addresses of this machine pods are
    /// to have: nobody's cluster is to be met with by chance. A real one has to run without the controllers that
    /// [`SmallCluster`](super::SmallCluster) stands for, without the admission of ServiceAccounts, and with addresses of
    /// Services that this machine has.
    ///
    /// # Panics
    ///
    /// If the kubeconfig cannot be used.
    pub async fn start() -> Server {
        if env::var_os("KUBECONFIG").is_some() && env::var_os(AddressRange::VARIABLE).is_some() {
            return Server::Real(Client::try_default().await.expect("a kubeconfig that can be used"));
        }
        Server::InProcess(ApiServer::start().await)
    }

    /// A client.
    pub fn client(&self) -> Client {
        match self {
            Server::InProcess(server) => server.client(),
            Server::Real(client) => client.clone(),
        }
    }

    /// Ours, with its faults and its log. A real one has none: then the test is left out, and says so.
    pub fn in_process(&self, test: &str) -> Option<&ApiServer> {
        match self {
            Server::InProcess(server) => Some(server),
            Server::Real(_) => {
                println!("left out, a real API server has no faults on demand: {test}");
                None
            }
        }
    }

    /// Makes a namespace that no other test has.
    ///
    /// # Panics
    ///
    /// If the server refuses it.
    pub async fn namespace(&self) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let namespace: Namespace =
            serde_json::from_value(json!({ "metadata": { "name": name } })).expect("a namespace");
        let api: Api<Namespace> = Api::all(self.client());
        api.create(&PostParams::default(), &namespace).await.expect("a namespace");
        name
    }
}
