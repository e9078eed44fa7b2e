//! The states of a connection, one transition after the other.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::wires::Wires;
use super::*;

/// A connection whose client is the test.
struct Script {
    link: Arc<Link>,
    client: TcpStream,
    partial: Partial,
    alarm: Alarm,
    drain: Drain,
}

/// Runs a script about one connection.
fn script(run: impl AsyncFnOnce(Script)) {
    Wires::default().run(async |client, transport| {
        let (link, partial) = (Arc::new(Link::new(transport)), Partial::default());
        run(Script { link, client, partial, alarm: Alarm::default(), drain: Drain::default() }).await;
    });
}

/// Nothing here takes long; what takes longer hangs.
async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), work).await.unwrap_or_else(|_| panic!("never came: {what}"))
}

impl Script {
    async fn says(&self, text: &str) {
        let mut left = text.as_bytes();
        while !left.is_empty() {
            soon(text, self.client.writable()).await.unwrap();
            left = &left[self.client.try_write(left).unwrap_or(0)..];
        }
    }

    async fn hears(&mut self, text: &str) {
        let mut heard = vec![0; text.len()];
        soon(text, self.client.read_exact(&mut heard)).await.unwrap();
        assert_eq!(String::from_utf8(heard).unwrap(), text);
    }

    async fn leaves(&mut self) {
        self.client.shutdown().await.unwrap();
    }

    /// The next request and its body, if it has one; `None`: the connection is to be closed.
    async fn request(&mut self) -> Option<(Request<()>, Option<RequestBody>)> {
        let Script { link, partial, alarm, drain, .. } = self;
        let next = poll_fn(|cx| link.poll_request(cx, partial, &mut None, alarm, drain));
        let (request, asked) = soon("a request", next).await?.unwrap();
        Some((request, asked.has_body.then(|| link.body())))
    }

    /// The body of a request that goes on like this.
    async fn posts(&mut self, rest: &str) -> RequestBody {
        self.says(&format!("POST / HTTP/1.1\r\n{rest}")).await;
        self.request().await.unwrap().1.unwrap()
    }

    fn state(&self) -> &'static str {
        match self.link.halves.lock().request {
            RequestState::Head => "Head",
            RequestState::Body { .. } => "Body",
            RequestState::Abandoned { .. } => "Abandoned",
            RequestState::Drained => "Drained",
            RequestState::Stuck => "Stuck",
            RequestState::Gone => "Gone",
        }
    }

    /// Has the task look after its client until the request is in this state.
    async fn reaches(&self, state: &str) {
        let reached = poll_fn(|cx| {
            let _ = self.link.poll_left(cx);
            if self.state() == state { Poll::Ready(()) } else { Poll::Pending }
        });
        soon(state, reached).await;
    }

    async fn sees_its_client_leave(&self) {
        soon("the client leaves", poll_fn(|cx| self.link.poll_left(cx))).await;
    }

    fn has_left(&self) -> bool {
        self.link.poll_left(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// Begins the final response; whether the connection can be kept.
    fn answers(&self) -> bool {
        self.link.begin_response(&mut Context::from_waker(Waker::noop()))
    }

    /// Ends the request; whether another may follow.
    async fn ends(&self) -> bool {
        soon("the end of the request", self.link.end_request(&self.alarm)).await
    }

    fn informs(&self, status: u16) {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        self.link.inform(&response);
    }

    async fn writes(&self, text: &str) {
        let mut out = WriteBuffer::default();
        out.bytes().extend_from_slice(text.as_bytes());
        soon("the writing", poll_fn(|cx| self.link.poll_write(&mut out, cx))).await.unwrap();
    }
}

/// The next piece of a body.
async fn piece(body: &mut RequestBody) -> Option<Result<Bytes, String>> {
    let frame = soon("a piece", poll_fn(|cx| body.poll_frame(cx))).await?;
    Some(frame.map(|frame| frame.into_data().unwrap()).map_err(|error| error.to_string()))
}

/// A waker that counts.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_request_without_a_body_is_drained_and_the_next_one_is_read_ahead() {
    script(async |mut it| {
        it.says("GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n").await;
        let (request, body) = it.request().await.unwrap();
        assert_eq!((request.uri().path(), body.is_none(), it.state()), ("/1", true, "Drained"));
        assert!(!it.has_left());
        assert!(it.answers() && it.ends().await);
        assert_eq!(it.state(), "Head");
        assert_eq!(it.request().await.unwrap().0.uri().path(), "/2");
    });
}

#[test]
fn a_client_that_closes_between_two_requests_has_no_other() {
    script(async |mut it| {
        it.leaves().await;
        assert!(it.request().await.is_none());
        assert_eq!(it.state(), "Head");
    });
}

