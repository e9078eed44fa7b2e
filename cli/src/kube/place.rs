//! The cluster and the namespace that a command is about.

use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use kube::Client;
use pilotlight_controller::manifest::SYSTEM_NAMESPACE;
use pilotlight_kubernetes::{ClientError, ClusterArgs};
use tokio::time::timeout;

/// Flags of the cluster and of Pilotlight's own namespace.
#[derive(Debug, Args)]
pub(super) struct SystemArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Namespace of Pilotlight's own parts
    #[arg(
        long,
        value_name = "NAMESPACE",
        env = "SYSTEM_NAMESPACE",
        hide_env_values = true,
        default_value = SYSTEM_NAMESPACE
    )]
    pub(super) system_namespace: String,
}

/// Flags of the cluster and of a workload's namespace.
#[derive(Debug, Args)]
pub(super) struct PlaceArgs {
    #[command(flatten)]
    pub(super) system: SystemArgs,
    /// Namespace of the workload [default: that of the context]
    #[arg(long, short, value_name = "NAMESPACE")]
    pub(super) namespace: Option<String>,
}

/// A cluster that answers, and a namespace of it.
pub(super) struct Place {
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) system_namespace: String,
}

impl SystemArgs {
    /// A client of a cluster that answers.
    pub(super) async fn connect(&self) -> anyhow::Result<Client> {
        let client = match self.cluster.connect("pilotlight").await {
            Ok(client) => client,
            Err(ClientError::Nowhere(_)) => return Err(anyhow!(NO_CLUSTER)),
            Err(error) => return Err(error.into()),
        };
        match timeout(PATIENCE, client.apiserver_version()).await {
            Ok(Ok(_)) => Ok(client),
            Ok(Err(error @ kube::Error::Api(_))) => Err(error).context("the API server refuses"),
            Ok(Err(error)) => {
                Err(error).context("the cluster does not answer; `pilotlight demo` runs without one")
            }
            Err(_) => Err(anyhow!(
                "the cluster does not answer within {} s; `pilotlight demo` runs without one",
                PATIENCE.as_secs()
            )),
        }
    }
}

impl PlaceArgs {
    pub(super) async fn connect(&self) -> anyhow::Result<Place> {
        let client = self.system.connect().await?;
        let namespace = self.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
        Ok(Place { client, namespace, system_namespace: self.system.system_namespace.clone() })
    }
}

/// The longest time that the API server may take to say which version it is.
const PATIENCE: Duration = Duration::from_secs(10);
const NO_CLUSTER: &str = "there is no cluster: no kubeconfig names one (--kubeconfig, KUBECONFIG). Without one \
    `pilotlight run`, `pilotlight demo`, `pilotlight sim` and every --dry-run of `pilotlight kube` that needs none work";
