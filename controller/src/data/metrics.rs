//! Metrics of an activator of plain Kubernetes, beside those of its requests.
#![expect(clippy::disallowed_macros, reason = "this is the file of the metrics")]

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

/// Ports that are bound.
const LISTENERS: &str = "pilotlight_listeners";
/// Ports of the table that cannot be bound.
const UNBINDABLE: &str = "pilotlight_listeners_unbindable";
/// Attempts to bind a port that failed.
const BIND_ERRORS: &str = "pilotlight_listener_bind_errors_total";
/// Workloads that the activator woke itself.
const WAKES: &str = "pilotlight_activator_wakes_total";
/// Attempts to do so that failed.
const WAKE_ERRORS: &str = "pilotlight_activator_wake_errors_total";

/// Describes every metric to the recorder. Once a process.
pub(crate) fn describe() {
    describe_gauge!(LISTENERS, "Ports of the table that are bound");
    describe_gauge!(UNBINDABLE, "Ports of the table that cannot be bound");
    describe_counter!(BIND_ERRORS, "Attempts to bind a port that failed; each is made again");
    describe_counter!(WAKES, "Workloads that the activator woke itself, since the controller did not");
    describe_counter!(
        WAKE_ERRORS,
        "Attempts of the activator to wake a workload that failed; each is made again"
    );
}

/// The handles. A series is there as long as its handle.
#[derive(Clone)]
pub(super) struct Metrics {
    pub(super) listeners: Gauge,
    pub(super) unbindable: Gauge,
    pub(super) bind_errors: Counter,
    pub(super) wakes: Counter,
    pub(super) wake_errors: Counter,
}

impl Metrics {
    /// The handles, of the recorder that is installed.
    pub(super) fn new() -> Self {
        Metrics {
            listeners: gauge!(LISTENERS),
            unbindable: gauge!(UNBINDABLE),
            bind_errors: counter!(BIND_ERRORS),
            wakes: counter!(WAKES),
            wake_errors: counter!(WAKE_ERRORS),
        }
    }
}
