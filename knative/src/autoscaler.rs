//! Knative's autoscaler, ours: what it watches, what it writes, and which revisions are its to decide about.
//!
//! ```text
//! watches ──► index ──► RevisionView ──► autoscaler's loop ──► Evaluation ──► reconcile ──► writes
//! ```

mod buckets;
mod config_maps;
pub mod metrics;
mod settings;

pub use buckets::Buckets;
pub use config_maps::{ConfigMapNames, ConfigMaps, OnRefused, in_one_line};
pub use settings::Settings;
