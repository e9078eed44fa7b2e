//! A Kubernetes API server as the rest of this project wants it: feeds of small facts.
//!
//! [`watch`] lists and watches objects of one kind and publishes what is needed of each ([`Feed`](pilotlight_feed::Feed)),
//! through breaks of the connection, expired versions and outages. [`knative`] has Knative's internal objects. What is
//! decided of it all is not decided here.

mod access;
mod client;
mod cluster_args;
mod election;
pub mod event;
pub mod knative;
pub mod known;
pub mod labels;
pub mod lane;
mod lease;
pub mod metrics;
#[cfg(any(test, feature = "test-support"))]
pub mod pretend;
pub mod scale;
pub mod trouble;
mod watch;
pub mod write;

pub use access::may_watch;
pub use client::{ClientArgs, ClientError, configure, connect};
pub use cluster_args::ClusterArgs;
pub use election::LeaseTimes;
pub use lease::{LeaseState, Leases, LeasesParams};
pub use watch::{WatchParams, watch};
