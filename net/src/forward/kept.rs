//! An HTTP/2 request that can be sent again. hyper takes the request, body and all, and the upstream may say later that it
//! did not process it (RFC 9113, 8.7): until it answers, the sent part of the body is recorded.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;

use crate::error::RequestBodyError;
use crate::replay::{MAX_KEPT_BYTES, Recording};
use crate::{Body, Error, Request};

/// The half of a request that stays here while the other half is sent.
pub(super) struct KeptRequest {
    head: Request,
    // None if the request has no body.
    body: Option<Arc<Mutex<KeptBody>>>,
}

struct KeptBody {
    rest: Body,
    sent: Recording,
    failure: Option<RequestBodyError>,
}

impl KeptRequest {
    /// Splits a request: the half to be sent, and the half that restores it.
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

    /// Stops the recording: the upstream has answered.
    pub(super) fn let_go(self) {
        if let Some(body) = &self.body {
            body.lock().sent.stop();
        }
    }

    /// The failure of the client's body, if that was what ended the sending.
    pub(super) fn failure(&self) -> Option<Error> {
        self.body.as_ref()?.lock().failure.take().map(Error::Downstream)
    }

    /// The request as it was; `None` if too much of its body has been sent.
    pub(super) fn restore(self) -> Option<Request> {
        let mut request = self.head;
        if let Some(body) = self.body {
            let mut body = body.lock();
            // The half that was sent may still be there, and finds no more to send.
            let sent = std::mem::replace(&mut body.sent, Recording::Stopped);
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
