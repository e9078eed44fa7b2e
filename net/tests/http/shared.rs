//! HTTP/2 connections that many share: what one stream does, and what adds up in normal life, ends no other stream.

use std::sync::Arc;

use http::StatusCode;
use pilotlight_net::{Body, Request, Response, plain};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::frames::{
    DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, Peer, RST_STREAM, fields, frame, in_pieces,
    request, request_fields, response,
};
use crate::h2::{connect, grpc};
use crate::support::{Answer, Proxy, Server, soon, start, start_proxy, upstreams};

/// A server that answers `/wait` when it is told to, refuses `/refused`, and answers the rest at once.
async fn server() -> (Server, Arc<Notify>) {
    let go_on = Arc::new(Notify::new());
    let wait = Arc::clone(&go_on);
    let server = start(Answer(move |request: Request| {
        let wait = Arc::clone(&wait);
        async move {
            match request.uri().path() {
                "/wait" => wait.notified().await,
                "/refused" => return plain(StatusCode::PAYLOAD_TOO_LARGE, "too much"),
                _ => {}
            }
            Response::new(Body::empty())
        }
    }))
    .await;
    (server, go_on)
}

/// A client whose stream 1 waits for its answer.
async fn waiting(server: &Server) -> Peer {
    let mut client = Peer::connect(server.address).await;
    client.send(&request(1, "GET", "/wait", END_STREAM)).await;
    client
}

/// Lets the request on stream 1 be answered, which it is if the connection is well.
async fn is_answered(mut client: Peer, go_on: &Notify) {
    go_on.notify_one();
    client.wait_for(HEADERS, 1).await;
}

/// The client's requests, of numbers that follow each other.
fn streams() -> impl Iterator<Item = u32> {
    (1..).map(|number| 2 * number + 1)
}

/// The end of the connection, after which nothing can be sent.
async fn ends(client: &mut Peer) -> Option<Frame> {
    let mut last = None;
    while let Some(frame) = client.next().await {
        last = Some(frame).filter(|frame| frame.kind == GOAWAY).or(last);
    }
    last
}

/// An app that answers `calls` calls, and then sends `late` frames for each as if they had been under way, first together
/// and then in turn, while another call waits.
async fn frames_cross_and_hurt_nobody(calls: u32, late: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // The app of this test does not answer pings, and a busy machine may take longer than their time.
    let upstreams = upstreams().pinging(None);
    let proxy = start(Proxy { to: listener.local_addr().unwrap(), upstreams }).await;
    let mut client = Peer::connect(proxy.address).await;
    client.send(&request(1, "GET", "/wait", END_STREAM)).await;
    let mut app = Peer::accept(&listener).await;
    let waits = app.request().await;
    for stream in streams().take(calls as usize) {
        client.send(&request(stream, "GET", "/", END_STREAM)).await;
        let upstream = app.request().await;
        app.send(&response(upstream, END_STREAM, &[])).await;
        client.wait_for(HEADERS, stream).await;
    }
    let each = |times| {
        streams().take(calls as usize).map(move |stream| frame(DATA, 0, stream, b"late!").repeat(times))
    };
    app.send(&each(late).collect::<Vec<_>>().concat()).await;
    for _ in 0..late {
        app.send(&each(1).collect::<Vec<_>>().concat()).await;
    }
    app.send(&response(waits, END_STREAM, &[])).await;
    client.wait_for(HEADERS, 1).await;
}

#[tokio::test]
async fn frames_that_cross_a_reset_hurt_nobody() {
    frames_cross_and_hurt_nobody(1500, 5).await;
}

#[tokio::test]
async fn a_million_frames_that_cross_a_reset_hurt_nobody() {
    frames_cross_and_hurt_nobody(2000, 250).await;
}

#[tokio::test]
async fn uploads_that_are_refused_while_they_are_sent_hurt_nobody() {
    let (server, go_on) = server().await;
    let mut client = waiting(&server).await;
    for stream in streams().take(2500) {
        client.send(&request(stream, "POST", "/refused", 0)).await;
        client.send(&frame(DATA, 0, stream, &[0; 1000])).await;
        client.wait_for(HEADERS, stream).await;
        client.wait_for(RST_STREAM, stream).await;
        client.send(&frame(DATA, 0, stream, &[0; 1000]).repeat(3)).await;
    }
    is_answered(client, &go_on).await;
}

#[tokio::test]
async fn requests_that_are_refused_hurt_nobody() {
    let (server, go_on) = server().await;
    let mut client = waiting(&server).await;
    for (number, stream) in streams().enumerate().take(5000) {
        if number % 100 == 0 {
            client.send(&request(stream, "GET", "/", END_STREAM)).await;
            client.wait_for(HEADERS, stream).await;
        } else {
            client.send(&request(stream, "GET", "a path that is none", END_STREAM)).await;
            assert_eq!(client.wait_for(RST_STREAM, stream).await.code(), 1);
        }
    }
    is_answered(client, &go_on).await;
}

