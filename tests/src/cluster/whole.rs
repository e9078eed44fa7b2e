//! A whole cluster with Knative Serving's controller, and Pilotlight's autoscalers and activators as its pods.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use parking_lot::Mutex;
use pilotlight_kubernetes::knative::PodAutoscaler;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::ingress::Ingress;
use super::knative::{ACTIVATOR_SERVICE, Revision, SYSTEM_NAMESPACE};
use super::objects::{is_conflict, is_ready};
use super::server::Server;
use super::{Image, SmallCluster};
use crate::eventually;

/// A cluster to start.
pub struct ClusterParams {
    /// The program `clustered`, which is Pilotlight's parts.
    pub parts: PathBuf,
    /// Pods of the autoscaler.
    pub autoscalers: u32,
    /// Pods of the activator.
    pub activators: u32,
    /// `config-autoscaler`.
    pub autoscaler_config: BTreeMap<String, String>,
    /// Variables on top of those that Knative's controller gives to queue-proxies.
    pub queue_proxy_env: BTreeMap<String, String>,
}

impl ClusterParams {
    /// One autoscaler and one activator, with the shortest times that Knative allows, and queue-proxies that drain within
    /// two seconds.
    pub fn quick(parts: impl Into<PathBuf>) -> ClusterParams {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        ClusterParams {
            parts: parts.into(),
            autoscalers: 1,
            activators: 1,
            autoscaler_config: map(&[("stable-window", "6s"), ("scale-to-zero-grace-period", "1s")]),
            queue_proxy_env: map(&[("PILOTLIGHT_DRAIN_QUIET_PERIOD", "2s")]),
        }
    }
}

/// A running cluster. Dropping it ends everything.
pub struct Cluster {
    /// The node and what is around it.
    pub small: SmallCluster,
    /// A client of the API server.
    pub client: Client,
    /// The namespace of the test's revisions.
    pub namespace: String,
    /// The API server. It goes last.
    pub server: Server,
    /// Replicas that each Deployment was given, one after the other.
    replicas: Arc<Mutex<BTreeMap<String, Vec<i32>>>>,
}

impl Cluster {
    /// Starts it and waits until autoscalers and activators are ready.
    pub async fn start(params: ClusterParams) -> anyhow::Result<Cluster> {
        let server = Server::start().await;
        let client = server.client();
        let namespace = server.namespace().await;
        let mut small = SmallCluster::start(&client)?;
        let replicas = Arc::<Mutex<BTreeMap<String, Vec<i32>>>>::default();
        let noted = Arc::clone(&replicas);
        small.stores.deployments.on_change(move |deployment, _| {
            let now = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
            let mut noted = noted.lock();
            let row = noted.entry(deployment.name_any()).or_default();
            if row.last() != Some(&now) {
                row.push(now);
            }
        });
        let cluster_config = |name: &str| match name {
            "config-autoscaler" => params.autoscaler_config.clone(),
            "config-leader-election" => ELECTION.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            _ => BTreeMap::new(),
        };
        for name in CONFIG_MAPS {
            write_config(&client, name, &cluster_config(name)).await?;
        }
        small.start_knative(params.queue_proxy_env);
        let cluster = Cluster { small, client, namespace, server, replicas };
        cluster.start_parts(&params.parts, params.autoscalers, params.activators).await?;
        Ok(cluster)
    }

