//! Every decision of Pilotlight as a pure state machine.
//!
//! Nothing here reads a clock, opens a socket, spawns a task or logs. Time comes in as an argument
//! ([`Time`]), randomness from a seeded generator ([`Rng`]), and what was decided goes out as plain values
//! that say why ([`Decision`], [`Plan`]). The autoscaler, the activator, the queue-proxy and the simulator are
//! thin drivers around these types, so they cannot disagree about what the algorithm does.
//!
//! Where to start: [`Revision::step`] is the whole of the autoscaler's thinking, [`Decider`] is Knative's
//! formula in it; [`Breaker`], [`balance`] and [`backends`] are what the data plane decides with, [`pods`] is what
//! keeps their number where no cluster does.

pub mod backends;
pub mod balance;
mod breaker;
pub mod cadence;
mod collector;
mod decider;
mod endpoints;
mod history;
mod id;
mod lifecycle;
mod limits;
pub mod pods;
mod reporter;
mod revision;
mod rng;
mod sample;
mod spec;
mod stat;
mod time;
mod why;
mod window;

pub use breaker::{Admission, Breaker, QueueFull, Ticket};
pub use collector::{Averages, Collector, WindowPairHistory};
pub use decider::{Decider, Decision, LoadHistory, Rule, ScalingMode};
pub use endpoints::{
    EndpointLine, MeshMode, Place, PodEndpoint, PodProbe, PodSharing, PodTimeline, RevisionEndpoints,
    Trouble, TroubleReason,
};
pub use history::History;
pub use id::RevisionId;
pub use lifecycle::{ActivatorPath, Activity, Bound, Lifecycle, Outcome};
pub use limits::{ConcurrencyLimit, Timeouts};
pub use reporter::{IDLE_CONCURRENCY, Reporter};
pub use revision::{Evaluation, Gap, Input, Plan, PodCounts, Record, Revision, Start, Trigger};
pub use rng::Rng;
pub use sample::{Candidate, ask_order, extrapolate, sample_size};
pub use spec::{
    Aggregation, Reachability, RevisionSpec, ScalingMetric, ServingMode, TargetBurstCapacity, num_activators,
};
pub use stat::{RequestKind, RequestStats, Stat};
pub use time::Time;
pub use window::{DelayWindow, Window, WindowHistory};
