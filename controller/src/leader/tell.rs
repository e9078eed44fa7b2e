//! Events on RequestAutoscalers: what happened to a workload, in words. At most one an object, reason and minute.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use parking_lot::Mutex;
use pilotlight_core::Time;
use pilotlight_kubernetes::event::{Note, Recorder};
use pilotlight_kubernetes::write::WriteError;
use pilotlight_net::Clock;

use super::conditions::{ACCEPTED, ZERO_BLOCKED, condition};
use super::seen::Seen;
use crate::crd::RequestAutoscalerStatus;

/// Tells.
pub(crate) struct Teller {
    recorder: Recorder,
    clock: Clock,
    /// When an event of each object and reason was written last.
    told: Mutex<HashMap<(String, &'static str), Time>>,
}

impl Teller {
    pub(crate) fn new(recorder: Recorder, clock: Clock) -> Self {
        Teller { recorder, clock, told: Mutex::default() }
    }

    /// The scale target asks for another number of pods.
    pub(crate) fn scaled(&self, seen: &Seen, from: u32, to: u32) {
        let reason = match (from, to) {
            (0, _) => "Woken",
            (_, 0) => "ScaledToZero",
            _ => "Scaled",
        };
        let pods = if to == 1 { "pod" } else { "pods" };
        let message = match seen.why.as_deref() {
            _ if seen.restoring.is_some() => {
                format!("From {from} to {to} {pods}: everything is put back as it was found")
            }
            _ if seen.path.must_wake => format!("From {from} to {to} {pods}: no activator is left"),
            Some(why) => format!("From {from} to {to} {pods} ({}): {}", why.rule, why.why),
            None => format!("From {from} to {to} {pods}"),
        };
        self.note(seen, false, reason, message);
    }

    pub(crate) fn failed(&self, seen: &Seen, operation: &str, error: &WriteError) {
        self.note(seen, true, "WriteFailed", format!("{operation}: {error}; tried again until it works"));
    }

    /// Whatever a new status says that somebody should look at.
    pub(crate) fn news(&self, seen: &Seen, status: &RequestAutoscalerStatus) {
        let before = &seen.workload.autoscaler.status.conditions;
        for (type_, bad, reason) in [(ACCEPTED, "False", "Refused"), (ZERO_BLOCKED, "True", "ZeroBlocked")] {
            let Some(now) = condition(&status.conditions, type_).filter(|now| now.status == bad) else {
                continue;
            };
            let is_old = condition(before, type_)
                .is_some_and(|before| (&before.status, &before.reason) == (&now.status, &now.reason));
            if !is_old {
                self.note(seen, true, reason, format!("{}: {}", now.reason, now.message));
            }
        }
    }

    /// A pod does not come up, with its own reason and last words.
    pub(crate) fn trouble(&self, seen: &Seen, pod: &str, word: &str, message: &str) {
        let is_cold = seen.evaluation.as_ref().is_some_and(|evaluation| evaluation.pods.ready == 0);
        let reason = if is_cold { "ColdStartFailed" } else { "PodFailed" };
        self.note(seen, true, reason, format!("Pod {pod} does not come up: {word}: {message}"));
    }

    /// The template of a target that sleeps has changed.
    pub(crate) fn untried(&self, seen: &Seen) {
        let message = "The target sleeps: its new template is tried at the next wake".to_owned();
        self.note(seen, false, "TemplateUntried", message);
    }

    fn note(&self, seen: &Seen, is_warning: bool, reason: &'static str, message: String) {
        let (fact, id) = (&seen.workload.autoscaler, seen.id());
        let now = self.clock.now();
        let mut told = self.told.lock();
        if told.len() > MOST_TOLD {
            told.retain(|_, last| now - *last < BETWEEN);
        }
        let key = (fact.uid.clone(), reason);
        if told.get(&key).is_some_and(|last| now - *last < BETWEEN) {
            return;
        }
        told.insert(key, now);
        drop(told);
        let object = ObjectReference {
            api_version: Some("pilotlight.dev/v1alpha1".to_owned()),
            kind: Some("RequestAutoscaler".to_owned()),
            namespace: Some(id.namespace.clone()),
            name: Some(id.name.clone()),
            uid: Some(fact.uid.clone()),
            ..ObjectReference::default()
        };
        self.recorder.record(Note { object, is_warning, reason, message });
    }
}

const BETWEEN: Duration = Duration::from_secs(60);
/// Beyond so many, those of the last minute alone are remembered.
const MOST_TOLD: usize = 4_096;