#[test]
fn an_eof_behind_a_drained_request_is_a_client_that_has_left() {
    script(async |mut it| {
        it.says("GET / HTTP/1.1\r\n\r\n").await;
        it.request().await.unwrap();
        assert!(!it.has_left());
        it.leaves().await;
        it.sees_its_client_leave().await;
        assert_eq!(it.state(), "Drained");
    });
}

#[test]
fn a_body_is_read_to_its_end_and_what_follows_is_left_for_the_task() {
    script(async |mut it| {
        let mut body = it.posts("Content-Length: 4\r\n\r\nab").await;
        assert_eq!((it.state(), body.size_hint().exact()), ("Body", Some(4)));
        assert_eq!(piece(&mut body).await, Some(Ok("ab".into())));
        assert_eq!((it.state(), body.is_end_stream(), body.size_hint().exact()), ("Body", false, Some(2)));
        it.says("cdGET /2 HTTP/1.1\r\n\r\n").await;
        assert_eq!(piece(&mut body).await, Some(Ok("cd".into())));
        assert_eq!((it.state(), body.is_end_stream(), body.size_hint().exact()), ("Drained", true, Some(0)));
        assert_eq!(piece(&mut body).await, None);
        assert!(it.answers() && it.ends().await);
        assert_eq!(it.request().await.unwrap().0.uri().path(), "/2");
    });
}

#[test]
fn the_task_is_woken_when_another_task_reads_the_last_byte_or_drops_the_body() {
    script(async |mut it| {
        for is_read in [true, false] {
            let mut body = it.posts("Content-Length: 2\r\n\r\nab").await;
            let bell = Arc::<Bell>::default();
            let waker = Waker::from(Arc::clone(&bell));
            assert!(it.link.poll_left(&mut Context::from_waker(&waker)).is_pending());
            if is_read {
                assert_eq!(piece(&mut body).await, Some(Ok("ab".into())));
            }
            drop(body);
            assert_eq!(bell.0.load(Ordering::Relaxed), 1, "is_read: {is_read}");
            assert!(it.answers() && it.ends().await);
        }
    });
}

#[test]
fn a_body_that_outlives_its_request_has_no_part_in_the_next_one() {
    script(async |mut it| {
        let mut old = it.posts("Content-Length: 2\r\n\r\nab").await;
        // The last byte is read, and the end that follows is not.
        assert_eq!(piece(&mut old).await, Some(Ok("ab".into())));
        assert!(it.answers() && it.ends().await);
        let mut body = it.posts("Content-Length: 2\r\n\r\ncd").await;
        assert_eq!(piece(&mut old).await, None);
        drop(old);
        assert_eq!(it.state(), "Body");
        assert_eq!(piece(&mut body).await, Some(Ok("cd".into())));
    });
}

#[test]
fn a_body_that_is_malformed_or_cut_off_leaves_the_connection_stuck() {
    for (sent, leaves, error) in [
        ("Transfer-Encoding: chunked\r\n\r\nx\r\n", false, "malformed chunk size"),
        ("Content-Length: 4\r\n\r\n", true, "unexpected EOF"),
    ] {
        script(async |mut it| {
            let mut body = it.posts(sent).await;
            if leaves {
                it.leaves().await;
            }
            let failure = piece(&mut body).await.unwrap().unwrap_err();
            assert_eq!(failure, format!("reading request body: {error}"));
            assert_eq!((it.state(), body.is_end_stream()), ("Stuck", false));
            assert!(piece(&mut body).await.unwrap().is_err(), "a second look does not make it whole");
            drop(body);
            assert_eq!((it.state(), it.has_left(), it.answers()), ("Stuck", false, false));
        });
    }
}

#[test]
fn an_abandoned_body_is_drained_and_the_connection_is_kept() {
    script(async |mut it| {
        // All of it is here when the response begins.
        drop(it.posts("Content-Length: 2\r\n\r\nab").await);
        assert_eq!(it.state(), "Abandoned");
        assert!(it.answers());
        assert_eq!(it.state(), "Drained");
        assert!(it.ends().await);
        // The rest comes while the response is made.
        drop(it.posts("Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n").await);
        it.says("0\r\n\r\n").await;
        it.reaches("Drained").await;
        assert!(it.answers() && it.ends().await);
        // The body is abandoned after the response has begun, which said that the connection is kept.
        let body = it.posts("Content-Length: 2\r\n\r\n").await;
        assert!(it.answers());
        drop(body);
        it.says("ab").await;
        assert!(it.ends().await);
        assert_eq!(it.state(), "Head");
    });
}

#[test]
fn an_abandoned_body_that_is_not_here_when_the_response_begins_costs_the_connection() {
    script(async |mut it| {
        drop(it.posts("Content-Length: 2\r\n\r\na").await);
        assert!(!it.answers());
        assert_eq!(it.state(), "Abandoned");
    });
}

