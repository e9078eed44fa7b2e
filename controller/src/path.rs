//! How a workload's traffic reaches the activators: from what is seen to the writes that are missing now. Level-triggered
//! and pure: every step is derived again from slices, scale and pods, and the same state again leads to no write.

mod plan;
mod seen;

pub use plan::{EndpointsDeletion, Intercepting, PathPlan, PathWrite, Restored};
pub use seen::{EndpointsSeen, PathSeen, PathWay, ReadyPod, Restoring, ServiceSeen};

use std::time::Duration;

/// How long a change of slices takes to reach every node, unless it is configured.
pub const PROPAGATION: Duration = Duration::from_secs(5);
