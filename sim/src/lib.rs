//! The simulator: the production decisions under another clock.
//!
//! [`simulate`] drives the autoscaler's [`Revision`](pilotlight_core::Revision) and the data plane's queues with the
//! events of a model ([`scenario`]), and says what came of it: an [`Outcome`]. [`replay`](replay()) feeds a journal
//! that the live autoscaler wrote back into the very code that wrote it, and says whether every decision comes out
//! again.

pub mod assert;
pub mod capacity;
pub mod cluster;
pub mod compare;
pub mod dist;
mod engine;
pub mod hpa;
mod outcome;
pub mod parallel;
mod read;
mod replay;
pub mod report;
pub mod scenario;
pub mod sweep;
pub mod traffic;
pub mod tune;

pub use engine::queue::EventQueue;
pub use engine::{Run, simulate};
pub use outcome::{
    Better, METRICS, Metric, Outcome, PodUse, Point, QUANTILES, Quantiles, SCHEMA, Scaling, Timeline, Unit,
};
pub use replay::{Deviation, Replay, ReplayError, replay};
pub use scenario::{Scenario, Settings};
