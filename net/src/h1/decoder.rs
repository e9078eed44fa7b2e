//! Reading bodies: counted bytes, chunks (RFC 9112, 7.1), or all bytes until the connection is closed.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};

use super::length::Length;
use super::trailers;
use crate::error::{Error, RequestBodyError};
use crate::transport::Transport;

/// Decoder of one body.
#[derive(Debug)]
pub(super) struct Decoder {
    state: DecoderState,
    // Bytes of lines around chunks so far, beyond those that their data excuses.
    excess: u64,
    is_response: bool,
}

/// The part that is read next. Any state goes to Failed at an error.
#[derive(Debug)]
enum DecoderState {
    /// Bytes of the body that are still to come. Goes to Counted or Ended.
    Counted(u64),
    /// Bytes until EOF. Goes to UntilClose or Ended.
    UntilClose,
    /// The size of a chunk and its extensions. Goes to Chunk, or to Trailers at the last chunk.
    ChunkHead,
    /// Bytes of a chunk that are still to come. Goes to Chunk or ChunkTail.
    Chunk(u64),
    /// The CRLF behind a chunk. Goes to ChunkHead.
    ChunkTail,
    /// Trailers and the empty line behind them. Goes to Ended.
    Trailers,
    /// Nothing: where the next message begins is unknown.
    Failed,
    /// Nothing: the next message begins.
    Ended,
}

/// Why a body cannot be read to its end.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The connection was closed before the end of the body.
    Closed,
    Malformed(&'static str),
    Broken(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        ReadError::Broken(error)
    }
}

/// The failure of a request's body.
impl From<ReadError> for RequestBodyError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Closed => RequestBodyError::Closed,
            ReadError::Malformed(what) => RequestBodyError::Malformed(what),
            ReadError::Broken(error) => RequestBodyError::Broken(Arc::new(error)),
        }
    }
}

/// The failure of a response's body.
impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Closed => Error::UpstreamClosed,
            ReadError::Malformed(what) => Error::Malformed(what),
            ReadError::Broken(error) => Error::Broken(error),
        }
    }
}

impl Decoder {
    pub(super) fn new(length: Length) -> Self {
        let state = match length {
            Length::Known(0) => DecoderState::Ended,
            Length::Known(bytes) => DecoderState::Counted(bytes),
            Length::Chunked => DecoderState::ChunkHead,
            Length::UntilClose => DecoderState::UntilClose,
        };
        Decoder { state, excess: 0, is_response: false }
    }

    /// Decodes the body of a response, whose trailers may be mended.
    pub(super) fn of_response(length: Length) -> Self {
        Decoder { is_response: true, ..Decoder::new(length) }
    }

