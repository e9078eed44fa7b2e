//! The activator: holds requests while pods come up, so that none is lost.
//!
//! A request comes in ([`Activator::serve`]), is counted for the autoscaler, waits for a pod with room, and goes
//! on to it. A feed of [endpoints](pilotlight_core::RevisionEndpoints) says what revisions there are and which pods
//! they have; what it leaves open, the pods are asked themselves. Whoever runs pods publishes each revision by itself,
//! and [`endpoints::follow`] follows a publisher in another process. HTTP/1.1, HTTP/2 and WebSockets pass as they come.
//!
//! A port may also belong to one revision alone ([`Activator::serve_port`]), as on plain Kubernetes: whatever comes in there is
//! for that revision, HTTP or not, and Knative's headers mean nothing. With a limit on the concurrency of its pods, each pod
//! may belong to one activator ([`PodSharing::Owned`](pilotlight_core::PodSharing)), and the others send requests there.
//!
//! ```no_run
//! # async fn run() -> std::io::Result<()> {
//! use pilotlight_activator::{Activator, ActivatorParams, endpoints};
//! use pilotlight_net::{Clock, Drain, Target};
//!
//! let endpoints = endpoints::follow(Target::http("http://127.0.0.1:8090/v1/endpoints").expect("a URL"));
//! let autoscaler = Target::ws("ws://127.0.0.1:8080").expect("a URL");
//! let params = ActivatorParams::new("activator-1", Clock::start(), autoscaler);
//! let activator = Activator::start(params, endpoints);
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8012").await?;
//! activator.serve(listener, Drain::default()).await;
//! # Ok(()) }
//! ```

mod accept;
mod activator;
mod connections;
pub mod endpoints;
#[cfg(test)]
mod endurance;
mod handler;
mod ignore;
mod known;
mod ledger;
pub mod link;
mod metrics;
mod pods;
mod ports;
mod prober;
mod probes;
mod refusal;
mod reports;
mod revision;
mod routes;
mod run;
#[cfg(test)]
mod scripts;
mod settings;
mod sink;
mod tcp;
mod throttler;
mod upstreams;

pub use activator::{Activator, ActivatorParams, BufferLimits};
pub use ignore::{IgnoreRule, IgnoreRules};
pub use ledger::{ColdStart, ColdStarts, Latencies, Ledger, RevisionLedger};
pub use ports::{PortIdentity, PortProtocol, PortSettings, TcpTimes};
pub use prober::ProbeParams;
pub use revision::RevisionActivity;
pub use run::{admin_routes, main, run};
pub use settings::{ActivatorArgs, TrafficArgs, start_telemetry, tls_policy};
pub use upstreams::{IdleConnections, PodsOverTls};
