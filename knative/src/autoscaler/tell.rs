//! Events on PodAutoscalers: what happened to a revision, in words. One for each change, none for each tick.

use k8s_openapi::api::core::v1::ObjectReference;
use pilotlight_kubernetes::event::{Note, Recorder};

use super::index::News;
use super::seen::Seen;
use pilotlight_kubernetes::write::WriteError;

/// Tells.
pub(crate) struct Teller {
    recorder: Recorder,
}

impl Teller {
    pub(crate) fn new(recorder: Recorder) -> Self {
        Teller { recorder }
    }

    /// The scale target asks for another number of pods; `from` is `None` where the number before is not known.
    pub(crate) fn scaled(&self, seen: &Seen, from: Option<u32>, to: u32) {
        let reason = match (from, to) {
            (Some(0), _) => "Woken",
            (_, 0) => "ScaledToZero",
            _ => "Scaled",
        };
        let pods = if to == 1 { "pod" } else { "pods" };
        let change = match from {
            Some(from) => format!("From {from} to {to} {pods}"),
            None => format!("To {to} {pods}"),
        };
        let message = match seen.why.as_deref() {
            Some(why) => format!("{change} ({}): {}", why.reason, why.why),
            None => change,
        };
        self.note(seen, false, reason, message);
    }

    /// The last pods stay, because no activator answers in their place.
    pub(crate) fn zero_waits(&self, seen: &Seen, host: &str, error: &str) {
        let message = format!("The last pods stay: no activator answers at {host}: {error}");
        self.note(seen, true, "ScaleToZeroWaits", message);
    }

    pub(crate) fn failed(&self, seen: &Seen, operation: &str, error: &WriteError) {
        self.note(seen, true, "InternalError", format!("{operation}: {error}; tried again until it works"));
    }

    pub(crate) fn news(&self, seen: &Seen, news: Vec<News>) {
        for news in news {
            match news {
                News::Trouble(word, message) => {
                    self.note(seen, true, "PodFailed", format!("{word}: {message}"));
                }
                News::IllegalSettings(faults) => {
                    let faults = faults.replace('\n', "; ");
                    let message = format!("These annotations count as not written: {faults}");
                    self.note(seen, true, "IllegalSettings", message);
                }
            }
        }
    }

    fn note(&self, seen: &Seen, is_warning: bool, reason: &'static str, message: String) {
        let object = ObjectReference {
            api_version: Some("autoscaling.internal.knative.dev/v1alpha1".to_owned()),
            kind: Some("PodAutoscaler".to_owned()),
            namespace: Some(seen.id.namespace.clone()),
            name: Some(seen.id.name.clone()),
            uid: Some(seen.autoscaler.uid.clone()),
            ..ObjectReference::default()
        };
        self.recorder.record(Note { object, is_warning, reason, message });
    }
}
