//! In the place of Knative Serving's own parts: its autoscaler and its activator, on a cluster.
//!
//! Both are the components of `pilotlight-autoscaler` and `pilotlight-activator`, with Kubernetes watches in front of them
//! and writes to the API server behind them. Nothing is decided here.

pub mod activator;
pub mod adopt;
mod api_server_version;
pub mod autoscaler;
pub mod explain;

pub use pilotlight_kubernetes::ClusterArgs;
