//! Operators' files and variables, parsed once into types that cannot be wrong.
//!
//! The settings are Knative's: the ConfigMap `config-autoscaler` ([`AutoscalerConfig`]) and the annotations of a
//! revision ([`Annotations`]). Both together resolve ([`resolve()`]) into the one
//! [`RevisionSpec`](pilotlight_core::RevisionSpec) the autoscaler works with. [`workload`] reads them out of the
//! manifests people have, and [`explain`] says in plain words what they will do.
//!
//! Every reader answers with all faults at once ([`Faults`]), each naming the file, key, value and rule.

pub mod annotations;
pub mod autoscaler;
pub mod cluster;
pub mod duration;
pub mod explain;
mod fault;
pub mod keys;
pub mod number;
pub mod process;
pub mod reference;
pub mod resolve;
pub mod spelling;
mod wording;
pub mod workload;

pub use annotations::Annotations;
pub use autoscaler::AutoscalerConfig;
pub use fault::{Fault, Faults, Findings, Parsed, Position, Warning};
pub use resolve::{Origin, Resolved, Setting, Verdict, resolve, resolve_within};
pub use workload::Workload;
