//! The way to the API server: that of a kubeconfig, or of the pod this process runs in.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Flags that say which cluster is meant. Without any: the current context of `KUBECONFIG` or `~/.kube/config`; in a pod
/// that has neither, the cluster it runs in.
#[derive(Clone, Debug, Default, Args)]
pub struct ClientArgs {
    /// Context of the kubeconfig [default: its current context; in a pod, the cluster it runs in]
    #[arg(long, value_name = "CONTEXT")]
    pub context: Option<String>,
    /// The kubeconfig [default: what KUBECONFIG says, or ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// A client of the cluster that is meant. Nothing is asked of the API server yet.
pub async fn connect(args: &ClientArgs) -> anyhow::Result<Client> {
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    let config = match &args.kubeconfig {
        Some(file) => {
            let kubeconfig = Kubeconfig::read_from(file)
                .with_context(|| format!("--kubeconfig: cannot read {}", file.display()))?;
            Config::from_custom_kubeconfig(kubeconfig, &options)
                .await
                .with_context(|| format!("--kubeconfig: cannot use {}", file.display()))?
        }
        None if args.context.is_some() => {
            Config::from_kubeconfig(&options).await.context("--context: cannot use the kubeconfig")?
        }
        None => Config::infer()
            .await
            .context("cannot find a cluster: there is no kubeconfig, and this is no pod")?,
    };
    Client::try_from(config).context("cannot make a client of the API server")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_flag_that_is_wrong_is_named() {
        let args = ClientArgs { kubeconfig: Some("/none".into()), ..ClientArgs::default() };
        let Err(error) = connect(&args).await else { panic!("there is no such file") };
        assert_eq!(error.to_string(), "--kubeconfig: cannot read /none");
    }
}
