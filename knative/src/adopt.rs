//! Putting our parts in the place of Knative's on a running cluster, one at a time, and taking them back.
//!
//! A part is an image. [`adopt`] shows the change, makes it, watches the pods that come of it, and takes it back if they do
//! not become ready. The former image is kept in an annotation, for [`rollback`]. Nothing else of Knative is changed.
//!
//! | file | what is in it |
//! |---|---|
//! | `plan.rs` | what would be changed: pure |
//! | `requirements.rs` | what a cluster must have: pure |
//! | `rollout.rs` | whether the pods have become ready, and why not: pure |
//! | `cluster.rs` | reads and patches |
//! | `run.rs` | the order of it all |

mod cluster;
mod component;
mod plan;
mod requirements;
mod rollout;
mod run;

pub use component::Component;
pub use plan::{Plan, PlanError};
pub use run::{AdoptError, AdoptParams, adopt, rollback, status};
