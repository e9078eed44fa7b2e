//! The crate over real sockets: a server, a pool of upstreams, and the two together as a proxy.

#![allow(missing_docs)]

mod closing;
mod differential;
mod dying;
mod fickle;
mod floods;
mod forward;
mod frames;
mod framing;
mod h2;
mod hold;
mod memory;
mod mended;
mod once;
mod passing;
mod pieces;
mod probe;
mod server;
mod shared;
mod stream;
mod support;
mod upgrade;
mod wear;