#[test]
fn an_abandoned_body_that_is_malformed_or_too_long_leaves_the_connection_stuck() {
    let malformed = ("Transfer-Encoding: chunked\r\n\r\n".to_owned(), "x\r\n".to_owned());
    let long = (format!("Content-Length: {}\r\n\r\n", MAX_DRAINED + 1), "x".repeat(MAX_DRAINED));
    for (head, rest) in [malformed, long] {
        script(async |mut it| {
            drop(it.posts(&head).await);
            tokio::join!(it.says(&rest), it.reaches("Stuck"));
            assert_eq!((it.has_left(), it.answers()), (false, false));
        });
    }
}

#[test]
fn an_abandoned_body_of_the_most_that_is_drained_keeps_the_connection() {
    script(async |mut it| {
        drop(it.posts(&format!("Content-Length: {MAX_DRAINED}\r\n\r\n")).await);
        let rest = "x".repeat(MAX_DRAINED);
        tokio::join!(it.says(&rest), it.reaches("Drained"));
        assert!(it.answers() && it.ends().await);
    });
}

#[test]
fn a_client_that_leaves_within_an_abandoned_body_is_gone() {
    script(async |mut it| {
        drop(it.posts("Content-Length: 4\r\n\r\nab").await);
        assert!(!it.has_left());
        it.leaves().await;
        it.sees_its_client_leave().await;
        assert_eq!(it.state(), "Gone");
        assert!(it.has_left());
        assert!(!it.answers());
    });
}

#[test]
fn a_client_is_told_to_continue_when_its_body_is_read() {
    script(async |mut it| {
        let mut body = it.posts("Expect: 100-continue\r\nContent-Length: 2\r\n\r\n").await;
        assert!(body.poll_frame(&mut Context::from_waker(Waker::noop())).is_pending());
        it.hears("HTTP/1.1 100 Continue\r\n\r\n").await;
        it.says("ab").await;
        assert_eq!(piece(&mut body).await, Some(Ok("ab".into())));
        assert!(it.answers() && it.ends().await);
    });
}

#[test]
fn a_client_that_was_not_told_to_continue_loses_its_connection() {
    for is_abandoned in [false, true] {
        script(async |mut it| {
            let body = it.posts("Expect: 100-continue\r\nContent-Length: 2\r\n\r\n").await;
            let body = if is_abandoned { None } else { Some(body) };
            assert!(!it.answers(), "the body may come or not");
            drop(body);
            it.writes("final").await;
            it.hears("final").await;
        });
    }
}

#[test]
fn a_client_that_has_sent_its_body_without_being_told_to_is_not_told_any_more() {
    script(async |mut it| {
        let mut body = it.posts("Expect: 100-continue\r\nContent-Length: 2\r\n\r\nab").await;
        assert_eq!(piece(&mut body).await, Some(Ok("ab".into())));
        assert!(it.answers());
        it.writes("final").await;
        it.hears("final").await;
    });
}

#[test]
fn interim_responses_go_out_before_the_final_one_and_none_after_it_has_begun() {
    script(async |mut it| {
        it.says("GET / HTTP/1.1\r\n\r\n").await;
        it.request().await.unwrap();
        it.informs(103);
        assert!(!it.has_left());
        it.hears("HTTP/1.1 103 Early Hints\r\n\r\n").await;
        it.informs(102);
        assert!(it.answers());
        it.informs(103);
        it.writes("final").await;
        it.hears("HTTP/1.1 102 Processing\r\n\r\nfinal").await;
    });
}

#[test]
fn an_http_1_0_client_gets_no_interim_responses() {
    script(async |mut it| {
        it.says("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").await;
        let mut body = it.request().await.unwrap().1.unwrap();
        assert!(body.poll_frame(&mut Context::from_waker(Waker::noop())).is_pending());
        it.informs(103);
        it.writes("final").await;
        it.hears("final").await;
    });
}

#[test]
fn a_draining_server_serves_a_request_that_has_begun_and_no_other() {
    script(async |mut it| {
        it.says("GET / HT").await;
        let Script { link, partial, alarm, drain, .. } = &mut it;
        let begun = poll_fn(|cx| {
            assert!(link.poll_request::<()>(cx, partial, &mut None, alarm, drain).is_pending());
            if link.halves.lock().transport.unread.is_empty() { Poll::Pending } else { Poll::Ready(()) }
        });
        soon("the beginning", begun).await;
        it.drain.start();
        it.says("TP/1.1\r\n\r\n").await;
        it.request().await.unwrap();
        assert!(it.answers() && it.ends().await);
        assert!(it.request().await.is_none());
    });
}