#[tokio::test]
async fn malformed_heads_and_trailers_hurt_nobody() {
    let (server, go_on) = server().await;
    let mut client = waiting(&server).await;
    let malformed: [(&[u8], &[u8]); 9] = [
        (b"X-Capital", b"a"),
        (b"x y", b"a"),
        (b"", b"nameless"),
        (b":odd", b"a"),
        (b"x", b"two\nlines"),
        (b"x", b"\0"),
        (b":path", b"/caf\xe9"),
        (b":method", b"G T"),
        (b"connection", b"close"),
    ];
    // Each enters the table, which the others' header lists refer to.
    for (stream, (name, value)) in streams().step_by(2).zip(malformed) {
        let mut list = request_fields("GET", "/", &[]);
        let at = list.len();
        list.extend(fields(&[(name, value)]));
        list[at] = 0x40;
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &list)).await;
        assert_eq!(client.wait_for(RST_STREAM, stream).await.code(), 1, "{name:?}");
        client.send(&request(stream + 2, "POST", "/", 0)).await;
        let list = fields(&[(name, value)]);
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream + 2, &list)).await;
        let reaction = client.next_of(stream + 2).await;
        assert!([HEADERS, RST_STREAM].contains(&reaction.kind), "{name:?}: {reaction:?}");
    }
    // The third that entered, behind a good one: the table is what the client takes it for.
    let list = [&request_fields("GET", "/", &[])[..], b"\x40\x01a\x01b", b"\xbe"].concat();
    client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 101, &list)).await;
    client.wait_for(HEADERS, 101).await;
    is_answered(client, &go_on).await;
}

#[tokio::test]
async fn no_field_whatever_its_bytes_hurts_anybody() {
    let (server, go_on) = server().await;
    let mut client = waiting(&server).await;
    let mut random = Random(1);
    for stream in streams().take(1000) {
        let mut list = request_fields("GET", "/", &[]);
        for _ in 0..random.below(4) {
            let name: Vec<u8> = (0..random.below(12)).map(|_| random.byte()).collect();
            let value: Vec<u8> = (0..2 + random.below(12)).map(|_| random.byte()).collect();
            let at = list.len();
            list.extend(fields(&[(&name, &value)]));
            list[at] = [0, 0x10, 0x40][random.below(3)];
        }
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &list)).await;
        let reaction = client.next_of(stream).await;
        assert!([HEADERS, RST_STREAM].contains(&reaction.kind), "{list:x?}: {reaction:?}");
    }
    is_answered(client, &go_on).await;
}

/// Numbers that are the same in each run (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) as usize % end
    }

    /// Letters more often than anything else.
    fn byte(&mut self) -> u8 {
        if self.below(8) == 0 { self.below(256) as u8 } else { b'a' + self.below(26) as u8 }
    }
}

#[tokio::test]
async fn a_client_that_sends_nothing_but_faults_is_cut() {
    let (server, _) = server().await;
    let mut client = Peer::connect(server.address).await;
    for stream in streams().take(50_000) {
        if client.try_send(&request(stream, "GET", "a path that is none", END_STREAM)).await.is_err() {
            break;
        }
    }
    ends(&mut client).await;
}

#[tokio::test]
async fn many_calls_that_are_cancelled_in_one_breath_hurt_nobody() {
    let (server, go_on) = server().await;
    let mut client = waiting(&server).await;
    let cancel = 8_u32.to_be_bytes();
    let burst = streams().take(200).map(|stream| {
        [request(stream, "GET", "/wait", END_STREAM), frame(RST_STREAM, 0, stream, &cancel)].concat()
    });
    client.send(&burst.collect::<Vec<_>>().concat()).await;
    let next = streams().nth(200).unwrap();
    client.send(&request(next, "GET", "/", END_STREAM)).await;
    client.wait_for(HEADERS, next).await;
    is_answered(client, &go_on).await;
}

#[tokio::test]
async fn data_without_content_hurts_nobody_and_a_flood_of_it_ends_the_connection() {
    let (server, go_on) = server().await;
    let mut client = waiting(&server).await;
    for stream in streams().take(500) {
        client.send(&request(stream, "POST", "/", 0)).await;
        client.send(&frame(DATA, 0, stream, &[])).await;
        client.send(&frame(DATA, END_STREAM, stream, b"content")).await;
        client.wait_for(HEADERS, stream).await;
    }
    is_answered(client, &go_on).await;

    let mut client = Peer::connect(server.address).await;
    client.send(&request(1, "POST", "/wait", 0)).await;
    for _ in 0..1000 {
        if client.try_send(&frame(DATA, 0, 1, &[]).repeat(1000)).await.is_err() {
            break;
        }
    }
    ends(&mut client).await;
}

#[tokio::test]
async fn a_client_that_opens_streams_and_reads_nothing_is_cut() {
    let (server, _) = server().await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut client = socket.connect(server.address).await.unwrap();
    let hello = [crate::frames::PREFACE, &frame(crate::frames::SETTINGS, 0, 0, &[])].concat();
    let flood =
        streams().take(1_000_000).map(|stream| request(stream, "GET", "a path that is none", END_STREAM));
    let bytes = std::iter::once(hello).chain(flood);
    let mut sent = 0;
    for bytes in bytes {
        let written = soon("room or the end", tokio::io::AsyncWriteExt::write_all(&mut client, &bytes));
        if written.await.is_err() {
            return;
        }
        sent += 1;
    }
    panic!("still open after {sent} requests");
}

