//! The simulator: the production decisions under another clock.
//!
//! [`replay`](replay()) feeds a journal that the live autoscaler wrote back into the very code that wrote it, and
//! says whether every decision comes out again. A simulation drives the same [`pilotlight_core::Revision`] with
//! events of a model in place of the journal's, and says what came of it: an [`Outcome`].

pub mod assert;
mod outcome;
mod replay;
pub mod report;

pub use outcome::{
    Better, METRICS, Metric, Outcome, PodUse, Point, QUANTILES, Quantiles, SCHEMA, Scaling, Timeline, Unit,
};
pub use replay::{Difference, Replay, ReplayError, replay};
