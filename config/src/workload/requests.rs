//! What the containers of a pod request (`resources.requests`), and who divides by it: a HorizontalPodAutoscaler that
//! holds a resource at a share of the requests does nothing where a container has none (Kubernetes,
//! `pkg/controller/podautoscaler/replica_calculator.go`).

use std::collections::BTreeSet;

use serde_json::Value;

use super::manifest::Node;
use crate::fault::{Findings, Position};

/// A resource that is held at a share of what the pods request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) resource: String,
    /// The only container that counts; `None`: all of them.
    pub(super) container: Option<String>,
}

impl Share {
    /// A resource of all containers.
    pub(super) fn of(resource: &str) -> Self {
        Share { resource: resource.to_owned(), container: None }
    }
}

/// All shares that one autoscaler holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shares {
    pub(super) shares: Vec<Share>,
    /// The autoscaler has goals beside these, which need no requests.
    pub(super) has_others: bool,
}

impl Shares {
    /// The cpu of all containers, the default of every HorizontalPodAutoscaler.
    pub(super) fn cpu() -> Self {
        Shares { shares: vec![Share::of("cpu")], has_others: false }
    }
}

/// The requests of a pod.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests {
    /// Resources of the pod as a whole (`spec.resources`), which stand for those of its containers.
    whole: BTreeSet<String>,
    containers: Vec<Requesting>,
}

/// The requests of one container.
#[derive(Clone, Debug)]
pub(super) struct Requesting {
    name: Option<String>,
    /// The path of the container in its object.
    pub(super) path: String,
    /// Line and object of the container, once they are known.
    pub(super) position: Option<Position>,
    resources: BTreeSet<String>,
    /// Missing requests are filled in by whatever makes the pod.
    is_completed: bool,
}

impl Requests {
    /// The requests of a pod's `spec`. Init containers count if they keep running beside the others (sidecars).
    pub(super) fn of(spec: &Node<'_>) -> Self {
        let items = |field: &str| spec.child(field).items(&mut Findings::default());
        let is_sidecar = |item: &Node<'_>| item.child("restartPolicy").value.is_some_and(|it| it == "Always");
        let sidecars = items("initContainers").into_iter().filter(is_sidecar);
        let containers = items("containers").into_iter().chain(sidecars).map(|item| Requesting {
            name: item.child("name").value.and_then(Value::as_str).map(str::to_owned),
            resources: requested(&item),
            path: item.path,
            position: None,
            is_completed: false,
        });
        Requests { whole: requested(spec), containers: containers.collect() }
    }

    /// The same, where the first container is given what it does not request itself.
    pub(super) fn with_first_completed(mut self) -> Self {
        if let Some(first) = self.containers.first_mut() {
            first.is_completed = true;
        }
        self
    }

    /// The same, with where each container stands in its file.
    pub(super) fn located(&self, position: &dyn Fn(&str) -> Position) -> Self {
        let mut located = self.clone();
        for container in &mut located.containers {
            container.position = Some(position(&container.path));
        }
        located
    }

    /// The containers that lack a request, each with the advice to write it. `scaler` names the autoscaler.
    pub(super) fn lacking(&self, needed: &Shares, scaler: &str) -> Vec<(&Requesting, String)> {
        let effect = if needed.has_others { "takes no pod away" } else { "never scales" };
        let lacks = |share: &Share| {
            let counts = move |it: &&Requesting| match &share.container {
                Some(only) => it.name.as_ref() == Some(only),
                None => !self.whole.contains(&share.resource),
            };
            let resource = &share.resource;
            let example = match resource.as_str() {
                "cpu" => ", such as 100m",
                "memory" => ", such as 128Mi",
                _ => "",
            };
            let advice = format!(
                "requests no {resource}, and {scaler}, which divides by the requests, {effect} (\"missing request for \
                 {resource}\"); write resources.requests.{resource}{example}"
            );
            let lacking = self.containers.iter().filter(counts);
            let lacking = lacking.filter(|it| !it.is_completed && !it.resources.contains(resource));
            lacking.map(|it| (it, advice.clone())).collect::<Vec<_>>()
        };
        needed.shares.iter().flat_map(lacks).collect()
    }

    /// Warns of each container that lacks a request, for an autoscaler that is made of this very object.
    pub(super) fn warn(&self, needed: &Shares, scaler: &str, findings: &mut Findings) {
        for (container, advice) in self.lacking(needed, scaler) {
            findings.warn(&container.path, advice);
        }
    }
}

/// The resources that a container or a pod requests. A limit alone is a request, too: the API server copies it.
fn requested(node: &Node<'_>) -> BTreeSet<String> {
    let resources = node.child("resources");
    let keys = |field| resources.child(field).value.and_then(Value::as_object).map(|it| it.keys().cloned());
    [keys("requests"), keys("limits")].into_iter().flatten().flatten().collect()
}
