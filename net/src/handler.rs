//! The trait that a proxy built on this crate implements.

use std::future::Future;
use std::pin::Pin;

use crate::{Client, Request, Response};

/// Answers requests. Never fails: a failure is a response, too (see [`message`](crate::message)), or a response body that
/// ends with an error, which cuts the connection.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request of the client. Dropped unfinished when the client leaves.
    fn handle(&self, client: &Client, request: Request) -> impl Future<Output = Response> + Send;
}

/// Any [`Handler`]. The server knows no other, so it is compiled once, in this crate, and not again for each handler in
/// each crate that has one. The price is one allocation a request.
pub(crate) trait AnyHandler: Send + Sync {
    fn answer<'a>(
        &'a self,
        client: &'a Client,
        request: Request,
    ) -> Pin<Box<dyn Future<Output = Response> + Send + 'a>>;
}

impl<H: Handler> AnyHandler for H {
    fn answer<'a>(
        &'a self,
        client: &'a Client,
        request: Request,
    ) -> Pin<Box<dyn Future<Output = Response> + Send + 'a>> {
        Box::pin(self.handle(client, request))
    }
}