    async fn start_parts(
        &self,
        parts: &std::path::Path,
        autoscalers: u32,
        activators: u32,
    ) -> anyhow::Result<()> {
        let kubeconfig = kubeconfig(&self.server)?;
        let services: Api<Service> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        for (name, app, ports) in [
            ("autoscaler", "autoscaler", json!([{ "name": "http", "port": 8080, "targetPort": 8080 }])),
            (
                ACTIVATOR_SERVICE,
                "activator",
                json!([
                    { "name": "http", "port": 80, "targetPort": 8012 }, { "name": "http2", "port": 81, "targetPort": 8013 },
                    { "name": "https", "port": 443, "targetPort": 8112 },
                ]),
            ),
        ] {
            let spec = json!({ "selector": { "app": app }, "ports": ports });
            let service = serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec }))?;
            create(&services, &service).await?;
        }
        let address = eventually("the autoscaler's Service has an address", SOON, async || {
            self.small.names.resolve(&format!("autoscaler.{SYSTEM_NAMESPACE}"), 8080)
        })
        .await;
        let to_autoscaler =
            ["--autoscaler", &format!("ws://{address}"), "--drain-wait", "3s"].map(str::to_owned);
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        for (part, port, replicas, args) in [
            ("autoscaler", 8080, autoscalers, Vec::new()),
            ("activator", 8012, activators, to_autoscaler.to_vec()),
        ] {
            let env = [
                ("PART", part),
                ("KUBECONFIG", &kubeconfig),
                ("SYSTEM_NAMESPACE", SYSTEM_NAMESPACE),
                ("PILOTLIGHT_BIND_ADDRESS", "{ip}"),
                ("CLUSTER_DOMAIN", "cluster.local"),
                ("NO_COLOR", "1"),
            ];
            let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            self.small.kubelet.add_image(part, Image { program: parts.to_owned(), args, env });
            create(&deployments, &serde_json::from_value(part_deployment(part, port, replicas))?).await?;
        }
        self.has_ready_parts("autoscaler", autoscalers).await;
        self.has_ready_parts("activator", activators).await;
        Ok(())
    }

    /// Waits until exactly so many pods of a part are there, all ready.
    pub async fn has_ready_parts(&self, part: &str, count: u32) {
        eventually(&format!("{count} ready pods of the {part}"), SOON, async || {
            let pods = self.parts(part).await;
            (pods.len() == count as usize && pods.iter().all(is_ready)).then_some(())
        })
        .await;
    }

    /// The pods of a part: `autoscaler` or `activator`.
    pub async fn parts(&self, part: &str) -> Vec<Pod> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        let listed = api.list(&ListParams::default().labels(&format!("app={part}"))).await;
        // While the API server is away nobody knows.
        listed.map(|list| list.items).unwrap_or_default()
    }

    /// Deletes a pod of a part, which ends politely and is replaced.
    pub async fn end_part(&self, pod: &str) -> anyhow::Result<()> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        api.delete(pod, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Kills the process of a part, which the kubelet starts again. False: it did not run.
    pub fn kill_part(&self, pod: &str) -> bool {
        self.small.kubelet.signal(SYSTEM_NAMESPACE, pod, "part", rustix::process::Signal::KILL)
    }

    /// Creates a revision of the sample application; the autoscaling annotations without their prefix.
    pub async fn create_revision(
        &self,
        name: &str,
        annotations: &[(&str, &str)],
        spec: Value,
    ) -> anyhow::Result<Revision> {
        let annotations: Map<String, Value> = annotations
            .iter()
            .map(|(key, value)| (format!("autoscaling.knative.dev/{key}"), Value::from(*value)))
            .collect();
        let probe = json!({ "httpGet": { "path": "/healthz" }, "periodSeconds": 1 });
        let mut revision = json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Revision",
            "metadata": {
                "name": name, "annotations": annotations,
                "labels": {
                    "serving.knative.dev/configuration": "app", "serving.knative.dev/service": "app",
                    "serving.knative.dev/routingState": "active",
                },
            },
            "spec": { "timeoutSeconds": 60, "containers": [{ "name": "app", "image": "sample", "readinessProbe": probe }] },
        });
        merge(&mut revision["spec"], spec);
        let api: Api<Revision> = Api::namespaced(self.client.clone(), &self.namespace);
        Ok(api.create(&PostParams::default(), &serde_json::from_value(revision)?).await?)
    }

    /// Waits until an object of the test's namespace meets a condition.
    pub async fn until<K>(&self, what: &str, name: &str, within: Duration, meets: impl Fn(&K) -> bool) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        let met = async || api.get_opt(name).await.ok().flatten().filter(&meets);
        eventually(what, within, met).await
    }

    /// Waits until the revision's PodAutoscaler has so many ready pods, and wants as many.
    pub async fn has_scale(&self, revision: &str, pods: i32, within: Duration) -> PodAutoscaler {
        let meets = |autoscaler: &PodAutoscaler| {
            let status = autoscaler.status.clone().unwrap_or_default();
            status.actual_scale == Some(pods) && status.desired_scale == Some(pods)
        };
        self.until(&format!("{revision} has {pods} pods"), revision, within, meets).await
    }

    /// Replicas that the revision's Deployment was given so far, one after the other.
    pub fn replicas_of(&self, revision: &str) -> Vec<i32> {
        self.replicas.lock().get(&format!("{revision}-deployment")).cloned().unwrap_or_default()
    }

    /// The way of requests to a revision.
    pub fn ingress(&self, revision: &str) -> Ingress {
        Ingress::new(&self.small.names, &self.namespace, revision)
    }

    /// The pods of a revision that are not ending.
    pub async fn pods_of(&self, revision: &str) -> Vec<Pod> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let selector = format!("serving.knative.dev/revision={revision}");
        let listed = api.list(&ListParams::default().labels(&selector)).await;
        let pods = listed.map(|list| list.items).unwrap_or_default();
        pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect()
    }

    /// Changes keys of `config-autoscaler`.
    pub async fn configure(&self, pairs: &[(&str, &str)]) -> anyhow::Result<()> {
        let data: Map<String, Value> =
            pairs.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect();
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        let patch = Patch::Merge(json!({ "data": data }));
        api.patch("config-autoscaler", &PatchParams::default(), &patch).await?;
        Ok(())
    }
}

