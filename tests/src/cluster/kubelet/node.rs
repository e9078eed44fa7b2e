//! The node: what its images are, how long things take on it, and how its processes are started.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use parking_lot::Mutex;
use pilotlight_local::guard::{Child, Guard, Spawn};

use crate::cluster::addresses::AddressRange;
use crate::cluster::log::Log;
use crate::cluster::objects::now;
use crate::process::{Bearer, Mark};

/// The executable behind an image's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The executable.
    pub program: PathBuf,
    /// Arguments before the container's own. `{ip}` stands for the address that the container has to bind to.
    pub args: Vec<String>,
    /// Variables below the container's own, with `{ip}` likewise.
    pub env: BTreeMap<String, String>,
}

/// Times on a node. All can be changed while it runs.
#[derive(Clone, Debug)]
pub struct Pace {
    /// The time to pull an image that the node has not.
    pub pull: Duration,
    /// The time from there to the start of the process.
    pub start: Duration,
    /// The time until the kubelet notices that a process runs. A real one looks every second.
    pub relist: Duration,
    /// The first pause after failures, which doubles. A real kubelet begins with ten seconds.
    pub back_off: Duration,
    /// The longest pause after failures. A real kubelet's is five minutes.
    pub longest_back_off: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            pull: Duration::ZERO,
            start: Duration::ZERO,
            relist: Duration::from_millis(100),
            back_off: Duration::from_secs(1),
            longest_back_off: Duration::from_secs(10),
        }
    }
}

/// The node, as all of its pods share it.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) ip: IpAddr,
    pub(super) client: Client,
    pub(super) addresses: AddressRange,
    pub(super) log: Log,
    pub(super) mark: Mark,
    pub(super) pace: Mutex<Pace>,
    pub(super) images: Mutex<BTreeMap<String, Image>>,
    pulled: Mutex<BTreeSet<String>>,
    /// `None` after [`Node::close`].
    guard: Mutex<Option<Arc<Guard>>>,
}

impl Node {
    pub(super) fn new(
        name: &str,
        client: Client,
        addresses: AddressRange,
        images: BTreeMap<String, Image>,
        log: Log,
    ) -> anyhow::Result<Arc<Node>> {
        Ok(Arc::new(Node {
            name: name.to_owned(),
            ip: addresses.take()?,
            client,
            addresses,
            log,
            mark: Mark::new(),
            pace: Mutex::default(),
            images: Mutex::new(images),
            pulled: Mutex::default(),
            // Our own executable is a test, and plays neither shim nor guard.
            guard: Mutex::new(Some(Arc::new(Guard::start_as(crate::binary())?))),
        }))
    }

    /// The image, if the registry has it; otherwise the registry's answer.
    pub(super) fn image(&self, name: &str) -> Result<Image, String> {
        let found = self.images.lock().get(name).cloned();
        found.ok_or_else(|| format!("failed to pull and unpack image \"{name}\": {name}: not found"))
    }

    /// The time that a pull of this image takes now.
    pub(super) fn pull_time(&self, name: &str) -> Duration {
        if self.pulled.lock().contains(name) { Duration::ZERO } else { self.pace.lock().pull }
    }

    /// Notes that the node has this image.
    pub(super) fn has_pulled(&self, name: &str) {
        self.pulled.lock().insert(name.to_owned());
    }

    pub(super) async fn spawn(&self, spawn: Spawn) -> io::Result<Child> {
        let guard = self.guard.lock().clone().ok_or_else(|| io::Error::other("the node has been closed"))?;
        guard.spawn(spawn.env(Mark::NAME, self.mark.value())).await
    }

    /// Kills every process that is left, and starts no more.
    pub(super) fn close(&self) {
        self.guard.lock().take();
    }

    pub(super) fn processes(&self) -> Vec<Bearer> {
        self.mark.bearers()
    }

    /// The pause after so many failures in a row.
    pub(super) fn pause(&self, failures: u32) -> Duration {
        let pace = self.pace.lock();
        let doubled = pace.back_off.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
        doubled.min(pace.longest_back_off)
    }

    /// Tells the API server of something about a pod. Events are best effort, as everywhere.
    pub(super) async fn tell(&self, pod: &Pod, type_: &str, reason: &str, message: &str) {
        self.log.say(format!("pod {}", pod.name_any()), format!("{reason}: {message}"));
        let namespace = pod.namespace().unwrap_or_default();
        let moment = jiff::Timestamp::now().as_nanosecond();
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{moment:x}", pod.name_any())),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(pod.name_any()),
                namespace: Some(namespace.clone()),
                uid: pod.uid(),
                ..ObjectReference::default()
            },
            type_: Some(type_.to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            source: Some(EventSource {
                component: Some("kubelet".to_owned()),
                host: Some(self.name.clone()),
            }),
            count: Some(1),
            first_timestamp: Some(now()),
            last_timestamp: Some(now()),
            ..Event::default()
        };
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        if let Err(error) = api.create(&PostParams::default(), &event).await {
            self.log.say("kubelet", format!("event {reason}: {error}"));
        }
    }
}
