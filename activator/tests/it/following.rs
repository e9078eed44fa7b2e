//! Endpoints over HTTP.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

use pilotlight_activator::endpoints::follow;
use pilotlight_core::{EndpointLine, RevisionEndpoints, RevisionId};
use pilotlight_feed::{Change, Follower};
use pilotlight_net::Target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::harness::*;

/// Takes one request for endpoints and begins a stream.
async fn accept(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = soon(listener.accept()).await.unwrap();
    let mut request = [0; 4096];
    let length = stream.read(&mut request).await.unwrap();
    let request = String::from_utf8_lossy(&request[..length]).to_lowercase();
    assert!(request.starts_with("get /v1/endpoints http/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nhost: 127.0.0.1:"), "{request}");
    stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
    stream
}

async fn send(stream: &mut TcpStream, text: &str) {
    stream.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).await.unwrap();
}

fn follow_at(address: SocketAddr) -> Follower<RevisionId, RevisionEndpoints> {
    follow(Target::http(&format!("http://{address}/v1/endpoints")).unwrap())
}

/// The revision with one pod, at this port.
fn with_pod(port: u16) -> RevisionEndpoints {
    RevisionEndpoints { ready: vec![pod_at(SocketAddr::from(([127, 0, 0, 1], port)))], ..revision(0) }
}

fn other() -> RevisionId {
    RevisionId::new("default", "other")
}

fn set(id: RevisionId, port: u16) -> Change<RevisionId, RevisionEndpoints> {
    Change::Set(Arc::new(id), Arc::new(with_pod(port)))
}

fn line(line: &EndpointLine) -> String {
    serde_json::to_string(line).unwrap() + "\n"
}

fn snapshot<const N: usize>(revisions: [(RevisionId, u16); N]) -> String {
    line(&EndpointLine::Snapshot(revisions.map(|(id, port)| (id, with_pod(port))).into()))
}

#[tokio::test]
async fn each_line_changes_one_revision_and_the_last_state_outlives_its_publisher() {
    let (address, listener) = listen().await;
    let mut follower = follow_at(address);
    assert_eq!(follower.try_next(), None);

    let mut stream = accept(&listener).await;
    send(&mut stream, &snapshot([(hello(), 1), (other(), 1)])).await;
    for expected in [set(hello(), 1), set(other(), 1), Change::Complete] {
        assert_eq!(soon(follower.next()).await, Some(expected));
    }

    // Silence and repetition change nothing; a line may come in pieces.
    let line_of = |port| line(&EndpointLine::Set { revision: hello(), endpoints: Box::new(with_pod(port)) });
    let next = line_of(2);
    let (first, second) = next.split_at(next.len() / 2);
    for piece in ["\n", &line_of(1), first, second] {
        send(&mut stream, piece).await;
    }
    assert_eq!(soon(follower.next()).await, Some(set(hello(), 2)));

    // The publisher dies in the middle of a line; what it would have said, its snapshot says.
    send(&mut stream, first).await;
    drop((stream, listener));
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    let listener = socket.listen(16).unwrap();
    let mut stream = accept(&listener).await;
    assert_eq!(follower.try_next(), None, "kept while the publisher was away");
    send(&mut stream, &snapshot([(hello(), 3)])).await;
    assert_eq!(soon(follower.next()).await, Some(Change::Gone(Arc::new(other()))), "deleted in the meantime");
    assert_eq!(soon(follower.next()).await, Some(set(hello(), 3)));

    send(&mut stream, &line(&EndpointLine::Gone(hello()))).await;
    assert_eq!(soon(follower.next()).await, Some(Change::Gone(Arc::new(hello()))));
}

#[tokio::test]
async fn after_a_line_that_cannot_be_read_everything_is_asked_for_again() {
    let (address, listener) = listen().await;
    let mut follower = follow_at(address);
    let mut stream = accept(&listener).await;
    send(&mut stream, &snapshot([(hello(), 1)])).await;
    for expected in [set(hello(), 1), Change::Complete] {
        assert_eq!(soon(follower.next()).await, Some(expected));
    }
    send(&mut stream, "{\"set\": 7}\n").await;
    let mut stream = accept(&listener).await;
    assert_eq!(follower.try_next(), None);
    send(&mut stream, &snapshot([(hello(), 2)])).await;
    assert_eq!(soon(follower.next()).await, Some(set(hello(), 2)));
}

#[tokio::test]
async fn following_ends_when_nobody_listens_any_more() {
    let (address, listener) = listen().await;
    let follower = follow_at(address);
    let mut stream = accept(&listener).await;
    drop(follower);
    let mut rest = Vec::new();
    // An end or a reset: either way it is closed, which is what returns from reading to the end.
    let closed = soon(stream.read_to_end(&mut rest)).await;
    assert!(matches!(closed, Ok(0)) || closed.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
}
