//! What Knative's controller does for scaling: Revisions to Deployments and PodAutoscalers, ServerlessServices to Services.
//!
//! Not known here: Configurations, Routes, names longer than a label, and changes of a Revision's pods once they are made.

mod conditions;
mod revision;
mod sks;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, ContainerState, Endpoints, Pod, Service};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use pilotlight_kubernetes::knative::{Condition, PodAutoscaler};
use serde_json::json;
use tokio::task::JoinSet;

pub use self::revision::{Revision, RevisionSpec, RevisionStatus};

use self::conditions::{Said, conditions};
use self::revision::{ROUTING_STATE, autoscaler_of, deployment_name, deployment_of, initial_scale};
use self::sks::ServiceReconciler;
use super::log::Log;
use super::objects::{is_conflict, is_controlled_by};
use super::queue::{Queue, work};
use super::store::{Key, Store, key_of};

/// The namespace of Knative's own objects.
pub const SYSTEM_NAMESPACE: &str = "knative-serving";
/// The Service of all activators.
pub const ACTIVATOR_SERVICE: &str = "activator-service";

/// The controller of Revisions.
pub(super) struct KnativeController {
    client: Client,
    revisions: Arc<Store<Revision>>,
    autoscalers: Arc<Store<PodAutoscaler>>,
    deployments: Arc<Store<Deployment>>,
    config_maps: Arc<Store<ConfigMap>>,
    pods: Arc<Store<Pod>>,
    /// Variables on top of those that Knative's controller gives to queue-proxies.
    queue_proxy_env: BTreeMap<String, String>,
}

/// The stores that controllers of one cluster share.
pub(super) struct Shared<'a> {
    pub(super) pods: &'a Arc<Store<Pod>>,
    pub(super) deployments: &'a Arc<Store<Deployment>>,
    pub(super) services: &'a Arc<Store<Service>>,
    pub(super) endpoints: &'a Arc<Store<Endpoints>>,
}

impl KnativeController {
    pub(super) fn start(
        client: &Client,
        shared: &Shared<'_>,
        queue_proxy_env: BTreeMap<String, String>,
        tasks: &mut JoinSet<()>,
        log: &Log,
    ) {
        let Shared { pods, deployments, services, endpoints } = *shared;
        ServiceReconciler::start(client.clone(), deployments, services, endpoints, tasks, log);
        let revisions: Arc<Store<Revision>> = Store::watch(Api::all(client.clone()), tasks, log.clone());
        let autoscalers: Arc<Store<PodAutoscaler>> =
            Store::watch(Api::all(client.clone()), tasks, log.clone());
        let maps = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
        let config_maps: Arc<Store<ConfigMap>> = Store::watch(maps, tasks, log.clone());
        let queue: Arc<Queue<Key>> = Queue::new();
        let added = Arc::clone(&queue);
        revisions.on_change(move |revision, _| added.add(key_of(revision)));
        let added = Arc::clone(&queue);
        autoscalers.on_change(move |autoscaler, _| added.add(key_of(autoscaler)));
        let revision_of =
            |labels: &BTreeMap<String, String>| labels.get("serving.knative.dev/revision").cloned();
        let added = Arc::clone(&queue);
        deployments.on_change(move |deployment, _| {
            if let Some(name) = revision_of(deployment.labels()) {
                added.add((deployment.namespace().unwrap_or_default(), name));
            }
        });
        let added = Arc::clone(&queue);
        pods.on_change(move |pod, _| {
            if let Some(name) = revision_of(pod.labels()) {
                added.add((pod.namespace().unwrap_or_default(), name));
            }
        });
        let controller = Arc::new(KnativeController {
            client: client.clone(),
            revisions,
            autoscalers,
            deployments: Arc::clone(deployments),
            config_maps,
            pods: Arc::clone(pods),
            queue_proxy_env,
        });
        work(tasks, log, "revisions", &queue, move |key| {
            let controller = Arc::clone(&controller);
            async move { controller.reconcile(&key).await }
        });
    }

