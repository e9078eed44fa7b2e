//! Knative's autoscaler, ours: what it watches, what it writes, and which revisions are its to decide about.
//!
//! ```text
//! watches ──► index ──► RevisionView ──► autoscaler's loop ──► Evaluation ──► reconcile ──► writes
//! ```

mod buckets;
mod settings;

pub use buckets::Buckets;
pub use settings::Settings;
