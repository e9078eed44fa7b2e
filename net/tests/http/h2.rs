//! HTTP/2 by prior knowledge: through the server, the pool, and both.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pilotlight_net::{Body, Breaker, Request, Response, SendError, Timeouts, hold_while, plain};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};

use crate::support::{
    Answer, Client, GET, Server, bounded, nobody, soon, start, start_proxy, until, upstreams,
};

pub(crate) type Sender = http2::SendRequest<Body>;

pub(crate) async fn connect(to: SocketAddr) -> Sender {
    let stream = TcpStream::connect(to).await.unwrap();
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.max_header_list_size(4 << 20);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub(crate) fn grpc(path: &str, body: Body) -> Request {
    let request = http::Request::post(format!("http://hello.example{path}")).version(Version::HTTP_2);
    let request = request.header("content-type", "application/grpc").header("te", "trailers");
    request.body(body).unwrap()
}

/// A body that is written as the test goes on.
fn channel() -> (mpsc::Sender<Frame<Bytes>>, Body) {
    let (sender, mut frames) = mpsc::channel(1);
    let frames = stream::poll_fn(move |cx| frames.poll_recv(cx).map(|frame| frame.map(Ok)));
    (sender, Body::stream(StreamBody::new(frames)))
}

fn data(text: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(text.as_bytes()))
}

fn trailers(name: &'static str, value: &'static str) -> Frame<Bytes> {
    Frame::trailers(HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))]))
}

/// An app that sends each frame back as it comes, and the head of the request in a header.
async fn echo() -> Server {
    start(Answer(|request: Request| async {
        let (head, body) = request.into_parts();
        let mut response = Response::new(Body::stream(body));
        let seen = [
            format!("{:?}", head.version),
            head.headers["host"].to_str().unwrap().to_owned(),
            head.headers.get("te").map(|te| te.to_str().unwrap().to_owned()).unwrap_or_default(),
            head.uri.to_string(),
        ];
        response.headers_mut().insert("x-seen", seen.join(" ").parse().unwrap());
        response
    }))
    .await
}

async fn outcome(response: hyper::Response<hyper::body::Incoming>) -> (u16, String) {
    let status = response.status().as_u16();
    let body = soon("the body", response.into_body().collect()).await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn a_call_arrives_as_http_2_with_its_host_and_its_trailers_both_ways() {
    let app = echo().await;
    let proxy = start_proxy(app.address).await;
    let mut client = connect(proxy.address).await;
    let (writer, body) = channel();
    let response = client.send_request(grpc("/pkg.Service/Call?a=%2F", body));
    let written = async {
        writer.send(data("hello")).await.unwrap();
        writer.send(trailers("grpc-status", "7")).await.unwrap();
        drop(writer);
    };
    let (response, ()) = soon("the call", async { tokio::join!(response, written) }).await;
    let response = response.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    assert_eq!(response.headers()["x-seen"], "HTTP/2.0 hello.example trailers /pkg.Service/Call?a=%2F");
    let body = soon("the body", response.into_body().collect()).await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "7");
    assert_eq!(body.to_bytes(), "hello");
}

#[tokio::test]
async fn both_sides_of_a_stream_talk_in_turn() {
    let app = echo().await;
    let proxy = start_proxy(app.address).await;
    let (writer, body) = channel();
    let mut client = connect(proxy.address).await;
    let response = soon("the head", client.send_request(grpc("/chat", body))).await.unwrap();
    let mut answers = response.into_body();
    for text in ["one", "two", "three"] {
        writer.send(data(text)).await.unwrap();
        let frame = soon("the answer", answers.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), text);
    }
    drop(writer);
    assert_eq!(soon("the end", answers.collect()).await.unwrap().to_bytes(), "");
}

#[tokio::test]
async fn one_port_speaks_both_protocols_and_the_upstream_hears_what_the_client_spoke() {
    let app = start(Answer(|request: Request| async move {
        Response::new(Body::full(format!("{:?}", request.version())))
    }))
    .await;
    let proxy = start_proxy(app.address).await;
    assert!(Client::connect(proxy.address).await.send(GET).await.read_message().await.ends_with("HTTP/1.1"));
    let mut client = connect(proxy.address).await;
    let response = soon("h2", client.send_request(grpc("/", Body::empty()))).await.unwrap();
    assert_eq!(outcome(response).await, (200, "HTTP/2.0".to_owned()));
}

