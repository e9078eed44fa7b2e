//! Reads what is around a workload from the API server.
//!
//! Everything is asked for when it is needed, and nothing is watched: it changes seldom. A kind that the server does not have
//! is a kind of which there is nothing; one that may not be read is [told](NamespaceFacts::unreadable).

mod read;

use std::collections::{BTreeMap, BTreeSet};

use http::Request;
use kube::Client;
use pilotlight_kubernetes::write::WRITE_LIMIT;
use serde_json::Value;
use tokio::time::timeout;

use super::{ClusterFacts, NamespaceFacts, ServiceAround, TargetFact};
use crate::crd::ScaleTargetRef;

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LookError {
    /// The API server refused, or was not reached.
    #[error(transparent)]
    Api(Box<kube::Error>),
    /// No answer.
    #[error("the API server did not answer within {} s", WRITE_LIMIT.as_secs())]
    TimedOut,
}

/// Facts of the whole cluster, for activators in this namespace.
pub async fn cluster(client: &Client, system_namespace: &str) -> Result<ClusterFacts, LookError> {
    let groups = get(client, "/apis").await?;
    let groups = groups.map(|list| read::names_of_groups(&list)).unwrap_or_default();
    let may = |group: &str| groups.contains(group);
    let strict_mtls = match may(ISTIO_SECURITY) {
        true => {
            let path = format!("/apis/{ISTIO_SECURITY}/v1/namespaces/{ISTIO_ROOT}/peerauthentications");
            let found = readable(list(client, &path).await)?.unwrap_or_default();
            let mut strict = found.iter().filter_map(read::strict_mtls);
            strict.find(|(_, pods)| pods.is_none()).map(|(name, _)| format!("{ISTIO_ROOT}/{name}"))
        }
        false => None,
    };
    let classes =
        readable(list(client, "/apis/networking.k8s.io/v1/ingressclasses").await)?.unwrap_or_default();
    let windows = "/api/v1/nodes?labelSelector=kubernetes.io%2Fos%3Dwindows&limit=1";
    let windows = readable(list(client, windows).await)?.unwrap_or_default();
    let system = get(client, &format!("/api/v1/namespaces/{system_namespace}")).await;
    let system = readable(system)?.flatten().unwrap_or_default();
    let pods = format!("/api/v1/namespaces/{system_namespace}/pods?labelSelector={ACTIVATORS}&limit=1");
    let activator = readable(list(client, &pods).await)?.unwrap_or_default();
    Ok(ClusterFacts {
        groups,
        ingress_classes: classes.iter().filter_map(read::ingress_class).collect(),
        default_ingress_class: classes.iter().find_map(read::default_ingress_class),
        activators_in_mesh: read::is_ambient(&system) || activator.iter().any(read::is_meshed),
        strict_mtls,
        has_windows_nodes: !windows.is_empty(),
        system_namespace: system_namespace.to_owned(),
    })
}

/// Facts of a namespace.
pub async fn namespace(
    client: &Client,
    namespace: &str,
    cluster: &ClusterFacts,
) -> Result<NamespaceFacts, LookError> {
    let mut asked = Asked { client, namespace, cluster, unreadable: BTreeSet::new() };
    let own = match get(client, &format!("/api/v1/namespaces/{namespace}")).await {
        Ok(own) => own.unwrap_or_default(),
        Err(error) if is_forbidden(&error) => {
            asked.unreadable.insert("namespaces".to_owned());
            Value::default()
        }
        Err(error) => return Err(error),
    };
    let services = asked.list("", "v1", "services").await?;
    let mut around: BTreeMap<String, ServiceAround> = services.iter().filter_map(read::service).collect();
    for ingress in asked.list("networking.k8s.io", "v1", "ingresses").await? {
        let Some((name, fact)) = read::ingress(&ingress) else { continue };
        for service in read::services_of_ingress(&ingress) {
            around.entry(service).or_default().ingresses.insert(name.clone(), fact.clone());
        }
    }
    for binding in asked.list("elbv2.k8s.aws", "v1beta1", "targetgroupbindings").await? {
        if let Some((name, service)) = read::target_group(&binding) {
            around.entry(service).or_default().target_groups.insert(name);
        }
    }
    let facts = NamespaceFacts {
        labels: read::map(&own, "labels"),
        annotations: read::map(&own, "annotations"),
        autoscalers: asked.read("autoscaling", "v2", "horizontalpodautoscalers", read::hpa).await?,
        scaled_objects: asked.read("keda.sh", "v1alpha1", "scaledobjects", read::scaled_object).await?,
        policies: asked.read("networking.k8s.io", "v1", "networkpolicies", read::policy).await?,
        budgets: asked.read("policy", "v1", "poddisruptionbudgets", read::budget).await?,
        quotas: asked.read("", "v1", "resourcequotas", read::quota).await?,
        services: around,
        canaries: asked.read("flagger.app", "v1beta1", "canaries", read::canary).await?,
        strict_mtls: asked.read(ISTIO_SECURITY, "v1", "peerauthentications", read::strict_mtls).await?,
        unreadable: BTreeSet::new(),
    };
    Ok(NamespaceFacts { unreadable: asked.unreadable, ..facts })
}

