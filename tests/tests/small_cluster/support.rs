//! A small cluster around an API server, a namespace of the test's own, and objects to put there.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use pilotlight_tests::cluster::{Server, SmallCluster, plain_image};
use pilotlight_tests::eventually;
use pilotlight_tests::http::{Answer, get};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// Time for what happens at once, on a machine that is busy with other tests.
pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) struct Fixture {
    // Dropped in this order: the cluster goes before its API server.
    pub(crate) cluster: SmallCluster,
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) server: Server,
}

impl Fixture {
    pub(crate) async fn start() -> Fixture {
        let server = Server::start().await;
        let namespace = server.namespace().await;
        let client = server.client();
        let cluster = SmallCluster::start(&client).expect("a cluster");
        cluster.kubelet.add_image("plain", plain_image(env!("CARGO_BIN_EXE_plain_app")));
        Fixture { cluster, client, namespace, server }
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Serialize,
    {
        let object: K = serde_json::from_value(object).expect("an object of this kind");
        self.api().create(&PostParams::default(), &object).await.expect("created")
    }

    pub(crate) async fn patch<K>(&self, name: &str, patch: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        self.api().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("patched")
    }

    pub(crate) async fn delete<K>(&self, name: &str)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        self.api::<K>().delete(name, &DeleteParams::default()).await.expect("deleted");
    }

    /// Waits until the object with this name meets a condition.
    pub(crate) async fn until<K>(&self, what: &str, name: &str, meets: impl Fn(&K) -> bool) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let api = self.api::<K>();
        eventually(what, SOON, async || api.get_opt(name).await.expect("an answer").filter(&meets)).await
    }

    /// Waits until the object with this name is gone.
    pub(crate) async fn gone<K>(&self, name: &str)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let api = self.api::<K>();
        let is_gone = async || api.get_opt(name).await.expect("an answer").is_none().then_some(());
        eventually(&format!("{name} is gone"), SOON, is_gone).await;
    }

    /// The pods that have this label `app`.
    pub(crate) async fn pods(&self, app: &str) -> Vec<Pod> {
        let params = ListParams::default().labels(&format!("app={app}"));
        self.api::<Pod>().list(&params).await.expect("a list").items
    }

    /// Waits until the pods with this label `app` meet a condition.
    pub(crate) async fn pods_until(&self, what: &str, app: &str, meet: impl Fn(&[Pod]) -> bool) -> Vec<Pod> {
        eventually(what, SOON, async || Some(self.pods(app).await).filter(|pods| meet(pods))).await
    }

    /// Waits until a Deployment has exactly so many pods, all ready.
    pub(crate) async fn has_ready(&self, name: &str, count: i32) -> Deployment {
        let meets = |deployment: &Deployment| {
            let status = deployment.status.clone().unwrap_or_default();
            status.observed_generation == deployment.metadata.generation
                && status.ready_replicas.unwrap_or(0) == count
                && status.replicas.unwrap_or(0) == count
        };
        self.until(&format!("{count} pods of {name} are ready"), name, meets).await
    }

    /// Sends `GET path` to a Service of the namespace.
    pub(crate) async fn get(&self, service: &str, path: &str) -> anyhow::Result<Answer> {
        let host = format!("{service}.{}.svc.cluster.local", self.namespace);
        let address =
            self.cluster.names.resolve(&host, 80).ok_or_else(|| anyhow::anyhow!("no address of {host}"))?;
        get(address, &host, path).await
    }

    /// Whether a Service takes no connection.
    pub(crate) async fn is_refused(&self, service: &str) -> bool {
        let host = format!("{service}.{}.svc.cluster.local", self.namespace);
        let address = self.cluster.names.resolve(&host, 80).expect("an address");
        TcpStream::connect(address).await.is_err()
    }

    /// Waits until a Service answers with 200, and returns the pod that did.
    pub(crate) async fn answers(&self, service: &str) -> String {
        eventually(&format!("{service} answers"), SOON, async || {
            let answer = self.get(service, "/").await.ok()?;
            (answer.status == 200).then(|| pod_of(&answer))
        })
        .await
    }
}

/// The pod that gave the answer.
pub(crate) fn pod_of(answer: &Answer) -> String {
    let line = answer.body.lines().last().unwrap_or_default();
    line.trim_start_matches("Pod ").split(',').next().unwrap_or_default().trim().to_owned()
}

/// A Deployment of the sample application, probed every second.
pub(crate) fn deployment(name: &str, replicas: i32, args: &[&str]) -> Value {
    let probe = json!({ "httpGet": { "path": "/healthz", "port": 8080 }, "periodSeconds": 1 });
    json!({
        "metadata": { "name": name },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name } },
            "strategy": { "rollingUpdate": { "maxUnavailable": 0, "maxSurge": 1 } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "terminationGracePeriodSeconds": 20, "containers": [{
                    "name": "app", "image": "sample", "args": args,
                    "ports": [{ "name": "web", "containerPort": 8080 }], "readinessProbe": probe,
                }] },
            },
        },
    })
}

/// A Deployment of one pod whose app listens at these ports (`8080/http`), the first of them named `web`.
pub(crate) fn plain(name: &str, listen: &str, env: &[(&str, &str)]) -> Value {
    let ports = listen.split_whitespace().enumerate().map(|(index, port)| {
        let number: u16 = port.split('/').next().and_then(|number| number.parse().ok()).expect("a port");
        let name = if index == 0 { "web".to_owned() } else { format!("port-{index}") };
        json!({ "name": name, "containerPort": number })
    });
    let ports: Vec<Value> = ports.collect();
    let mut env: Vec<Value> =
        env.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
    env.push(json!({ "name": "LISTEN", "value": listen }));
    let mut deployment = deployment(name, 1, &[]);
    let container = &mut deployment["spec"]["template"]["spec"]["containers"][0];
    (container["image"], container["ports"], container["env"]) = ("plain".into(), ports.into(), env.into());
    container["readinessProbe"] = json!({ "tcpSocket": { "port": "web" }, "periodSeconds": 1 });
    deployment
}

/// A Service whose selector is the label `app`.
pub(crate) fn service(name: &str) -> Value {
    let ports = json!([{ "name": "http", "port": 80, "targetPort": "web" }]);
    json!({ "metadata": { "name": name }, "spec": { "selector": { "app": name }, "ports": ports } })
}

/// Starts so many pods of the sample application behind a Service of the same name, and waits until they are ready.
pub(crate) async fn web(fixture: &Fixture, replicas: i32) {
    fixture.create::<Service>(service("web")).await;
    fixture.create::<Deployment>(deployment("web", replicas, &[])).await;
    fixture.has_ready("web", replicas).await;
}

/// The state of a pod's first container.
pub(crate) fn state(pod: &Pod) -> k8s_openapi::api::core::v1::ContainerState {
    let containers =
        pod.status.as_ref().and_then(|status| status.container_statuses.clone()).unwrap_or_default();
    containers.into_iter().next().and_then(|container| container.state).unwrap_or_default()
}

/// The reason why a pod's first container waits.
pub(crate) fn waits_for(pod: &Pod) -> String {
    state(pod).waiting.and_then(|waiting| waiting.reason).unwrap_or_default()
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

pub(crate) fn names(pods: &[Pod]) -> Vec<String> {
    pods.iter().map(ResourceExt::name_any).collect()
}
