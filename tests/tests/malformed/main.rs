//! Bytes that are no proper request, at both proxies: each is refused with a 4xx or a closed connection, or reaches
//! the app as the one request it can be taken for, and never as two, or as another. The app behind is
//! [a recorder](pilotlight_tests::recorder) that refuses everything ambiguous, and writes down the rest.

mod frames;
mod h2spec;
mod http1;
mod http2;
mod sockets;

use std::net::SocketAddr;

use pilotlight_tests::SOON;
use pilotlight_tests::recorder::{Recorder, Seen};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Sends these bytes and returns all that comes back until the other side closes the connection.
async fn exchange(to: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).await.expect("a connection");
    let mut answer = Vec::new();
    let (mut reader, mut writer) = stream.split();
    // The other side may well hang up in the middle of what it does not want to read.
    let write = async { drop(writer.write_all(bytes).await) };
    // A reset is an end, too.
    let read = async { drop(reader.read_to_end(&mut answer).await) };
    let both = timeout(SOON, async { tokio::join!(write, read) });
    assert!(both.await.is_ok(), "still open after {:?}", String::from_utf8_lossy(&answer));
    String::from_utf8_lossy(&answer).into_owned()
}

/// Requests that the app was sent since the last time, apart from requests that broke off.
fn whole(app: &Recorder) -> Vec<String> {
    let seen = app.take_seen();
    seen.iter().filter(|seen| !matches!(seen, Seen::Cut(_))).map(Seen::essence).collect()
}

/// The statuses of the responses in what came back.
fn statuses(answer: &str) -> Vec<&str> {
    answer.split("HTTP/1.").skip(1).map(|response| response.get(2..5).unwrap_or_default()).collect()
}
