//! Why a pod does not come up, in the words that its own status has for it.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, PodStatus};
use pilotlight_core::{Trouble, TroubleReason};

/// The trouble of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodTrouble {
    /// Kubernetes' word, such as `ImagePullBackOff`. It stays the same while a container is tried again and again.
    pub word: String,
    /// The same in a sentence.
    pub message: String,
    /// The exit code of the container that ended last.
    pub exit_code: Option<i32>,
    /// The last line that it said.
    pub last_line: Option<String>,
    /// Containers that ended, in all.
    pub restarts: u32,
}

impl PodTrouble {
    /// The same as the autoscaler tells it. Kubernetes tries again by itself.
    pub fn told(&self, pod: &str) -> Trouble {
        let reason = match self.word.as_str() {
            CRASHING | OUT_OF_MEMORY => TroubleReason::Exited,
            _ => TroubleReason::CannotStart,
        };
        Trouble {
            reason,
            message: format!("pod {pod}: {}: {}", self.word, self.message),
            exit_code: self.exit_code,
            log_tail: self.last_line.iter().cloned().collect(),
            failures: self.restarts.max(1),
            retry_at: None,
            on_demand_at: None,
            give_up: false,
        }
    }
}

/// The trouble that keeps a starting pod from being ready, if its status names a reason that does not pass by itself.
pub fn trouble_of(status: &PodStatus) -> Option<PodTrouble> {
    containers(status).find_map(container_trouble).or_else(|| unscheduled(status))
}

/// The thing that a starting pod waits for at the moment; `None`: its status does not say.
pub fn waits_for(status: &PodStatus) -> Option<String> {
    if let Some(trouble) = trouble_of(status) {
        return Some(format!("{}: {}", trouble.word, trouble.message));
    }
    let waiting = containers(status).find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        Some(format!("container {}: {}", container.name, waiting.reason.as_deref()?))
    });
    waiting.or_else(|| {
        let unready = containers(status).find(|container| {
            !container.ready && container.state.as_ref().is_some_and(|state| state.running.is_some())
        });
        unready.map(|container| format!("container {} is not ready", container.name))
    })
}

/// Init containers first: they run first.
fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
}

fn container_trouble(container: &ContainerStatus) -> Option<PodTrouble> {
    if container.ready {
        return None;
    }
    let state = container.state.as_ref();
    let waiting = state.and_then(|state| state.waiting.as_ref());
    let restarts = u32::try_from(container.restart_count).unwrap_or(0);
    if let Some(waiting) = waiting
        && let Some(word) = waiting.reason.as_deref()
        && LASTING.contains(&word)
    {
        // While an image is pulled again and again the two alternate.
        let word = if word == "ErrImagePull" { "ImagePullBackOff" } else { word };
        let said = waiting.message.as_deref().filter(|message| !message.is_empty());
        return Some(PodTrouble {
            word: word.to_owned(),
            message: format!("container {}: {}", container.name, said.unwrap_or("no further reason given")),
            exit_code: None,
            last_line: None,
            restarts,
        });
    }
    let ended = state.and_then(|state| state.terminated.as_ref());
    let ended_before = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let ended = ended.or(ended_before).filter(|ended| ended.exit_code != 0 || restarts > 0)?;
    Some(crash(&container.name, ended, restarts))
}

fn crash(container: &str, ended: &ContainerStateTerminated, restarts: u32) -> PodTrouble {
    let is_out_of_memory = ended.reason.as_deref() == Some(OUT_OF_MEMORY);
    let code = ended.exit_code;
    let lines = ended.message.as_deref().unwrap_or_default().lines().rev();
    let last_line = lines.map(str::trim).find(|line| !line.is_empty()).map(str::to_owned);
    let mut message = match is_out_of_memory {
        true => format!("container {container} took more memory than its limit"),
        false => format!("container {container} ended with exit code {code}"),
    };
    if let Some(line) = &last_line {
        message = format!("{message}: {line}");
    }
    PodTrouble {
        word: if is_out_of_memory { OUT_OF_MEMORY } else { CRASHING }.to_owned(),
        message,
        exit_code: Some(code),
        last_line,
        restarts,
    }
}

