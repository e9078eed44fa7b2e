//! The three time limits of a request: for the whole, for the wait for its response, for silence.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use http_body::Body as _;
use pilotlight_core::Timeouts;
use tokio::time::Instant;

use crate::timer::{Timer, after};
use crate::{Body, Client, Response, headers};

/// Bounds `call`, which answers `client`, and the body of the response it makes.
///
/// A limit that is reached before the response has begun drops `call`, and the response is a 504 with `message` (without a
/// newline, as in Knative: `pkg/http/handler/timeout.go`). A request that has not been [sent](crate::Upstreams::send) by then
/// never is, even if its turn comes at that very moment: requests that arrived together run out of time together, and
/// each would get the place of the one before. A limit that is reached later ends the body with an
/// [`Error`](crate::Error), so that the client sees a broken response. A deviation: Knative writes `message` into the body
/// there, which corrupts it unnoticed.
pub async fn with_timeouts(
    client: &Client,
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
    let (head_at, mut call) = (after(arrived, until_head), pin!(call));
    client.set_waiting();
    let mut has_waited = false;
    let response = poll_fn(|cx| {
        // Before the call, which would send the request. One that was sent may still be answered.
        if has_waited && !client.is_sent() && head_at <= Instant::now() + TICK {
            return Poll::Ready(None);
        }
        has_waited = true;
        match call.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(Some(response)),
            Poll::Pending => client.alarm().poll(head_at, cx).map(|()| None),
        }
    });
    let Some(response) = response.await else { return timed_out(message) };
    if response.body().is_end_stream() {
        return response;
    }
    let total_at = after(arrived, timeouts.total);
    response.map(|body| body.timed(Timer::new(client.alarm().clone(), total_at, timeouts.idle, message)))
}

/// tokio's timers go off at whole milliseconds: with less than that left, another request's limit may be seen before this
/// one's, which was to be reached first.
const TICK: Duration = Duration::from_millis(1);

