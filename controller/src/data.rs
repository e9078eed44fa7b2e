//! The activator of plain Kubernetes: holds, counts and forwards requests, and follows the cluster itself.
//!
//! ```text
//! RequestAutoscalers, Services, pods ─┐              ┌─► endpoints ─────► activator ─► stats, to whoever leads
//! table of ports ─────────────────────┼─► view ──────┼─► uses of ports ─► listeners
//! defaults, activators ───────────────┘              └─► sleepers ──────► wakes, if no controller sees to them
//! slices ──────────────────────────────────────────────► listeners: how long ports stay, whether this one is named
//! ```
//!
//! The program writes nothing but a scale that is 0 while requests wait. Without the controller, and without the API server, it
//! serves on with what it knows.

mod book;
mod endpoints;
mod leader;
mod leaving;
mod listeners;
mod metrics;
mod named;
#[cfg(test)]
mod pretend;
pub mod program;
mod rules;
mod slim;
mod start;
mod status;
mod view;
mod wake;
mod watches;

pub use leaving::LeaveTimes;
pub use start::{DataParams, RunningActivator, start};
pub use watches::Scope;
