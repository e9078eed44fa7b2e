//! A pod's status from the states of its containers, as a kubelet writes it.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::cluster::objects::{condition, now};

/// One container as its kubelet sees it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct View {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) state: State,
    /// The end of the run before this one.
    pub(super) last: Option<Ended>,
    pub(super) restarts: i32,
    pub(super) is_started: bool,
    pub(super) is_ready: bool,
    /// The process while it runs.
    pub(super) pid: Option<u32>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum State {
    Waiting { reason: &'static str, message: String },
    Running { since: Time },
    Ended(Ended),
}

/// The end of a container's process.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ended {
    pub(super) code: i32,
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) started: Time,
    pub(super) finished: Time,
}

impl View {
    pub(super) fn new(name: &str, image: &str) -> View {
        View {
            name: name.to_owned(),
            image: image.to_owned(),
            state: State::Waiting { reason: "ContainerCreating", message: String::new() },
            last: None,
            restarts: 0,
            is_started: false,
            is_ready: false,
            pid: None,
        }
    }

    fn status(&self) -> ContainerStatus {
        let state = match &self.state {
            State::Waiting { reason, message } => ContainerState {
                waiting: Some(ContainerStateWaiting {
                    reason: Some((*reason).to_owned()),
                    message: Some(message.clone()).filter(|message| !message.is_empty()),
                }),
                ..ContainerState::default()
            },
            State::Running { since } => ContainerState {
                running: Some(ContainerStateRunning { started_at: Some(since.clone()) }),
                ..ContainerState::default()
            },
            State::Ended(ended) => ended.state(),
        };
        ContainerStatus {
            name: self.name.clone(),
            image: self.image.clone(),
            state: Some(state),
            last_state: self.last.as_ref().map(Ended::state),
            ready: self.is_ready,
            started: Some(self.is_started),
            restart_count: self.restarts,
            ..ContainerStatus::default()
        }
    }
}

impl Ended {
    fn state(&self) -> ContainerState {
        ContainerState {
            terminated: Some(ContainerStateTerminated {
                exit_code: self.code,
                reason: Some(self.reason.to_owned()),
                message: Some(self.message.clone()).filter(|message| !message.is_empty()),
                started_at: Some(self.started.clone()),
                finished_at: Some(self.finished.clone()),
                ..ContainerStateTerminated::default()
            }),
            ..ContainerState::default()
        }
    }
}

/// The status of `pod`. Conditions that stay as they were keep their time.
pub(super) fn status_of(pod: &Pod, views: &[View], ip: IpAddr, host: IpAddr, is_ending: bool) -> PodStatus {
    let restarts =
        pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always") == "Always";
    let phase = phase(views, restarts && !is_ending);
    let unready: Vec<&str> =
        views.iter().filter(|view| !view.is_ready).map(|view| view.name.as_str()).collect();
    let ready = match phase {
        "Succeeded" => ("False", "PodCompleted", String::new()),
        "Failed" => ("False", "PodFailed", String::new()),
        _ if unready.is_empty() => ("True", "", String::new()),
        _ => (
            "False",
            "ContainersNotReady",
            format!("containers with unready status: [{}]", unready.join(" ")),
        ),
    };
    let as_always = || ("True", "", String::new());
    let conditions = vec![
        keep_time(pod, "PodReadyToStartContainers", as_always()),
        keep_time(pod, "Initialized", as_always()),
        keep_time(pod, "Ready", ready.clone()),
        keep_time(pod, "ContainersReady", ready),
        keep_time(pod, "PodScheduled", as_always()),
    ];
    let before = pod.status.as_ref();
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions),
        container_statuses: Some(views.iter().map(View::status).collect()),
        start_time: Some(before.and_then(|status| status.start_time.clone()).unwrap_or_else(now)),
        pod_ip: Some(ip.to_string()),
        pod_ips: Some(vec![PodIP { ip: ip.to_string() }]),
        host_ip: Some(host.to_string()),
        host_ips: Some(vec![HostIP { ip: host.to_string() }]),
        ..PodStatus::default()
    }
}

fn phase(views: &[View], restarts: bool) -> &'static str {
    let has_never_run = |view: &View| matches!(view.state, State::Waiting { .. }) && view.last.is_none();
    let has_ended = |view: &View| matches!(view.state, State::Ended(_));
    if views.iter().any(has_never_run) {
        "Pending"
    } else if restarts || !views.iter().all(has_ended) {
        "Running"
    } else if views.iter().all(|view| matches!(&view.state, State::Ended(ended) if ended.code == 0)) {
        "Succeeded"
    } else {
        "Failed"
    }
}

fn keep_time(pod: &Pod, type_: &str, (status, reason, message): (&str, &str, String)) -> PodCondition {
    let before = condition(pod, type_).filter(|before| before.status == status);
    PodCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()).filter(|reason| !reason.is_empty()),
        message: Some(message).filter(|message| !message.is_empty()),
        last_transition_time: Some(
            before.and_then(|before| before.last_transition_time.clone()).unwrap_or_else(now),
        ),
        ..PodCondition::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: i32) -> State {
        State::Ended(Ended { code, reason: "Error", message: "gone".into(), started: now(), finished: now() })
    }

    fn view(state: State, is_ready: bool) -> View {
        View { state, is_ready, ..View::new("app", "image") }
    }

    fn running() -> State {
        State::Running { since: now() }
    }

    fn waiting() -> State {
        State::Waiting { reason: "ImagePullBackOff", message: String::new() }
    }

    #[test]
    fn the_phase_is_pending_until_all_have_run_and_running_while_they_are_restarted() {
        let back = View {
            last: Some(Ended {
                code: 1,
                reason: "Error",
                message: String::new(),
                started: now(),
                finished: now(),
            }),
            ..view(waiting(), false)
        };
        for (views, restarts, expected) in [
            (vec![view(running(), true), view(waiting(), false)], true, "Pending"),
            (vec![view(running(), true), back], true, "Running"),
            (vec![view(ended(1), false)], true, "Running"),
            (vec![view(ended(1), false), view(running(), true)], false, "Running"),
            (vec![view(ended(1), false), view(ended(0), false)], false, "Failed"),
            (vec![view(ended(0), false)], false, "Succeeded"),
        ] {
            assert_eq!(phase(&views, restarts), expected, "{views:?}");
        }
    }

    #[test]
    fn conditions_keep_their_time_until_they_change() {
        let ip = [127, 64, 0, 1].into();
        let mut pod = Pod::default();
        let mut status = status_of(&pod, &[view(running(), false)], ip, ip, false);
        let ready = &mut status.conditions.as_mut().unwrap()[2];
        assert_eq!((ready.type_.as_str(), ready.status.as_str()), ("Ready", "False"));
        assert_eq!(ready.message.as_deref(), Some("containers with unready status: [app]"));
        let early: Time = serde_json::from_str("\"2026-01-01T00:00:00Z\"").unwrap();
        ready.last_transition_time = Some(early.clone());
        pod.status = Some(status);
        let time = |pod: &Pod, is_ready| {
            let status = status_of(pod, &[view(running(), is_ready)], ip, ip, false);
            status.conditions.unwrap()[2].last_transition_time.clone()
        };
        assert_eq!(time(&pod, false), Some(early.clone()));
        assert_ne!(time(&pod, true), Some(early));
    }
}
