//! Metrics of what the autoscaler writes to the API server.
#![expect(clippy::disallowed_macros, reason = "this is the file of the metrics")]

use metrics::{counter, describe_counter};

/// Writes that the API server took, by operation.
const WRITES: &str = "pilotlight_autoscaler_writes_total";
/// Writes that failed, by operation. Each is tried again.
const WRITE_ERRORS: &str = "pilotlight_autoscaler_write_errors_total";
/// Probes for an activator at a revision's public address that gave up.
const PROBES_UNANSWERED: &str = "pilotlight_autoscaler_probes_unanswered_total";

/// Describes every metric to the recorder. Once a process.
pub fn describe() {
    describe_counter!(WRITES, "Writes that the API server took, by operation");
    describe_counter!(WRITE_ERRORS, "Writes that failed and are tried again, by operation");
    describe_counter!(PROBES_UNANSWERED, "Probes before zero that no activator answered in time");
}

pub(crate) fn count_write(operation: &'static str) {
    counter!(WRITES, "operation" => operation).increment(1);
}

pub(crate) fn count_write_error(operation: &'static str) {
    counter!(WRITE_ERRORS, "operation" => operation).increment(1);
}

pub(crate) fn count_unanswered_probe() {
    counter!(PROBES_UNANSWERED).increment(1);
}
