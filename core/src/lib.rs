//! Every decision of Pilotlight as a pure state machine.
//!
//! Nothing here reads a clock, opens a socket, spawns a task or logs. Time comes in as an argument
//! ([`Time`]), randomness from a seeded generator ([`Rng`]), and what was decided goes out as plain values
//! that say why. The autoscaler, the activator, the queue-proxy and the simulator are
//! thin drivers around these types, so they cannot disagree about what the algorithm does.

pub mod balance;
mod breaker;
mod endpoints;
mod id;
mod rng;
mod spec;
mod stat;
mod time;

pub use endpoints::{EndpointTable, PodEndpoint, PodTimeline, RevisionEndpoints, Trouble};
pub use id::RevisionId;
pub use rng::Rng;
pub use spec::{
    Aggregation, Reachability, RevisionSpec, ScalingMetric, ServingMode, TargetBurstCapacity, num_activators,
};
pub use stat::{RequestKind, RequestStats, Stat};
pub use time::Time;
