//! WebSocket and other upgrades, through a proxy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use pilotlight_net::{
    Handler, Request, Response, Timeouts, Upstreams, message, prepare_forward, prepare_response,
    with_timeouts,
};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

use crate::support::{App, Client, GET, OK, Server, header, proxied, soon, start, until, upstreams};

const UPGRADE: &str = "GET /x HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: Raw/1\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw/1\r\n\r\n";

/// An upgraded connection through a proxy, and both its ends.
async fn upgraded() -> (Client, Client, Server) {
    let (mut client, app, proxy) = proxied().await;
    client.send(UPGRADE).await;
    let mut upstream = app.accept().await;
    let seen = upstream.read_head().await;
    assert_eq!(header(&seen, "connection").as_deref(), Some("Upgrade"), "{seen}");
    assert_eq!(header(&seen, "upgrade").as_deref(), Some("Raw/1"), "{seen}");
    upstream.send(SWITCHED).await;
    let head = client.read_head().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(header(&head, "upgrade").as_deref(), Some("raw/1"), "{head}");
    assert_eq!(header(&head, "connection").map(|c| c.to_lowercase()).as_deref(), Some("upgrade"), "{head}");
    (client, upstream, proxy)
}

#[tokio::test]
async fn bytes_go_both_ways_as_they_are() {
    let (mut client, mut upstream, _proxy) = upgraded().await;
    client.send("ping\r\n\r\n").await;
    assert_eq!(upstream.read_until("\r\n\r\n").await, "ping\r\n\r\n");
    upstream.send("pong").await.send("pong").await;
    assert_eq!(client.read_until("pongpong").await, "pongpong");
    let much = "x".repeat(1 << 20);
    let (_, read) = tokio::join!(
        async {
            client.send(&much).await;
            client.send("!").await;
        },
        upstream.read_until("!")
    );
    assert_eq!(read.len(), much.len() + 1);
}

#[tokio::test]
async fn what_an_app_says_right_after_its_101_is_not_lost() {
    let (mut client, app, _proxy) = proxied().await;
    client.send(UPGRADE).await;
    let mut upstream = app.accept().await;
    upstream.read_head().await;
    upstream.send(&format!("{SWITCHED}hello")).await;
    client.read_head().await;
    assert_eq!(client.read_until("hello").await, "hello");
}

#[tokio::test]
async fn what_lies_behind_an_upgrade_that_is_refused_is_no_request() {
    for (behind, is_kept) in [("", true), ("GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n", false)] {
        let (mut client, app, _proxy) = proxied().await;
        client.send(&format!("{UPGRADE}{behind}")).await;
        let mut upstream = app.accept().await;
        upstream.read_head().await;
        upstream.send(OK).await;
        let response = client.read_message().await;
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
        assert_eq!(header(&response, "connection").is_none(), is_kept, "{response}");
        if is_kept {
            // A client that waits for the answer keeps its connection.
            client.send(GET).await;
            upstream.read_head().await;
            upstream.send(OK).await;
            client.read_message().await;
        } else {
            assert_eq!(client.read_to_end().await, "");
        }
    }
}

#[tokio::test]
async fn what_a_client_says_right_after_its_wish_is_not_lost() {
    let (mut client, app, _proxy) = proxied().await;
    client.send(&format!("{UPGRADE}first ")).await;
    let mut upstream = app.accept().await;
    upstream.read_head().await;
    client.send("second").await;
    upstream.send(SWITCHED).await;
    client.read_head().await;
    assert_eq!(upstream.read_until("second").await, "first second");
}

#[tokio::test]
async fn half_a_close_closes_half() {
    let (mut client, mut upstream, _proxy) = upgraded().await;
    client.finish().await;
    assert_eq!(upstream.read_to_end().await, "");
    upstream.send("still here").await;
    assert_eq!(client.read_until("still here").await, "still here");
    drop(upstream);
    assert_eq!(client.read_to_end().await, "");
}

