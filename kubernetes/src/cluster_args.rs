//! The flags that say which cluster is meant.

use std::path::PathBuf;

use clap::Args;
use kube::{Client, Config};

use crate::client::{ClientArgs, ClientError, configure, connect};

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
    /// The words of a command line that name the same cluster.
    pub fn words(&self) -> Vec<String> {
        let kubeconfig = self.kubeconfig.as_ref().map(|path| path.display().to_string());
        let flags = [("--context", self.context.clone()), ("--kubeconfig", kubeconfig)];
        flags
            .into_iter()
            .flat_map(|(flag, value)| value.map(|value| [flag.to_owned(), value]))
            .flatten()
            .collect()
    }

    /// A client for a program of this name. Connects nowhere yet.
    pub async fn connect(&self, program: &str) -> Result<Client, ClientError> {
        connect(self.client_args(program)).await
    }

    /// The configuration of clients for a program of this name: each client that is made of it has connections of its own.
    pub async fn configure(&self, program: &str) -> Result<Config, ClientError> {
        configure(self.client_args(program)).await
    }

    fn client_args(&self, program: &str) -> ClientArgs {
        let (kubeconfig, context) = (self.kubeconfig.clone(), self.context.clone());
        ClientArgs { kubeconfig, context, user_agent: format!("{program}/{}", env!("CARGO_PKG_VERSION")) }
    }
}
