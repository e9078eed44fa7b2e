//! Reading bodies: counted bytes, chunks, or all there is.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};

use super::head;
use super::length::Length;
use crate::transport::Transport;

/// What is still to be read of a body.
#[derive(Debug)]
pub(super) struct Reader {
    state: State,
    // Of chunks: what they cost beside what they carry.
    overhead: usize,
}

#[derive(Debug)]
enum State {
    /// So many bytes are left. Goes to Ended.
    Counted(u64),
    /// All that comes. Goes to Ended.
    UntilClose,
    /// A chunk begins. Goes to Chunk, or to Trailers after the last.
    ChunkHead,
    /// So many bytes of a chunk are left. Goes to ChunkTail.
    Chunk(u64),
    /// The end of a chunk's line. Goes to ChunkHead.
    ChunkTail,
    /// Goes to Ended.
    Trailers,
    /// Broken off: nobody can tell what comes next.
    Failed,
    Ended,
}

/// Why a body cannot be read to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("unexpected EOF")]
    Closed,
    #[error("{0}")]
    Malformed(&'static str),
    #[error("{}", crate::error::describe(.0))]
    Broken(#[from] io::Error),
}

impl Reader {
    pub(super) fn new(length: Length) -> Self {
        let state = match length {
            Length::Known(0) => State::Ended,
            Length::Known(bytes) => State::Counted(bytes),
            Length::Chunked => State::ChunkHead,
            Length::UntilClose => State::UntilClose,
        };
        Reader { state, overhead: 0 }
    }

    /// Nothing is left to be read, and the next message begins.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Nothing is left that could be read.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Ended | State::Failed)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self.state {
            State::Counted(left) => SizeHint::with_exact(left),
            State::Ended => SizeHint::with_exact(0),
            _ => SizeHint::default(),
        }
    }

    /// The next piece, or the trailers.
    pub(super) fn poll_frame(
        &mut self,
        from: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReadError>>> {
        let read = ready!(self.poll_read(from, cx));
        if let Err(error) = read {
            self.state = State::Failed;
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
                State::Ended | State::Failed => return Poll::Ready(Ok(None)),
                State::Counted(left) => {
                    let piece = ready!(poll_piece(from, cx, left))?;
                    self.state = match left - piece.len() as u64 {
                        0 => State::Ended,
                        left => State::Counted(left),
                    };
                    return Poll::Ready(Ok(Some(Frame::data(piece))));
                }
                State::UntilClose => {
                    let piece = ready!(from.poll_piece(cx, u64::MAX))?;
                    if piece.is_empty() {
                        self.state = State::Ended;
                        return Poll::Ready(Ok(None));
                    }
                    return Poll::Ready(Ok(Some(Frame::data(piece))));
                }
                State::ChunkHead => {
                    let line = ready!(poll_line(from, cx))?;
                    let (size, extension) = parse_chunk_head(&line)?;
                    self.overhead += extension;
                    if self.overhead > MAX_OVERHEAD {
                        return Poll::Ready(Err(ReadError::Malformed("chunk extensions without end")));
                    }
                    self.state = if size == 0 { State::Trailers } else { State::Chunk(size) };
                }
                State::Chunk(left) => {
                    let piece = ready!(poll_piece(from, cx, left))?;
                    self.state = match left - piece.len() as u64 {
                        0 => State::ChunkTail,
                        left => State::Chunk(left),
                    };
                    return Poll::Ready(Ok(Some(Frame::data(piece))));
                }
                State::ChunkTail => {
                    while from.unread.len() < 2 {
                        if !b"\r\n".starts_with(&from.unread) {
                            break;
                        }
                        ready!(poll_more(from, cx))?;
                    }
                    if !from.unread.starts_with(b"\r\n") {
                        return Poll::Ready(Err(ReadError::Malformed("chunk longer than it says")));
                    }
                    from.unread.advance(2);
                    self.state = State::ChunkHead;
                }
                State::Trailers => {
                    // Nearly always there are none.
                    if from.unread.starts_with(b"\r\n") {
                        from.unread.advance(2);
                        self.state = State::Ended;
                        return Poll::Ready(Ok(None));
                    }
                    let parsed = head::parse_trailers(&from.unread);
                    match parsed.map_err(|_| ReadError::Malformed("malformed trailers"))? {
                        Some((length, trailers)) => {
                            from.unread.advance(length);
                            self.state = State::Ended;
                            let trailers = (!trailers.is_empty()).then(|| Frame::trailers(trailers));
                            return Poll::Ready(Ok(trailers));
                        }
                        None if from.unread.len() > MAX_OVERHEAD => {
                            return Poll::Ready(Err(ReadError::Malformed("trailers without end")));
                        }
                        None => ready!(poll_more(from, cx))?,
                    }
                }
            }
        }
    }
}

/// Some of what is left: never nothing.
fn poll_piece(from: &mut Transport, cx: &mut Context<'_>, left: u64) -> Poll<Result<Bytes, ReadError>> {
    let piece = ready!(from.poll_piece(cx, left))?;
    Poll::Ready(if piece.is_empty() { Err(ReadError::Closed) } else { Ok(piece) })
}

fn poll_more(from: &mut Transport, cx: &mut Context<'_>) -> Poll<Result<(), ReadError>> {
    let read = ready!(from.poll_fill(cx))?;
    Poll::Ready(if read == 0 { Err(ReadError::Closed) } else { Ok(()) })
}

/// A line without its end.
fn poll_line(from: &mut Transport, cx: &mut Context<'_>) -> Poll<Result<Bytes, ReadError>> {
    loop {
        if let Some(at) = from.unread.iter().position(|byte| *byte == b'\n') {
            let line = from.unread.split_to(at + 1);
            return Poll::Ready(match line.strip_suffix(b"\r\n") {
                Some(rest) => Ok(line.slice(..rest.len())),
                None => Err(ReadError::Malformed("malformed chunk")),
            });
        }
        if from.unread.len() > MAX_LINE {
            return Poll::Ready(Err(ReadError::Malformed("chunk extensions without end")));
        }
        ready!(poll_more(from, cx))?;
    }
}

/// The size of a chunk, and how many bytes of the line are about something else.
fn parse_chunk_head(line: &[u8]) -> Result<(u64, usize), ReadError> {
    let malformed = ReadError::Malformed("malformed chunk size");
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, rest) = line.split_at(digits);
    let is_text = rest.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f));
    let is_extension = rest.trim_ascii_start().first().is_none_or(|first| *first == b';');
    if digits.is_empty() || !is_text || !is_extension {
        return Err(malformed);
    }
    let text = std::str::from_utf8(digits).map_err(|_| ReadError::Malformed("malformed chunk size"))?;
    let size = u64::from_str_radix(text, 16).map_err(|_| malformed)?;
    Ok((size, rest.len()))
}

/// The longest line in front of a chunk.
const MAX_LINE: usize = 4 * 1024;

/// What a body in chunks may bring along that is no body.
const MAX_OVERHEAD: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_chunk_is_hexadecimal_and_nothing_else() {
        for (line, size) in
            [("0", 0), ("a", 10), ("0003", 3), ("3 ", 3), ("3;a=b", 3), ("3 ;a", 3), ("3\t", 3)]
        {
            assert_eq!(parse_chunk_head(line.as_bytes()).unwrap().0, size, "{line:?}");
        }
        assert_eq!(parse_chunk_head(b"ffffffffffffffff").unwrap().0, u64::MAX);
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
            "3 \r",
            "3\x0c",
            "3;\0",
        ] {
            assert!(parse_chunk_head(line.as_bytes()).is_err(), "{line:?}");
        }
    }
}
