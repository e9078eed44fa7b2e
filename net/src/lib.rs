//! HTTP in, HTTP out: what the activator, the queue-proxy and every admin port share.
//!
//! If it does not hold a connection, a request or a body, or measure one, it is not here. A proxy built on this
//! crate is one [`Handler`]: [`serve`] brings the requests in, [`Upstreams::send`] takes them out, a [`Breaker`]
//! limits them, [`with_timeouts`] bounds them, and every failure becomes a response in [`error`].

mod admin;
mod alarm;
mod backoff;
mod body;
mod breaker;
mod client;
mod clock;
mod dial;
mod drain;
pub mod error;
mod expect;
mod forward;
pub mod grpc;
mod h1;
mod h2;
pub mod headers;
mod hold;
mod listen;
pub mod once;
pub mod probe;
mod server;
mod target;
mod timeout;
pub mod tls;
mod transport;
mod upgrade;
pub mod wire;

pub use admin::Admin;
pub use backoff::Backoff;
pub use body::{Body, Ending};
pub use breaker::{Breaker, Permit};
pub use client::Client;
pub use clock::Clock;
pub use dial::connect;
pub use drain::Drain;
pub use error::{Error, Fault, plain};
pub use forward::{SendError, UpstreamParams, Upstreams};
pub use headers::{is_kubelet_probe, is_probe, prepare_forward, prepare_response};
pub use hold::{ByteBudget, hold_while};
pub use listen::listen;
pub use pilotlight_core::QueueFull;
pub use server::{Handler, serve, serve_tls};
pub use target::{Target, TargetError};
pub use timeout::{Timeouts, with_timeouts};
pub use transport::Transport;

/// A request whose body is a [`Body`].
pub type Request = http::Request<Body>;
/// A response whose body is a [`Body`].
pub type Response = http::Response<Body>;
