//! The three timers of a request: the whole, the wait for the first byte, the silences in between.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use http_body::Body as _;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{Body, Error, Response};

/// How long a request may take. All three start when the request arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From arrival to the end of the response, whatever happens. Zero: at once (Knative's reading, too).
    pub total: Duration,
    /// From arrival to the head of the response.
    pub response_start: Option<Duration>,
    /// The longest silence: from arrival to the head, and between two pieces of the response.
    pub idle: Option<Duration>,
}

/// Bounds `call` and the body of the response it makes.
///
/// Too late before the response began: `call` is dropped, and the response is a 504 with `message` (as Knative
/// has it: no newline). Too late after that: the body ends with an [`Error`], so that the client sees a broken
/// response. Knative writes `message` into the response's body there, which corrupts it unnoticed.
pub async fn with_timeouts(
    timeouts: Timeouts,
    message: &'static str,
    call: impl Future<Output = Response>,
) -> Response {
    let arrived = Instant::now();
    let optional = |limit: Option<Duration>| limit.unwrap_or(Duration::MAX);
    let until_head = timeouts.total.min(optional(timeouts.response_start)).min(optional(timeouts.idle));
    if until_head.is_zero() {
        return timed_out(message);
    }
    let mut sleep = Box::pin(sleep_until(after(arrived, until_head)));
    let response = tokio::select! {
        biased;
        response = pin!(call) => response,
        () = &mut sleep => return timed_out(message),
    };
    if response.body().is_end_stream() {
        return response;
    }
    let total_at = after(arrived, timeouts.total);
    response.map(|body| {
        body.timed(Timer { sleep, total_at, idle: timeouts.idle, quiet_since: Instant::now(), message })
    })
}

/// The timers of a response that has begun.
pub(crate) struct Timer {
    // Set to a moment that is never later than the deadline; the deadline is reckoned anew when it fires. So a
    // body of many pieces does not touch the timer wheel once a piece.
    sleep: Pin<Box<Sleep>>,
    total_at: Instant,
    idle: Option<Duration>,
    quiet_since: Instant,
    message: &'static str,
}

impl Timer {
    /// A piece of the response went out.
    pub(crate) fn written(&mut self) {
        if self.idle.is_some() {
            self.quiet_since = Instant::now();
        }
    }

    /// Ready when the response must end.
    pub(crate) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        while self.sleep.as_mut().poll(cx).is_ready() {
            let deadline = match self.idle {
                Some(idle) => self.total_at.min(after(self.quiet_since, idle)),
                None => self.total_at,
            };
            if deadline <= Instant::now() {
                return Poll::Ready(Error::TimedOut(self.message));
            }
            self.sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

fn timed_out(message: &'static str) -> Response {
    let mut response = Response::new(Body::full(message));
    *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
    let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

// An instant so far off that adding overflows is as good as a year.
fn after(start: Instant, limit: Duration) -> Instant {
    start.checked_add(limit).unwrap_or(start + Duration::from_secs(365 * 24 * 3600))
}
