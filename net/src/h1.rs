//! HTTP/1.1 (RFC 9112): the half that serves clients and the half that speaks to upstreams.
//!
//! Both are written here, because both are the request path. A request goes through both within one task, and neither
//! keeps a buffer for a connection that has nothing in it: with the halves of a general library, a request in flight costs
//! 40 KiB and a third more work. Parsing is no matter of taste, and libraries do it: `httparse` lines and names, `http`
//! values and targets. hyper's halves are the reference that these are tested against (`tests/http/differential.rs`).
//!
//! - [`head`]: request line or status line, and header fields, read and written
//! - [`raw_target`]: targets that are no URI
//! - [`trailers`]: the fields behind a chunked body
//! - [`length`]: how long a body is
//! - [`decoder`] reads bodies, [`sender`] writes them into a [`write_buffer`]
//! - [`server`] serves a connection, [`link`] says who owns it in which state (with a picture); [`h2c`] upgrades it
//! - [`client`]: a connection to an upstream

pub(crate) mod client;
mod decoder;
mod h2c;
mod head;
pub(crate) mod length;
pub(crate) mod link;
mod raw_target;
mod sender;
pub(crate) mod server;
mod trailers;
#[cfg(test)]
mod wires;
mod write_buffer;

pub(crate) use head::MAX_FIELDS;
