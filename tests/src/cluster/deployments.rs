//! Deployments to pods, as Kubernetes' controllers do it, but without ReplicaSets in between: a Deployment's pods carry
//! the hash of their template.
//!
//! `minReadySeconds`, `paused` and the strategy `Recreate` are not known here.

mod rollout;
mod status;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::task::JoinSet;

use self::rollout::{Step, TEMPLATE_HASH, Wanted, next_step};
use self::status::status_of;
use super::log::Log;
use super::objects::{controlled_by, has_ended, is_controlled_by, is_ending, is_not_found};
use super::queue::{Queue, work};
use super::store::{Key, Store, key_of};

/// The controller of Deployments.
pub(crate) struct Deployments {
    client: Client,
    node: String,
    deployments: Arc<Store<Deployment>>,
    pods: Arc<Store<Pod>>,
    queue: Arc<Queue<Key>>,
}

impl Deployments {
    /// Starts it. Its pods go to the node of this name.
    pub(crate) fn start(
        client: Client,
        node: &str,
        deployments: &Arc<Store<Deployment>>,
        pods: &Arc<Store<Pod>>,
        tasks: &mut JoinSet<()>,
        log: &Log,
    ) {
        let queue = Queue::new();
        let controller = Arc::new(Deployments {
            client,
            node: node.to_owned(),
            deployments: Arc::clone(deployments),
            pods: Arc::clone(pods),
            queue: Arc::clone(&queue),
        });
        let added = Arc::clone(&queue);
        deployments.on_change(move |deployment, _| added.add(key_of(deployment)));
        let added = Arc::clone(&queue);
        pods.on_change(move |pod, _| {
            let owner = pod.owner_references().iter().find(|owner| owner.kind == "Deployment");
            if let Some(owner) = owner {
                added.add((pod.namespace().unwrap_or_default(), owner.name.clone()));
            }
        });
        work(tasks, log, "deployments", &queue, move |key| {
            let controller = Arc::clone(&controller);
            async move { controller.reconcile(&key).await }
        });
    }

    async fn reconcile(&self, key: &Key) -> anyhow::Result<()> {
        self.deployments.listed().await;
        self.pods.listed().await;
        let Some(deployment) = self.deployments.get(key) else { return self.collect(key).await };
        if deployment.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let hash = template_hash(&deployment);
        let is_new = |pod: &Pod| pod.labels().get(TEMPLATE_HASH) == Some(&hash);
        let pods = self.pods.in_namespace(&key.0);
        let uid = deployment.uid();
        let (ended, active): (Vec<&Pod>, Vec<&Pod>) = pods
            .iter()
            .map(|pod| &**pod)
            .filter(|pod| is_controlled_by(*pod, uid.as_deref()) && !is_ending(pod))
            .partition(|pod| has_ended(pod));
        let step = next_step(Wanted::of(&deployment), &active, is_new);
        for pod in step.delete.iter().cloned().chain(ended.iter().map(|pod| pod.name_any())) {
            self.delete(&(key.0.clone(), pod)).await?;
        }
        for _ in 0..step.create {
            let pod = self.api(&key.0).create(&PostParams::default(), &self.pod(&deployment, &hash)).await?;
            self.pods.put(pod);
        }
        if step != Step::default() || !ended.is_empty() {
            // The pods that this made and deleted are in the status of the next round.
            self.queue.add(key.clone());
            return Ok(());
        }
        let (status, left) = status_of(&deployment, &active, is_new);
        if deployment.status.as_ref() != Some(&status) {
            let patch = Patch::Merge(json!({ "status": status_patch(&status)? }));
            let api: Api<Deployment> = Api::namespaced(self.client.clone(), &key.0);
            self.deployments.put(api.patch_status(&key.1, &PatchParams::default(), &patch).await?);
        }
        if let Some(seconds) = left {
            self.queue.add_after(key.clone(), Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
        }
        Ok(())
    }

    /// Deletes what a Deployment left behind that is gone.
    async fn collect(&self, key: &Key) -> anyhow::Result<()> {
        for pod in self.pods.in_namespace(&key.0) {
            let is_orphan =
                pod.owner_references().iter().any(|owner| owner.kind == "Deployment" && owner.name == key.1);
            if is_orphan && !is_ending(&pod) {
                self.delete(&key_of(&*pod)).await?;
            }
        }
        Ok(())
    }

    async fn delete(&self, key: &Key) -> anyhow::Result<()> {
        let Some(pod) = self.pods.get(key) else { return Ok(()) };
        let only = Preconditions { uid: pod.uid(), ..Preconditions::default() };
        let params = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
        match self.api(&key.0).delete(&key.1, &params).await {
            Ok(answer) => {
                // A pod that ends with grace is still there, and marked.
                if let Some(pod) = answer.left() {
                    self.pods.put(pod);
                }
                Ok(())
            }
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(error).context("delete a pod"),
        }
    }

    fn pod(&self, deployment: &Deployment, hash: &str) -> Pod {
        let template = deployment.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
        let mut pod =
            Pod { metadata: template.metadata.unwrap_or_default(), spec: template.spec, status: None };
        let unique = UNIQUE.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let moment = jiff::Timestamp::now().as_microsecond();
        pod.metadata.name = Some(format!(
            "{}-{hash}-{}",
            deployment.name_any(),
            short(&fnv1a(format!("{moment}-{unique}").as_bytes()))
        ));
        pod.metadata.namespace = deployment.namespace();
        pod.metadata.owner_references = Some(controlled_by(deployment));
        pod.labels_mut().insert(TEMPLATE_HASH.to_owned(), hash.to_owned());
        if let Some(spec) = &mut pod.spec {
            // Kubernetes' scheduler would do this.
            spec.node_name.get_or_insert_with(|| self.node.clone());
        }
        pod
    }

    fn api(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

/// A merge patch leaves what it does not name: counts that are not there any more have to be taken away by name.
fn status_patch(status: &k8s_openapi::api::apps::v1::DeploymentStatus) -> anyhow::Result<serde_json::Value> {
    let mut patch = serde_json::to_value(status)?;
    for count in ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas"]
    {
        if patch.get(count).is_none() {
            patch[count] = serde_json::Value::Null;
        }
    }
    Ok(patch)
}

fn template_hash(deployment: &Deployment) -> String {
    let template = deployment.spec.as_ref().map(|spec| &spec.template);
    // Maps are in order, so equal templates are equal texts.
    let text = serde_json::to_vec(&serde_json::to_value(template).unwrap_or_default()).unwrap_or_default();
    short(&fnv1a(&text))
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Ten letters of a hash, or fewer: as much as a name can take.
fn short(hash: &u64) -> String {
    let text = format!("{hash:x}");
    text[..text.len().min(10)].to_owned()
}

static UNIQUE: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
