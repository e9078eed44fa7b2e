//! The cluster that is tested, and objects for it.

use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::{Api, PostParams};
use kube::core::Status;
use kube::{Client, Config, Resource};
use pilotlight_tests::cluster::api::ApiServer;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Long enough for everything that happens at once, on a machine that is busy.
pub(crate) const SOON: Duration = pilotlight_tests::SOON;

/// A cluster, and a namespace of it that nobody else uses.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    server: Option<ApiServer>,
}

/// The cluster that `KUBECONFIG` names, or a server of this process.
pub(crate) async fn cluster_under_test() -> Cluster {
    let is_real = std::env::var_os("KUBECONFIG").is_some_and(|path| PathBuf::from(path).exists());
    let server = if is_real { None } else { Some(ApiServer::start().await) };
    let mut config = match &server {
        Some(server) => Config::new(server.url().parse().expect("a URL")),
        None => Config::infer().await.expect("a cluster that KUBECONFIG leads to"),
    };
    // Otherwise the client tries 429, 503 and 504 again by itself.
    config.default_retry = false;
    let client = Client::try_from(config).expect("a client");
    let mut namespace = Namespace::default();
    namespace.metadata.generate_name = Some("pilotlight-test-".into());
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let made = namespaces.create(&PostParams::default(), &namespace).await.expect("a namespace");
    Cluster { client, namespace: made.metadata.name.expect("a name"), server }
}

impl Cluster {
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The server of this process; none, which is said, for tests that need one against a real cluster.
    pub(crate) fn faulty(&self) -> Option<&ApiServer> {
        if self.server.is_none() {
            println!("skipped: a real API server has no faults on demand");
        }
        self.server.as_ref()
    }

    pub(crate) async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned,
    {
        self.try_create(object).await.expect("created")
    }

    pub(crate) async fn try_create<K>(&self, object: Value) -> kube::Result<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned,
    {
        let object: K = serde_json::from_value(object).expect("an object of its kind");
        self.api().create(&PostParams::default(), &object).await
    }

    pub(crate) async fn create_map(&self, name: &str, data: Value) -> ConfigMap {
        self.create(json!({"metadata": {"name": name}, "data": data})).await
    }

    pub(crate) async fn create_pod(&self, name: &str) -> Pod {
        self.create(pod(name)).await
    }

    pub(crate) async fn create_deployment(&self, name: &str) -> Deployment {
        self.create(deployment(name)).await
    }
}

/// The status with which a request was refused.
pub(crate) fn refusal<T: Debug>(result: kube::Result<T>) -> Status {
    match result {
        Err(kube::Error::Api(status)) => *status,
        other => panic!("not refused: {other:?}"),
    }
}

/// Code and reason of a refusal.
pub(crate) fn reason<T: Debug>(result: kube::Result<T>) -> (u16, String) {
    let status = refusal(result);
    (status.code, status.reason)
}

/// A pod that no scheduler takes.
pub(crate) fn pod(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"schedulerName": "nobody", "containers": [{"name": "app", "image": "example.org/app:1"}]}
    })
}

/// A Deployment that no controller starts pods for.
pub(crate) fn deployment(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "paused": true,
            "replicas": 0,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"schedulerName": "nobody", "containers": [{"name": "app", "image": "example.org/app:1"}]}
            }
        }
    })
}

/// An object as JSON.
pub(crate) fn value(object: &impl Serialize) -> Value {
    serde_json::to_value(object).expect("JSON")
}

pub(crate) fn version(object: &impl Resource) -> String {
    object.meta().resource_version.clone().expect("a version")
}
