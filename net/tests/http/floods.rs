//! Floods of frames from one client on one connection: it ends, or its frames are answered one by one; and calls on other
//! connections are answered. (`cargo bench -p pilotlight-tests --bench floods` says what they cost.)

use pilotlight_net::{Body, Request, Response};

use crate::frames::{
    CONTINUATION, DATA, END_STREAM, HEADERS, PING, Peer, RST_STREAM, SETTINGS, frame, request, request_fields,
};
use crate::support::{Answer, Server, start};

async fn server() -> Server {
    start(Answer(|_: Request| async { Response::new(Body::empty()) })).await
}

/// A call on a connection of its own is answered.
async fn others_are_answered(server: &Server) {
    let mut other = Peer::connect(server.address).await;
    other.send(&request(1, "GET", "/", END_STREAM)).await;
    other.wait_for(HEADERS, 1).await;
}

/// Sends this a thousand times, again and again, until the connection has ended. More than buffers hold must not go.
async fn is_cut(server: &Server, first: Vec<u8>, again: Vec<u8>) {
    let mut client = Peer::connect(server.address).await;
    client.send(&first).await;
    let many = again.repeat(1000);
    for round in 0.. {
        assert!(round * many.len() < 64 << 20, "still open");
        if client.try_send(&many).await.is_err() {
            break;
        }
        if round % 100 == 0 {
            others_are_answered(server).await;
        }
    }
    others_are_answered(server).await;
}

#[tokio::test]
async fn a_head_without_end_is_cut_whether_its_pieces_have_content_or_not() {
    let server = server().await;
    let first = frame(HEADERS, 0, 1, &request_fields("GET", "/", &[]));
    is_cut(&server, first.clone(), frame(CONTINUATION, 0, 1, b"")).await;
    is_cut(&server, first, frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b")).await;
}

#[tokio::test]
async fn data_behind_the_end_of_a_stream_is_cut_when_it_is_a_flood() {
    let server = server().await;
    let rounds = (1..).map(|number| 2 * number + 1);
    let mut client = Peer::connect(server.address).await;
    for stream in rounds.take(100_000) {
        let bytes = [request(stream, "GET", "/", END_STREAM), frame(DATA, 0, stream, b"x")].concat();
        if client.try_send(&bytes).await.is_err() {
            return others_are_answered(&server).await;
        }
    }
    panic!("still open");
}

#[tokio::test]
async fn pings_and_settings_are_answered_one_by_one_and_nobody_waits_for_them() {
    let server = server().await;
    let mut client = Peer::connect(server.address).await;
    for kind in [PING, SETTINGS] {
        let again = if kind == PING { frame(PING, 0, 0, b"12345678") } else { frame(SETTINGS, 0, 0, b"") };
        for _ in 0..20 {
            client.send(&again.repeat(1000)).await;
            others_are_answered(&server).await;
            let mut answered = 0;
            while answered < 1000 {
                let answer = client.next().await.expect("it is open");
                answered += usize::from(answer.kind == kind && answer.flags == 1);
            }
        }
    }
    client.send(&request(1, "GET", "/", END_STREAM)).await;
    client.wait_for(HEADERS, 1).await;
}

#[tokio::test]
async fn calls_that_are_cancelled_without_end_keep_no_other_connection_waiting() {
    let server = server().await;
    let mut client = Peer::connect(server.address).await;
    let mut streams = (0..).map(|number| 2 * number + 1);
    for _ in 0..200 {
        let calls = streams.by_ref().take(100).map(|stream| {
            let cancel = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
            [request(stream, "GET", "/", END_STREAM), cancel].concat()
        });
        // The connection may be cut, and need not be.
        if client.try_send(&calls.collect::<Vec<_>>().concat()).await.is_err() {
            break;
        }
        others_are_answered(&server).await;
    }
}
