//! The frames of a peer, on their way to the library.
//!
//! The library counts some things against a connection that a peer does in normal life, and never counts down. They are
//! kept from it: the frames are the same to every reader, but
//!
//! * DATA without content is left out (h2 takes 100 such frames in the life of a connection);
//! * DATA for a stream that we have reset is marked as its last (h2 charges small frames to the connection until their
//!   reader takes them, and nobody takes these);
//! * the pieces of a header list are joined to frames of full size (h2 takes a number of pieces, however small).
//!
//! Each only at a rate, or up to a number, that a flood exceeds: then the frames pass as they are, and the library's own
//! limits hold. Nothing here looks into a payload.

use bytes::BytesMut;
use tokio::time::Instant;

use super::MAX_FRAME_BYTES;
use super::allowance::Allowance;
use super::outbound::Resets;

/// The head of a frame (RFC 9113, 4.1).
#[derive(Clone, Copy, Debug)]
struct FrameHead {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

/// The frames of one connection, in the order in which they come.
#[derive(Debug)]
pub(super) struct Inbound {
    /// Bytes of a frame's head, until it is whole.
    head: Vec<u8>,
    /// Bytes of the payload that are still to come.
    rest: usize,
    is_joined: bool,
    list: Option<HeaderList>,
    empty_frames: Allowance,
    heads: u64,
    ready: BytesMut,
}

/// A header list that has begun and not ended.
#[derive(Debug)]
struct HeaderList {
    stream: u32,
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
            empty_frames: Allowance::new(now, MAX_EMPTY_FRAMES, EMPTY_FRAMES_PER_SECOND),
            heads: 0,
            ready: BytesMut::new(),
        }
    }

    /// How many of the next `length` bytes are those of a payload, and pass as they are.
    pub(super) fn pass(&mut self, length: usize) -> usize {
        if self.is_joined {
            return 0;
        }
        let passed = self.rest.min(length);
        self.rest -= passed;
        passed
    }

    /// Reads what comes after the bytes that [passed](Inbound::pass).
    pub(super) fn read(&mut self, mut bytes: &[u8], resets: &Resets, now: Instant) {
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
                self.begin(head, resets, now);
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
            Some(list) if self.is_joined => {
                list.joined.extend_from_slice(read);
                self.end_piece();
            }
            _ => self.ready.extend_from_slice(read),
        }
    }

    fn begin(&mut self, mut head: FrameHead, resets: &Resets, now: Instant) {
        self.rest = head.length;
        self.is_joined = self.list.as_mut().is_some_and(|list| list.begin_piece(head));
        if self.is_joined {
            self.end_piece();
            return;
        }
        if let Some(list) = self.list.take() {
            // Another frame interrupts the list, or its pieces are too many: the library sees all of it.
            list.write(list.joined.len(), 0, &mut self.ready);
        } else {
            match head.kind {
                DATA if head.is_nothing() && self.empty_frames.take(now) => return,
                DATA if resets.contains(head.stream) => head.flags |= END_STREAM,
                HEADERS if head.flags & END_HEADERS == 0 => self.list = Some(HeaderList::of(head.stream)),
                _ => {}
            }
        }
        self.heads += u64::from(head.kind == HEADERS);
        head.write(&mut self.ready);
    }

    fn end_piece(&mut self) {
        let Some(list) = self.list.as_mut().filter(|_| self.rest == 0) else { return };
        self.is_joined = false;
        let full = MAX_FRAME_BYTES as usize;
        while list.joined.len() > full {
            list.write(full, 0, &mut self.ready);
            let _ = list.joined.split_to(full);
        }
        if list.has_ended {
            list.write(list.joined.len(), END_HEADERS, &mut self.ready);
            self.list = None;
        }
    }
}

impl HeaderList {
    fn of(stream: u32) -> Self {
        HeaderList { stream, pieces: 0, has_ended: false, joined: BytesMut::new() }
    }

    /// Whether this frame is the next piece, and one to be joined.
    fn begin_piece(&mut self, head: FrameHead) -> bool {
        let is_next = head.kind == CONTINUATION && head.stream == self.stream;
        if !is_next || head.length > MAX_FRAME_BYTES as usize || self.pieces == MAX_PIECES {
            return false;
        }
        self.pieces += 1;
        self.has_ended = head.flags & END_HEADERS != 0;
        true
    }

    /// Writes a frame of the first `length` bytes that were joined.
    fn write(&self, length: usize, flags: u8, into: &mut BytesMut) {
        if length > 0 || flags != 0 {
            FrameHead { length, kind: CONTINUATION, flags, stream: self.stream }.write(into);
            into.extend_from_slice(&self.joined[..length]);
        }
    }
}

impl FrameHead {
    /// The head in these bytes; `None`: more are needed.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, kind, flags, ref stream @ ..] = <&[u8; HEAD_BYTES]>::try_from(bytes).ok()?;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        // The highest bit is reserved.
        let stream = u32::from_be_bytes(*stream) & (u32::MAX >> 1);
        Some(FrameHead { length, kind, flags, stream })
    }

    fn write(self, into: &mut BytesMut) {
        let FrameHead { length, kind, flags, stream } = self;
        // A length has 24 bits: it was read from as many, or is that of a frame of ours.
        let [_, length @ ..] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        into.extend_from_slice(&length);
        into.extend_from_slice(&[kind, flags]);
        into.extend_from_slice(&stream.to_be_bytes());
    }

    /// Whether this is DATA of a stream that has no content and is not the last.
    fn is_nothing(self) -> bool {
        self.length == 0 && self.flags & END_STREAM == 0 && self.stream != 0
    }
}

pub(super) const HEAD_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Frames without content that may come at once, and those that may come for ever.
const MAX_EMPTY_FRAMES: u32 = 10_000;
const EMPTY_FRAMES_PER_SECOND: u32 = 10_000;

/// Pieces of one header list that are joined: enough for the largest in pieces of 512 bytes.
const MAX_PIECES: u32 = super::MAX_READ_HEADER_BYTES / 512;
