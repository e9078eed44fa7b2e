//! A request that can be sent again: while an upstream may still say that it has not touched it, what was sent of
//! its body is kept.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;

use crate::error::RequestBodyError;
use crate::replay::Recording;
use crate::{Body, Error, Request};

/// The other half of a request that is being sent.
pub(super) struct KeptRequest {
    head: Request,
    // None: there is no body.
    body: Option<Arc<Mutex<KeptBody>>>,
}

struct KeptBody {
    rest: Body,
    sent: Recording,
    failure: Option<RequestBodyError>,
}

impl KeptRequest {
    /// The request to be sent, and what it takes to have it back.
    pub(super) fn new(mut request: Request) -> (Request, KeptRequest) {
        let head = copy_head(&request);
        if request.body().is_end_stream() {
            return (request, KeptRequest { head, body: None });
        }
        let body = Arc::new(Mutex::new(KeptBody {
            rest: std::mem::take(request.body_mut()),
            sent: Recording::of_at_most(MAX_KEPT_BYTES),
            failure: None,
        }));
        *request.body_mut() = Body::stream(SentBody(Arc::clone(&body)));
        (request, KeptRequest { head, body: Some(body) })
    }

    /// The upstream has answered.
    pub(super) fn let_go(self) {
        if let Some(body) = &self.body {
            body.lock().sent.stop();
        }
    }

    /// The client's failure, if that was what ended the sending.
    pub(super) fn failure(&self) -> Option<Error> {
        self.body.as_ref()?.lock().failure.take().map(Error::Downstream)
    }

    /// The request as it was, unless too much of it has been sent.
    pub(super) fn restore(self) -> Option<Request> {
        let mut request = self.head;
        if let Some(body) = self.body {
            let mut body = body.lock();
            // Whoever still holds the half that is sent must find no more.
            let sent = std::mem::replace(&mut body.sent, Recording::stopped());
            if sent.is_stopped() {
                return None;
            }
            let rest = std::mem::take(&mut body.rest);
            *request.body_mut() = sent.rewind(rest)?;
        }
        Some(request)
    }
}

fn copy_head(request: &Request) -> Request {
    let mut copy = Request::default();
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    copy
}

struct SentBody(Arc<Mutex<KeptBody>>);

impl http_body::Body for SentBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let KeptBody { rest, sent, failure } = &mut *self.0.lock();
        let polled = Pin::new(rest).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => sent.keep(frame),
            Poll::Ready(Some(Err(Error::Downstream(cause)))) => *failure = Some(cause.clone()),
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().rest.size_hint()
    }
}

/// A body of which more than this was sent is not sent again.
const MAX_KEPT_BYTES: usize = 64 * 1024;