#[tokio::test]
async fn many_calls_at_once_share_few_connections_to_the_app() {
    let (connections, arrived) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let go = Arc::new(tokio::sync::Semaphore::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (count, inside, gate) = (Arc::clone(&connections), Arc::clone(&arrived), Arc::clone(&go));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let (inside, gate) = (Arc::clone(&inside), Arc::clone(&gate));
            tokio::spawn(async move {
                let mut connection = ::h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    inside.fetch_add(1, Ordering::SeqCst);
                    let gate = Arc::clone(&gate);
                    tokio::spawn(async move {
                        gate.acquire().await.unwrap().forget();
                        respond.send_response(http::Response::new(()), true).unwrap();
                    });
                }
            });
        }
    });
    let proxy = start_proxy(address).await;
    let client = connect(proxy.address).await;
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.send_request(grpc("/", Body::empty())).await })
        })
        .collect();
    until("all calls in the app", || arrived.load(Ordering::SeqCst) == 50).await;
    assert_eq!(connections.load(Ordering::SeqCst), 2);
    go.add_permits(50);
    for call in calls {
        assert_eq!(soon("a call", call).await.unwrap().unwrap().status(), 200);
    }
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_with_the_body_it_had() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = start_proxy(listener.local_addr().unwrap()).await;
    let mut client = connect(proxy.address).await;
    let call = tokio::spawn(async move { client.send_request(grpc("/", Body::full("body"))).await });
    let (stream, _) = soon("a connection", listener.accept()).await.unwrap();
    let mut app = ::h2::server::handshake(stream).await.unwrap();
    // The request is refused although its body has come.
    let (request, mut respond) = soon("a request", app.accept()).await.unwrap().unwrap();
    let first = soon("its body", async {
        let mut body = request.into_body();
        tokio::select! { data = body.data() => data, _ = app.accept() => None }
    });
    assert_eq!(first.await.unwrap().unwrap(), "body");
    respond.send_reset(::h2::Reason::REFUSED_STREAM);
    let (request, mut respond) = soon("it again", app.accept()).await.unwrap().unwrap();
    let mut body = request.into_body();
    let again = soon("its body", async {
        tokio::select! { data = body.data() => data, _ = app.accept() => None }
    });
    assert_eq!(again.await.unwrap().unwrap(), "body");
    respond.send_response(http::Response::new(()), true).unwrap();
    tokio::spawn(async move { while app.accept().await.is_some() {} });
    assert_eq!(soon("the response", call).await.unwrap().unwrap().status(), 200);
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

/// An app that sends GOAWAY on each connection after its first request.
async fn goes_away(listener: &TcpListener) {
    let (mut stream, _) = soon("a connection", listener.accept()).await.unwrap();
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        stream.read_exact(&mut vec![0; length as usize]).await.unwrap();
        if head[3] == HEADERS {
            break;
        }
    }
    // GOAWAY: last stream 0, NO_ERROR.
    stream.write_all(&frame(GOAWAY, 0, 0, &[0; 8])).await.unwrap();
}

#[tokio::test]
async fn a_request_after_the_last_of_a_leaving_upstream_goes_to_its_next_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = start_proxy(listener.local_addr().unwrap()).await;
    let mut client = connect(proxy.address).await;
    let call = tokio::spawn(async move { client.send_request(grpc("/", Body::full("body"))).await });
    goes_away(&listener).await;
    let (stream, _) = soon("a connection", listener.accept()).await.unwrap();
    let mut app = ::h2::server::handshake(stream).await.unwrap();
    let (_, mut respond) = soon("it again", app.accept()).await.unwrap().unwrap();
    respond.send_response(http::Response::new(()), true).unwrap();
    tokio::spawn(async move { while app.accept().await.is_some() {} });
    assert_eq!(soon("the response", call).await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_request_that_nobody_takes_comes_back_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let sending = tokio::spawn(async move {
        let mut request = grpc("/a?b", Body::full("body"));
        (upstreams().send(&pilotlight_net::Client::ourselves(), to, &mut request).await, request)
    });
    for _ in 0..3 {
        goes_away(&listener).await;
    }
    let (Err(SendError::NotSent { .. }), request) = soon("the failure", sending).await.unwrap() else {
        panic!("it was not sent")
    };
    assert_eq!(request.uri().to_string(), "http://hello.example/a?b");
    assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "body");
}

#[tokio::test]
async fn nobody_at_the_other_end_is_a_502_over_http_2_too() {
    let to = nobody().await;
    let proxy = start_proxy(to).await;
    let mut client = connect(proxy.address).await;
    let response = soon("it", client.send_request(grpc("/", Body::empty()))).await.unwrap();
    let text = format!("dial tcp {to}: connect: connection refused\n");
    assert_eq!(outcome(response).await, (502, text));
}

