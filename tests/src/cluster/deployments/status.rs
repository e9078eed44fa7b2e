//! A Deployment's status from its pods.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::rollout::Wanted;
use crate::cluster::objects::{is_ready, now};

/// The status of a Deployment with these pods, none of which is ending; and, while it makes progress, the seconds until
/// that has taken too long.
pub(super) fn status_of(
    deployment: &Deployment,
    pods: &[&Pod],
    is_new: impl Fn(&Pod) -> bool,
) -> (DeploymentStatus, Option<i64>) {
    let wanted = Wanted::of(deployment);
    let before = deployment.status.clone().unwrap_or_default();
    let count = |count: usize| Some(i32::try_from(count).unwrap_or(i32::MAX)).filter(|count| *count > 0);
    let updated = pods.iter().filter(|pod| is_new(pod)).count();
    let ready = pods.iter().filter(|pod| is_ready(pod)).count();
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: count(pods.len()),
        updated_replicas: count(updated),
        ready_replicas: count(ready),
        available_replicas: count(ready),
        unavailable_replicas: count(wanted.replicas.max(pods.len()) - ready),
        ..DeploymentStatus::default()
    };
    let is_available = ready + wanted.max_unavailable >= wanted.replicas;
    let available = match is_available {
        true => ("True", "MinimumReplicasAvailable", "Deployment has minimum availability."),
        false => ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability."),
    };
    let (progressing, left) = progress(deployment, &before, &status, wanted);
    status.conditions = Some(vec![
        changed(&before, "Available", available, false),
        changed(&before, "Progressing", progressing.0, progressing.1),
    ]);
    (status, left)
}

type Said<'a> = (&'a str, &'a str, &'a str);

/// The condition Progressing, whether there was progress just now, and the seconds that are left for the next.
fn progress<'a>(
    deployment: &Deployment,
    before: &DeploymentStatus,
    status: &DeploymentStatus,
    wanted: Wanted,
) -> ((Said<'a>, bool), Option<i64>) {
    const COMPLETE: &str = "NewReplicaSetAvailable";
    let is_complete = [status.updated_replicas, status.replicas, status.available_replicas]
        .iter()
        .all(|count| count.unwrap_or(0) as usize == wanted.replicas);
    let earlier = find(before, "Progressing");
    let is_new_template = before.observed_generation != deployment.metadata.generation
        && status.updated_replicas.unwrap_or(0) < status.replicas.unwrap_or(0);
    if is_complete {
        return ((("True", COMPLETE, "ReplicaSet has successfully progressed."), false), None);
    }
    let was_complete = earlier.is_some_and(|condition| condition.reason.as_deref() == Some(COMPLETE));
    if was_complete && !is_new_template {
        // A rollout that has been completed does not fail any more, whatever becomes of pods later.
        return ((("True", COMPLETE, "ReplicaSet has successfully progressed."), false), None);
    }
    let old = |status: &DeploymentStatus| status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0);
    let is_progress = status.updated_replicas > before.updated_replicas
        || status.ready_replicas > before.ready_replicas
        || old(status) < old(before)
        || earlier.is_none()
        || was_complete;
    let updating = ("True", "ReplicaSetUpdated", "ReplicaSet is progressing.");
    if is_progress {
        return ((updating, true), deadline(deployment));
    }
    let since = earlier.and_then(|condition| condition.last_update_time.as_ref()).map(|time| time.0);
    let passed = since.map_or(0, |since| Timestamp::now().as_second() - since.as_second());
    match deadline(deployment).map(|deadline| deadline - passed) {
        Some(left) if left <= 0 => {
            ((("False", "ProgressDeadlineExceeded", "ReplicaSet has timed out progressing."), false), None)
        }
        left => ((updating, false), left),
    }
}

fn deadline(deployment: &Deployment) -> Option<i64> {
    let seconds = deployment.spec.as_ref().and_then(|spec| spec.progress_deadline_seconds).unwrap_or(600);
    Some(seconds.into())
}

fn find<'a>(status: &'a DeploymentStatus, type_: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_)
}

/// The condition, with times that change only if it does.
fn changed(
    before: &DeploymentStatus,
    type_: &str,
    (status, reason, message): Said<'_>,
    is_updated: bool,
) -> DeploymentCondition {
    let earlier = find(before, type_);
    let is_same =
        earlier.is_some_and(|earlier| earlier.status == status && earlier.reason.as_deref() == Some(reason));
    let transition = earlier
        .filter(|earlier| earlier.status == status)
        .and_then(|earlier| earlier.last_transition_time.clone());
    let update =
        earlier.filter(|_| is_same && !is_updated).and_then(|earlier| earlier.last_update_time.clone());
    DeploymentCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(transition.unwrap_or_else(now)),
        last_update_time: Some(update.unwrap_or_else(now)),
    }
}
