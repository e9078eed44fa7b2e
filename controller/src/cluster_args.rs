//! The flags that say which cluster is meant.

use std::path::PathBuf;

use clap::Args;
use kube::Client;
use pilotlight_kubernetes::{ClientArgs, ClientError, connect};

/// Flags of the cluster. Without any: in a pod the cluster it runs in, elsewhere the one that `kubectl` uses.
#[derive(Clone, Debug, Default, Args)]
pub struct ClusterArgs {
    /// Context of the kubeconfig [default: its current context; in a pod, the cluster it runs in]
    #[arg(long, value_name = "CONTEXT")]
    context: Option<String>,
    /// The kubeconfig [default: what KUBECONFIG says, or ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

impl ClusterArgs {
    /// A client for a program of this name. Connects nowhere yet.
    pub async fn connect(&self, program: &str) -> Result<Client, ClientError> {
        let (kubeconfig, context) = (self.kubeconfig.clone(), self.context.clone());
        let user_agent = format!("{program}/{}", env!("CARGO_PKG_VERSION"));
        connect(ClientArgs { kubeconfig, context, user_agent }).await
    }
}