fn timed_out(message: &'static str) -> Response {
    let mut response = Response::new(Body::full(message));
    *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
    let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response.headers_mut().insert(headers::REASON, HeaderValue::from_static(headers::TIMED_OUT));
    response
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::{Breaker, Error};
    use bytes::Bytes;
    use futures_util::future::join_all;
    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::{BodyExt, StreamBody};
    use tokio::time::sleep;

    const MESSAGE: &str = "request timeout";

    fn timeouts(total: u64, response_start: u64, idle: u64) -> Timeouts {
        let limit = |secs: u64| (secs > 0).then(|| Duration::from_secs(secs));
        Timeouts {
            total: Duration::from_secs(total),
            response_start: limit(response_start),
            idle: limit(idle),
        }
    }

    /// A response whose head comes after `head`, and its pieces after each of `pieces`.
    async fn slow(head: Duration, pieces: Vec<Duration>) -> Response {
        sleep(head).await;
        let pieces = stream::unfold(pieces.into_iter(), |mut pieces| async {
            sleep(pieces.next()?).await;
            Some((Ok(Frame::data(Bytes::from_static(b"foo"))), pieces))
        });
        Response::new(Body::stream(StreamBody::new(pieces)))
    }

    fn client() -> Client {
        Client::new(([127, 0, 0, 1], 1).into())
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// Status, body up to its end or error, the error, and the time of the end.
    async fn outcome(
        timeouts: Timeouts,
        call: impl Future<Output = Response>,
    ) -> (u16, String, Option<String>, Duration) {
        let started = Instant::now();
        let response = with_timeouts(&client(), timeouts, MESSAGE, call).await;
        let (head, mut body) = response.into_parts();
        let (mut read, mut error) = (String::new(), None);
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => read.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap()),
                Err(failure) => error = Some(failure.to_string()),
            }
        }
        (head.status.as_u16(), read, error, started.elapsed())
    }

    fn gateway_timeout(after: Duration) -> (u16, String, Option<String>, Duration) {
        (504, MESSAGE.to_owned(), None, after)
    }

    #[tokio::test(start_paused = true)]
    async fn silence_past_the_total_is_a_504() {
        let silent = slow(secs(20), vec![]);
        assert_eq!(outcome(timeouts(10, 0, 0), silent).await, gateway_timeout(secs(10)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_total_of_zero_is_an_immediate_504() {
        let prompt = slow(Duration::ZERO, vec![]);
        assert_eq!(outcome(timeouts(0, 0, 0), prompt).await, gateway_timeout(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_head_is_a_504_at_the_response_start_limit() {
        let late = slow(secs(15), vec![]);
        assert_eq!(outcome(timeouts(20, 7, 0), late).await, gateway_timeout(secs(7)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_response_start_limit_is_over_once_the_response_has_started() {
        let long = slow(secs(1), vec![secs(5), secs(5), secs(5)]);
        assert_eq!(outcome(timeouts(20, 2, 0), long).await, (200, "foofoofoo".to_owned(), None, secs(16)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_idle_limit_counts_from_the_start_while_there_is_no_response() {
        let silent = slow(secs(20), vec![]);
        assert_eq!(outcome(timeouts(60, 0, 5), silent).await, gateway_timeout(secs(5)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_past_the_idle_limit_breaks_the_response_off() {
        let stalling = slow(secs(1), vec![secs(1), secs(30)]);
        let expected = (200, "foo".to_owned(), Some(MESSAGE.to_owned()), secs(2 + 5));
        assert_eq!(outcome(timeouts(60, 0, 5), stalling).await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn writing_just_often_enough_is_never_idle() {
        let steady = slow(Duration::ZERO, vec![Duration::from_millis(4_999); 20]);
        let (status, body, error, _) = outcome(timeouts(300, 0, 5), steady).await;
        assert_eq!((status, body, error), (200, "foo".repeat(20), None));
    }

    #[tokio::test(start_paused = true)]
    async fn the_total_breaks_off_a_response_that_has_begun() {
        let endless = slow(Duration::ZERO, vec![secs(1); 1000]);
        let (status, body, error, took) = outcome(timeouts(10, 0, 0), endless).await;
        assert_eq!((status, error, took), (200, Some(MESSAGE.to_owned()), secs(10)));
        assert!(body.len() <= 3 * 10);
    }

    #[tokio::test(start_paused = true)]
    async fn the_total_ends_even_a_response_that_always_has_more() {
        let pieces = stream::unfold((), |()| async {
            tokio::time::advance(Duration::from_millis(1)).await;
            Some((Ok(Frame::data(Bytes::from_static(b"x"))), ()))
        });
        let flood = Response::new(Body::stream(StreamBody::new(pieces)));
        let (_, body, error, _) = outcome(timeouts(1, 0, 0), std::future::ready(flood)).await;
        assert_eq!(error.as_deref(), Some(MESSAGE));
        assert!(body.len() <= 1001, "{}", body.len());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_of_a_response_that_comes_too_late_is_seen_and_its_making_is_stopped() {
        let (alive, mut ended) = tokio::sync::oneshot::channel::<()>();
        let late = async move {
            let _alive = alive;
            slow(secs(20), vec![secs(1)]).await
        };
        assert_eq!(outcome(timeouts(10, 0, 0), late).await, gateway_timeout(secs(10)));
        assert_eq!(ended.try_recv(), Err(tokio::sync::oneshot::error::TryRecvError::Closed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_whose_turn_comes_when_its_time_is_over_is_not_sent_and_its_place_goes_on() {
        let (breaker, sent) = (Breaker::new(1, 9), RefCell::new(Vec::new()));
        // All arrive at once. The first has the place until its time is over, and nobody else's is by more than a tick.
        let micros_more = [0, 0, 300, 999, 5_000];
        let calls = micros_more.map(|more| {
            let (breaker, sent) = (&breaker, &sent);
            async move {
                let client = client();
                let total = secs(10) + Duration::from_micros(more);
                let call = async {
                    let _permit = breaker.acquire().await.unwrap();
                    sent.borrow_mut().push(more);
                    client.set_sent();
                    std::future::pending().await
                };
                with_timeouts(&client, Timeouts::total(total), MESSAGE, call).await.status()
            }
        });
        assert_eq!(join_all(calls).await, [StatusCode::GATEWAY_TIMEOUT; 5]);
        assert_eq!(*sent.borrow(), [0, 5_000], "the last has time left");
        assert_eq!((breaker.in_use(), breaker.waiting()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_that_comes_at_the_limit_to_a_request_that_was_sent_is_passed_on() {
        let client = client();
        let call = async {
            client.set_sent();
            slow(secs(10), vec![]).await
        };
        let response = with_timeouts(&client, timeouts(10, 0, 0), MESSAGE, call).await;
        assert_eq!(response.status(), StatusCode::OK);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_before_the_limit_passes_through() {
        let failing = stream::iter([Err(Error::UpstreamClosed)]);
        let response = Response::new(Body::stream(StreamBody::new(failing)));
        let (status, _, error, _) = outcome(timeouts(10, 0, 0), std::future::ready(response)).await;
        assert_eq!((status, error.as_deref()), (200, Some("EOF")));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_body_holds_is_freed_when_its_time_is_up() {
        let (alive, mut ended) = tokio::sync::oneshot::channel::<()>();
        let response = slow(Duration::ZERO, vec![secs(100)]).await.map(|body| body.guarded(alive));
        let response =
            with_timeouts(&client(), timeouts(10, 0, 0), MESSAGE, std::future::ready(response)).await;
        let mut body = response.into_body();
        assert!(body.frame().await.unwrap().is_err());
        assert_eq!(ended.try_recv(), Err(tokio::sync::oneshot::error::TryRecvError::Closed));
        drop(body);
    }
}
