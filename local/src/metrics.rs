//! Metrics of the pods of this machine.

#![expect(clippy::disallowed_macros, reason = "this is the file of the metrics")]

use metrics::{Counter, Label, counter, describe_counter};
use pilotlight_core::{RevisionId, TroubleReason};

/// Pods that ended by themselves or never came up, by reason.
const PODS_FAILED: &str = "pilotlight_pods_failed_total";

/// Describes the metrics, once a recorder is installed.
pub fn describe() {
    describe_counter!(PODS_FAILED, "Pods that ended by themselves, or never became ready");
}

/// The counters of one workload: its series are there as long as this is.
pub(crate) struct PodMetrics {
    failed: [(TroubleReason, Counter); 3],
}

impl PodMetrics {
    pub(crate) fn new(id: &RevisionId) -> Self {
        let failed = |reason: TroubleReason| {
            let labels = vec![
                Label::new("k8s_namespace_name", id.namespace.clone()),
                Label::new("kn_revision_name", id.name.clone()),
                Label::new("reason", reason.as_str()),
            ];
            (reason, counter!(PODS_FAILED, labels))
        };
        let reasons = [TroubleReason::Exited, TroubleReason::NeverReady, TroubleReason::CannotStart];
        PodMetrics { failed: reasons.map(failed) }
    }

    pub(crate) fn count_failed(&self, reason: TroubleReason) {
        for (_, counter) in self.failed.iter().filter(|(counted, _)| *counted == reason) {
            counter.increment(1);
        }
    }
}
