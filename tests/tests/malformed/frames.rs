//! HTTP/2 by the frame, so that a client can say what no library lets it say.

use std::net::SocketAddr;

use pilotlight_tests::SOON;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// The first bytes of a client: the preface, and settings that change nothing.
pub(crate) fn hello() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, b"")].concat()
}

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Header fields as HPACK writes those that it does not know and shall not remember.
pub(crate) fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name.as_bytes(), value.as_bytes())).collect()
}

/// A header field of any bytes.
pub(crate) fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    let text = |text: &[u8]| {
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("a short text");
        [&[length], text].concat()
    };
    [vec![0], text(name), text(value)].concat()
}

/// A whole request without a body, with more fields after the usual ones.
pub(crate) fn get(stream: u32, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &fields(&[&usual("GET", path)[..], more].concat()))
}

/// Pseudo-headers for the host that both proxies know.
pub(crate) fn usual<'a>(method: &'a str, path: &'a str) -> [(&'a str, &'a str); 4] {
    [(":method", method), (":scheme", "http"), (":path", path), (":authority", "app.example")]
}

/// How the other side took it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A response of this stream has begun; its head is compressed, and not read here.
    Answered,
    /// The stream was reset with this code.
    Reset(u32),
    /// The connection was given up with this code, or just closed.
    Closed(Option<u32>),
}

/// Sends these bytes after the usual beginning, and waits for what becomes of the stream.
pub(crate) async fn verdict(to: SocketAddr, stream: u32, bytes: &[u8]) -> Verdict {
    let mut socket = TcpStream::connect(to).await.expect("a connection");
    let all = [hello(), bytes.to_vec()].concat();
    let (mut reader, mut writer) = socket.split();
    // The other side may well hang up in the middle of what it does not want to read.
    let write = async { drop(writer.write_all(&all).await) };
    let read = async {
        loop {
            let mut head = [0; 9];
            if reader.read_exact(&mut head).await.is_err() {
                return Verdict::Closed(None);
            }
            let [a, b, c, kind, _, on @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            if reader.read_exact(&mut payload).await.is_err() {
                return Verdict::Closed(None);
            }
            let code = |at: usize| {
                payload.get(at..at + 4).map(|code| u32::from_be_bytes(code.try_into().expect("four bytes")))
            };
            match kind {
                HEADERS if u32::from_be_bytes(on) == stream => return Verdict::Answered,
                RST_STREAM if u32::from_be_bytes(on) == stream => {
                    return Verdict::Reset(code(0).unwrap_or(0));
                }
                GOAWAY => return Verdict::Closed(code(4)),
                _ => {}
            }
        }
    };
    let both = async {
        tokio::pin!(read);
        tokio::select! {
            verdict = &mut read => verdict,
            () = write => read.await,
        }
    };
    timeout(SOON, both).await.expect("a verdict soon")
}

/// How the other side took what was sent beside another request on the same connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) reaction: Reaction,
    /// Whether the other request was answered.
    pub(crate) other_is_answered: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reaction {
    /// A response of another stream than the other request's has begun.
    Answered,
    /// Nothing that could be seen.
    Nothing,
    /// A stream was reset with this code.
    Reset(u32),
    /// The connection was given up with this code, or just closed.
    Closed(Option<u32>),
}

/// Sends these bytes while a request is under way on [stream 1](OTHER), which is then ended.
pub(crate) async fn outcome(to: SocketAddr, bytes: &[u8]) -> Outcome {
    outcome_of(to, bytes, false).await
}

/// The same for bytes that may be a good request, whose response is then waited for.
pub(crate) async fn outcome_of(to: SocketAddr, bytes: &[u8], may_be_answered: bool) -> Outcome {
    let other = frame(HEADERS, END_HEADERS, OTHER, &fields(&usual("POST", "/other")));
    let ping = |number| frame(PING, 0, 0, &[number; 8]);
    let (reader, mut writer) = TcpStream::connect(to).await.expect("a connection").into_split();
    let (sender, mut frames) = mpsc::unbounded_channel();
    tokio::spawn(read(reader, sender));
    let all = [hello(), other, bytes.to_vec(), ping(1)].concat();
    let write = async {
        // The other side may well hang up in the middle of what it does not want to read.
        let _ = writer.write_all(&all).await;
    };
    timeout(SOON, write).await.expect("room to write");
    let (mut reset, mut answered, mut other_is_answered) = (None, false, false);
    let closed = loop {
        let Some((kind, flags, stream, payload)) =
            timeout(SOON, frames.recv()).await.expect("a reaction soon")
        else {
            break Some(Reaction::Closed(None));
        };
        let code = |at: usize| {
            let code = payload.get(at..at + 4);
            code.map(|code| u32::from_be_bytes(code.try_into().expect("four bytes")))
        };
        match kind {
            GOAWAY => break Some(Reaction::Closed(code(4))),
            RST_STREAM if stream == OTHER => break None,
            RST_STREAM => reset = reset.or(code(0)),
            HEADERS if stream == OTHER => other_is_answered = true,
            HEADERS => answered = true,
            // Resets may come behind the answer to the first ping, but not behind that to a second one.
            PING if flags == 1 && payload == [1; 8] => drop(writer.write_all(&ping(2)).await),
            PING if flags == 1 && payload == [2; 8] => {
                drop(writer.write_all(&frame(DATA, END_STREAM, OTHER, b"done")).await);
            }
            _ => {}
        }
        if other_is_answered && (answered || reset.is_some() || !may_be_answered) {
            break None;
        }
    };
    let reaction = closed.or(reset.map(Reaction::Reset));
    let reaction = reaction.unwrap_or(if answered { Reaction::Answered } else { Reaction::Nothing });
    Outcome { reaction, other_is_answered }
}

type Read = (u8, u8, u32, Vec<u8>);

async fn read(mut reader: OwnedReadHalf, frames: mpsc::UnboundedSender<Read>) -> Option<()> {
    loop {
        let mut head = [0; 9];
        reader.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        reader.read_exact(&mut payload).await.ok()?;
        frames.send((kind, flags, u32::from_be_bytes(stream), payload)).ok()?;
    }
}

/// The stream of the request beside which others are sent.
pub(crate) const OTHER: u32 = 1;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const WITH_PRIORITY: u8 = 32;
