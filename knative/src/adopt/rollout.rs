//! Whether the pods of a change have become ready, and why not. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;

/// A Deployment that is to run a new image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Workload {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// The labels of its pods, as a selector.
    pub(crate) selector: String,
    /// Whether its pods are to run the image.
    pub(crate) has_image: bool,
    /// Whether its controller has seen what was written last.
    is_observed: bool,
    wanted: i32,
    updated: i32,
    available: i32,
    all: i32,
}

impl Workload {
    pub(crate) fn of(deployment: &Deployment, image: &str) -> Workload {
        let spec = deployment.spec.clone().unwrap_or_default();
        let status = deployment.status.clone().unwrap_or_default();
        let containers = spec.template.spec.map(|spec| spec.containers).unwrap_or_default();
        let labels = spec.selector.match_labels.unwrap_or_default();
        let selector: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        Workload {
            namespace: deployment.namespace().unwrap_or_default(),
            name: deployment.name_any(),
            selector: selector.join(","),
            has_image: containers.iter().any(|container| container.image.as_deref() == Some(image)),
            is_observed: status.observed_generation >= deployment.metadata.generation,
            wanted: spec.replicas.unwrap_or(1),
            updated: status.updated_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            all: status.replicas.unwrap_or(0),
        }
    }

    pub(crate) fn id(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Whether all pods that are wanted are there and available, whatever image they run.
    pub(crate) fn is_well(&self) -> bool {
        self.is_observed && self.available >= self.wanted
    }

    /// Whether all pods that are wanted run the image and are available, and no other is left.
    pub(crate) fn is_done(&self) -> bool {
        let is_replaced = self.updated >= self.wanted && self.all <= self.updated;
        self.has_image && self.is_well() && (self.wanted == 0 || is_replaced)
    }

    /// The state in a line.
    fn line(&self) -> String {
        let Workload { wanted, updated, available, .. } = self;
        if !self.has_image || !self.is_observed {
            return "waiting for the controller".to_owned();
        }
        let old = self.all.saturating_sub(*updated);
        let old = if old > 0 { format!(", {old} old ones left") } else { String::new() };
        format!("{updated} of {wanted} pods replaced, {available} ready{old}")
    }
}

/// The progress of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// One line for people.
    pub(crate) line: String,
    /// Workloads that are not done.
    pub(crate) waiting: Vec<Workload>,
}

impl Progress {
    /// Looks at all workloads but those that were not well before the change: it cannot be judged by them.
    pub(crate) fn of(workloads: Vec<Workload>, unwell_before: &BTreeSet<String>) -> Progress {
        let counted: Vec<Workload> =
            workloads.into_iter().filter(|workload| !unwell_before.contains(&workload.id())).collect();
        let all = counted.len();
        let mut waiting: Vec<Workload> =
            counted.iter().filter(|workload| !workload.is_done()).cloned().collect();
        // Pods that have got furthest say most about what is wrong.
        waiting.sort_by_key(|workload| (!workload.has_image, workload.id()));
        let line = match counted.as_slice() {
            [] => "there is no workload with such pods".to_owned(),
            [only] => only.line(),
            _ => format!("{} of {all} workloads done", all - waiting.len()),
        };
        Progress { line, waiting }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// Why a pod is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StuckPod {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    /// The container; empty: none is to blame.
    pub(crate) container: String,
    /// In a sentence without a subject.
    pub(crate) reason: String,
    /// Whether it will not get better by waiting.
    pub(crate) is_hopeless: bool,
    /// Whether the container has ended before, so that its last words are those of the one before.
    pub(crate) has_ended: bool,
}

impl StuckPod {
    /// The trouble of a pod that runs `image`; `None`: it is ready, or another's.
    pub(crate) fn of(pod: &Pod, image: &str) -> Option<StuckPod> {
        let spec = pod.spec.as_ref()?;
        spec.containers.iter().find(|container| container.image.as_deref() == Some(image))?;
        let status = pod.status.clone().unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let is = |name: &str, value: &str| {
            conditions.iter().find(|condition| condition.type_ == name && condition.status == value)
        };
        if is("Ready", "True").is_some() {
            return None;
        }
        let trouble = |container: &str, reason: String| StuckPod {
            namespace: pod.namespace().unwrap_or_default(),
            pod: pod.name_any(),
            container: container.to_owned(),
            is_hopeless: HOPELESS.iter().any(|word| reason.starts_with(word)),
            has_ended: false,
            reason,
        };
        if let Some(unscheduled) = is("PodScheduled", "False") {
            let words = unscheduled.message.as_deref().or(unscheduled.reason.as_deref());
            return Some(trouble("", words.unwrap_or("is not scheduled").to_owned()));
        }
        let containers = status.container_statuses.unwrap_or_default();
        let told = containers.iter().find_map(|container| Some((container, reason(container)?)));
        Some(match told {
            Some((container, reason)) => {
                StuckPod { has_ended: container.restart_count > 0, ..trouble(&container.name, reason) }
            }
            None => match containers.iter().find(|container| !container.ready) {
                Some(container) if is_running(container) => {
                    trouble(&container.name, "runs, and is not ready".to_owned())
                }
                Some(container) => trouble(&container.name, "is being made".to_owned()),
                None => trouble("", "has not been started".to_owned()),
            },
        })
    }

