//! Both halves of HTTP/1.1 on any bytes: the same in whatever pieces they come, and the same again at the
//! other side of a proxy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use pilotlight_net::headers::Marks;
use pilotlight_net::{
    Body, Client, Drain, Handler, Request, Response, UpstreamParams, Upstreams, message, prepare_forward,
    prepare_response, serve,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// A client's bytes are the same requests for our server in whatever pieces they come, and for a server behind a proxy.
/// The first byte says where they are cut.
pub fn http1_request(bytes: &[u8]) {
    let Some((&cut, text)) = bytes.split_first() else { return };
    // Another protocol.
    if text.starts_with(b"PRI") {
        return;
    }
    WORLD.with(|world| {
        let whole = world.requests(&[text]);
        let (start, end) = text.split_at(text.len() * usize::from(cut) / 256);
        let pieces = world.requests(&[start, end]);
        // The rest of what was refused is not waited for.
        assert!(whole.seen.starts_with(&pieces.seen), "{whole:#?}\n{pieces:#?}");
        assert!(whole.is_refused || whole.seen == pieces.seen, "{whole:#?}\n{pieces:#?}");

        let mut expected = whole.seen;
        expected.retain(|message| !message.is_broken_off && message.head.method() != Method::CONNECT);
        let mut behind = world.requests_behind_a_proxy(text, expected.len());
        behind.retain(|message| !message.is_broken_off);
        let expected: Vec<_> = expected.into_iter().map(|message| sent(prepared(message))).collect();
        assert_eq!(behind.into_iter().map(sent).collect::<Vec<_>>(), expected);
    });
}

/// An app's bytes are the same response for our client in whatever pieces they come, and for a client of a proxy. The
/// first two bytes say what is asked, and where they are cut.
pub fn http1_response(bytes: &[u8]) {
    let [method, cut, text @ ..] = bytes else { return };
    let method = &[Method::GET, Method::HEAD, Method::POST][usize::from(*method) % 3];
    WORLD.with(|world| {
        let whole = world.response(world.speaker, method, &[text]);
        let (start, end) = text.split_at(text.len() * usize::from(*cut) / 256);
        assert_eq!(world.response(world.speaker, method, &[start, end]), whole);

        let behind = world.response(world.before_speaker, method, &[text]).expect("a proxy answers");
        let Some(expected) = whole else {
            return assert_eq!(behind.head.status(), StatusCode::BAD_GATEWAY);
        };
        assert_eq!(behind.is_broken_off, expected.is_broken_off, "{expected:#?}\n{behind:#?}");
        if !expected.is_broken_off {
            assert_eq!(returned(behind), returned(expected));
        }
    });
}

/// A message as whoever got it sees it.
#[derive(Clone, Debug)]
struct Message<H> {
    head: H,
    data: Vec<u8>,
    trailers: HeaderMap,
    is_broken_off: bool,
}

impl PartialEq for Message<http::Request<()>> {
    fn eq(&self, other: &Self) -> bool {
        let path = |head: &http::Request<()>| head.uri().path_and_query().map(ToString::to_string);
        let head = |head: &http::Request<()>| (head.method().clone(), path(head), head.headers().clone());
        head(&self.head) == head(&other.head) && self.has_content_of(other)
    }
}

impl PartialEq for Message<http::Response<()>> {
    fn eq(&self, other: &Self) -> bool {
        let head = |head: &http::Response<()>| (head.status(), head.headers().clone());
        head(&self.head) == head(&other.head) && self.has_content_of(other)
    }
}

impl<H> Message<H> {
    async fn read(head: H, mut body: Body) -> Self {
        let mut message =
            Message { head, data: Vec::new(), trailers: HeaderMap::new(), is_broken_off: false };
        while let Some(frame) = body.frame().await {
            match frame.map(http_body::Frame::into_data) {
                Ok(Ok(data)) => message.data.extend_from_slice(&data),
                Ok(Err(trailers)) => message.trailers = trailers.into_trailers().unwrap_or_default(),
                Err(_) => message.is_broken_off = true,
            }
        }
        message
    }

    fn has_content_of(&self, other: &Self) -> bool {
        (&self.data, &self.trailers, self.is_broken_off)
            == (&other.data, &other.trailers, other.is_broken_off)
    }
}

/// A request as a proxy forwards it.
fn prepared(mut message: Message<http::Request<()>>) -> Message<http::Request<()>> {
    let (head, ()) = message.head.into_parts();
    let mut request = Request::from_parts(head, Body::empty());
    let marks = Marks::of(request.headers());
    prepare_forward(&mut request, &Client::new(([127, 0, 0, 1], 1).into()), marks);
    message.head = request.map(drop);
    message
}

/// A request without what each hop says for itself: how the body is framed, and whom HTTP/1.0 did not name.
fn sent(mut message: Message<http::Request<()>>) -> Message<http::Request<()>> {
    let headers = message.head.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.remove(TRANSFER_ENCODING);
    if headers.get(HOST).is_some_and(|host| host.as_bytes().starts_with(b"127.0.0.1:")) {
        headers.remove(HOST);
    }
    message.trailers = own(&message.trailers);
    message
}

/// A response as a proxy returns it.
fn returned(mut message: Message<http::Response<()>>) -> Message<http::Response<()>> {
    let (head, ()) = message.head.into_parts();
    let mut response = Response::from_parts(head, Body::empty());
    prepare_response(&mut response);
    for name in [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, DATE] {
        response.headers_mut().remove(name);
    }
    message.head = response.map(drop);
    message.trailers = own(&message.trailers);
    message
}

/// Those that mean nothing to anybody in between.
fn own(trailers: &HeaderMap) -> HeaderMap {
    let is_own = |name: &http::HeaderName| name.as_str().starts_with("x-");
    trailers
        .iter()
        .filter(|(name, _)| is_own(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

thread_local! {
    static WORLD: World = World::start();
}

/// Everybody, over loopback and on one thread.
struct World {
    runtime: Runtime,
    upstreams: Upstreams,
    seen: Seen,
    // Apart from the others: what a proxy gives up may still be on its way.
    seen_behind: Seen,
    says: Arc<Mutex<Vec<Vec<u8>>>>,
    app: SocketAddr,
    before_app: SocketAddr,
    speaker: SocketAddr,
    before_speaker: SocketAddr,
}

/// The requests that a server made of a client's bytes.
#[derive(Debug)]
struct Served {
    seen: Vec<Message<http::Request<()>>>,
    is_refused: bool,
}

impl World {
    fn start() -> World {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let params =
            UpstreamParams { max_idle_per_host: 0, idle_timeout: PATIENCE, connect_timeout: PATIENCE };
        let (upstreams, says) = (Upstreams::new(params), Arc::default());
        let (seen, seen_behind) = (Seen::default(), Seen::default());
        let app = listen(&runtime, App { seen: Arc::clone(&seen) });
        let app_behind = listen(&runtime, App { seen: Arc::clone(&seen_behind) });
        let speaker = speak(&runtime, Arc::clone(&says));
        let before = |to| listen(&runtime, Proxy { to, upstreams: upstreams.clone() });
        let (before_app, before_speaker) = (before(app_behind), before(speaker));
        World { runtime, upstreams, seen, seen_behind, says, app, before_app, speaker, before_speaker }
    }

    fn requests(&self, pieces: &[&[u8]]) -> Served {
        let answers = self.run(async {
            let mut stream = TcpStream::connect(self.app).await.expect("connect");
            for piece in pieces {
                // The other side may well hang up in the middle of what it cannot understand.
                let _ = stream.write_all(piece).await;
                tokio::task::yield_now().await;
            }
            let _ = stream.shutdown().await;
            let mut answers = Vec::new();
            while stream.read_buf(&mut answers).await.is_ok_and(|read| read > 0) {}
            String::from_utf8_lossy(&answers).into_owned()
        });
        let is_refused =
            [" 400 ", " 501 "].iter().any(|status| answers.contains(&["HTTP/1.1", *status].concat()));
        Served { seen: std::mem::take(&mut self.seen.lock()), is_refused }
    }

    /// The client leaves when it has got this many answers of the app: one that leaves before has no requests any more.
    fn requests_behind_a_proxy(&self, text: &[u8], answers: usize) -> Vec<Message<http::Request<()>>> {
        self.run(async {
            let mut stream = TcpStream::connect(self.before_app).await.expect("connect");
            let _ = stream.write_all(text).await;
            let mut said = Vec::new();
            let is_enough =
                |said: &[u8]| String::from_utf8_lossy(said).matches("HTTP/1.1 200 ").count() >= answers;
            while !is_enough(&said) && stream.read_buf(&mut said).await.is_ok_and(|read| read > 0) {}
            let _ = stream.shutdown().await;
            while stream.read_buf(&mut said).await.is_ok_and(|read| read > 0) {}
        });
        std::mem::take(&mut self.seen_behind.lock())
    }

    fn response(
        &self,
        to: SocketAddr,
        method: &Method,
        pieces: &[&[u8]],
    ) -> Option<Message<http::Response<()>>> {
        *self.says.lock() = pieces.iter().map(|piece| piece.to_vec()).collect();
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method.clone();
        self.run(async {
            let client = Client::new(([127, 0, 0, 1], 1).into());
            let (head, body) = self.upstreams.send(&client, to, &mut request).await.ok()?.into_parts();
            Some(Message::read(http::Response::from_parts(head, ()), body).await)
        })
    }

    fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime
            .block_on(async { timeout(PATIENCE, work).await.expect("nothing here has to be waited for") })
    }
}

/// Remembers what it is asked. 200 says that it was asked for something whole.
struct App {
    seen: Seen,
}

type Seen = Arc<Mutex<Vec<Message<http::Request<()>>>>>;

impl Handler for App {
    async fn handle(&self, _: &Client, request: Request) -> Response {
        let (head, body) = request.into_parts();
        let message = Message::read(http::Request::from_parts(head, ()), body).await;
        let status = if message.is_broken_off { StatusCode::BAD_REQUEST } else { StatusCode::OK };
        self.seen.lock().push(message);
        message::empty(status)
    }
}

/// The smallest there can be.
struct Proxy {
    to: SocketAddr,
    upstreams: Upstreams,
}

impl Handler for Proxy {
    async fn handle(&self, client: &Client, mut request: Request) -> Response {
        let marks = Marks::of(request.headers());
        prepare_forward(&mut request, client, marks);
        match self.upstreams.send(client, self.to, &mut request).await {
            Ok(mut response) => {
                prepare_response(&mut response);
                response
            }
            Err(failure) => message::respond(failure.error()),
        }
    }
}

fn listen(runtime: &Runtime, handler: impl Handler) -> SocketAddr {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
    let address = listener.local_addr().expect("bound");
    runtime.spawn(serve(listener, Arc::new(handler), Drain::default()));
    address
}

/// Hears a request, says these pieces and hangs up.
fn speak(runtime: &Runtime, says: Arc<Mutex<Vec<Vec<u8>>>>) -> SocketAddr {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
    let address = listener.local_addr().expect("bound");
    runtime.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let pieces = says.lock().clone();
            tokio::spawn(async move {
                let mut heard = Vec::new();
                while !heard.ends_with(b"\r\n\r\n")
                    && stream.read_buf(&mut heard).await.is_ok_and(|read| read > 0)
                {}
                for piece in pieces {
                    let _ = stream.write_all(&piece).await;
                    tokio::task::yield_now().await;
                }
                let _ = stream.shutdown().await;
                while stream.read_buf(&mut heard).await.is_ok_and(|read| read > 0) {}
            });
        }
    });
    address
}

const PATIENCE: Duration = Duration::from_secs(10);
