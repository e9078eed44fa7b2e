//! Knative's activator, ours: it starts with the Deployment, the variables and the role of Knative's own.
//!
//! ```text
//! watches ──► index ──► RevisionEndpoints ──► activator
//! ```
//!
//! What it writes to the cluster: nothing. What it reads: Revisions, private Services and Endpoints of every namespace, and
//! ConfigMaps and Secrets of its own.

mod config;
mod facts;
mod index;
mod network;
mod observability;
mod program;
mod start;
mod tls;
mod watches;

pub use config::ConfigNames;
pub use network::NetworkSettings;
pub use program::{KnativeActivatorArgs, main, run};
pub use start::{KnativeActivatorParams, ListenAddresses, RunningActivator, start};
pub use watches::AddressSource;
