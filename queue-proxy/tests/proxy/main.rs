//! A whole queue-proxy over real sockets, with an app behind it.

#![allow(missing_docs)]

mod drain;
mod probes;
mod protocols;
mod requests;
mod support;
mod telling;
mod traces;