    /// Whether the body has been read to its end, where the next message begins.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state, DecoderState::Ended)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self.state {
            DecoderState::Counted(left) => SizeHint::with_exact(left),
            DecoderState::Ended => SizeHint::with_exact(0),
            _ => SizeHint::default(),
        }
    }

    /// The next piece of the body, or its trailers.
    pub(super) fn poll_frame(
        &mut self,
        from: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReadError>>> {
        let read = ready!(self.poll_read(from, cx));
        if let Err(error) = read {
            self.state = DecoderState::Failed;
            return Poll::Ready(Some(Err(error)));
        }
        Poll::Ready(read.transpose())
    }

    fn poll_read(
        &mut self,
        from: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Frame<Bytes>>, ReadError>> {
        loop {
            match self.state {
                DecoderState::Ended | DecoderState::Failed => return Poll::Ready(Ok(None)),
                DecoderState::Counted(left) => {
                    let piece = ready!(poll_piece(from, cx, left))?;
                    self.state = match left - piece.len() as u64 {
                        0 => DecoderState::Ended,
                        left => DecoderState::Counted(left),
                    };
                    return Poll::Ready(Ok(Some(Frame::data(piece))));
                }
                DecoderState::UntilClose => {
                    let piece = ready!(from.poll_piece(cx, u64::MAX))?;
                    if piece.is_empty() {
                        self.state = DecoderState::Ended;
                        return Poll::Ready(Ok(None));
                    }
                    return Poll::Ready(Ok(Some(Frame::data(piece))));
                }
                DecoderState::ChunkHead => {
                    let line = ready!(poll_line(from, cx))?;
                    let size = parse_chunk_head(&line)?;
                    let excused = size.saturating_mul(EXCUSED_BY_BYTE).saturating_add(EXCUSED_BY_CHUNK);
                    self.excess = (self.excess + line.len() as u64 + LINE_ENDS).saturating_sub(excused);
                    if self.excess > MAX_EXCESS {
                        return Poll::Ready(Err(ReadError::Malformed("chunk extensions too large")));
                    }
                    self.state = if size == 0 { DecoderState::Trailers } else { DecoderState::Chunk(size) };
                }
                DecoderState::Chunk(left) => {
                    let piece = ready!(poll_piece(from, cx, left))?;
                    self.state = match left - piece.len() as u64 {
                        0 => DecoderState::ChunkTail,
                        left => DecoderState::Chunk(left),
                    };
                    return Poll::Ready(Ok(Some(Frame::data(piece))));
                }
                DecoderState::ChunkTail => {
                    while from.unread.len() < 2 {
                        if !b"\r\n".starts_with(&from.unread) {
                            break;
                        }
                        ready!(poll_more(from, cx))?;
                    }
                    if !from.unread.starts_with(b"\r\n") {
                        return Poll::Ready(Err(ReadError::Malformed("no CRLF behind a chunk")));
                    }
                    from.unread.advance(2);
                    self.state = DecoderState::ChunkHead;
                }
                DecoderState::Trailers => {
                    // Hardly any message has trailers.
                    if from.unread.starts_with(b"\r\n") {
                        from.unread.advance(2);
                        self.state = DecoderState::Ended;
                        return Poll::Ready(Ok(None));
                    }
                    let parsed = if self.is_response {
                        trailers::parse_response_trailers(&from.unread)
                    } else {
                        trailers::parse_trailers(&from.unread)
                    };
                    match parsed.map_err(|_| ReadError::Malformed("malformed trailers"))? {
                        Some((length, _)) if length > MAX_TRAILERS => {
                            return Poll::Ready(Err(ReadError::Malformed("trailers too large")));
                        }
                        Some((length, trailers)) => {
                            from.unread.advance(length);
                            self.state = DecoderState::Ended;
                            let trailers = (!trailers.is_empty()).then(|| Frame::trailers(trailers));
                            return Poll::Ready(Ok(trailers));
                        }
                        None if from.unread.len() > MAX_TRAILERS => {
                            return Poll::Ready(Err(ReadError::Malformed("trailers too large")));
                        }
                        None => ready!(poll_more(from, cx))?,
                    }
                }
            }
        }
    }
}

/// A piece of up to `left` bytes, never empty.
fn poll_piece(from: &mut Transport, cx: &mut Context<'_>, left: u64) -> Poll<Result<Bytes, ReadError>> {
    let piece = ready!(from.poll_piece(cx, left))?;
    Poll::Ready(if piece.is_empty() { Err(ReadError::Closed) } else { Ok(piece) })
}

fn poll_more(from: &mut Transport, cx: &mut Context<'_>) -> Poll<Result<(), ReadError>> {
    let read = ready!(from.poll_fill(cx))?;
    Poll::Ready(if read == 0 { Err(ReadError::Closed) } else { Ok(()) })
}

/// A line, without its CRLF.
fn poll_line(from: &mut Transport, cx: &mut Context<'_>) -> Poll<Result<Bytes, ReadError>> {
    loop {
        // The limit holds even if a longer line is complete, so that a body means the same in whatever pieces it comes.
        let considered = from.unread.len().min(MAX_LINE);
        if let Some(at) = from.unread[..considered].iter().position(|byte| *byte == b'\n') {
            let line = from.unread.split_to(at + 1);
            return Poll::Ready(match line.strip_suffix(b"\r\n") {
                Some(rest) => Ok(line.slice(..rest.len())),
                None => Err(ReadError::Malformed("no CRLF behind a chunk size")),
            });
        }
        if considered == MAX_LINE {
            return Poll::Ready(Err(ReadError::Malformed("chunk extensions too large")));
        }
        ready!(poll_more(from, cx))?;
    }
}

/// The size of a chunk. Blanks are taken in front of extensions (BWS; RFC 9112, 7.1.1), and in front of the CRLF as well, as
/// Go does.
fn parse_chunk_head(line: &[u8]) -> Result<u64, ReadError> {
    let malformed = ReadError::Malformed("malformed chunk size");
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, rest) = line.split_at(digits);
    let is_blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let is_extension = rest.iter().find(|byte| !is_blank(byte)).is_none_or(|first| *first == b';')
        && rest.iter().all(|byte| is_blank(byte) || !byte.is_ascii_control());
    if digits.is_empty() || !is_extension {
        return Err(malformed);
    }
    let text = std::str::from_utf8(digits).map_err(|_| ReadError::Malformed("malformed chunk size"))?;
    u64::from_str_radix(text, 16).map_err(|_| malformed)
}

