//! The table of endpoints over HTTP.

use std::io::ErrorKind;
use std::net::SocketAddr;

use pilotlight_activator::endpoints::follow;
use pilotlight_core::EndpointTable;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::harness::*;

/// Takes one request for the table and begins a stream.
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

fn table(port: u16) -> EndpointTable {
    let mut hello_revision = revision(0);
    hello_revision.ready = vec![pod_at(SocketAddr::from(([127, 0, 0, 1], port)))];
    EndpointTable { revisions: [(hello(), hello_revision)].into() }
}

fn line(table: &EndpointTable) -> String {
    serde_json::to_string(table).unwrap() + "\n"
}

#[tokio::test]
async fn every_line_is_the_new_table_and_the_last_one_outlives_its_source() {
    let (address, listener) = listen().await;
    let mut tables = follow(&format!("http://{address}/v1/endpoints")).unwrap();
    assert_eq!(**tables.borrow(), EndpointTable::default());

    let mut stream = accept(&listener).await;
    send(&mut stream, &line(&table(1))).await;
    soon(tables.changed()).await.unwrap();
    assert_eq!(**tables.borrow_and_update(), table(1));

    // Nonsense, silence and repetition change nothing; a line may come in pieces.
    let next = line(&table(2));
    let (first, second) = next.split_at(next.len() / 2);
    for piece in ["{\"revisions\": 7}\n", "\n", &line(&table(1)), first, second] {
        send(&mut stream, piece).await;
    }
    soon(tables.changed()).await.unwrap();
    assert_eq!(**tables.borrow_and_update(), table(2));

    drop((stream, listener));
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    let listener = socket.listen(16).unwrap();
    let mut stream = accept(&listener).await;
    assert_eq!(**tables.borrow(), table(2), "kept while the source was away");
    send(&mut stream, &line(&table(3))).await;
    soon(tables.changed()).await.unwrap();
    assert_eq!(**tables.borrow_and_update(), table(3));
}

#[tokio::test]
async fn following_ends_when_nobody_listens_any_more() {
    let (address, listener) = listen().await;
    let tables = follow(&format!("http://{address}/v1/endpoints")).unwrap();
    let mut stream = accept(&listener).await;
    drop(tables);
    let mut rest = Vec::new();
    // An end or a reset: either way it is closed, which is what returns from reading to the end.
    let closed = soon(stream.read_to_end(&mut rest)).await;
    assert!(matches!(closed, Ok(0)) || closed.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn bad_addresses_are_refused() {
    let error = follow("localhost:80").unwrap_err();
    assert_eq!(error.to_string(), "`localhost:80` is not of the form http://host:port/path");
}