/// The object that is scaled; `None`: it is not there.
pub async fn target(
    client: &Client,
    namespace: &str,
    target: &ScaleTargetRef,
) -> Result<Option<TargetFact>, LookError> {
    let object = get(client, &path_of(namespace, target)).await?;
    Ok(object.map(|object| read::target(&object)))
}

/// The path of an object that is named by its kind. Its plural is made as that of a scale target.
pub fn path_of(namespace: &str, target: &ScaleTargetRef) -> String {
    let ScaleTargetRef { api_version, kind, name } = target;
    let root = if api_version.contains('/') { "apis" } else { "api" };
    let kind = kind.to_lowercase();
    let ending = if kind.ends_with('s') { "es" } else { "s" };
    format!("/{root}/{api_version}/namespaces/{namespace}/{kind}{ending}/{name}")
}

struct Asked<'a> {
    client: &'a Client,
    namespace: &'a str,
    cluster: &'a ClusterFacts,
    unreadable: BTreeSet<String>,
}

impl Asked<'_> {
    async fn read<T>(
        &mut self,
        group: &str,
        version: &str,
        resource: &str,
        read: fn(&Value) -> Option<(String, T)>,
    ) -> Result<BTreeMap<String, T>, LookError> {
        Ok(self.list(group, version, resource).await?.iter().filter_map(read).collect())
    }

    async fn list(&mut self, group: &str, version: &str, resource: &str) -> Result<Vec<Value>, LookError> {
        // A group that the server does not have is not asked for: a cluster has few of those that are known.
        if !group.is_empty() && !self.cluster.groups.contains(group) {
            return Ok(Vec::new());
        }
        let root = if group.is_empty() { "/api".to_owned() } else { format!("/apis/{group}") };
        let path = format!("{root}/{version}/namespaces/{}/{resource}", self.namespace);
        match list(self.client, &path).await {
            Err(error) if is_forbidden(&error) => {
                let dot = if group.is_empty() { "" } else { "." };
                self.unreadable.insert(format!("{resource}{dot}{group}"));
                Ok(Vec::new())
            }
            listed => listed,
        }
    }
}

/// The objects of a list; none: the server has no such kind.
async fn list(client: &Client, path: &str) -> Result<Vec<Value>, LookError> {
    let list = get(client, path).await?;
    let items = list.and_then(|mut list| list.get_mut("items").map(Value::take));
    Ok(match items {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    })
}

/// An object or a list; `None`: it is not there.
async fn get(client: &Client, path: &str) -> Result<Option<Value>, LookError> {
    let request = Request::get(path).header(http::header::ACCEPT, "application/json").body(Vec::new());
    let request = request.map_err(|error| LookError::Api(Box::new(kube::Error::HttpError(error))))?;
    match timeout(WRITE_LIMIT, client.request(request)).await {
        Err(_) => Err(LookError::TimedOut),
        Ok(Ok(value)) => Ok(Some(value)),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(None),
        Ok(Err(error)) => Err(LookError::Api(Box::new(error))),
    }
}

/// The same, with `None` where reading is forbidden.
fn readable<T>(result: Result<T, LookError>) -> Result<Option<T>, LookError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_forbidden(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_forbidden(error: &LookError) -> bool {
    matches!(error, LookError::Api(error) if matches!(&**error, kube::Error::Api(status) if status.code == 403))
}

const ISTIO_SECURITY: &str = "security.istio.io";
/// The namespace whose PeerAuthentications are about the whole mesh.
const ISTIO_ROOT: &str = "istio-system";
/// The label selector of the activators' pods, encoded for a query.
const ACTIVATORS: &str = "app.kubernetes.io%2Fname%3Dpilotlight%2Capp.kubernetes.io%2Fcomponent%3Dactivator";
