//! Limits of what clients may make a proxy keep.

use std::net::SocketAddr;

use pilotlight_tests::proxies::Proxy;
use pilotlight_tests::sample::Sample;
use pilotlight_tests::{SOON, eventually, http};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A connection that stays open.
async fn ask(to: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(to).await.expect("the backlog has room");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.expect("sent");
    stream
}

async fn answer(stream: &mut TcpStream) -> String {
    let mut answer = vec![0; 12];
    timeout(SOON, stream.read_exact(&mut answer)).await.expect("an answer").expect("a status line");
    String::from_utf8(answer).expect("text")
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_in_the_backlog_and_are_served_in_turn() {
    let app = Sample::start(&[], &[]).await;
    let proxy = Proxy::queue_proxy(app.address, &[("PILOTLIGHT_MAX_CONNECTIONS", "2")]).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = ask(proxy.address).await;
        assert_eq!(answer(&mut stream).await, "HTTP/1.1 200");
        open.push(stream);
    }
    let mut third = ask(proxy.address).await;
    let metric = async |name: &str| {
        // Another port has a limit of its own.
        let page = http::get(proxy.at_port(8022), "localhost", "/metrics").await.ok()?.body;
        let line = page.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse::<f64>().ok()
    };
    eventually("the limit is told", SOON, async || {
        metric("pilotlight_connection_limit_hits_total ").await.filter(|hits| *hits >= 1.0).map(drop)
    })
    .await;
    eventually("the two are told, and the one that asks", SOON, async || {
        metric("pilotlight_connections ").await.filter(|open| *open == 3.0).map(drop)
    })
    .await;
    drop(open.pop());
    assert_eq!(answer(&mut third).await, "HTTP/1.1 200");
}
