//! The frames of a peer, on their way to the library.
//!
//! The library counts some things against a connection that a peer does in normal life, and never counts down. They are
//! kept from it: the frames are the same to every reader, but
//!
//! * DATA without content is left out (h2 takes 100 such frames in the life of a connection);
//! * DATA for a stream that we have reset is marked as its last, and small DATA that comes together is joined (h2 charges
//!   small frames to the connection until their reader takes them, and nobody takes those of a stream that was reset);
//! * the pieces of a header list are joined to frames of full size (h2 takes a number of pieces, however small);
//! * a field that HTTP does not allow, a WINDOW_UPDATE of nothing and a PRIORITY of a wrong length, which are faults of a
//!   stream and which h2 takes for faults of the connection, give way to others that cost their stream alone;
//! * DATA and HEADERS behind the end of their stream, which are such faults, too, come behind one that costs their stream:
//!   h2 then ignores them, and still keeps account of the window and of the table of fields. (So do HEADERS for a stream that
//!   we have reset, which h2 may have forgotten.)
//!
//! A flood exceeds a rate, or a number: then its frames pass as they are, and the library's own limits hold.

use bytes::{Buf, BytesMut};
use tokio::time::Instant;

use super::allowance::Allowance;
use super::ended::Ended;
use super::frame::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, FrameHead, HEAD_BYTES, HEADERS, PADDED, PRIORITY,
    PRIORITY_BYTES, RST_STREAM, WINDOW_UPDATE, WITH_PRIORITY,
};
use super::outbound::Resets;
use super::{MAX_CONTINUATIONS, MAX_FRAME_BYTES, fields};

/// The frames of one connection, in the order in which they come.
#[derive(Debug)]
pub(super) struct Inbound {
    /// Bytes of a frame's head, until it is whole.
    head: Vec<u8>,
    /// Bytes of the payload that are still to come.
    rest: usize,
    is_joined: bool,
    list: Option<HeaderList>,
    /// A frame whose payload is looked at before it passes.
    held: Option<FrameHead>,
    empty_frames: Allowance,
    heads: u64,
    ended: Ended,
    ready: BytesMut,
    /// The last of the frames that are ready, and where it begins, if more of its stream may be joined to it.
    open: Option<(FrameHead, usize)>,
}

/// A header list that has begun and not ended.
#[derive(Debug)]
struct HeaderList {
    /// The HEADERS frame.
    first: FrameHead,
    /// Bytes in front of the list: a priority (RFC 9113, 6.2).
    before: usize,
    pieces: u32,
    has_ended: bool,
    joined: BytesMut,
}

impl Inbound {
    /// Frames that begin after so many bytes.
    pub(super) fn after(preface: usize, now: Instant) -> Self {
        Inbound {
            head: Vec::with_capacity(HEAD_BYTES),
            rest: preface,
            is_joined: false,
            list: None,
            held: None,
            empty_frames: Allowance::new(now, MAX_EMPTY_FRAMES, EMPTY_FRAMES_PER_SECOND),
            heads: 0,
            ended: Ended::none(),
            ready: BytesMut::new(),
            open: None,
        }
    }

    /// How many of the next `length` bytes are those of a payload, and pass as they are.
    pub(super) fn pass(&mut self, length: usize) -> usize {
        if self.is_joined || self.held.is_some() {
            return 0;
        }
        let passed = self.rest.min(length);
        self.rest -= passed;
        passed
    }

    /// Reads what comes after the bytes that [passed](Inbound::pass), when no more frames are ready.
    pub(super) fn read(&mut self, mut bytes: &[u8], resets: &Resets, now: Instant) {
        self.open = None;
        while !bytes.is_empty() {
            let wanted = if self.rest > 0 { self.rest } else { HEAD_BYTES - self.head.len() };
            let (read, later) = bytes.split_at(wanted.min(bytes.len()));
            bytes = later;
            if self.rest > 0 {
                self.read_payload(read);
                continue;
            }
            self.head.extend_from_slice(read);
            if let Some(head) = FrameHead::parse(&self.head) {
                self.head.clear();
                self.begin(head, bytes.len(), resets, now);
            }
        }
    }

    /// The frames that are ready for the library.
    pub(super) fn ready(&mut self) -> &mut BytesMut {
        &mut self.ready
    }

