//! The next step of a Deployment: how many pods to make, and which to delete.

use std::cmp::Reverse;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::cluster::objects::{condition, is_ready, phase};

/// The label of pods by which those of the present template are told from older ones.
pub(crate) const TEMPLATE_HASH: &str = "pod-template-hash";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The wanted numbers of a Deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) replicas: usize,
    /// Pods there may be beyond `replicas` while a new template comes in.
    pub(crate) max_surge: usize,
    /// Pods that may be missing from `replicas` while a new template comes in.
    pub(crate) max_unavailable: usize,
}

/// A step.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) create: usize,
    /// Names of pods.
    pub(crate) delete: Vec<String>,
}

impl Wanted {
    pub(crate) fn of(deployment: &Deployment) -> Wanted {
        let spec = deployment.spec.as_ref();
        let replicas = spec.and_then(|spec| spec.replicas).unwrap_or(1).max(0) as usize;
        let rolling = |of: fn(&DeploymentSpec) -> Option<IntOrString>| spec.and_then(of);
        let max_surge = rolling(|spec| spec.strategy.as_ref()?.rolling_update.as_ref()?.max_surge.clone());
        let unavailable =
            rolling(|spec| spec.strategy.as_ref()?.rolling_update.as_ref()?.max_unavailable.clone());
        let share = |value: Option<IntOrString>, round: fn(f64) -> f64| match value {
            Some(IntOrString::Int(count)) => count.max(0) as usize,
            Some(IntOrString::String(text)) => percent(&text, replicas, round),
            None => percent("25%", replicas, round),
        };
        let (max_surge, mut max_unavailable) = (share(max_surge, f64::ceil), share(unavailable, f64::floor));
        if max_surge == 0 && max_unavailable == 0 {
            // Nothing could ever move.
            max_unavailable = 1;
        }
        Wanted { replicas, max_surge, max_unavailable }
    }
}

/// The next step from these pods, none of which is ending. `is_new` tells those of the present template.
pub(crate) fn next_step(wanted: Wanted, pods: &[&Pod], is_new: impl Fn(&Pod) -> bool) -> Step {
    let (mut new, mut old): (Vec<&Pod>, Vec<&Pod>) = pods.iter().copied().partition(|pod| is_new(pod));
    let Wanted { replicas, max_surge, max_unavailable } = wanted;
    // The first to go comes first.
    new.sort_by_key(|pod| rank(pod));
    old.sort_by_key(|pod| rank(pod));
    let names = |pods: &[&Pod]| pods.iter().map(|pod| pod.name_any()).collect();
    if new.len() > replicas {
        return Step { create: 0, delete: names(&new[..new.len() - replicas]) };
    }
    if old.is_empty() {
        return Step { create: replicas - new.len(), delete: Vec::new() };
    }
    let room = (replicas + max_surge).saturating_sub(new.len() + old.len());
    let create = room.min(replicas - new.len());
    // Old pods that are not ready do not count as available, so they may go first; but only as many as leave enough pods
    // even if the new ones that are not ready never are.
    let least = replicas.saturating_sub(max_unavailable);
    let unready_new = new.iter().filter(|pod| !is_ready(pod)).count();
    let spare = (new.len() + old.len()).saturating_sub(least + unready_new);
    let unready_old = old.iter().take_while(|pod| !is_ready(pod)).count().min(spare);
    let ready = pods.iter().filter(|pod| is_ready(pod)).count();
    let ready_old = ready.saturating_sub(least).min(old.len() - unready_old).min(spare - unready_old);
    let mut delete: Vec<String> = names(&old[..unready_old]);
    let first_ready = old.iter().take_while(|pod| !is_ready(pod)).count();
    delete
        .extend::<Vec<_>>(names(&old[first_ready.min(old.len())..(first_ready + ready_old).min(old.len())]));
    Step { create, delete }
}

/// The order in which pods go, as in Kubernetes' `ActivePods`: unassigned, pending, not ready, cheap, ready for a short time,
/// often restarted, young.
fn rank(pod: &Pod) -> impl Ord + use<> {
    let status = pod.status.as_ref();
    let cost = pod.annotations().get(DELETION_COST).and_then(|cost| cost.parse::<i32>().ok()).unwrap_or(0);
    let since = |time: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
        Reverse(time.map_or(Timestamp::MAX, |time| time.0))
    };
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    let restarts = containers.into_iter().flatten().map(|container| container.restart_count).max();
    (
        pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()),
        phase(pod) == "Running",
        is_ready(pod),
        cost,
        since(condition(pod, "Ready").and_then(|ready| ready.last_transition_time.as_ref())),
        Reverse(restarts),
        since(pod.metadata.creation_timestamp.as_ref()),
        pod.name_any(),
    )
}

