//! The trait that a proxy built on this crate implements.

use std::future::Future;

use crate::{Client, Request, Response};

/// Answers requests. Never fails: a failure is a response, too (see [`message`](crate::message)), or a response body that
/// ends with an error, which cuts the connection.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request of the client. Dropped unfinished when the client leaves.
    fn handle(&self, client: &Client, request: Request) -> impl Future<Output = Response> + Send;
}
