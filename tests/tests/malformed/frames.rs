//! HTTP/2 by the frame, so that a client can say what no library lets it say.

use std::net::SocketAddr;

use pilotlight_tests::SOON;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
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
    let text = |text: &str| {
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("a short text");
        [&[length], text.as_bytes()].concat()
    };
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
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

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