fn unscheduled(status: &PodStatus) -> Option<PodTrouble> {
    let mut conditions = status.conditions.iter().flatten();
    let scheduled = conditions.find(|condition| condition.type_ == "PodScheduled")?;
    let word = scheduled.reason.clone().filter(|_| scheduled.status == "False")?;
    let message = scheduled.message.clone().unwrap_or_else(|| "no node takes it".to_owned());
    Some(PodTrouble { word, message, exit_code: None, last_line: None, restarts: 0 })
}

/// Words of a waiting container that do not pass by themselves. `CrashLoopBackOff` is not among them: the container's
/// last end says more.
const LASTING: [&str; 8] = [
    "ImagePullBackOff",
    "ErrImagePull",
    "ErrImageNeverPull",
    "InvalidImageName",
    "RegistryUnavailable",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];
const CRASHING: &str = "CrashLoopBackOff";
const OUT_OF_MEMORY: &str = "OOMKilled";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn trouble(status: serde_json::Value) -> Option<PodTrouble> {
        trouble_of(&serde_json::from_value(status).unwrap())
    }

    fn container(state: &serde_json::Value, last: &serde_json::Value, restarts: u32) -> serde_json::Value {
        json!({"containerStatuses": [
            {"name": "queue-proxy", "ready": true, "restartCount": 0, "image": "", "imageID": ""},
            {"name": "user", "ready": false, "restartCount": restarts, "image": "", "imageID": "",
                "state": state, "lastState": last},
        ]})
    }

    #[test]
    fn an_image_that_cannot_be_pulled_is_one_trouble_however_often_it_is_tried() {
        for word in ["ErrImagePull", "ImagePullBackOff"] {
            let state = json!({"waiting": {"reason": word, "message": "no such image"}});
            let trouble = trouble(container(&state, &json!({}), 0)).unwrap();
            assert_eq!(trouble.word, "ImagePullBackOff");
            assert_eq!(trouble.message, "container user: no such image");
            assert_eq!(trouble.told("p").reason, TroubleReason::CannotStart);
        }
    }

    #[test]
    fn a_crash_is_told_with_its_last_line_while_the_container_runs_again_too() {
        let end =
            json!({"terminated": {"exitCode": 3, "reason": "Error", "message": "one\ncannot open db\n\n"}});
        let waits = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}});
        let runs = json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}});
        for (state, last) in [(end.clone(), json!({})), (waits, end.clone()), (runs, end)] {
            let trouble = trouble(container(&state, &last, 2)).unwrap();
            assert_eq!(trouble.word, "CrashLoopBackOff");
            assert_eq!(trouble.message, "container user ended with exit code 3: cannot open db");
            let told = trouble.told("p");
            assert_eq!((told.reason, told.exit_code, told.failures), (TroubleReason::Exited, Some(3), 2));
            assert_eq!(told.log_tail, ["cannot open db"]);
        }
    }

    #[test]
    fn memory_configuration_and_scheduling_are_told_by_their_words() {
        let end = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
        assert_eq!(trouble(container(&end, &json!({}), 0)).unwrap().word, "OOMKilled");
        let state =
            json!({"waiting": {"reason": "CreateContainerConfigError", "message": "secret \"x\" not found"}});
        let config = trouble(container(&state, &json!({}), 0)).unwrap();
        assert_eq!(
            (config.word.as_str(), config.message.as_str()),
            ("CreateContainerConfigError", "container user: secret \"x\" not found")
        );
        let unscheduled = trouble(json!({"conditions": [{"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": "0/3 nodes are available: 3 Insufficient cpu."}]}))
        .unwrap();
        assert_eq!(unscheduled.word, "Unschedulable");
        assert!(unscheduled.message.starts_with("0/3 nodes"));
    }

    #[test]
    fn a_pod_that_only_takes_its_time_is_in_no_trouble_and_says_what_it_waits_for() {
        let starting = container(&json!({"waiting": {"reason": "ContainerCreating"}}), &json!({}), 0);
        assert_eq!(trouble(starting.clone()), None);
        let waits = |status| waits_for(&serde_json::from_value(status).unwrap());
        assert_eq!(waits(starting).as_deref(), Some("container user: ContainerCreating"));
        let running = container(&json!({"running": {}}), &json!({}), 0);
        assert_eq!(waits(running).as_deref(), Some("container user is not ready"));
        assert_eq!(waits(json!({})), None);
    }
}
