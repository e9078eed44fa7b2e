//! An app that believes nothing: it takes HTTP/1.1 by the letter, and remembers exactly what it was sent.
//!
//! What a proxy lets through must be one request for each that the client sent, as the client meant it. A lenient app
//! would hide a proxy's mistake, so this one has a parser of its own which refuses whatever two readers could take
//! for different things.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// An item that came over a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A whole request.
    Request {
        /// Method, target and version as they were written; over HTTP/2 as they would have been.
        line: String,
        /// Names in lower case, in the order they came.
        headers: Vec<(String, String)>,
        /// The body without its framing.
        body: String,
        /// Lines after the last chunk.
        trailers: Vec<String>,
    },
    /// A request that broke off.
    Cut(String),
    /// Bytes that no client may send.
    Nonsense(String),
}

impl Seen {
    /// Method, target and body of a whole request; the whole of anything else.
    pub fn essence(&self) -> String {
        match self {
            Seen::Request { line, body, .. } => {
                let line = line.strip_suffix(" HTTP/1.1").or(line.strip_suffix(" HTTP/2.0")).unwrap_or(line);
                format!("{line} {body:?}")
            }
            other => format!("{other:?}"),
        }
    }

    /// Every host that is named, whatever it was named by.
    pub fn hosts(&self) -> Vec<&str> {
        ["host", ":authority", "k-original-host"].iter().flat_map(|name| self.header(name)).collect()
    }

    /// The values of a header.
    pub fn header(&self, name: &str) -> Vec<&str> {
        let Seen::Request { headers, .. } = self else { return Vec::new() };
        headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect()
    }
}

/// The app. It answers every request with 200 and `seen`.
#[derive(Clone, Debug)]
pub struct Recorder {
    /// Its address.
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Recorder {
    /// Starts on the current runtime.
    pub async fn start() -> Recorder {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let recorder = Recorder { address, seen: Arc::default() };
        let this = recorder.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let this = this.clone();
                tokio::spawn(async move { this.take(stream).await });
            }
        });
        recorder
    }

    /// Everything since the last time this was asked, in the order it came.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock())
    }

    fn note(&self, seen: Seen) {
        self.seen.lock().push(seen);
    }

    async fn take(&self, stream: TcpStream) {
        let mut first = [0; 3];
        if stream.peek(&mut first).await.is_ok_and(|read| read == 3 && &first == b"PRI") {
            return self.take_http2(stream).await;
        }
        let mut connection = Connection { stream, read: Vec::new() };
        loop {
            match connection.request().await {
                Ok(Some(request)) => self.note(request),
                Ok(None) => return,
                Err(end) => return self.note(end),
            }
            if connection.stream.write_all(ANSWER).await.is_err() {
                return;
            }
        }
    }

    async fn take_http2(&self, stream: TcpStream) {
        let service = service_fn(|request: http::Request<Incoming>| {
            let this = self.clone();
            async move {
                let (head, body) = request.into_parts();
                let line = format!("{} {} {:?}", head.method, path(&head.uri), head.version);
                let mut headers: Vec<_> = head
                    .headers
                    .iter()
                    .map(|(name, value)| {
                        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
                    })
                    .collect();
                headers.extend(head.uri.authority().map(|host| (":authority".to_owned(), host.to_string())));
                this.note(match body.collect().await {
                    Ok(body) => {
                        let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
                        Seen::Request { line, headers, body, trailers: Vec::new() }
                    }
                    Err(_) => Seen::Cut(line),
                });
                Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from_static(b"seen"))))
            }
        });
        let _ =
            http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
    }
}

fn path(uri: &http::Uri) -> &str {
    uri.path_and_query().map_or("", |path| path.as_str())
}

struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    /// The next request; `None`: there is none, and nothing of one.
    async fn request(&mut self) -> Result<Option<Seen>, Seen> {
        let Some(head) = self.until(b"\r\n\r\n").await else {
            return if self.read.is_empty() { Ok(None) } else { Err(Seen::Cut(text(&self.read))) };
        };
        let nonsense = || Seen::Nonsense(text(&head));
        let head = String::from_utf8(head.clone()).unwrap_or_else(|_| in_latin_1(&head));
        let mut lines = head.strip_suffix("\r\n\r\n").ok_or_else(nonsense)?.split("\r\n");
        let line = lines.next().ok_or_else(nonsense)?;
        let is_line = line.split(' ').count() == 3 && line.ends_with(" HTTP/1.1");
        let mut headers = Vec::new();
        for line in lines {
            let (name, value) = line.split_once(':').ok_or_else(nonsense)?;
            let is_name = !name.is_empty() && name.bytes().all(is_token);
            let is_value = !value.bytes().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
            if !is_name || !is_value {
                return Err(nonsense());
            }
            headers.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
        }
        if !is_line || line.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(nonsense());
        }
        let line = line.to_owned();
        let values = |wanted: &str| -> Vec<String> {
            headers.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.clone()).collect()
        };
        if values("host").len() != 1 {
            return Err(nonsense());
        }
        let (body, trailers) =
            match (values("content-length").as_slice(), values("transfer-encoding").as_slice()) {
                ([], []) => Default::default(),
                ([length], []) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
                    let length = length.parse().map_err(|_| nonsense())?;
                    (self.bytes(length).await.ok_or_else(|| Seen::Cut(line.clone()))?, Vec::new())
                }
                ([], [coding]) if coding == "chunked" => self.chunks(&line).await?,
                _ => return Err(nonsense()),
            };
        Ok(Some(Seen::Request { line, headers, body: text(&body), trailers }))
    }

    async fn chunks(&mut self, line: &str) -> Result<(Vec<u8>, Vec<String>), Seen> {
        let cut = || Seen::Cut(line.to_owned());
        let mut body = Vec::new();
        loop {
            let line = self.until(b"\r\n").await.ok_or_else(cut)?;
            let digits = std::str::from_utf8(&line).ok().and_then(|size| size.strip_suffix("\r\n"));
            let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
            let size = digits.and_then(|digits| usize::from_str_radix(digits, 16).ok());
            let size = size.ok_or_else(|| Seen::Nonsense(text(&line)))?;
            if size == 0 {
                let mut trailers = Vec::new();
                loop {
                    match self.until(b"\r\n").await.ok_or_else(cut)?.as_slice() {
                        b"\r\n" => return Ok((body, trailers)),
                        trailer => trailers.push(text(trailer).trim_end().to_owned()),
                    }
                }
            }
            let chunk = self.bytes(size + 2).await.ok_or_else(cut)?;
            body.extend_from_slice(chunk.strip_suffix(b"\r\n").ok_or_else(|| Seen::Nonsense(text(&chunk)))?);
        }
    }

    async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|window| window == end) {
                let rest = self.read.split_off(at + end.len());
                return Some(std::mem::replace(&mut self.read, rest));
            }
            if !self.stream.read_buf(&mut self.read).await.is_ok_and(|read| read > 0) {
                return None;
            }
        }
    }

    async fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.read.len() < count {
            if !self.stream.read_buf(&mut self.read).await.is_ok_and(|read| read > 0) {
                return None;
            }
        }
        let rest = self.read.split_off(count);
        Some(std::mem::replace(&mut self.read, rest))
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn in_latin_1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nseen";
