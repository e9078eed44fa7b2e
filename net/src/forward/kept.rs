//! A request that can be sent again: while an upstream may still say that it has not touched it, what was sent of
//! its body is kept.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;

use crate::{Body, Error, Request};

/// The other half of a request that is being sent.
pub(super) struct Kept {
    head: Request,
    // None: there is no body.
    sending: Option<Arc<Mutex<Sending>>>,
}

struct Sending {
    rest: Body,
    sent: VecDeque<Frame<Bytes>>,
    sent_bytes: usize,
    // Too much was sent to be kept, or it is not needed any more.
    is_over: bool,
    failure: Option<String>,
}

impl Kept {
    /// The request to be sent, and what it takes to have it back.
    pub(super) fn new(mut request: Request) -> (Request, Kept) {
        let head = copy_head(&request);
        if request.body().is_end_stream() {
            return (request, Kept { head, sending: None });
        }
        let sending = Arc::new(Mutex::new(Sending {
            rest: std::mem::take(request.body_mut()),
            sent: VecDeque::new(),
            sent_bytes: 0,
            is_over: false,
            failure: None,
        }));
        *request.body_mut() = Body::stream(SentBody(Arc::clone(&sending)));
        (request, Kept { head, sending: Some(sending) })
    }

    /// The upstream has answered.
    pub(super) fn let_go(self) {
        if let Some(sending) = &self.sending {
            let mut sending = sending.lock();
            sending.is_over = true;
            sending.sent = VecDeque::new();
        }
    }

    /// The client's failure, if that was what ended the sending.
    pub(super) fn failure(&self) -> Option<Error> {
        let sending = self.sending.as_ref()?;
        sending.lock().failure.take().map(Error::Downstream)
    }

    /// The request as it was, unless too much of it has been sent.
    pub(super) fn restore(self) -> Option<Request> {
        let mut request = self.head;
        if let Some(sending) = self.sending {
            let mut sending = sending.lock();
            if sending.is_over {
                return None;
            }
            // Whoever still holds the sending half must find no more.
            sending.is_over = true;
            let (sent, rest) = (std::mem::take(&mut sending.sent), std::mem::take(&mut sending.rest));
            *request.body_mut() =
                if sent.is_empty() { rest } else { Body::stream(Replayed { early: sent, rest }) };
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

struct SentBody(Arc<Mutex<Sending>>);

impl http_body::Body for SentBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut sending = self.0.lock();
        let polled = Pin::new(&mut sending.rest).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) if !sending.is_over => sending.keep(frame),
            Poll::Ready(Some(Err(Error::Downstream(text)))) => sending.failure = Some(text.clone()),
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

impl Sending {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        let copy = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Frame::data(data.clone()),
            (_, Some(trailers)) => Frame::trailers(trailers.clone()),
            _ => return,
        };
        self.sent_bytes += copy.data_ref().map_or(0, Bytes::len);
        self.sent.push_back(copy);
        if self.sent_bytes > MAX_KEPT_BYTES {
            self.is_over = true;
            self.sent = VecDeque::new();
        }
    }
}

/// What was sent once already, and the rest.
pub(crate) struct Replayed {
    early: VecDeque<Frame<Bytes>>,
    rest: Body,
}

impl Replayed {
    pub(crate) fn new(early: impl IntoIterator<Item = Bytes>, rest: Body) -> Self {
        Replayed { early: early.into_iter().map(Frame::data).collect(), rest }
    }
}

impl http_body::Body for Replayed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.early.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.early.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let early: u64 = self.early.iter().filter_map(Frame::data_ref).map(|data| data.len() as u64).sum();
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(early + rest.lower());
        if let Some(upper) = rest.upper() {
            hint.set_upper(early + upper);
        }
        hint
    }
}

/// A body of which more than this was sent is not sent again.
const MAX_KEPT_BYTES: usize = 64 * 1024;
