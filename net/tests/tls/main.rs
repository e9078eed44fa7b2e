//! TLS on real sockets, with certificates made on the spot.

#![allow(missing_docs)]

mod client;
mod pods;
mod server;
mod support;