fn percent(text: &str, of: usize, round: fn(f64) -> f64) -> usize {
    let percent: f64 = text.trim_end_matches('%').parse().unwrap_or(0.0);
    round(percent * of as f64 / 100.0) as usize
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, ready: bool, since: &str) -> Pod {
        let status = if ready { "True" } else { "False" };
        serde_json::from_value(json!({
            "metadata": { "name": name, "creationTimestamp": since },
            "spec": { "nodeName": "n1", "containers": [] },
            "status": {
                "phase": "Running",
                "conditions": [{ "type": "Ready", "status": status, "lastTransitionTime": since }],
            },
        }))
        .unwrap()
    }

    fn step(wanted: (usize, usize, usize), pods: &[Pod]) -> (usize, Vec<String>) {
        let (replicas, max_surge, max_unavailable) = wanted;
        let pods: Vec<&Pod> = pods.iter().collect();
        let step = next_step(Wanted { replicas, max_surge, max_unavailable }, &pods, |pod| {
            pod.name_any().starts_with("new")
        });
        (step.create, step.delete)
    }

    const EARLY: &str = "2026-01-01T00:00:00Z";
    const LATE: &str = "2026-01-01T01:00:00Z";

    #[test]
    fn pods_that_are_missing_are_made_at_once() {
        assert_eq!(step((3, 1, 0), &[pod("new-a", true, EARLY)]), (2, vec![]));
    }

    #[test]
    fn pods_go_not_ready_first_then_cheap_then_young() {
        let mut cheap = pod("new-cheap", true, EARLY);
        cheap.annotations_mut().insert(DELETION_COST.into(), "-5".into());
        let pods = [
            pod("new-old", true, EARLY),
            pod("new-young", true, LATE),
            cheap,
            pod("new-unready", false, EARLY),
        ];
        let order = |replicas| step((replicas, 1, 0), &pods).1;
        assert_eq!(order(3), ["new-unready"]);
        assert_eq!(order(2), ["new-unready", "new-cheap"]);
        assert_eq!(order(1), ["new-unready", "new-cheap", "new-young"]);
    }

    #[test]
    fn with_none_unavailable_an_old_pod_goes_only_when_a_new_one_is_ready() {
        let old = [pod("old-a", true, EARLY), pod("old-b", true, EARLY)];
        assert_eq!(step((2, 1, 0), &old), (1, vec![]));
        let starting = [old.to_vec(), vec![pod("new-a", false, LATE)]].concat();
        assert_eq!(step((2, 1, 0), &starting), (0, vec![]));
        let started = [old.to_vec(), vec![pod("new-a", true, LATE)]].concat();
        assert_eq!(step((2, 1, 0), &started), (0, vec!["old-a".to_owned()]));
    }

    #[test]
    fn old_pods_that_are_not_ready_go_first_but_not_on_account_of_new_ones_that_are_not_ready() {
        let pods = [pod("old-a", false, EARLY), pod("old-b", true, EARLY), pod("new-a", true, LATE)];
        assert_eq!(step((2, 1, 0), &pods), (0, vec!["old-a".to_owned()]));
        let pods = [pod("old-a", false, EARLY), pod("old-b", true, EARLY), pod("new-a", false, LATE)];
        assert_eq!(step((2, 1, 0), &pods), (0, vec![]));
    }

    #[test]
    fn shares_are_rounded_up_for_surge_and_down_for_what_may_be_missing() {
        let of = |rolling: serde_json::Value, replicas| {
            let spec = json!({
                "replicas": replicas, "selector": {}, "template": {}, "strategy": { "rollingUpdate": rolling },
            });
            Wanted::of(&serde_json::from_value(json!({ "metadata": {}, "spec": spec })).unwrap())
        };
        let wanted = |replicas, max_surge, max_unavailable| Wanted { replicas, max_surge, max_unavailable };
        assert_eq!(of(json!({}), 6), wanted(6, 2, 1));
        assert_eq!(of(json!({ "maxUnavailable": 0, "maxSurge": "10%" }), 4), wanted(4, 1, 0));
        assert_eq!(of(json!({ "maxUnavailable": 0, "maxSurge": 0 }), 4), wanted(4, 0, 1));
    }
}
