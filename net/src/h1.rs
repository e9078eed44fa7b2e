//! HTTP/1.1: the half that serves clients and the half that speaks to upstreams.
//!
//! Ours, because both are the request path. A request goes through both within one task, and neither half keeps a
//! buffer for a connection that has nothing in it: with those of a general library, a request in flight costs 40 KiB
//! and a third more work. What is a matter of taste in no proxy is left to those who keep it well: lines and names
//! are parsed by `httparse`, values and targets by `http`.
//!
//! - [`head`]: what comes before a body, read and written
//! - [`length`]: where a body ends
//! - [`decoder`] and [`sender`]: bodies
//! - [`server`] with its [`link`], and [`client`]: connections

pub(crate) mod client;
mod decoder;
mod h2c;
mod head;
pub(crate) mod length;
pub(crate) mod link;
mod sender;
pub(crate) mod server;
#[cfg(test)]
mod wires;
mod write_buffer;
