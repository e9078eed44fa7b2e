//! HTTP/2 by the frame: a client and an app that can say what no library lets them say.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::support::soon;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The error code of RST_STREAM or GOAWAY.
    pub(crate) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// One end of a connection. What the other end sends is read all the time, so that neither waits for the other to read.
pub(crate) struct Peer {
    writer: OwnedWriteHalf,
    frames: mpsc::UnboundedReceiver<Frame>,
}

impl Peer {
    /// A client, after its preface and settings that change nothing.
    pub(crate) async fn connect(to: SocketAddr) -> Self {
        let mut peer = Peer::of(TcpStream::connect(to).await.unwrap(), 0);
        peer.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await;
        peer
    }

    /// An app that takes one connection.
    pub(crate) async fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = soon("a connection", listener.accept()).await.unwrap();
        let mut peer = Peer::of(stream, PREFACE.len());
        peer.send(&frame(SETTINGS, 0, 0, &[])).await;
        peer
    }

    /// An app that takes one connection, under a clock that is paused: it would run out of any time to wait.
    pub(crate) async fn accept_patiently(listener: &TcpListener) -> Self {
        let mut peer = Peer::of(listener.accept().await.unwrap().0, PREFACE.len());
        peer.writer.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        peer
    }

    fn of(stream: TcpStream, preface: usize) -> Self {
        stream.set_nodelay(true).unwrap();
        let (reader, writer) = stream.into_split();
        let (sender, frames) = mpsc::unbounded_channel();
        tokio::spawn(read(reader, preface, sender));
        Peer { writer, frames }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).await.unwrap();
    }

    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        soon("room to write", self.writer.write_all(bytes)).await
    }

    /// The next frame; `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        soon("a frame", self.frames.recv()).await
    }

    /// The next frame, under a clock that is paused.
    pub(crate) async fn next_patiently(&mut self) -> Option<Frame> {
        self.frames.recv().await
    }

    /// The next frame of this kind on this stream, which must come before the connection ends.
    pub(crate) async fn wait_for(&mut self, kind: u8, stream: u32) -> Frame {
        loop {
            let next = self.next().await.unwrap_or_else(|| panic!("ended before {kind} on {stream}"));
            assert_ne!(next.kind, GOAWAY, "the connection is given up with code {}: {next:?}", next.code());
            if (next.kind, next.stream) == (kind, stream) {
                return next;
            }
        }
    }

    /// The next frame on this stream.
    pub(crate) async fn next_of(&mut self, stream: u32) -> Frame {
        loop {
            let next = self.next().await.expect("a frame");
            assert_ne!(next.kind, GOAWAY, "the connection is given up with code {}: {next:?}", next.code());
            if next.stream == stream {
                return next;
            }
        }
    }

    /// The next request, by its stream.
    pub(crate) async fn request(&mut self) -> u32 {
        loop {
            let next = self.next().await.expect("a request");
            if next.kind == HEADERS {
                return next.stream;
            }
        }
    }
}

async fn read(mut reader: OwnedReadHalf, preface: usize, frames: mpsc::UnboundedSender<Frame>) -> Option<()> {
    reader.read_exact(&mut vec![0; preface]).await.ok()?;
    loop {
        let mut head = [0; 9];
        reader.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        reader.read_exact(&mut payload).await.ok()?;
        frames.send(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload }).ok()?;
    }
}

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Header fields as HPACK writes those that it does not know and shall not remember.
pub(crate) fn fields(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let text = |text: &[u8]| [&integer(text.len())[..], text].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// A length in HPACK, with a prefix of seven bits (RFC 7541, 5.1).
fn integer(value: usize) -> Vec<u8> {
    let Some(mut rest) = value.checked_sub(127) else { return vec![value as u8] };
    let mut bytes = vec![127];
    while rest >= 128 {
        bytes.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    bytes.push(rest as u8);
    bytes
}

/// A request without more fields than it needs.
pub(crate) fn request(stream: u32, method: &str, path: &str, flags: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &request_fields(method, path, &[]))
}

pub(crate) fn request_fields(method: &str, path: &str, more: &[(&[u8], &[u8])]) -> Vec<u8> {
    let usual: [(&[u8], &[u8]); 4] = [
        (b":method", method.as_bytes()),
        (b":scheme", b"http"),
        (b":path", path.as_bytes()),
        (b":authority", b"hello.example"),
    ];
    [fields(&usual), fields(more)].concat()
}

/// The head of a response, with more fields.
pub(crate) fn response(stream: u32, flags: u8, more: &[(&[u8], &[u8])]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &[fields(&[(b":status", b"200")]), fields(more)].concat())
}

/// A header list in frames of this size.
pub(crate) fn in_pieces(stream: u32, flags: u8, list: &[u8], size: usize) -> Vec<u8> {
    let last = list.chunks(size).count() - 1;
    let pieces = list.chunks(size).enumerate().map(|(number, piece)| {
        let kind = if number == 0 { HEADERS } else { CONTINUATION };
        let end = if number == last { END_HEADERS } else { 0 };
        frame(kind, end | if number == 0 { flags } else { 0 }, stream, piece)
    });
    pieces.collect::<Vec<_>>().concat()
}

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
