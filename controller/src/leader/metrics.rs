//! LeaderMetrics of the controller, beside those of its decisions.
#![expect(clippy::disallowed_macros, reason = "this is the file of the metrics")]

use metrics::{Gauge, describe_counter, describe_gauge, gauge};
use pilotlight_kubernetes::metrics::Labelled;

/// Writes that the API server took, by operation.
const WRITES: &str = "pilotlight_controller_writes_total";
/// Writes that failed, by operation. Each is tried again.
const WRITE_ERRORS: &str = "pilotlight_controller_write_errors_total";
/// Whether this process leads.
const LEADING: &str = "pilotlight_controller_leading";
/// Workloads that decisions are made about.
const WORKLOADS: &str = "pilotlight_controller_workloads";
/// Activators that serve.
const ACTIVATORS: &str = "pilotlight_controller_activators_serving";
/// Illegal changes of ConfigMaps, by name.
const CONFIG_REFUSED: &str = "pilotlight_config_refused_total";

/// Describes every metric to the recorder. Once a process.
pub fn describe() {
    describe_counter!(WRITES, "Writes that the API server took, by operation");
    describe_counter!(WRITE_ERRORS, "Writes that failed and are tried again, by operation");
    describe_gauge!(LEADING, "1 while this process decides, 0 while it stands by");
    describe_gauge!(WORKLOADS, "Workloads that decisions are made about");
    describe_gauge!(ACTIVATORS, "Activators that serve");
    describe_counter!(CONFIG_REFUSED, "Illegal changes of ConfigMaps, which were not followed, by name");
}

/// The handles. A series is there as long as its handle.
#[derive(Clone)]
pub(crate) struct LeaderMetrics {
    pub(crate) writes: Labelled,
    pub(crate) write_errors: Labelled,
    pub(crate) leading: Gauge,
    pub(crate) workloads: Gauge,
    pub(crate) activators: Gauge,
    pub(crate) config_refused: Labelled,
}

impl LeaderMetrics {
    /// The handles, of the recorder that is installed.
    pub(crate) fn new() -> Self {
        LeaderMetrics {
            writes: Labelled::new(WRITES, "operation"),
            write_errors: Labelled::new(WRITE_ERRORS, "operation"),
            leading: gauge!(LEADING),
            workloads: gauge!(WORKLOADS),
            activators: gauge!(ACTIVATORS),
            config_refused: Labelled::new(CONFIG_REFUSED, "name"),
        }
    }
}