#[tokio::test]
async fn another_protocol_than_the_one_asked_for_is_a_502() {
    for (request, switched, text) in [
        (UPGRADE, "Connection: Upgrade\r\nUpgrade: other\r\n", r#""other" when "Raw/1""#),
        (UPGRADE, "", r#""" when "Raw/1""#),
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", "Connection: Upgrade\r\nUpgrade: x\r\n", r#""x" when """#),
    ] {
        let (mut client, app, _proxy) = proxied().await;
        client.send(request).await;
        let mut upstream = app.accept().await;
        upstream.read_head().await;
        upstream.send(&format!("HTTP/1.1 101 Switching Protocols\r\n{switched}\r\n")).await;
        let response = client.read_message().await;
        assert!(response.starts_with("HTTP/1.1 502 "), "{response}");
        let text = format!("\r\n\r\nbackend tried to switch protocol {text} was requested\n");
        assert!(response.ends_with(&text), "{response}");
    }
}

#[tokio::test]
async fn an_app_that_does_not_switch_answers_as_ever() {
    let (mut client, app, _proxy) = proxied().await;
    client.send(UPGRADE).await;
    let mut upstream = app.accept().await;
    upstream.read_head().await;
    upstream.send(OK).await;
    assert!(client.read_message().await.ends_with("ok"));
}

const WISH: &str =
    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    [&[0, 0, u8::try_from(payload.len()).unwrap(), kind, flags, 0, 0, 0, stream], payload].concat()
}

#[tokio::test]
async fn a_wish_for_http_2_is_granted_and_the_app_hears_http_1() {
    let (mut client, app, _proxy) = proxied().await;
    let long = "x".repeat(300);
    client.send(&format!("GET /a?b HTTP/1.1\r\nHost: h\r\nX-Long: {long}\r\n{WISH}\r\n")).await;
    let head = client.read_head().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(header(&head, "upgrade").as_deref(), Some("h2c"), "{head}");

    const SETTINGS: u8 = 4;
    // GET, http, "/", h: the third and the second request of a connection that has only one so far.
    let second = frame(1, 5, 3, &[0x82, 0x86, 0x84, 0x01, 1, b'h']);
    let hello = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &[])[..], &second].concat();
    // The preface comes in two pieces.
    let (one, other) = hello.split_at(20);
    client.try_send(one).await.unwrap();
    client.try_send(other).await.unwrap();

    for _ in 0..2 {
        let mut upstream = app.accept().await;
        let seen = upstream.read_head().await;
        if seen.starts_with("GET /a?b HTTP/1.1\r\n") {
            assert_eq!(header(&seen, "x-long"), Some(long.clone()), "{seen}");
        } else {
            assert!(seen.starts_with("GET / HTTP/1.1\r\n"), "{seen}");
        }
        assert_eq!(header(&seen, "host").as_deref(), Some("h"), "{seen}");
        assert!(!seen.to_lowercase().contains("upgrade") && !seen.contains("ettings"), "{seen}");
        upstream.send(OK).await;
    }

    let mut stream = client.into_stream();
    let mut answers = std::collections::BTreeMap::<u8, Vec<u8>>::new();
    soon("both answers", async {
        while answers.values().filter(|body| &body[..] == b"ok").count() < 2 {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            stream.read_exact(&mut payload).await.unwrap();
            match head[3] {
                0 => answers.entry(head[8]).or_default().extend(payload),
                // Entry 8 of the static table (RFC 7541, A): `:status: 200`.
                1 => assert_eq!(payload[0], 0x88),
                _ => {}
            }
        }
    })
    .await;
    assert!(answers.keys().eq(&[1, 3]), "{answers:?}");
}

#[tokio::test]
async fn a_wish_for_http_2_that_cannot_be_granted_is_passed_over() {
    let settings = "HTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    for wish in [
        // A body would have to be kept.
        &format!("{WISH}Content-Length: 2\r\n\r\nab"),
        // `Connection` or `HTTP2-Settings` is missing, repeated or malformed.
        "Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        &format!("Connection: Upgrade\r\nUpgrade: h2c\r\n{settings}\r\n"),
        &format!("{WISH}{settings}\r\n"),
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: a b\r\n\r\n",
        // The head does not fit into one frame.
        &format!("{WISH}X-Long: {}\r\n\r\n", "x".repeat(20_000)),
    ] {
        let (mut client, app, _proxy) = proxied().await;
        client.send(&format!("GET / HTTP/1.1\r\nHost: h\r\n{wish}")).await;
        let mut upstream = app.accept().await;
        let seen = upstream.read_head().await;
        assert!(!seen.to_lowercase().contains("upgrade"), "{seen}");
        upstream.send(OK).await;
        assert!(client.read_message().await.ends_with("ok"), "{wish}");
    }
}

#[tokio::test]
async fn who_switches_to_http_2_and_speaks_something_else_is_cut_off() {
    for nonsense in ["GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x06\0\0\0\0\0"] {
        let (mut client, _app, _proxy) = proxied().await;
        client.send(&format!("GET / HTTP/1.1\r\nHost: h\r\n{WISH}\r\n")).await;
        client.read_head().await;
        client.send(nonsense).await;
        assert_eq!(client.read_to_end().await, "");
    }
}

/// A proxy with time limits that counts its exchanges.
struct Limited {
    to: SocketAddr,
    upstreams: Upstreams,
    timeouts: Timeouts,
    inside: Arc<AtomicUsize>,
}

struct Inside(Arc<AtomicUsize>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Handler for Limited {
    async fn handle(&self, client: &pilotlight_net::Client, mut request: Request) -> Response {
        self.inside.fetch_add(1, Ordering::SeqCst);
        let inside = Inside(Arc::clone(&self.inside));
        let call = async {
            let marks = pilotlight_net::headers::Marks::of(request.headers());
            prepare_forward(&mut request, client, marks);
            match self.upstreams.send(client, self.to, &mut request).await {
                Ok(mut response) => {
                    prepare_response(&mut response);
                    response.map(|body| body.guarded(inside))
                }
                Err(failure) => message::respond(failure.error()),
            }
        };
        with_timeouts(client, self.timeouts, "request timeout", call).await
    }
}

type Socket = WebSocketStream<TcpStream>;

/// A WebSocket through a proxy with time limits: both ends, the proxy, the exchanges inside.
async fn websocket(timeouts: Timeouts) -> (Socket, Socket, Server, Arc<AtomicUsize>) {
    let app = App::listen().await;
    let inside = Arc::new(AtomicUsize::new(0));
    let proxy =
        start(Limited { to: app.address, upstreams: upstreams(), timeouts, inside: Arc::clone(&inside) })
            .await;
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let connecting = client_async("ws://hello.example/chat", stream);
    let accepting = async { accept_async(app.accept().await.into_stream()).await.unwrap() };
    let (client, upstream) = soon("the handshake", async { tokio::join!(connecting, accepting) }).await;
    (client.unwrap().0, upstream, proxy, inside)
}

async fn talk(from: &mut Socket, to: &mut Socket, text: &str) {
    from.send(Message::text(text)).await.unwrap();
    assert_eq!(soon("a message", to.next()).await.unwrap().unwrap(), Message::text(text));
}

fn limits(total: Duration, idle: Option<Duration>) -> Timeouts {
    Timeouts { total, response_start: Some(Duration::from_millis(300)), idle }
}

#[tokio::test]
async fn a_websocket_holds_its_place_until_it_closes() {
    let (mut client, mut app, _proxy, inside) = websocket(limits(Duration::from_secs(300), None)).await;
    talk(&mut client, &mut app, "hello").await;
    talk(&mut app, &mut client, "hello yourself").await;
    assert_eq!(inside.load(Ordering::SeqCst), 1);
    client.close(None).await.unwrap();
    assert!(matches!(soon("close", app.next()).await, Some(Ok(Message::Close(_)))));
    assert_eq!(inside.load(Ordering::SeqCst), 1, "the other half is still open");
    // The app answers the close frame, and closes the connection.
    assert!(soon("the end", app.next()).await.is_none());
    drop((client, app));
    until("the place is free", || inside.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_client_that_vanishes_takes_its_websocket_with_it() {
    let (client, mut app, _proxy, inside) = websocket(limits(Duration::from_secs(300), None)).await;
    client.get_ref().set_zero_linger().unwrap();
    drop(client);
    assert!(!matches!(soon("the end", app.next()).await, Some(Ok(_))));
    until("the place is free", || inside.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn bytes_in_either_direction_keep_a_websocket_from_being_idle_until_the_silence() {
    let idle = Duration::from_millis(400);
    let (mut client, mut app, _proxy, inside) = websocket(limits(Duration::from_secs(300), Some(idle))).await;
    let opened = tokio::time::Instant::now();
    // The client alone talks, for longer than the idle limit and the limit for the first byte.
    while opened.elapsed() < 2 * idle {
        talk(&mut client, &mut app, "tick").await;
        tokio::task::yield_now().await;
    }
    assert!(!matches!(soon("the end", client.next()).await, Some(Ok(_))));
    until("the place is free", || inside.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn the_total_ends_even_a_busy_websocket() {
    let (mut client, _app, _proxy, inside) = websocket(limits(Duration::from_millis(300), None)).await;
    soon("the end", async { while client.send(Message::text("tick")).await.is_ok() {} }).await;
    until("the place is free", || inside.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_draining_server_waits_for_its_websockets() {
    let (mut client, mut app, proxy, _) = websocket(limits(Duration::from_secs(300), None)).await;
    proxy.drain.start();
    soon("the listener closes", async { while TcpStream::connect(proxy.address).await.is_ok() {} }).await;
    talk(&mut client, &mut app, "still here").await;
    assert!(!proxy.task.is_finished());
    drop((client, app));
    soon("the end of the server", proxy.task).await.unwrap();
}

#[tokio::test]
async fn a_forced_server_cuts_its_websockets() {
    let (mut client, _app, proxy, _) = websocket(limits(Duration::from_secs(300), None)).await;
    proxy.drain.start();
    proxy.drain.force();
    soon("the end of the server", proxy.task).await.unwrap();
    assert!(!matches!(soon("the end", client.next()).await, Some(Ok(_))));
}