/// Bytes of the longest line in front of a chunk. Go: `maxLineLength`.
const MAX_LINE: usize = 4 * 1024;

/// Bytes of the CRLF behind a chunk's size, and of the one behind its data.
const LINE_ENDS: u64 = 4;
/// Bytes of padding and extensions that each chunk may bring along, and that each byte of its data may, as in Go
/// (net/http/internal, `chunkedReader.beginChunk`). A total for the body would end long bodies and streams.
const EXCUSED_BY_CHUNK: u64 = 16;
const EXCUSED_BY_BYTE: u64 = 2;
/// The most that a body may bring along beyond that: a sender must not have us read without end for nothing.
const MAX_EXCESS: u64 = 16 * 1024;

/// Bytes of the longest trailers.
const MAX_TRAILERS: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http::HeaderMap;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    use super::super::wires::Wires;
    use super::*;

    #[test]
    fn the_size_of_a_chunk_is_hexadecimal_and_nothing_else() {
        for (line, size) in
            [("0", 0), ("a", 10), ("0003", 3), ("3 ", 3), ("3;a=b", 3), ("3 ;a", 3), ("3\t", 3)]
        {
            assert_eq!(parse_chunk_head(line.as_bytes()).unwrap(), size, "{line:?}");
        }
        assert_eq!(parse_chunk_head(b"ffffffffffffffff").unwrap(), u64::MAX);
        for line in [
            "",
            " 3",
            "0x3",
            "+3",
            "-3",
            "3g",
            "3 3",
            "10000000000000003",
            "3;\r",
            "3\r",
            "3;\0",
            "3 \r;",
            "3 \r",
            "3\x0c",
        ] {
            assert!(parse_chunk_head(line.as_bytes()).is_err(), "{line:?}");
        }
    }

    #[test]
    fn a_body_may_bring_along_so_much_in_whatever_pieces_it_comes() {
        let wires = Wires::default();
        let line = |length| format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(length - 4));
        let trailers = |length| format!("0\r\nA: {}\r\n\r\n", "t".repeat(length - 7));
        for (body, is_complete) in [
            (line(MAX_LINE), true),
            (line(MAX_LINE + 1), false),
            (line(MAX_TRAILERS), false),
            (trailers(MAX_TRAILERS), true),
            (trailers(MAX_TRAILERS + 1), false),
        ] {
            for piece in [body.len(), 5000, 1000] {
                let read = read(&wires, Length::Chunked, body.as_bytes().chunks(piece));
                assert_eq!(read.end == End::Complete, is_complete, "{} in pieces of {piece}", body.len());
            }
        }
    }

    #[test]
    fn padding_and_extensions_are_excused_by_data_and_their_excess_is_limited() {
        let wires = Wires::default();
        // Chunks of so many bytes, with so much behind each size.
        let body = |chunks: usize, data: usize, padding: usize| {
            let chunk = format!("{data:x}{}\r\n{}\r\n", " ".repeat(padding), "d".repeat(data));
            format!("{}0\r\n\r\n", chunk.repeat(chunks))
        };
        // Each chunk of one byte has 5 bytes of framing, and 18 that are excused.
        for (chunks, data, padding, is_complete) in [
            (10_000, 1, 2, true),
            (10_000, 1, 13, true),
            (16_384, 1, 14, true),
            // The last chunk excuses more than it takes.
            (16_385, 1, 14, false),
            (10_000, 1, 14 + 1, false),
            (3_000, 1024, 1000, true),
            (100, 1024, 2_056, true),
            (100, 1024, 4_000, false),
            (4, 1, 4_000, true),
            (5, 1, 4_000, false),
        ] {
            let body = body(chunks, data, padding);
            for piece in [body.len(), 5000] {
                let read = read(&wires, Length::Chunked, body.as_bytes().chunks(piece));
                let name = format!("{chunks} chunks of {data} with {padding}, in pieces of {piece}");
                assert_eq!(read.end == End::Complete, is_complete, "{name}");
            }
        }
    }

    #[test]
    fn a_body_means_the_same_in_whatever_pieces_it_comes() {
        let wires = Wires::default();
        let length =
            select(&[Length::Known(0), Length::Known(7), Length::Known(300), Length::UntilClose][..]);
        let length = prop_oneof![1 => length, 4 => Just(Length::Chunked)];
        let text = prop_oneof![3 => chunks(), 1 => vec(any::<u8>(), 0..100)];
        proptest!(ProptestConfig::with_cases(1000), |(length in length, text in text, cuts in vec(any::<Index>(), 0..6))| {
            let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).chain([0, text.len()]).collect();
            at.sort_unstable();
            let whole = read(&wires, length, [&text[..]]);
            let pieces = read(&wires, length, at.windows(2).map(|ends| &text[ends[0]..ends[1]]));
            prop_assert_eq!(&whole, &pieces);
            if whole.end == End::Complete {
                prop_assert!(text.ends_with(&whole.left));
            }
        });
    }

    /// Chunked bodies, well-formed more often than not, with bytes of the next message behind them.
    fn chunks() -> impl Strategy<Value = Vec<u8>> {
        let chunk = prop_oneof![
            6 => ("[ -~\r\n]{1,30}", select(&["", "", ";a=b", " ", "\t;"][..]))
                .prop_map(|(data, extension)| format!("{:x}{extension}\r\n{data}\r\n", data.len())),
            1 => select(&["3\r\nabcd\r\n", "3\nabc\r\n", "3\r\nabc\n", "x\r\n", "3;\0\r\nabc\r\n", "\r\n"][..])
                .prop_map(str::to_owned),
        ];
        let last = select(
            &["0\r\n\r\n", "0\r\nA: b\r\nC: d\r\n\r\n", "0\r\nA b\r\n\r\n", "0\r\n\n", "0\r\nA: b\n\r\n"][..],
        );
        (vec(chunk, 0..4), last, "[ -~\r\n]{0,20}")
            .prop_map(|(chunks, last, rest)| [chunks.concat(), last.into(), rest].concat().into())
    }

    /// A body as it was decoded.
    #[derive(Debug, PartialEq, Eq)]
    struct DecodedBody {
        data: Vec<u8>,
        trailers: Option<HeaderMap>,
        end: End,
        /// Bytes behind the body.
        left: Bytes,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum End {
        Complete,
        /// The end has not come yet.
        Waits,
        Failed,
    }

    /// Reads a body from a connection on which nothing comes: the pieces are put there as if they had been read.
    fn read<'a>(wires: &Wires, length: Length, pieces: impl IntoIterator<Item = &'a [u8]>) -> DecodedBody {
        wires.run(async |_peer, mut transport| read_from(&mut transport, length, pieces))
    }

    fn read_from<'a>(
        from: &mut Transport,
        length: Length,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> DecodedBody {
        let (mut decoder, mut data, mut trailers) = (Decoder::new(length), Vec::new(), None);
        let mut cx = Context::from_waker(Waker::noop());
        let mut end = End::Waits;
        for piece in std::iter::once(&b""[..]).chain(pieces) {
            from.unread = [&from.unread, piece].concat().into();
            while end == End::Waits
                && let Poll::Ready(frame) = decoder.poll_frame(from, &mut cx)
            {
                match frame.map(|frame| frame.map(Frame::into_data)) {
                    Some(Ok(Ok(piece))) => data.extend_from_slice(&piece),
                    Some(Ok(Err(frame))) => trailers = frame.into_trailers().ok(),
                    Some(Err(_)) => end = End::Failed,
                    None => end = End::Complete,
                }
            }
        }
        DecodedBody { data, trailers, end, left: from.unread.clone() }
    }
}