#[tokio::test]
async fn an_upstream_that_breaks_off_resets_the_stream_and_not_the_connection() {
    let fail = Arc::new(Notify::new());
    let failing = Arc::clone(&fail);
    let app = start(Answer(move |request: Request| {
        let failing = Arc::clone(&failing);
        async move {
            if request.uri().path() == "/fine" {
                return Response::new(Body::full("fine"));
            }
            let then = stream::once(async move {
                failing.notified().await;
                Err(pilotlight_net::Error::UpstreamClosed)
            });
            let pieces = stream::iter([Ok(data("half"))]).chain(then);
            Response::new(Body::stream(StreamBody::new(Box::pin(pieces))))
        }
    }))
    .await;
    let proxy = start_proxy(app.address).await;
    let mut client = connect(proxy.address).await;
    let response = soon("it", client.send_request(grpc("/", Body::empty()))).await.unwrap();
    let mut body = response.into_body();
    assert_eq!(soon("half", body.frame()).await.unwrap().unwrap().into_data().unwrap(), "half");
    fail.notify_one();
    assert!(soon("the end", body.frame()).await.unwrap().is_err());
    let response = soon("it", client.send_request(grpc("/fine", Body::empty()))).await.unwrap();
    assert_eq!(outcome(response).await, (200, "fine".to_owned()));
}

#[tokio::test]
async fn a_cancelled_stream_gives_up_its_place_at_once() {
    let breaker = Breaker::new(0, 10);
    let shared = breaker.clone();
    let server = start(Answer(move |mut request: Request| {
        let breaker = shared.clone();
        async move {
            let _ =
                hold_while(&mut request, &pilotlight_net::ByteBudget::new(1 << 20), breaker.acquire()).await;
            plain(StatusCode::OK, "never")
        }
    }))
    .await;
    let mut client = connect(server.address).await;
    let call = tokio::spawn(client.send_request(grpc("/", Body::full("body"))));
    until("a place in the line", || breaker.waiting() == 1).await;
    call.abort();
    until("the place is free", || breaker.waiting() == 0).await;
    assert!(client.is_ready(), "the connection is not at fault");
}

#[tokio::test]
async fn a_client_that_takes_nothing_holds_nothing_past_the_total() {
    let held = Arc::new(AtomicUsize::new(0));
    struct Guard(Arc<AtomicUsize>);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let shared = Arc::clone(&held);
    let server = start(Answer(move |_| {
        shared.fetch_add(1, Ordering::SeqCst);
        let guard = Guard(Arc::clone(&shared));
        let timeouts = Timeouts { total: Duration::from_millis(50), response_start: None, idle: None };
        let endless = stream::repeat_with(|| Ok(Frame::data(Bytes::from(vec![0; 16384]))));
        let response = Response::new(Body::stream(StreamBody::new(endless)).guarded(guard));
        bounded(timeouts, response)
    }))
    .await;
    let mut client = connect(server.address).await;
    let response = soon("the head", client.send_request(grpc("/", Body::empty()))).await.unwrap();
    assert_eq!(response.status(), 200);
    until("it lets go", || held.load(Ordering::SeqCst) == 0).await;
    assert!(soon("the end", response.into_body().collect()).await.is_err(), "a part is not the whole");
}

#[tokio::test]
async fn a_draining_server_lets_streams_finish_and_takes_no_new_ones() {
    let (arrived, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (Arc::clone(&arrived), Arc::clone(&go_on));
    let server = start(Answer(move |_| {
        let (tell, wait) = (Arc::clone(&tell), Arc::clone(&wait));
        async move {
            tell.notify_one();
            wait.notified().await;
            Response::new(Body::full("done"))
        }
    }))
    .await;
    let mut client = connect(server.address).await;
    let call = tokio::spawn(client.send_request(grpc("/", Body::empty())));
    soon("the request", arrived.notified()).await;
    server.drain.start();
    soon("the listener closes", async { while TcpStream::connect(server.address).await.is_ok() {} }).await;
    assert!(!server.task.is_finished());
    go_on.notify_one();
    assert_eq!(outcome(soon("it", call).await.unwrap().unwrap()).await, (200, "done".to_owned()));
    soon("the end of the server", server.task).await.unwrap();
    assert!(client.send_request(grpc("/", Body::empty())).await.is_err());
}

#[tokio::test]
async fn head_has_the_length_of_what_get_would_bring_and_no_body() {
    let server = start(Answer(|_| std::future::ready(Response::new(Body::full("hello"))))).await;
    let mut client = connect(server.address).await;
    let mut request = grpc("/", Body::empty());
    *request.method_mut() = http::Method::HEAD;
    let response = soon("it", client.send_request(request)).await.unwrap();
    assert_eq!(response.headers()["content-length"], "5");
    assert_eq!(outcome(response).await, (200, String::new()));
}

#[tokio::test]
async fn connect_is_refused() {
    let proxy = start_proxy(nobody().await).await;
    let mut client = connect(proxy.address).await;
    let request = http::Request::connect("hello.example:80").body(Body::empty()).unwrap();
    let response = soon("it", client.send_request(request)).await.unwrap();
    assert_eq!(outcome(response).await.0, 501);
}