fn part_deployment(part: &str, port: u16, replicas: u32) -> Value {
    let field =
        |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let probe = json!({ "httpGet": { "port": port }, "periodSeconds": 1, "failureThreshold": 5 });
    json!({
        "metadata": { "name": part },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": part } },
            "template": {
                "metadata": { "labels": { "app": part } },
                "spec": { "terminationGracePeriodSeconds": 30, "containers": [{
                    "name": "part", "image": part, "ports": [{ "containerPort": port }], "readinessProbe": probe,
                    "env": [field("POD_NAME", "metadata.name"), field("POD_IP", "status.podIP")],
                }] },
            },
        },
    })
}

/// The file by which other processes reach the API server.
pub(super) fn kubeconfig(server: &Server) -> anyhow::Result<String> {
    let path = match server {
        Server::InProcess(server) => server.kubeconfig(),
        Server::Real(_) => std::env::var_os("KUBECONFIG").context("no KUBECONFIG")?.into(),
    };
    Ok(path.to_str().context("a kubeconfig with a plain name")?.to_owned())
}

async fn write_config(client: &Client, name: &str, data: &BTreeMap<String, String>) -> anyhow::Result<()> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let map: ConfigMap = serde_json::from_value(json!({ "metadata": { "name": name }, "data": data }))?;
    match api.create(&PostParams::default(), &map).await {
        Ok(_) => Ok(()),
        Err(error) if is_conflict(&error) => {
            api.patch(name, &PatchParams::default(), &Patch::Merge(json!({ "data": data }))).await?;
            Ok(())
        }
        Err(error) => Err(error).with_context(|| format!("cannot create {name}")),
    }
}

pub(super) async fn create<K>(api: &Api<K>, object: &K) -> anyhow::Result<()>
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize,
{
    match api.create(&PostParams::default(), object).await {
        Ok(_) => Ok(()),
        Err(error) if is_conflict(&error) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        // Containers are merged one by one.
        (Value::Array(into), Value::Array(from)) if into.len() == from.len() => {
            into.iter_mut().zip(from).for_each(|(into, from)| merge(into, from));
        }
        (into, from) => *into = from,
    }
}

const CONFIG_MAPS: [&str; 6] = [
    "config-autoscaler",
    "config-deployment",
    "config-leader-election",
    "config-logging",
    "config-network",
    "config-observability",
];
/// Leases that are taken over within seconds.
const ELECTION: [(&str, &str); 3] =
    [("lease-duration", "3s"), ("renew-deadline", "2s"), ("retry-period", "1s")];
/// Time for what happens at once, on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(30);