/// A header list with one long field.
fn long(length: usize) -> Vec<u8> {
    request_fields("GET", "/", &[(b"x-long", &vec![b'x'; length])])
}

#[tokio::test]
async fn a_head_of_up_to_a_mebibyte_passes_in_frames_of_any_size() {
    let (server, go_on) = server().await;
    let mut client = waiting(&server).await;
    let sizes = [(300 << 10, 16384), (1000 << 10, 16384), (1000 << 10, 1000), (12_000, 1000), (12_000, 10)];
    for (stream, (length, size)) in streams().zip(sizes) {
        client.send(&in_pieces(stream, END_STREAM, &long(length), size)).await;
        let head = client.wait_for(HEADERS, stream).await;
        assert_eq!(head.payload[0], 0x88, "status 200 for {length} bytes in frames of {size}");
    }
    is_answered(client, &go_on).await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_on_its_stream() {
    for length in [1 << 20, 3 << 19, 5 << 19] {
        let (server, go_on) = server().await;
        let mut client = waiting(&server).await;
        client.send(&in_pieces(3, END_STREAM, &long(length), 16384)).await;
        let head = client.wait_for(HEADERS, 3).await;
        assert!(head.payload.starts_with(STATUS_431), "{length}: {:?}", head.payload);
        is_answered(client, &go_on).await;
    }
}

/// `:status: 431` as the first header list of a connection has it, in Huffman's code.
const STATUS_431: &[u8] = b"\x48\x83\x69\x90\xff";

/// An app of which one call waits; then each of these is the response to another call, and then the first is answered.
/// Returns the statuses of the responses at the client, and of the call that waited.
async fn beside(responses: Vec<Vec<u8>>) -> (Vec<u16>, StatusCode) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = start_proxy(listener.local_addr().unwrap()).await;
    let mut client = connect(proxy.address).await;
    let waits = tokio::spawn(client.send_request(grpc("/wait", Body::empty())));
    let mut app = Peer::accept(&listener).await;
    let waiting = app.request().await;
    let mut statuses = Vec::new();
    for (stream, bytes) in streams().zip(responses) {
        let call = tokio::spawn(client.send_request(grpc("/", Body::empty())));
        assert_eq!(app.request().await, stream);
        app.send(&bytes).await;
        statuses.push(soon("a response", call).await.unwrap().unwrap().status().as_u16());
    }
    app.send(&response(waiting, END_STREAM, &[])).await;
    (statuses, soon("the other response", waits).await.unwrap().unwrap().status())
}

#[tokio::test]
async fn a_response_head_passes_up_to_a_mebibyte_and_a_larger_one_fails_alone() {
    let head = |stream, length, size| {
        let list = [fields(&[(b":status", b"200")]), fields(&[(b"x-long", &vec![b'x'; length])])].concat();
        in_pieces(stream, END_STREAM, &list, size)
    };
    let (statuses, other) = beside(vec![
        head(3, 150 << 10, 16384),
        head(5, 1000 << 10, 16384),
        head(7, 1000 << 10, 1000),
        head(9, 1 << 20, 16384),
        head(11, 5 << 19, 16384),
    ])
    .await;
    assert_eq!((statuses, other.as_u16()), (vec![200, 200, 200, 502, 502], 200));
}

/// Has the other end read each of these frames by itself, 2,000 times: what it answers to a ping comes after them.
async fn drip(peer: &mut Peer, data: &[u8]) {
    for number in 0..2000_u64 {
        peer.send(&[data, &frame(PING, 0, 0, &number.to_be_bytes())].concat()).await;
        while peer.wait_for(PING, 0).await.payload != number.to_be_bytes() {}
    }
}

#[tokio::test]
async fn small_messages_of_a_client_that_nobody_takes_yet_hurt_nobody() {
    let (server, go_on) = server().await;
    let mut client = waiting(&server).await;
    client.send(&request(3, "POST", "/wait", 0)).await;
    drip(&mut client, &frame(DATA, 0, 3, b"small")).await;
    go_on.notify_one();
    is_answered(client, &go_on).await;
}

#[tokio::test]
async fn small_messages_of_an_app_that_nobody_takes_yet_hurt_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = start_proxy(listener.local_addr().unwrap()).await;
    let mut client = connect(proxy.address).await;
    let waits = tokio::spawn(client.send_request(grpc("/", Body::empty())));
    let mut app = Peer::accept(&listener).await;
    let waiting = app.request().await;
    let slow = tokio::spawn(client.send_request(grpc("/", Body::empty())));
    let stream = app.request().await;
    app.send(&response(stream, 0, &[])).await;
    let unread = soon("the head", slow).await.unwrap().unwrap();
    drip(&mut app, &frame(DATA, 0, stream, b"small")).await;
    app.send(&response(waiting, END_STREAM, &[])).await;
    assert_eq!(soon("the response", waits).await.unwrap().unwrap().status(), 200);
    drop(unread);
}
