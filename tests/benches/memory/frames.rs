//! HTTP/2 frames written by hand (RFC 9113, 4 and 6), for clients that do what no library does.

use std::net::SocketAddr;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection whose frames are written by hand. What the server sends is not read, but for its settings.
pub(crate) struct Frames {
    stream: TcpStream,
    /// SETTINGS_MAX_FRAME_SIZE of the server.
    max_frame_bytes: usize,
    next_stream: u32,
}

impl Frames {
    /// Connects, opens all windows as far as they go, and waits for the server's settings.
    pub(crate) async fn connect(to: SocketAddr) -> anyhow::Result<Frames> {
        let mut stream = TcpStream::connect(to).await?;
        let mut first = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let wide = [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &MAX_WINDOW.to_be_bytes()].concat();
        write_frame(&mut first, SETTINGS, 0, 0, &wide);
        write_frame(&mut first, WINDOW_UPDATE, 0, 0, &(MAX_WINDOW - 65_535).to_be_bytes());
        stream.write_all(&first).await?;
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.context("no settings")?;
        anyhow::ensure!(head[3] == SETTINGS, "the first frame is not SETTINGS");
        let mut settings = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
        stream.read_exact(&mut settings).await?;
        let max_frame_bytes = settings
            .chunks_exact(6)
            .find(|setting| setting[..2] == MAX_FRAME_SIZE.to_be_bytes())
            .map_or(16_384, |setting| u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]));
        let mut acknowledged = Vec::new();
        write_frame(&mut acknowledged, SETTINGS, ACK, 0, &[]);
        stream.write_all(&acknowledged).await?;
        Ok(Frames { stream, max_frame_bytes: max_frame_bytes as usize, next_stream: 1 })
    }

    /// Sends a request without a body, as its header block. Err: the server has closed the connection.
    pub(crate) async fn request(&mut self, block: &[u8]) -> std::io::Result<()> {
        let id = self.next_stream;
        self.next_stream += 2;
        let mut frames = Vec::with_capacity(block.len() + 64);
        let mut pieces = block.chunks(self.max_frame_bytes).enumerate().peekable();
        while let Some((at, piece)) = pieces.next() {
            let (kind, stream_ends) = if at == 0 { (HEADERS, END_STREAM) } else { (CONTINUATION, 0) };
            let block_ends = if pieces.peek().is_none() { END_HEADERS } else { 0 };
            write_frame(&mut frames, kind, stream_ends | block_ends, id, piece);
        }
        self.stream.write_all(&frames).await
    }
}

/// The header block of a `GET` (RFC 7541), without the dynamic table.
pub(crate) fn get(host: &str, path: &str) -> Vec<u8> {
    // :method: GET, :scheme: http; names of :path and :authority from the static table.
    let mut block = vec![0x82, 0x86];
    block.push(0x04);
    write_text(&mut block, path);
    block.push(0x01);
    write_text(&mut block, host);
    block
}

/// Adds a field to a header block.
pub(crate) fn add_field(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0x00);
    write_text(block, name);
    write_text(block, value);
}

/// Adds one field so many times, each but the first as one byte: an entry of the dynamic table.
pub(crate) fn add_field_again_and_again(block: &mut Vec<u8>, name: &str, value: &str, times: usize) {
    block.push(0x40);
    write_text(block, name);
    write_text(block, value);
    // The newest entry has the first index after the static table.
    block.resize(block.len() + times - 1, 0x80 | 62);
}

/// A string without Huffman coding, its length as an integer with a prefix of seven bits.
fn write_text(block: &mut Vec<u8>, text: &str) {
    match text.len().checked_sub(127) {
        None => block.push(text.len() as u8),
        Some(mut rest) => {
            block.push(127);
            while rest >= 128 {
                block.push((rest % 128) as u8 | 128);
                rest /= 128;
            }
            block.push(rest as u8);
        }
    }
    block.extend_from_slice(text.as_bytes());
}

fn write_frame(into: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    into.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    into.extend_from_slice(&[kind, flags]);
    into.extend_from_slice(&stream.to_be_bytes());
    into.extend_from_slice(payload);
}

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;
const MAX_WINDOW: u32 = (1 << 31) - 1;
