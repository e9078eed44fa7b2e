//! Knative's autoscaler, ours: what it watches, what it writes, and which revisions are its to decide about.
//!
//! ```text
//! watches ──► index ──► RevisionView ──► autoscaler's loop ──► Evaluation ──► reconcile ──► writes
//! ```

mod buckets;
mod cluster;
mod conditions;
mod facts;
mod history;
mod index;
mod known;
mod lane;
pub mod metrics;
mod probe;
mod reconcile;
mod scraping;
mod seen;
mod settings;
mod spec;
mod status;
mod tell;
mod trouble;
mod work;
mod write;

pub use buckets::Buckets;
pub use cluster::{KnativeCluster, KnativeClusterParams};
pub use probe::{Resolve, dns};
pub use scraping::ScrapeOutcome;
pub use settings::Settings;
