//! An app with a file to give and an appetite for uploads, behind both proxies.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use pilotlight_net::{Body, Drain, Handler, Request, Response, plain, serve};
use pilotlight_tests::proxies::{HOST, Proxy};
use tokio::net::TcpListener;

/// Content of `/file`.
pub(crate) const FILE_BYTES: usize = 3 << 20;

/// A client's way to the app: the activator, then the queue-proxy, as in a cluster.
pub(crate) struct Way {
    pub(crate) front: Proxy,
    _pod: Proxy,
}

impl Way {
    pub(crate) async fn open() -> Way {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let app = listener.local_addr().expect("bound");
        tokio::spawn(serve(listener, Arc::new(App), Drain::default()));
        let pod = Proxy::queue_proxy(app, &[]).await;
        Way { front: Proxy::activator(&[("app", &[HOST], &[pod.address])]).await, _pod: pod }
    }
}

struct App;

impl Handler for App {
    async fn handle(&self, _: &pilotlight_net::Client, request: Request) -> Response {
        match request.uri().path() {
            "/file" => file(request.headers()),
            "/upload" if request.method() == Method::POST || request.method() == Method::PUT => {
                take(request).await
            }
            "/version" => plain(StatusCode::OK, format!("{:?}", request.version())),
            // Before it has seen any of the body.
            "/refuse" => plain(StatusCode::PAYLOAD_TOO_LARGE, "too much"),
            other => plain(StatusCode::NOT_FOUND, format!("no {other}")),
        }
    }
}

/// How much came, and the sum of its bytes.
async fn take(request: Request) -> Response {
    let framing =
        if request.headers().contains_key(header::CONTENT_LENGTH) { "of known length" } else { "in pieces" };
    let framing = format!("{framing} over {:?}", request.version());
    let mut body = request.into_body();
    let (mut bytes, mut sum) = (0, 0_u64);
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return plain(StatusCode::BAD_REQUEST, "it broke off") };
        let data = frame.into_data().unwrap_or_default();
        bytes += data.len();
        sum += data.iter().map(|&byte| u64::from(byte)).sum::<u64>();
    }
    plain(StatusCode::OK, format!("{bytes} bytes, sum {sum}, {framing}"))
}

fn file(headers: &HeaderMap) -> Response {
    let all: Bytes = (0..FILE_BYTES).map(byte).collect();
    let range = headers
        .get(header::RANGE)
        .and_then(|range| range.to_str().ok()?.strip_prefix("bytes=")?.split_once('-'));
    let Some((from, to)) = range.and_then(|(from, to)| Some((from.parse().ok()?, to.parse::<usize>().ok()?)))
    else {
        return Response::new(Body::full(all));
    };
    let mut response = Response::new(Body::full(all.slice(from..=to)));
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let place = format!("bytes {from}-{to}/{FILE_BYTES}");
    response.headers_mut().insert(header::CONTENT_RANGE, HeaderValue::try_from(place).expect("a header"));
    response
}

/// The byte of the file at this place: letters, so that a piece can be told from any other nearby.
pub(crate) fn byte(at: usize) -> u8 {
    b'a' + (at % 26) as u8
}
