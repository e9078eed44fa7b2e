//! Knative's autoscaler, ours: what it watches, what it writes, and which revisions are its to decide about.
//!
//! ```text
//! watches ──► index ──► RevisionView ──► autoscaler's loop ──► Evaluation ──► reconcile ──► writes
//! ```

mod bucket_endpoints;
mod buckets;
mod cluster;
mod conditions;
mod config_maps;
mod facts;
mod forward;
mod history;
mod index;
pub mod metrics;
mod ownership;
#[cfg(test)]
mod pretend;
mod probe;
pub mod program;
mod reconcile;
mod running;
mod scraping;
mod seen;
mod settings;
mod spec;
mod status;
mod targets;
mod tell;
mod work;
mod write;

pub use bucket_endpoints::BucketEndpoints;
pub use buckets::Buckets;
pub use cluster::{KnativeCluster, KnativeClusterParams};
pub use config_maps::{ConfigMapNames, ConfigMaps, OnRefused, in_one_line};
pub use forward::Forwarder;
pub use ownership::{HolderAddresses, Holders, Ownership, StatefulSet};
pub use probe::{Resolve, dns};
pub use running::{RunningAutoscaler, RunningParams, STATS_PORT, start};
pub use scraping::ScrapeOutcome;
pub use settings::Settings;
