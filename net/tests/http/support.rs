//! A client and apps that speak HTTP byte by byte, so that each side can be as odd as a test needs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pilotlight_net::{
    Drain, Handler, Request, Response, Timeouts, UpstreamParams, Upstreams, message, prepare_forward,
    prepare_response, serve, with_timeouts,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Nothing here takes long; what takes longer hangs.
pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), work).await.unwrap_or_else(|_| panic!("never came: {what}"))
}

pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    soon(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

pub(crate) struct Client {
    stream: TcpStream,
    buffered: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Client::of(stream)
    }

    pub(crate) fn of(stream: TcpStream) -> Self {
        Client { stream, buffered: Vec::new() }
    }

    pub(crate) async fn send(&mut self, text: &str) -> &mut Self {
        self.stream.write_all(text.as_bytes()).await.unwrap();
        self
    }

    /// Half-closes the connection.
    pub(crate) async fn finish(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Reads up to and including `end`, which must come.
    pub(crate) async fn read_until(&mut self, end: &str) -> String {
        soon(end, async {
            loop {
                if let Some(at) = find(&self.buffered, end.as_bytes()) {
                    let rest = self.buffered.split_off(at + end.len());
                    let read = std::mem::replace(&mut self.buffered, rest);
                    return String::from_utf8(read).unwrap();
                }
                let read = self.stream.read_buf(&mut self.buffered).await.unwrap();
                assert!(read > 0, "closed before {end:?}: {}", String::from_utf8_lossy(&self.buffered));
            }
        })
        .await
    }

    /// The head of a message, with its empty line.
    pub(crate) async fn read_head(&mut self) -> String {
        self.read_until("\r\n\r\n").await
    }

    /// A whole message of known length: head and body.
    pub(crate) async fn read_message(&mut self) -> String {
        let mut message = self.read_head().await;
        let length = header(&message, "content-length").map_or(0, |length| length.parse().unwrap());
        soon("the body", async {
            while self.buffered.len() < length {
                assert!(
                    self.stream.read_buf(&mut self.buffered).await.unwrap() > 0,
                    "closed within the body"
                );
            }
        })
        .await;
        let rest = self.buffered.split_off(length);
        message.push_str(std::str::from_utf8(&std::mem::replace(&mut self.buffered, rest)).unwrap());
        message
    }

    /// A whole message of known length, without a body if it answers `HEAD`; `None` if it breaks off.
    pub(crate) async fn try_read_message(&mut self, is_head: bool) -> Option<String> {
        loop {
            if let Some(at) = find(&self.buffered, b"\r\n\r\n") {
                let head = std::str::from_utf8(&self.buffered[..at + 4]).unwrap();
                let length = header(head, "content-length").filter(|_| !is_head);
                let length = at + 4 + length.map_or(0, |length| length.parse().unwrap());
                if self.buffered.len() >= length {
                    let rest = self.buffered.split_off(length);
                    return Some(String::from_utf8(std::mem::replace(&mut self.buffered, rest)).unwrap());
                }
            }
            if self.stream.read_buf(&mut self.buffered).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// Whether no byte has come that was not read.
    pub(crate) fn has_heard_nothing(&self) -> bool {
        self.buffered.is_empty()
    }

    /// All bytes until the other side closes or resets.
    pub(crate) async fn read_to_end(&mut self) -> String {
        soon("the end", async {
            while self.stream.read_buf(&mut self.buffered).await.is_ok_and(|read| read > 0) {}
        })
        .await;
        String::from_utf8(std::mem::take(&mut self.buffered)).unwrap()
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

pub(crate) fn header(message: &str, name: &str) -> Option<String> {
    let lines = message.split("\r\n").skip(1).take_while(|line| !line.is_empty());
    lines
        .filter_map(|line| line.split_once(": "))
        .find(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, v)| v.to_owned())
}

/// A server of its own until dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) drain: Drain,
    pub(crate) task: JoinHandle<()>,
}

pub(crate) async fn start(handler: impl Handler) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let drain = Drain::default();
    let task = tokio::spawn(serve(listener, Arc::new(handler), drain.clone()));
    Server { address, drain, task }
}

/// A handler made of a closure.
pub(crate) struct Answer<F>(pub(crate) F);

impl<F, R> Handler for Answer<F>
where
    F: Fn(Request) -> R + Send + Sync + 'static,
    R: Future<Output = Response> + Send,
{
    fn handle(&self, _: &pilotlight_net::Client, request: Request) -> impl Future<Output = Response> + Send {
        (self.0)(request)
    }
}

/// A response that is there, with time limits.
pub(crate) async fn bounded(timeouts: Timeouts, response: Response) -> Response {
    let client = pilotlight_net::Client::new(([127, 0, 0, 1], 1).into());
    with_timeouts(&client, timeouts, "too late", std::future::ready(response)).await
}

/// The smallest proxy there can be.
pub(crate) struct Proxy {
    pub(crate) to: SocketAddr,
    pub(crate) upstreams: Upstreams,
}

impl Handler for Proxy {
    async fn handle(&self, client: &pilotlight_net::Client, mut request: Request) -> Response {
        let marks = pilotlight_net::headers::Marks::of(request.headers());
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

pub(crate) fn upstreams() -> Upstreams {
    Upstreams::new(UpstreamParams {
        max_idle_per_host: 10,
        idle_timeout: Duration::from_secs(90),
        connect_timeout: Duration::from_secs(5),
    })
}

pub(crate) async fn start_proxy(to: SocketAddr) -> Server {
    start(Proxy { to, upstreams: upstreams() }).await
}

/// An app that handles connections by hand: the test accepts them.
pub(crate) struct App {
    pub(crate) address: SocketAddr,
    listener: TcpListener,
}

impl App {
    pub(crate) async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        App { address: listener.local_addr().unwrap(), listener }
    }

    pub(crate) fn into_listener(self) -> TcpListener {
        self.listener
    }

    pub(crate) async fn accept(&self) -> Client {
        Client::of(soon("a connection", self.listener.accept()).await.unwrap().0)
    }
}

/// An app with a proxy in front, and a client of the proxy.
pub(crate) async fn proxied() -> (Client, App, Server) {
    let app = App::listen().await;
    let proxy = start_proxy(app.address).await;
    (Client::connect(proxy.address).await, app, proxy)
}

/// An address where nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    // The port stays bound for as long as the tests run, so that nobody else gets it; and the socket never listens.
    std::mem::forget(socket);
    address
}

pub(crate) const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