    /// HEADERS frames so far.
    pub(super) fn heads(&self) -> u64 {
        self.heads
    }

    fn read_payload(&mut self, read: &[u8]) {
        self.rest -= read.len();
        match &mut self.list {
            Some(list) if self.is_joined => list.joined.extend_from_slice(read),
            _ if self.held.is_some() => {
                let room = INCREMENT_BYTES.saturating_sub(self.head.len());
                self.head.extend_from_slice(&read[..room.min(read.len())]);
            }
            _ => self.ready.extend_from_slice(read),
        }
        self.end_piece();
        self.end_held();
    }

    /// Begins a frame, of whose payload so many bytes are there.
    fn begin(&mut self, mut head: FrameHead, there: usize, resets: &Resets, now: Instant) {
        self.rest = head.length;
        self.is_joined = self.list.as_mut().is_some_and(|list| list.begin_piece(head));
        if self.is_joined {
            self.end_piece();
            return;
        }
        if let Some(list) = self.list.take() {
            // Another frame interrupts the list, or it is too long: the library sees all of it.
            list.write(&list.joined, false, &mut self.ready);
        } else {
            let is_ended = self.ended.contains(head.stream);
            match head.kind {
                DATA if is_nothing(head)
                    && self.ended.has_begun(head.stream)
                    && self.empty_frames.take(now) =>
                {
                    return;
                }
                DATA if resets.contains(head.stream) => head.flags |= END_STREAM,
                DATA if is_ended => {
                    write_fault(head.stream, &mut self.ready);
                    head.flags |= END_STREAM;
                }
                DATA if is_joinable(head, there) && self.is_joined_to_last(head) => return,
                PRIORITY | WINDOW_UPDATE if may_be_a_fault(head) && self.ended.has_begun(head.stream) => {
                    (self.held, self.open) = (Some(head), None);
                    self.end_held();
                    return;
                }
                HEADERS if head.length <= MAX_FRAME_BYTES as usize => {
                    self.heads += 1;
                    if is_ended || resets.contains(head.stream) {
                        write_fault(head.stream, &mut self.ready);
                    }
                    self.ended.begin(head.stream);
                    if head.flags & END_STREAM != 0 {
                        self.ended.end(head.stream);
                    }
                    self.list = Some(HeaderList::of(head));
                    (self.is_joined, self.open) = (true, None);
                    self.end_piece();
                    return;
                }
                _ => {}
            }
        }
        if head.kind == RST_STREAM || (head.kind == DATA && head.flags & END_STREAM != 0) {
            self.ended.end(head.stream);
        }
        self.open = is_joinable(head, there).then_some((head, self.ready.len()));
        head.write(&mut self.ready);
    }

    /// Has a frame go on where the last one ends, if that is of the same stream.
    fn is_joined_to_last(&mut self, next: FrameHead) -> bool {
        let Some((last, at)) = &mut self.open else { return false };
        let length = last.length + next.length;
        if last.stream != next.stream || length > MAX_FRAME_BYTES as usize {
            return false;
        }
        last.length = length;
        self.ready[*at..][..3].copy_from_slice(&last.length_bytes());
        true
    }

    /// Takes notice if a piece of a header list is there as a whole.
    fn end_piece(&mut self) {
        if self.rest > 0 || !std::mem::take(&mut self.is_joined) {
            return;
        }
        let Some(list) = &mut self.list else { return };
        if list.pieces == 1 && !list.unpad() {
            list.first.write(&mut self.ready);
            self.ready.extend_from_slice(&list.joined);
            self.list = None;
        } else if list.has_ended {
            list.mend();
            list.write(&list.joined, true, &mut self.ready);
            self.list = None;
        }
    }

    /// Passes on the frame that was held, if it is there as a whole.
    fn end_held(&mut self) {
        if self.rest > 0 {
            return;
        }
        let Some(head) = self.held.take() else { return };
        // The highest bit is reserved.
        let is_nothing = matches!(*self.head, [0 | 0x80, 0, 0, 0]);
        if head.kind == PRIORITY || is_nothing {
            write_fault(head.stream, &mut self.ready);
        } else {
            head.write(&mut self.ready);
            self.ready.extend_from_slice(&self.head);
        }
        self.head.clear();
    }
}

