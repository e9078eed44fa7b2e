//! The controller: one of its processes leads by a Lease, decides with the core, and is the only one that writes slices,
//! scales, statuses and the table of ports.
//!
//! ```text
//! watches ──► Workloads ──► RevisionView ──► autoscaler's loop ──► Evaluation ──► reconcile ──► writes
//! ```

mod alarms;
mod bindings;
mod conditions;
mod config;
mod entry;
mod foreign;
mod history;
mod hpa;
mod look;
pub mod metrics;
mod own;
mod pace;
mod plain;
mod port_keeper;
#[cfg(test)]
mod pretend;
pub mod program;
mod reconcile;
mod restore;
mod roll;
mod rounds;
mod running;
mod scale_in;
mod scaling;
mod seen;
mod signals;
mod sources;
mod stale;
mod status;
mod strangers;
mod surveyor;
mod target;
mod tell;
mod term;
mod view;
mod work;
mod workloads;
mod write;

pub use running::{ADMIN_PORT, Params, Running, STATS_PORT, start};
