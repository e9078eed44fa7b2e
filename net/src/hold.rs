//! Watching a client while its request, or its connection, waits for its turn.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderValue, Uri, Version, header};
use http_body::Body as _;

use crate::budget::ByteBudget;
use crate::error::RequestBodyError;
use crate::{Error, Request, Transport, fields};

/// Waits, and reads the beginning of the request's body meanwhile. An error says that the client has left, that its body
/// is malformed, or that there is no room for the request: it need not wait any longer.
///
/// A server learns that a client has left by reading EOF, and an unread body lies in front of it. Without this, a `POST`
/// whose client gave up would keep its place in the queue. No more than 64 KiB are read ahead (and at most one piece
/// more), nothing once the `budget` is spent, and nothing of an HTTP/1.1 request with `Expect: 100-continue`, since reading
/// it would send `100 Continue`. May be called again for the same request.
///
/// The rest of the body waits where it is: over HTTP/1.1 in the client's socket, over HTTP/2 in the stream's flow-control
/// window. If too much waits in the windows of the connection already, the body is read on, within the budget. Beyond
/// that the request is [refused](Error::NoRoom), and so is one whose head is large and has no room in the budget.
pub async fn hold_while<T>(
    request: &mut Request,
    budget: &ByteBudget,
    wait: impl Future<Output = T>,
) -> Result<T, Error> {
    let mut wait = pin!(wait);
    if let Poll::Ready(done) = poll_fn(|cx| Poll::Ready(wait.as_mut().poll(cx))).await {
        return Ok(done);
    }
    let mut head = budget.open();
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let head_bytes = target + fields::bytes_beyond_the_usual(request.headers());
    if head_bytes > USUAL_HEAD_BYTES {
        if head_bytes > budget.free() {
            return Err(Error::NoRoom);
        }
        head.grow(head_bytes);
    }
    let has_body = !request.body().is_end_stream();
    if has_body || request.version() == Version::HTTP_2 {
        leave_read_buffer(request);
    }
    let expects_continue = request.headers().contains_key(header::EXPECT) && !request.body().is_over_http2();
    let reads_ahead = has_body && !expects_continue;
    let body = request.body_mut();
    poll_fn(|cx| {
        if let Poll::Ready(done) = wait.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        if reads_ahead && let Err(error) = body.read_ahead(cx, budget) {
            return Poll::Ready(Err(error));
        }
        Poll::Pending
    })
    .await
}

/// Waits, with the first bytes of a connection that is not HTTP. More of them are read meanwhile, up to 64 KiB and (but for
/// one piece) within the `budget`; the rest waits in the client's socket. An EOF is not the end: the client may have said all
/// that it has to say (half-close). An error says that the client has left, be it by an EOF without a byte before, or that
/// there is no room for its bytes.
pub async fn hold_bytes_while<T>(
    connection: &mut Transport,
    budget: &ByteBudget,
    wait: impl Future<Output = T>,
) -> Result<T, Error> {
    let mut wait = pin!(wait);
    if let Poll::Ready(done) = poll_fn(|cx| Poll::Ready(wait.as_mut().poll(cx))).await {
        return Ok(done);
    }
    if connection.unread.len() > budget.free() {
        return Err(Error::NoRoom);
    }
    let mut kept = budget.open();
    kept.grow(connection.unread.len());
    let mut is_all = false;
    poll_fn(|cx| {
        if let Poll::Ready(done) = wait.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        while !is_all && connection.unread.len() < MOST_AHEAD && !budget.is_spent() {
            match connection.poll_fill(cx) {
                Poll::Ready(Ok(0)) if connection.unread.is_empty() => {
                    return Poll::Ready(Err(Error::Downstream(RequestBodyError::Closed)));
                }
                Poll::Ready(Ok(0)) => is_all = true,
                Poll::Ready(Ok(read)) => kept.grow(read),
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(Error::Downstream(RequestBodyError::Broken(error.into()))));
                }
                Poll::Pending => break,
            }
        }
        Poll::Pending
    })
    .await
}

