//! A small kubelet: each pod of the node is local processes on an address of its own, probed, reported and ended as a real
//! one does it.
//!
//! Volumes, init containers, resources and security contexts are not known here.

mod command;
mod container;
mod node;
mod pod;
mod probe;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::{Client, ResourceExt};
use parking_lot::Mutex;
use rustix::process::Signal;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use self::node::{Image, Pace};

use self::node::Node;
use self::pod::PodTask;
use self::status::View;
use super::addresses::AddressRange;
use super::log::Log;
use super::store::{Key, Presence, Store, key_of};
use crate::process::{Bearer, send};

/// The kubelet of one node. Dropping it kills every process of its pods.
pub struct Kubelet {
    node: Arc<Node>,
    pods: Arc<Mutex<Pods>>,
}

#[derive(Default)]
struct Pods {
    /// Pods by UID: another may have the name of one that ends.
    running: BTreeMap<String, Running>,
    tasks: JoinSet<()>,
}

struct Running {
    key: Key,
    updates: watch::Sender<Option<Arc<Pod>>>,
    views: Arc<watch::Sender<Vec<View>>>,
}

impl Kubelet {
    /// Starts the kubelet of the node of this name.
    pub(crate) fn start(
        name: &str,
        client: Client,
        addresses: AddressRange,
        images: BTreeMap<String, Image>,
        store: &Store<Pod>,
        log: &Log,
    ) -> anyhow::Result<Kubelet> {
        let node = Node::new(name, client, addresses, images, log.clone())?;
        let pods = Arc::<Mutex<Pods>>::default();
        // Weak: the store may outlive the kubelet.
        let (of_node, kept) = (Arc::downgrade(&node), Arc::downgrade(&pods));
        store.on_change(move |pod, presence| {
            if let (Some(pods), Some(node)) = (kept.upgrade(), of_node.upgrade()) {
                pods.lock().hear(&node, pod, presence);
            }
        });
        Ok(Kubelet { node, pods })
    }

    /// Changes how long things take.
    pub fn set_pace(&self, change: impl FnOnce(&mut Pace)) {
        change(&mut self.node.pace.lock());
    }

    /// Puts an image into the registry.
    pub fn add_image(&self, name: &str, image: Image) {
        self.node.images.lock().insert(name.to_owned(), image);
    }

    /// Sends a signal to the process of a container. False if it does not run.
    pub fn signal(&self, namespace: &str, pod: &str, container: &str, signal: Signal) -> bool {
        let pid = self.pid(namespace, pod, container);
        if let Some(pid) = pid {
            send(pid, signal);
        }
        pid.is_some()
    }

    /// The number of a container's process, while it runs.
    pub fn pid(&self, namespace: &str, pod: &str, container: &str) -> Option<u32> {
        let pods = self.pods.lock();
        let running =
            pods.running.values().find(|running| running.key.0 == namespace && running.key.1 == pod)?;
        let views = running.views.borrow();
        views.iter().find(|view| view.name == container)?.pid
    }

    /// Every process that runs now and was started for a pod.
    pub fn processes(&self) -> Vec<Bearer> {
        self.node.processes()
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.pods.lock().tasks.abort_all();
        self.node.close();
    }
}

impl Pods {
    fn hear(&mut self, node: &Arc<Node>, pod: &Pod, presence: Presence) {
        let Some(uid) = pod.uid() else { return };
        let is_here = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) == Some(&node.name);
        if !is_here {
            return;
        }
        if presence == Presence::Gone {
            if let Some(running) = self.running.remove(&uid) {
                running.updates.send_replace(None);
            }
            return;
        }
        let pod = Arc::new(pod.clone());
        if let Some(running) = self.running.get(&uid) {
            running.updates.send_replace(Some(pod));
            return;
        }
        while self.tasks.try_join_next().is_some() {}
        let views = Arc::new(watch::Sender::new(PodTask::views(&pod)));
        let updates = watch::Sender::new(Some(Arc::clone(&pod)));
        let mut received = updates.subscribe();
        // A pod that is told to end before it has begun hears of that first thing.
        received.mark_changed();
        self.tasks.spawn(
            PodTask {
                node: Arc::clone(node),
                pod: Arc::clone(&pod),
                updates: received,
                views: Arc::clone(&views),
            }
            .run(),
        );
        self.running.insert(uid, Running { key: key_of(&*pod), updates, views });
    }
}
