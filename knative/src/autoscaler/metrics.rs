//! Metrics of the autoscaler on a cluster, beside those of its decisions.
#![expect(clippy::disallowed_macros, reason = "this is the file of the metrics")]

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use pilotlight_kubernetes::metrics::Labelled;

/// Writes that the API server took, by operation.
const WRITES: &str = "pilotlight_autoscaler_writes_total";
/// Writes that failed, by operation. Each is tried again.
const WRITE_ERRORS: &str = "pilotlight_autoscaler_write_errors_total";
/// Probes for an activator at a revision's public address that gave up.
const PROBES_UNANSWERED: &str = "pilotlight_autoscaler_probes_unanswered_total";

/// Buckets whose leases are held here.
const BUCKETS_HELD: &str = "pilotlight_autoscaler_buckets_held";
/// Illegal changes of ConfigMaps, by name.
const CONFIG_REFUSED: &str = "pilotlight_config_refused_total";
/// Stats given to another autoscaler.
const STATS_FORWARDED: &str = "pilotlight_autoscaler_stats_forwarded_total";
/// Stats thrown away since nobody could be found for them.
const STATS_DROPPED: &str = "pilotlight_autoscaler_stats_dropped_total";

/// Describes every metric to the recorder. Once a process.
pub fn describe() {
    describe_counter!(WRITES, "Writes that the API server took, by operation");
    describe_counter!(WRITE_ERRORS, "Writes that failed and are tried again, by operation");
    describe_counter!(PROBES_UNANSWERED, "Probes before zero that no activator answered in time");
    describe_gauge!(BUCKETS_HELD, "Buckets of revisions that this autoscaler decides about");
    describe_counter!(CONFIG_REFUSED, "Illegal changes of ConfigMaps, which were not followed");
    describe_counter!(STATS_FORWARDED, "Stats of activators given to another autoscaler");
    describe_counter!(
        STATS_DROPPED,
        "Stats of activators thrown away: no autoscaler decided about their revisions for too long"
    );
}

/// The handles. A series is there as long as its handle.
#[derive(Clone)]
pub struct Metrics {
    pub(crate) buckets_held: Gauge,
    pub(crate) stats_forwarded: Counter,
    pub(crate) stats_dropped: Counter,
    pub(crate) probes_unanswered: Counter,
    pub(crate) writes: Labelled,
    pub(crate) write_errors: Labelled,
    pub(crate) config_refused: Labelled,
}

impl Metrics {
    /// The handles, of the recorder that is installed.
    #[expect(clippy::new_without_default, reason = "it has an effect")]
    pub fn new() -> Self {
        Metrics {
            buckets_held: gauge!(BUCKETS_HELD),
            stats_forwarded: counter!(STATS_FORWARDED),
            stats_dropped: counter!(STATS_DROPPED),
            probes_unanswered: counter!(PROBES_UNANSWERED),
            writes: Labelled::new(WRITES, "operation"),
            write_errors: Labelled::new(WRITE_ERRORS, "operation"),
            config_refused: Labelled::new(CONFIG_REFUSED, "name"),
        }
    }
}
