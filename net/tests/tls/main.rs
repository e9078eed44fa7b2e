//! TLS on real sockets, with certificates made on the spot.

#![allow(missing_docs)]

mod pods;
mod server;
mod support;
