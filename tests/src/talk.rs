//! Conversations with the sample application: a WebSocket, or a call of gRPC's shape in both directions.

use std::collections::VecDeque;
use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt, stream};
use http::{HeaderMap, Request, StatusCode};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

/// The body of a request that is written as the test goes on.
pub type Outgoing = BoxBody<Bytes, hyper::Error>;

/// A body, and what to write it with. Dropping that ends it.
pub fn outgoing() -> (mpsc::Sender<Frame<Bytes>>, Outgoing) {
    let (frames, mut written) = mpsc::channel(1);
    let written =
        stream::poll_fn(move |cx| written.poll_recv(cx).map(|frame| frame.map(Ok::<_, hyper::Error>)));
    (frames, BodyExt::boxed(StreamBody::new(written)))
}

/// An HTTP/2 connection by prior knowledge. Clones are the same connection.
#[derive(Clone, Debug)]
pub struct H2 {
    requests: SendRequest<Outgoing>,
}

impl H2 {
    /// Opens it.
    pub async fn connect(to: SocketAddr) -> anyhow::Result<H2> {
        let stream = TcpStream::connect(to).await.context("connect")?;
        stream.set_nodelay(true)?;
        let (requests, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        // Its errors also come out of the requests.
        tokio::spawn(driver);
        Ok(H2 { requests })
    }

    /// Sends one request and returns with the head of its response.
    pub async fn send(&mut self, request: Request<Outgoing>) -> anyhow::Result<http::Response<Incoming>> {
        self.requests.ready().await.context("the connection takes no more requests")?;
        self.requests.send_request(request).await.context("send")
    }
}

/// One conversation. Whatever is said comes back.
#[derive(Debug)]
pub enum Talk {
    /// Over an upgraded HTTP/1.1 connection.
    Socket {
        /// The pod at the other end, as it names itself.
        pod: String,
        /// The connection.
        socket: Box<WebSocketStream<TcpStream>>,
    },
    /// Over one stream of an HTTP/2 connection.
    Call {
        /// The pod at the other end, as it names itself.
        pod: String,
        /// Our side.
        frames: mpsc::Sender<Frame<Bytes>>,
        /// Their side.
        echo: Box<Messages>,
    },
}

impl Talk {
    /// A WebSocket of its own.
    pub async fn socket(to: SocketAddr, host: &str) -> anyhow::Result<Talk> {
        let stream = TcpStream::connect(to).await.context("connect")?;
        stream.set_nodelay(true)?;
        let (socket, response) = client_async(format!("ws://{host}/"), stream).await.context("upgrade")?;
        Ok(Talk::Socket { pod: pod(response.headers()), socket: Box::new(socket) })
    }

    /// A call over this connection, among others.
    pub async fn call(over: &mut H2, host: &str) -> anyhow::Result<Talk> {
        let (frames, body) = outgoing();
        let request = Request::post(format!("http://{host}/pilotlight.Sample/Talk"))
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .body(body)?;
        let response = over.send(request).await?;
        ensure!(response.status() == StatusCode::OK, "{response:?}");
        let (head, body) = response.into_parts();
        Ok(Talk::Call { pod: pod(&head.headers), frames, echo: Box::new(Messages::of(body)) })
    }

    /// The pod at the other end, as it names itself.
    pub fn pod(&self) -> &str {
        match self {
            Talk::Socket { pod, .. } | Talk::Call { pod, .. } => pod,
        }
    }

    /// Says something and waits until it has come back.
    pub async fn say(&mut self, text: &str) -> anyhow::Result<()> {
        let heard = match self {
            Talk::Socket { socket, .. } => {
                socket.send(Message::text(text)).await.context("send")?;
                let message = socket.next().await.context("the socket has ended")?;
                message.context("receive")?.into_data()
            }
            Talk::Call { frames, echo, .. } => {
                frames.send(Frame::data(message(text))).await.context("the call takes no more")?;
                echo.next().await?.context("the call has ended")?
            }
        };
        ensure!(heard == text, "said {text:?}, heard {heard:?}");
        Ok(())
    }

    /// Ends it as the protocol has it, and waits until the other side has, too: a close frame with its answer, or
    /// the end of the stream with the status in its trailers.
    pub async fn end(self) -> anyhow::Result<()> {
        match self {
            Talk::Socket { mut socket, .. } => {
                WebSocketStream::close(&mut socket, None).await.context("close")?;
                match socket.next().await.context("no answer to the close")?? {
                    Message::Close(_) => {}
                    other => bail!("{other:?} in answer to the close"),
                }
                ensure!(socket.next().await.is_none(), "something after the close");
                Ok(())
            }
            Talk::Call { frames, echo, .. } => {
                drop(frames);
                let trailers = echo.end().await?.context("no trailers")?;
                ensure!(trailers.get("grpc-status").is_some_and(|status| status == "0"), "{trailers:?}");
                Ok(())
            }
        }
    }
}

fn pod(headers: &HeaderMap) -> String {
    headers.get("x-pod").and_then(|name| name.to_str().ok()).unwrap_or_default().to_owned()
}

/// A message as gRPC has it: not compressed, its length, itself.
pub fn message(text: &str) -> Bytes {
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + text.len());
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(text.len()).expect("a short message"));
    bytes.put_slice(text.as_bytes());
    bytes.freeze()
}

/// The messages of a gRPC body, however it is cut into frames.
#[derive(Debug)]
pub struct Messages {
    body: Incoming,
    read: BytesMut,
    messages: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Messages {
    /// Those of this body.
    pub fn of(body: Incoming) -> Messages {
        Messages { body, read: BytesMut::new(), messages: VecDeque::new(), trailers: None }
    }

    /// The next one; `None`: the body has ended.
    pub async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        loop {
            if let Some(message) = self.messages.pop_front() {
                return Ok(Some(message));
            }
            let Some(frame) = self.body.frame().await else {
                ensure!(self.read.is_empty(), "the body ends within a message");
                return Ok(None);
            };
            match frame.context("receive")?.into_data() {
                Ok(data) => self.read.extend_from_slice(&data),
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            }
            self.cut();
        }
    }

    /// Trailers, once nothing more comes.
    pub async fn end(mut self) -> anyhow::Result<Option<HeaderMap>> {
        match self.next().await? {
            Some(message) => bail!("{message:?} instead of the end"),
            None => Ok(self.trailers),
        }
    }

    fn cut(&mut self) {
        while let Some(length) = self.read.get(1..PREFIX_BYTES) {
            let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
            if self.read.len() < PREFIX_BYTES + length {
                return;
            }
            self.read.advance(PREFIX_BYTES);
            self.messages.push_back(self.read.split_to(length).freeze());
        }
    }
}

const PREFIX_BYTES: usize = 5;
