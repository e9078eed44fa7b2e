//! The simulator: the production decisions under another clock.
//!
//! [`replay`](replay()) feeds a journal that the live autoscaler wrote back into the very code that wrote it, and
//! says whether every decision comes out again. A simulation drives the same [`pilotlight_core::Revision`] with
//! events of a model in place of the journal's, and says what came of it: an [`Outcome`].

mod outcome;
mod replay;

pub use outcome::{METRICS, Outcome, PodUse, Point, Quantiles, SCHEMA, Scaling, Timeline};
pub use replay::{Difference, Replay, ReplayError, replay};