impl HeaderList {
    fn of(first: FrameHead) -> Self {
        let before = if first.flags & WITH_PRIORITY == 0 { 0 } else { PRIORITY_BYTES };
        let has_ended = first.flags & END_HEADERS != 0;
        HeaderList { first, before, pieces: 1, has_ended, joined: BytesMut::new() }
    }

    /// Whether this frame is the next piece, and one to be joined.
    fn begin_piece(&mut self, head: FrameHead) -> bool {
        let is_next = head.kind == CONTINUATION && head.stream == self.first.stream;
        let is_long =
            head.length > MAX_FRAME_BYTES as usize || self.joined.len() + head.length > MAX_LIST_BYTES;
        if !is_next || is_long || self.pieces == MAX_PIECES {
            return false;
        }
        self.pieces += 1;
        self.has_ended = head.flags & END_HEADERS != 0;
        true
    }

    /// Takes the padding off the first frame; false: it has no room for its padding or its priority.
    fn unpad(&mut self) -> bool {
        let padding = match self.joined.first() {
            Some(&padding) if self.first.flags & PADDED != 0 => usize::from(padding) + 1,
            None if self.first.flags & PADDED != 0 => return false,
            _ => 0,
        };
        let Some(rest) = self.joined.len().checked_sub(padding).filter(|rest| *rest >= self.before) else {
            return false;
        };
        if padding > 0 {
            self.joined.advance(1);
            self.joined.truncate(rest);
            self.first.flags &= !PADDED;
        }
        true
    }

    fn mend(&mut self) {
        if let Some(mended) = fields::mend(&self.joined[self.before..]) {
            self.joined.truncate(self.before);
            self.joined.extend_from_slice(&mended);
        }
    }

    /// Writes a list as frames of full size.
    fn write(&self, mut joined: &[u8], has_ended: bool, into: &mut BytesMut) {
        let mut head = self.first;
        loop {
            let piece = joined.split_off(..joined.len().min(MAX_FRAME_BYTES as usize)).unwrap_or_default();
            let is_last = joined.is_empty();
            head.length = piece.len();
            head.flags &= !END_HEADERS;
            head.flags |= if is_last && has_ended { END_HEADERS } else { 0 };
            head.write(into);
            into.extend_from_slice(piece);
            if is_last {
                return;
            }
            (head.kind, head.flags) = (CONTINUATION, 0);
        }
    }
}

/// Writes what the library takes for a fault of a stream alone: a stream that depends on itself (RFC 7540, 5.3.1).
fn write_fault(stream: u32, into: &mut BytesMut) {
    FrameHead { length: PRIORITY_BYTES, kind: PRIORITY, flags: 0, stream }.write(into);
    into.extend_from_slice(&stream.to_be_bytes());
    into.extend_from_slice(&[0]);
}

/// Whether this is DATA of a stream that has no content and is not the last.
fn is_nothing(head: FrameHead) -> bool {
    head.kind == DATA && head.length == 0 && head.flags & END_STREAM == 0
}

/// Whether this is a PRIORITY of a wrong length, or a WINDOW_UPDATE, which may be one of nothing (RFC 9113, 6.3 and 6.9).
fn may_be_a_fault(head: FrameHead) -> bool {
    match head.kind {
        PRIORITY => head.length != PRIORITY_BYTES && head.length <= MAX_FRAME_BYTES as usize,
        _ => head.length == INCREMENT_BYTES,
    }
}

/// Whether this is plain DATA that is there as a whole: no frame waits for the rest of another.
fn is_joinable(head: FrameHead, there: usize) -> bool {
    head.kind == DATA && head.flags == 0 && (1..=there).contains(&head.length)
}

/// Frames without content that may come at once, and those that may come for ever.
const MAX_EMPTY_FRAMES: u32 = 10_000;
const EMPTY_FRAMES_PER_SECOND: u32 = 10_000;

/// Bytes of a WINDOW_UPDATE.
const INCREMENT_BYTES: usize = 4;

/// Bytes of one header list that are joined: as many as the library takes.
const MAX_LIST_BYTES: usize = (MAX_CONTINUATIONS * MAX_FRAME_BYTES) as usize;

/// Pieces of one header list that are joined: enough for the largest in pieces of 512 bytes.
const MAX_PIECES: u32 = super::MAX_READ_HEADER_BYTES / 512;

#[cfg(test)]
mod tests;
