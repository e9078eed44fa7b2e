//! `pilotlight run` for apps that speak HTTP/2 or WebSocket: from nothing, through both proxies, and back.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream};
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pilotlight_tests::SOON;
use pilotlight_tests::run::Pilotlight;
use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

const TALKER: &str = env!("CARGO_BIN_EXE_talker");

async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(SOON, work).await.unwrap_or_else(|_| panic!("never came: {what}"))
}

type Frames = mpsc::Sender<Frame<Bytes>>;

/// A call whose body is written as the test goes on.
async fn call(to: SocketAddr) -> (Frames, http::Response<hyper::body::Incoming>) {
    let (frames, mut written) = mpsc::channel(1);
    let written =
        stream::poll_fn(move |cx| written.poll_recv(cx).map(|frame| frame.map(Ok::<_, hyper::Error>)));
    let stream = TcpStream::connect(to).await.unwrap();
    let (mut sender, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(driver);
    let request = Request::post("http://localhost/pkg.Service/Chat").header("te", "trailers");
    let request = request.header("content-type", "application/grpc").body(StreamBody::new(written)).unwrap();
    (frames, soon("the head", sender.send_request(request)).await.unwrap())
}

#[tokio::test]
async fn a_conversation_over_http_2_starts_the_app_and_ends_with_its_trailers() {
    let pilotlight = Pilotlight::run(["--", TALKER, "h2c", "{port}"]).await;
    let (frames, response) = call(pilotlight.address).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-seen"], "HTTP/2.0 /pkg.Service/Chat");
    assert!(response.headers().contains_key("server-timing"), "from zero: {response:?}");
    let mut body = response.into_body();
    for text in ["one", "two"] {
        frames.send(Frame::data(Bytes::from_static(text.as_bytes()))).await.unwrap();
        let frame = soon("the echo", body.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), text);
    }
    drop(frames);
    let rest = soon("the end", body.collect()).await.unwrap();
    assert_eq!(rest.trailers().expect("trailers")["grpc-status"], "0");
}

#[tokio::test]
async fn a_websocket_starts_the_app_and_a_polite_end_waits_for_it() {
    let mut pilotlight = Pilotlight::run(["--", TALKER, "websocket", "{port}"]).await;
    let stream = TcpStream::connect(pilotlight.address).await.unwrap();
    let (mut socket, response) = soon("the 101", client_async("ws://localhost/", stream)).await.unwrap();
    assert_eq!(response.status(), 101);
    for text in ["one", "two"] {
        socket.send(Message::text(text)).await.unwrap();
        assert_eq!(soon("the echo", socket.next()).await.unwrap().unwrap(), Message::text(text));
    }
    pilotlight.signal(Signal::TERM);
    soon("the front door closes", async { while TcpStream::connect(pilotlight.address).await.is_ok() {} })
        .await;
    socket.send(Message::text("still here")).await.unwrap();
    assert_eq!(soon("the echo", socket.next()).await.unwrap().unwrap(), Message::text("still here"));
    socket.close(None).await.unwrap();
    drop(socket);
    let status = pilotlight.exit(SOON).await;
    assert!(status.success(), "{status}");
    pilotlight.nothing_is_left().await;
}
