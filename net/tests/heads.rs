//! The budget of large heads. It is the process's own, so this test has a process to itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use pilotlight_net::{Body, Client, Drain, Handler, Request, Response, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Holds each request until it is let go, but for those of `/now`.
struct Holding {
    held: AtomicUsize,
    gate: Semaphore,
}

impl Handler for Holding {
    async fn handle(&self, _: &Client, request: Request) -> Response {
        if request.uri().path() != "/now" {
            self.held.fetch_add(1, Ordering::SeqCst);
            self.gate.acquire().await.expect("never closed").forget();
        }
        assert_eq!(request.method(), Method::GET, "the request is there until it is answered");
        Response::new(Body::full("done"))
    }
}

/// Sends a request over HTTP/1.1 and reads all of the answer.
async fn ask(to: SocketAddr, path: &str, fields: &str) -> String {
    let mut stream = TcpStream::connect(to).await.expect("a connection");
    let head = format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{fields}\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    let read = timeout(Duration::from_secs(20), stream.read_to_string(&mut answer)).await;
    read.expect("an answer").expect("text");
    answer
}

/// An HTTP/2 connection with so many streams. Each has 330 fields of 3,000 bytes, a megabyte, and all but the first field of
/// all is one byte on the wire: a reference to it (RFC 7541, 6.1).
async fn stream_with_large_heads(to: SocketAddr, streams: u32) -> TcpStream {
    let mut stream = TcpStream::connect(to).await.expect("a connection");
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    for number in 0..streams {
        // :method GET, :scheme http, :path /, :authority h
        let mut block = vec![0x82, 0x86, 0x84, 0x01, 1, b'h'];
        if number == 0 {
            // A literal with incremental indexing: the name of one byte, the value of 127 + 2,873 bytes.
            block.extend([0x40, 1, b'x', 0x7f, 0xb9, 0x16]);
            block.extend([b'v'; 3_000]);
        } else {
            block.push(0xbe);
        }
        block.extend([0xbe; 329]);
        let length = u32::try_from(block.len()).expect("a short block").to_be_bytes();
        // HEADERS with END_STREAM and END_HEADERS.
        bytes.extend([length[1], length[2], length[3], 1, 5]);
        bytes.extend((2 * number + 1).to_be_bytes());
        bytes.extend(block);
    }
    stream.write_all(&bytes).await.expect("sent");
    stream
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let looks = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), looks).await.unwrap_or_else(|_| panic!("never came: {what}"));
}

#[tokio::test]
async fn large_heads_of_requests_that_wait_for_their_response_have_a_limit_and_others_pass() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let to = listener.local_addr().expect("an address");
    let holding = Arc::new(Holding { held: AtomicUsize::new(0), gate: Semaphore::new(0) });
    tokio::spawn(serve(listener, Arc::clone(&holding), Drain::default()));
    // Ninety heads of 330 x (3,000 + 1 + 32 + 100) bytes are more than 64 MiB; the first 65 reach the handler.
    let client = stream_with_large_heads(to, 90).await;
    until("as many as there is room for", || holding.held.load(Ordering::SeqCst) >= 65).await;
    // Nothing more has room, be it one of a thousand short fields.
    let short_fields = "A: b\r\n".repeat(990);
    let refused = ask(to, "/now", &short_fields).await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("no-room"), "{refused}");
    assert!(refused.contains("Retry-After: 1\r\n"), "{refused}");
    let usual = ask(to, "/now", "A: b\r\n").await;
    assert!(usual.starts_with("HTTP/1.1 200 "), "a usual head touches no budget: {usual}");
    assert_eq!(holding.held.load(Ordering::SeqCst), 65);

    // The room comes back with the responses.
    holding.gate.add_permits(65);
    until("all were let go", || holding.gate.available_permits() == 0).await;
    let taken = ask(to, "/now", &short_fields).await;
    assert!(taken.starts_with("HTTP/1.1 200 "), "{taken}");
    drop(client);
}
