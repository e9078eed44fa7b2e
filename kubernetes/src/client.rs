//! The way to the API server: from inside the cluster, or by a kubeconfig.

use std::path::PathBuf;

use kube::config::{
    Config, InClusterError, InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError,
};

/// How the API server is found. The default: as `kubectl` finds it, or from inside the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientArgs {
    /// The kubeconfig; `None`: that of `KUBECONFIG`, or `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig; `None`: its current one.
    pub context: Option<String>,
    /// The name of this program towards the API server.
    pub user_agent: String,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The kubeconfig cannot be used.
    #[error("cannot use the kubeconfig {}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KubeconfigError,
    },
    /// The usual kubeconfig cannot be used.
    #[error("cannot use the kubeconfig")]
    Context(#[source] KubeconfigError),
    /// There is neither a kubeconfig nor a cluster around this process.
    #[error("no API server is known: outside of a cluster a kubeconfig names it (--kubeconfig)")]
    Nowhere(#[source] InferConfigError),
    /// The service account of this pod cannot be used.
    #[error("cannot use the service account of this pod")]
    InCluster(#[source] InClusterError),
    /// The client cannot be made: usually a certificate or a URL is malformed.
    #[error("cannot make a client of the API server")]
    Client(#[source] kube::Error),
}

/// Makes a client. Connects nowhere yet, and sets no limit to the rate of requests: the API server has limits of its own.
pub async fn connect(args: ClientArgs) -> Result<kube::Client, ClientError> {
    kube::Client::try_from(configure(args).await?).map_err(ClientError::Client)
}

/// Finds the API server, for any number of clients. Connects nowhere.
pub async fn configure(args: ClientArgs) -> Result<Config, ClientError> {
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    let mut config = match &args.kubeconfig {
        Some(path) => {
            let wrong = |source| ClientError::File { path: path.clone(), source };
            let read = Kubeconfig::read_from(path).map_err(wrong)?;
            Config::from_custom_kubeconfig(read, &options).await.map_err(wrong)?
        }
        None if args.context.is_some() => {
            Config::from_kubeconfig(&options).await.map_err(ClientError::Context)?
        }
        // In a pod the service account comes first, whatever files there are.
        None if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() => {
            Config::incluster().map_err(ClientError::InCluster)?
        }
        None => Config::infer().await.map_err(ClientError::Nowhere)?,
    };
    if let Ok(agent) = args.user_agent.parse() {
        config.headers.push((http::header::USER_AGENT, agent));
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kubeconfig_that_cannot_be_used_is_named() {
        let args = |path: PathBuf, context: Option<&str>| ClientArgs {
            kubeconfig: Some(path),
            context: context.map(str::to_owned),
            user_agent: "test".to_owned(),
        };
        let missing = connect(args("/nowhere/config".into(), None)).await.err().expect("it is not there");
        assert_eq!(missing.to_string(), "cannot use the kubeconfig /nowhere/config");

        let path = std::env::temp_dir().join(format!("pilotlight-kubeconfig-{}", std::process::id()));
        let text = r#"{"apiVersion":"v1","kind":"Config","current-context":"here",
            "clusters":[{"name":"c","cluster":{"server":"http://127.0.0.1:1"}}],
            "users":[{"name":"u","user":{"token":"t"}}],
            "contexts":[{"name":"here","context":{"cluster":"c","user":"u","namespace":"shop"}}]}"#;
        std::fs::write(&path, text).unwrap();
        let client = connect(args(path.clone(), None)).await.expect("it is right");
        assert_eq!(client.default_namespace(), "shop");
        let wrong = connect(args(path.clone(), Some("there"))).await.err().expect("no such context");
        assert!(
            std::error::Error::source(&wrong).is_some_and(|it| it.to_string().contains("there")),
            "{wrong:?}"
        );
        std::fs::remove_file(path).unwrap();
    }
}
