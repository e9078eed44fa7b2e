//! The simulator: the production decisions under another clock.
//!
//! [`replay`](replay()) is its first driver: it feeds a journal that the live autoscaler wrote back into the very
//! code that wrote it, and says whether every decision comes out again. Scenarios, traffic and tuning drive the
//! same [`pilotlight_core::Revision`] with events of a model in place of the journal's.

pub mod dist;
mod replay;
pub mod traffic;

pub use replay::{Difference, Replay, ReplayError, replay};
