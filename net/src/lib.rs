//! HTTP in, HTTP out: the part that the activator, the queue-proxy and every admin port share.
//!
//! Everything here holds a connection, a request or a body, or measures one. A proxy built on this crate is one
//! [`Handler`]: [`serve`] brings the requests in, [`Upstreams::send`] takes them out, a [`Breaker`] limits how many run,
//! and [`with_timeouts`] how long they take; every failure becomes a response in [`message`].

mod admin;
mod alarm;
mod backoff;
mod body;
mod breaker;
mod budget;
mod client;
mod clock;
mod connections;
mod dial;
mod drain;
pub mod error;
mod expect;
mod fields;
mod forward;
pub mod grpc;
mod h1;
mod h2;
mod handler;
pub mod headers;
mod hold;
mod hop;
mod keep_alive;
mod listen;
pub mod message;
pub mod once;
mod preface;
pub mod probe;
mod proxy_protocol;
mod read_ahead;
mod refusal;
mod relay;
mod replay;
mod server;
mod target;
mod timeout;
mod timer;
pub mod tls;
mod transport;
mod turn;
mod unsent;
mod unwritten;
mod upgrade;
mod window;
pub mod wire;

pub use admin::Admin;
pub use backoff::Backoff;
pub use body::{Body, Ending};
pub use breaker::{Breaker, Permit};
pub use budget::ByteBudget;
pub use client::Client;
pub use clock::Clock;
pub use connections::{Port, connection_limit_hits, descriptor_limit, open_connections};
pub use dial::{connect, other_localhost};
pub use drain::Drain;
pub use error::{Error, Fault, RequestBodyError};
pub use forward::{Pings, SendError, UpstreamParams, Upstreams, is_replayable};
pub use handler::Handler;
pub use headers::{is_kubelet_probe, is_probe};
pub use hold::{hold_bytes_while, hold_while};
pub use hop::{prepare_forward, prepare_onward, prepare_response};
pub use listen::listen;
pub use message::{Request, Response, plain};
pub use pilotlight_core::QueueFull;
pub use pilotlight_core::Timeouts;
pub use preface::FirstBytes;
pub use relay::{Broken, Carried, Relay};
pub use server::{ClientConnection, Serving, serve, serve_each, serve_tls};
pub use target::{Target, TargetError};
pub use timeout::with_timeouts;
pub use transport::Transport;
pub use unsent::mark_unsent;