/// Copies a request's head out of the buffer that it was read into: the head would keep all of that, a piece of its body or
/// the requests of other streams, in memory for as long as it waits.
fn leave_read_buffer(request: &mut Request) {
    if request.uri().authority().is_none()
        && let Some(path) = request.uri().path_and_query()
        && let Ok(path) = PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(path.as_str().as_bytes()))
    {
        *request.uri_mut() = Uri::from(path);
    }
    let headers = request.headers_mut();
    // One buffer for all values: there may be many, and most are short.
    let mut copies = BytesMut::with_capacity(headers.values().map(HeaderValue::len).sum());
    headers.values().for_each(|value| copies.extend_from_slice(value.as_bytes()));
    let mut copies = copies.freeze();
    for value in headers.values_mut() {
        if let Ok(mut copy) = HeaderValue::from_maybe_shared(copies.split_to(value.len())) {
            copy.set_sensitive(value.is_sensitive());
            *value = copy;
        }
    }
}

/// Bytes of a connection that are read ahead.
const MOST_AHEAD: usize = 64 * 1024;

/// Bytes of a head that are not counted: the limits of waiting requests bound them.
const USUAL_HEAD_BYTES: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::Body;

    async fn connection() -> (TcpStream, Transport) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, Transport::new(listener.accept().await.unwrap().0))
    }

    #[tokio::test]
    async fn of_a_connection_that_waits_no_more_is_read_than_there_is_room_for() {
        for (room, most) in [(1 << 20, MOST_AHEAD), (20_000, 20_000)] {
            let (mut client, mut connection) = connection().await;
            let writing = tokio::spawn(async move { client.write_all(&vec![0; 16 << 20]).await });
            let budget = ByteBudget::new(room);
            let used = budget.clone();
            let full = async {
                while used.used() < most {
                    tokio::task::yield_now().await;
                }
                // What is read on would be read by now.
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                used.used()
            };
            let used = hold_bytes_while(&mut connection, &budget, full).await.unwrap();
            assert!((most..most + 16 * 1024).contains(&used), "{used}");
            assert_eq!((connection.unread.len(), budget.used()), (used, 0), "nothing waits any more");
            writing.abort();
        }
    }

    #[tokio::test]
    async fn a_connection_may_be_half_closed_while_it_waits_but_not_before_its_first_byte() {
        let budget = ByteBudget::new(1 << 20);
        let (mut client, mut connection) = connection().await;
        client.shutdown().await.unwrap();
        let left = hold_bytes_while(&mut connection, &budget, std::future::pending::<()>()).await;
        assert!(matches!(left, Err(Error::Downstream(RequestBodyError::Closed))), "{left:?}");

        let (mut client, mut connection) = self::connection().await;
        client.write_all(b"all").await.unwrap();
        client.shutdown().await.unwrap();
        let used = budget.clone();
        let read = async {
            while used.used() < 3 {
                tokio::task::yield_now().await;
            }
        };
        hold_bytes_while(&mut connection, &budget, read).await.unwrap();
        let waiting = hold_bytes_while(&mut connection, &budget, std::future::pending::<()>());
        assert!(waiting.now_or_never().is_none());
        client.set_zero_linger().unwrap();
        drop(client);
        let budget = ByteBudget::new(2);
        let refused = hold_bytes_while(&mut connection, &budget, std::future::pending::<()>()).await;
        assert!(matches!(refused, Err(Error::NoRoom)), "{refused:?}");
    }

    #[tokio::test]
    async fn a_request_that_waits_lets_go_of_what_it_was_read_into_and_stays_the_same() {
        let read = Bytes::from(b"/path?query one  two".to_vec());
        let value = |range| HeaderValue::from_maybe_shared(read.slice(range)).unwrap();
        let mut request = Request::new(Body::full("body"));
        *request.uri_mut() = Uri::from(PathAndQuery::from_maybe_shared(read.slice(..11)).unwrap());
        request.headers_mut().insert("x-a", value(12..15));
        request.headers_mut().append("x-a", value(16..16));
        request.headers_mut().append("x-b", value(17..20));
        assert!(!read.is_unique());

        let budget = ByteBudget::new(0);
        hold_while(&mut request, &budget, tokio::task::yield_now()).await.unwrap();
        assert!(read.is_unique());
        assert_eq!(request.uri(), "/path?query");
        let headers = request.headers().iter();
        let headers: Vec<_> = headers.map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(headers, [("x-a", "one"), ("x-a", ""), ("x-b", "two")]);
    }
}