    async fn reconcile(&self, key: &Key) -> anyhow::Result<()> {
        self.revisions.listed().await;
        self.autoscalers.listed().await;
        self.deployments.listed().await;
        self.config_maps.listed().await;
        self.pods.listed().await;
        let Some(revision) =
            self.revisions.get(key).filter(|each| each.metadata.deletion_timestamp.is_none())
        else {
            // Its owner references take the rest along.
            return Ok(());
        };
        let deployment = self.ensure_deployment(&revision).await?;
        let autoscaler = self.autoscalers.get(key);
        let said = self.findings(&revision, &deployment, autoscaler.as_deref());
        let is_broken = said.iter().any(|said| said.type_ != "Active" && said.status == "False");
        let is_wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0) > 0;
        let is_none_ready =
            deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0) == 0;
        let reachability = match revision.labels().get(ROUTING_STATE).map(String::as_str) {
            _ if is_broken && is_wanted && is_none_ready => "Unreachable",
            Some("active") => "Reachable",
            Some("reserve") => "Unreachable",
            _ => "",
        };
        self.ensure_autoscaler(&revision, autoscaler.as_deref(), reachability).await?;
        self.write_status(&revision, autoscaler.as_deref(), said).await
    }

    async fn ensure_deployment(&self, revision: &Revision) -> anyhow::Result<Arc<Deployment>> {
        let namespace = revision.namespace().unwrap_or_default();
        let key = (namespace.clone(), deployment_name(&revision.name_any()));
        if let Some(deployment) = self.deployments.get(&key) {
            return Ok(deployment);
        }
        let config = self.config_maps.get(&(SYSTEM_NAMESPACE.to_owned(), "config-autoscaler".to_owned()));
        let configured =
            config.and_then(|map| map.data.as_ref()?.get("initial-scale")?.parse().ok()).unwrap_or(1);
        let wanted = deployment_of(revision, initial_scale(revision, configured), &self.queue_proxy_env);
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), &namespace);
        match api.create(&PostParams::default(), &wanted).await {
            Ok(created) => self.deployments.put(created),
            // The watch is late, or somebody else's is there.
            Err(error) if is_conflict(&error) => self.deployments.put(api.get(&key.1).await?),
            Err(error) => return Err(error.into()),
        }
        self.deployments.get(&key).ok_or_else(|| anyhow::anyhow!("{} has gone at once", key.1))
    }

    async fn ensure_autoscaler(
        &self,
        revision: &Revision,
        before: Option<&PodAutoscaler>,
        reachability: &str,
    ) -> anyhow::Result<()> {
        let api: Api<PodAutoscaler> =
            Api::namespaced(self.client.clone(), &revision.namespace().unwrap_or_default());
        let wanted_value = autoscaler_of(revision, reachability);
        let wanted: PodAutoscaler = serde_json::from_value(wanted_value.clone())?;
        let Some(before) = before else {
            match api.create(&PostParams::default(), &wanted).await {
                Ok(created) => self.autoscalers.put(created),
                Err(error) if is_conflict(&error) => {
                    self.autoscalers.put(api.get(&revision.name_any()).await?)
                }
                Err(error) => return Err(error.into()),
            }
            return Ok(());
        };
        // Annotations that the Revision has lost are taken away, but for those that the webhook sets.
        let mut annotations = wanted_value["metadata"]["annotations"].clone();
        let has_lost = |key: &&String| {
            key.starts_with("autoscaling.knative.dev/") && !wanted.annotations().contains_key(*key)
        };
        for key in before.annotations().keys().filter(has_lost) {
            annotations[key] = serde_json::Value::Null;
        }
        let is_same = wanted
            .annotations()
            .iter()
            .all(|(key, value)| before.annotations().get(key) == Some(value))
            && annotations.as_object().is_none_or(|fields| !fields.values().any(serde_json::Value::is_null));
        if before.spec != wanted.spec || !is_same {
            let mut spec = wanted_value["spec"].clone();
            if reachability.is_empty() {
                spec["reachability"] = serde_json::Value::Null;
            }
            let patch = Patch::Merge(json!({ "metadata": { "annotations": annotations }, "spec": spec }));
            self.autoscalers.put(api.patch(&revision.name_any(), &PatchParams::default(), &patch).await?);
        }
        Ok(())
    }

    /// The conditions of a revision, as Knative's controller finds them.
    fn findings(
        &self,
        revision: &Revision,
        deployment: &Deployment,
        autoscaler: Option<&PodAutoscaler>,
    ) -> Vec<Said> {
        let condition = |type_: &str| find(autoscaler?.status.as_ref()?.conditions.as_slice(), type_);
        let is_initialized = condition("ScaleTargetInitialized").is_some_and(|each| each.status == "True");
        let active = match condition("Active") {
            Some(each) if each.status == "True" => Said::is_true("Active"),
            Some(each) if each.status == "False" => Said::is_false("Active", &each.reason, &each.message),
            Some(each) => Said::is_unknown("Active", &each.reason, &each.message),
            None => Said::is_unknown("Active", "Deploying", ""),
        };
        let trouble = self.trouble(revision, deployment);
        let has_timed_out =
            deployment.status.iter().flat_map(|status| status.conditions.iter().flatten()).any(|each| {
                each.type_ == "Progressing"
                    && each.status == "False"
                    && each.reason.as_deref() == Some("ProgressDeadlineExceeded")
            });
        let (available, healthy) = match trouble {
            Some(Trouble::Waits { reason, message }) => (
                Said::is_false("ResourcesAvailable", &reason, &message),
                Said::is_unknown("ContainerHealthy", "Deploying", ""),
            ),
            Some(Trouble::Exits { code, message }) => {
                let text = format!("Container failed with: {message}");
                let healthy = Said::is_false("ContainerHealthy", &format!("ExitCode{code}"), &text);
                (Said::is_unknown("ResourcesAvailable", "Deploying", ""), healthy)
            }
            None if has_timed_out && !is_initialized => {
                let text = "Initial scale was never achieved";
                let available = Said::is_false("ResourcesAvailable", "ProgressDeadlineExceeded", text);
                (available, Said::is_unknown("ContainerHealthy", "Deploying", ""))
            }
            None if is_initialized => {
                (Said::is_true("ResourcesAvailable"), Said::is_true("ContainerHealthy"))
            }
            None => {
                let deploying = |type_| Said::is_unknown(type_, "Deploying", "");
                (deploying("ResourcesAvailable"), deploying("ContainerHealthy"))
            }
        };
        vec![active.as_info(), available, healthy]
    }

    /// The reason why a revision without ready pods has none, as its first pod tells it.
    fn trouble(&self, revision: &Revision, deployment: &Deployment) -> Option<Trouble> {
        let is_any_ready =
            deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0) > 0;
        if is_any_ready {
            return None;
        }
        let pods = self.pods.in_namespace(&revision.namespace().unwrap_or_default());
        let own = pods.iter().find(|pod| is_controlled_by(&***pod, deployment.metadata.uid.as_deref()))?;
        let containers = own.status.as_ref()?.container_statuses.as_ref()?;
        let user = containers.iter().find(|container| container.name != "queue-proxy")?;
        trouble_of(user.state.as_ref(), user.last_state.as_ref())
    }

    async fn write_status(
        &self,
        revision: &Revision,
        autoscaler: Option<&PodAutoscaler>,
        said: Vec<Said>,
    ) -> anyhow::Result<()> {
        let before = revision.status.clone().unwrap_or_default();
        let scale = autoscaler.and_then(|each| each.status.as_ref());
        let status = RevisionStatus {
            observed_generation: revision.metadata.generation,
            conditions: conditions(&before.conditions, said),
            desired_replicas: scale.and_then(|scale| scale.desired_scale).filter(|scale| *scale >= 0),
            actual_replicas: scale.and_then(|scale| scale.actual_scale),
        };
        if status != before {
            let api: Api<Revision> =
                Api::namespaced(self.client.clone(), &revision.namespace().unwrap_or_default());
            let patch = Patch::Merge(json!({ "status": status }));
            self.revisions
                .put(api.patch_status(&revision.name_any(), &PatchParams::default(), &patch).await?);
        }
        Ok(())
    }
}

/// What keeps a revision's container from running.
enum Trouble {
    Waits { reason: String, message: String },
    Exits { code: i32, message: String },
}

fn trouble_of(state: Option<&ContainerState>, last: Option<&ContainerState>) -> Option<Trouble> {
    let waiting = state.and_then(|state| state.waiting.as_ref());
    if let Some(waiting) = waiting
        && let Some(reason) = waiting
            .reason
            .as_deref()
            .filter(|reason| reason.starts_with("ErrImage") || reason.starts_with("ImagePull"))
    {
        return Some(Trouble::Waits {
            reason: reason.to_owned(),
            message: waiting.message.clone().unwrap_or_default(),
        });
    }
    let ended = [state, last].into_iter().flatten().find_map(|state| state.terminated.as_ref())?;
    Some(Trouble::Exits { code: ended.exit_code, message: ended.message.clone().unwrap_or_default() })
}

fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}
