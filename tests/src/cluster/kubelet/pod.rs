//! The life of one pod: its address, its containers, its status, its end.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::command::Places;
use super::container::{ContainerTask, Stop};
use super::node::Node;
use super::status::{View, status_of};
use crate::cluster::objects::is_not_found;

/// A pod of the node.
pub(super) struct PodTask {
    pub(super) node: Arc<Node>,
    pub(super) pod: Arc<Pod>,
    /// The pod as the API server has it; `None`: not any more.
    pub(super) updates: watch::Receiver<Option<Arc<Pod>>>,
    pub(super) views: Arc<watch::Sender<Vec<View>>>,
}

impl PodTask {
    /// The views of a pod whose containers have not been started.
    pub(super) fn views(pod: &Pod) -> Vec<View> {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        containers.map(|each| View::new(&each.name, each.image.as_deref().unwrap_or_default())).collect()
    }

    /// Runs the pod to its end.
    pub(super) async fn run(mut self) {
        let ip = match self.node.addresses.take() {
            Ok(ip) => ip,
            Err(error) => {
                return self
                    .node
                    .tell(&self.pod, "Warning", "FailedCreatePodSandBox", &format!("{error:#}"))
                    .await;
            }
        };
        let places = Places::of(&self.pod, ip);
        let stop = watch::Sender::new(Stop::No);
        let mut containers = JoinSet::new();
        for (index, container) in self.pod.spec.iter().flat_map(|spec| &spec.containers).enumerate() {
            let task = ContainerTask {
                node: Arc::clone(&self.node),
                pod: Arc::clone(&self.pod),
                container: container.clone(),
                places: places.clone(),
                views: Arc::clone(&self.views),
                index,
                stop: stop.subscribe(),
            };
            containers.spawn(task.run());
        }
        let mut changed = self.views.subscribe();
        let mut is_written = false;
        loop {
            let is_ending = *stop.borrow() != Stop::No;
            if !is_written {
                let status = status_of(&self.pod, &changed.borrow_and_update(), ip, self.node.ip, is_ending);
                is_written = self.write(status).await;
            }
            if is_ending && containers.is_empty() && is_written {
                return self.delete().await;
            }
            let again = if is_written { FOREVER } else { WRITE_AGAIN };
            tokio::select! {
                _ = changed.changed() => is_written = false,
                Some(_) = containers.join_next() => is_written = false,
                // A kubelet that has gone has aborted this task.
                _ = self.updates.changed() => self.hear(&stop),
                // Nothing: the wait for the next try to write has ended.
                _ = timeout(again, std::future::pending::<()>()) => {}
            }
        }
    }

    fn hear(&self, stop: &watch::Sender<Stop>) {
        let update = self.updates.borrow();
        let Some(pod) = update.as_ref() else {
            stop.send_replace(Stop::Now);
            return;
        };
        if pod.metadata.deletion_timestamp.is_some() {
            let seconds = pod.metadata.deletion_grace_period_seconds.unwrap_or(30);
            let grace = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            stop.send_if_modified(|stop| match (*stop, grace) {
                (Stop::Now, _) => false,
                (_, Duration::ZERO) => {
                    *stop = Stop::Now;
                    true
                }
                (Stop::No, grace) => {
                    *stop = Stop::Until(Instant::now() + grace);
                    true
                }
                (Stop::Until(_), _) => false,
            });
        }
    }

    /// Writes the status, if it differs from the last one. False: the API server has not taken it.
    async fn write(&mut self, status: PodStatus) -> bool {
        if self.pod.status.as_ref() == Some(&status) || self.updates.borrow().is_none() {
            return true;
        }
        let Ok(status_value) = serde_json::to_value(&status) else { return true };
        let patch = Patch::Merge(json!({ "metadata": { "uid": self.pod.uid() }, "status": status_value }));
        match self.api().patch_status(&self.pod.name_any(), &PatchParams::default(), &patch).await {
            Ok(_) => {
                // Labels and the rest stay those of the start, which containers were started with.
                Arc::make_mut(&mut self.pod).status = Some(status);
                true
            }
            Err(error) if is_not_found(&error) => true,
            Err(error) => {
                self.node.log.say("kubelet", format!("status of {}: {error}", self.pod.name_any()));
                false
            }
        }
    }

    async fn delete(&self) {
        if self.updates.borrow().is_none() {
            return;
        }
        let only = Preconditions { uid: self.pod.uid(), ..Preconditions::default() };
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(only),
            ..DeleteParams::default()
        };
        while let Err(error) = self.api().delete(&self.pod.name_any(), &params).await {
            if is_not_found(&error) {
                return;
            }
            self.node.log.say("kubelet", format!("delete {}: {error}", self.pod.name_any()));
            let _ = timeout(WRITE_AGAIN, std::future::pending::<()>()).await;
        }
    }

    fn api(&self) -> Api<Pod> {
        let client: Client = self.node.client.clone();
        Api::namespaced(client, &self.pod.namespace().unwrap_or_default())
    }
}

const WRITE_AGAIN: Duration = Duration::from_millis(100);
const FOREVER: Duration = Duration::from_secs(86_400);