    /// The trouble in a line.
    pub(crate) fn line(&self) -> String {
        let container =
            if self.container.is_empty() { String::new() } else { format!(", container {}", self.container) };
        format!("pod {}/{}{container}: {}", self.namespace, self.pod, self.reason)
    }
}

fn is_running(container: &ContainerStatus) -> bool {
    container.state.as_ref().is_some_and(|state| state.running.is_some())
}

/// Why a container does not run; `None`: it runs, or is being made.
fn reason(container: &ContainerStatus) -> Option<String> {
    let state = container.state.as_ref()?;
    let with = |reason: &str, message: Option<&str>| match message {
        Some(message) if !message.is_empty() => format!("{reason}: {message}"),
        _ => reason.to_owned(),
    };
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.as_deref().unwrap_or("waiting");
        let is_usual = ["ContainerCreating", "PodInitializing"].contains(&reason);
        return (!is_usual).then(|| with(reason, waiting.message.as_deref()));
    }
    let ended = state.terminated.as_ref()?;
    Some(with(&format!("ended with exit code {}", ended.exit_code), ended.message.as_deref()))
}

/// Reasons of the kubelet that no waiting cures.
const HOPELESS: [&str; 2] = ["InvalidImageName", "ErrImageNeverPull"];

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const IMAGE: &str = "example.com/ours";

    fn workload(name: &str, replicas: i32, status: &Value) -> Workload {
        let deployment = json!({
            "metadata": {"name": name, "namespace": "knative-serving", "generation": 2},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name, "role": name}},
                "template": {"spec": {"containers": [{"name": "a", "image": "other"}, {"name": "b", "image": IMAGE}]}}},
            "status": status});
        Workload::of(&serde_json::from_value(deployment).unwrap(), IMAGE)
    }

    fn status(observed: i64, all: i32, updated: i32, available: i32) -> Value {
        json!({"observedGeneration": observed, "replicas": all, "updatedReplicas": updated, "availableReplicas": available})
    }

    fn progress<const N: usize>(workloads: [Workload; N]) -> Progress {
        Progress::of(workloads.into(), &BTreeSet::new())
    }

    fn pod(status: &Value) -> Option<StuckPod> {
        let pod = json!({"metadata": {"name": "activator-1", "namespace": "knative-serving"},
            "spec": {"containers": [{"name": "activator", "image": IMAGE}]}, "status": status});
        StuckPod::of(&serde_json::from_value(pod).unwrap(), IMAGE)
    }

    #[test]
    fn a_change_is_done_once_every_pod_is_a_new_one_and_available() {
        let at = |status| progress([workload("a", 2, &status)]);
        assert_eq!(at(status(1, 2, 2, 2)).line, "waiting for the controller");
        assert_eq!(at(status(2, 3, 1, 2)).line, "1 of 2 pods replaced, 2 ready, 2 old ones left");
        assert!(!at(status(2, 3, 2, 2)).is_done(), "an old one is left");
        assert!(!at(status(2, 2, 2, 1)).is_done());
        assert!(at(status(2, 2, 2, 2)).is_done());
        assert!(at(status(2, 5, 3, 4)).waiting[0].selector == "app=a,role=a");
    }

    #[test]
    fn a_workload_at_zero_is_done_once_its_next_pod_will_be_a_new_one() {
        assert!(progress([workload("a", 0, &status(2, 0, 0, 0))]).is_done());
        let mut old = workload("a", 0, &status(2, 0, 0, 0));
        old.has_image = false;
        assert!(!progress([old]).is_done());
        assert!(progress([]).is_done());
    }

    #[test]
    fn what_was_not_well_before_does_not_count() {
        let (well, unwell) = (workload("a", 1, &status(2, 1, 1, 1)), workload("b", 1, &status(2, 1, 1, 0)));
        let all = progress([well.clone(), unwell.clone()]);
        assert_eq!((all.line.as_str(), all.is_done()), ("1 of 2 workloads done", false));
        let before = [unwell.id()].into();
        assert!(!unwell.is_well() && Progress::of(vec![well, unwell], &before).is_done());
    }

    #[test]
    fn the_reason_is_the_kubelets() {
        let waiting = |reason: &str| {
            json!({"containerStatuses": [{"name": "activator", "image": "", "imageID": "", "ready": false,
                "restartCount": 3, "state": {"waiting": {"reason": reason, "message": "Back-off"}}}]})
        };
        let trouble = pod(&waiting("ImagePullBackOff")).unwrap();
        let line = "pod knative-serving/activator-1, container activator: ImagePullBackOff: Back-off";
        assert_eq!((trouble.line().as_str(), trouble.is_hopeless, trouble.has_ended), (line, false, true));
        assert!(pod(&waiting("InvalidImageName")).unwrap().is_hopeless);
        assert!(pod(&waiting("ContainerCreating")).unwrap().line().ends_with("is being made"));
        let running = json!({"containerStatuses": [{"name": "activator", "image": "", "imageID": "", "ready": false,
            "restartCount": 0, "state": {"running": {}}}]});
        assert!(pod(&running).unwrap().line().ends_with("runs, and is not ready"));
    }

    #[test]
    fn a_pod_that_is_ready_or_of_another_image_is_no_trouble() {
        assert_eq!(pod(&json!({"conditions": [{"type": "Ready", "status": "True"}]})), None);
        let other = json!({"metadata": {}, "spec": {"containers": [{"name": "a", "image": "other"}]}});
        assert_eq!(StuckPod::of(&serde_json::from_value(other).unwrap(), IMAGE), None);
        let unscheduled =
            json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]});
        assert_eq!(pod(&unscheduled).unwrap().line(), "pod knative-serving/activator-1: 0/1 nodes");
    }
}
