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
//!   stream and which h2 takes for faults of the connection, give way to others that cost their stream alone.
//!
//! A flood exceeds a rate, or a number: then its frames pass as they are, and the library's own limits hold.

use bytes::{Buf, BytesMut};
use tokio::time::Instant;

use super::allowance::Allowance;
use super::frame::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, FrameHead, HEAD_BYTES, HEADERS, PADDED, PRIORITY,
    PRIORITY_BYTES, WINDOW_UPDATE, WITH_PRIORITY,
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
    /// The highest stream that has begun.
    begun: u32,
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
            begun: 0,
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
            match head.kind {
                DATA if is_nothing(head) && self.has_begun(head.stream) && self.empty_frames.take(now) => {
                    return;
                }
                DATA if resets.contains(head.stream) => head.flags |= END_STREAM,
                DATA if is_joinable(head, there) && self.is_joined_to_last(head) => return,
                PRIORITY | WINDOW_UPDATE if may_be_a_fault(head) && self.has_begun(head.stream) => {
                    (self.held, self.open) = (Some(head), None);
                    self.end_held();
                    return;
                }
                HEADERS if head.length <= MAX_FRAME_BYTES as usize => {
                    self.heads += 1;
                    self.begun = self.begun.max(head.stream);
                    self.list = Some(HeaderList::of(head));
                    (self.is_joined, self.open) = (true, None);
                    self.end_piece();
                    return;
                }
                _ => {}
            }
        }
        self.open = is_joinable(head, there).then_some((head, self.ready.len()));
        head.write(&mut self.ready);
    }

    fn has_begun(&self, stream: u32) -> bool {
        (1..=self.begun).contains(&stream)
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
            // A stream that depends on itself (RFC 7540, 5.3.1).
            FrameHead { length: PRIORITY_BYTES, kind: PRIORITY, ..head }.write(&mut self.ready);
            self.ready.extend_from_slice(&head.stream.to_be_bytes());
            self.ready.extend_from_slice(&[0]);
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = BytesMut::new();
        FrameHead { length: payload.len(), kind, flags, stream }.write(&mut bytes);
        [&bytes[..], payload].concat()
    }

    /// What the library reads if these bytes come in pieces of this size.
    fn passed(bytes: &[u8], size: usize, resets: &Resets) -> Vec<u8> {
        let now = Instant::now();
        let (mut inbound, mut passed) = (Inbound::after(0, now), Vec::new());
        for piece in bytes.chunks(size) {
            let as_it_is = inbound.pass(piece.len());
            passed.extend_from_slice(&piece[..as_it_is]);
            inbound.read(&piece[as_it_is..], resets, now);
            passed.extend_from_slice(&inbound.ready().split());
        }
        passed
    }

    const PING: u8 = 6;

    #[test]
    fn frames_of_a_usual_connection_pass_as_they_are_however_they_come() {
        let bytes = [
            frame(4, 0, 0, b""),
            frame(HEADERS, END_HEADERS, 1, b"\x82"),
            frame(DATA, 0, 1, b"one"),
            frame(PING, 0, 0, b"12345678"),
            frame(DATA, 0, 1, b"two"),
            frame(DATA, 0, 3, b"of another"),
            frame(DATA, 8, 3, b"\x01padded."),
            frame(DATA, END_STREAM, 1, b""),
            frame(HEADERS, END_HEADERS | END_STREAM | WITH_PRIORITY, 3, b"\0\0\0\0\x0f\x82"),
        ]
        .concat();
        for size in 1..=bytes.len() {
            assert_eq!(passed(&bytes, size, &Resets::default()), bytes, "in pieces of {size}");
        }
    }

    #[test]
    fn data_without_content_is_left_out_until_it_is_a_flood() {
        let head = frame(HEADERS, END_HEADERS, 3, b"");
        let nothing = frame(DATA, 0, 1, b"");
        let quiet = [head.clone(), nothing.repeat(MAX_EMPTY_FRAMES as usize)].concat();
        assert_eq!(passed(&quiet, 1000, &Resets::default()), head);
        let flood = [head.clone(), nothing.repeat(MAX_EMPTY_FRAMES as usize + 200)].concat();
        assert_eq!(passed(&flood, flood.len(), &Resets::default()), [head, nothing.repeat(200)].concat());
    }

    #[test]
    fn data_of_a_stream_that_has_not_begun_is_a_fault_that_the_library_sees() {
        for stream in [0, 5] {
            let bytes = [frame(HEADERS, END_HEADERS, 3, b""), frame(DATA, 0, stream, b"")].concat();
            assert_eq!(passed(&bytes, 9, &Resets::default()), bytes);
        }
    }

    #[test]
    fn data_for_a_stream_that_was_reset_is_its_last() {
        let mut resets = Resets::default();
        resets.add(3);
        let bytes =
            [frame(DATA, 0, 3, b"late"), frame(DATA, 0, 5, b"live"), frame(DATA, 0, 3, b"late")].concat();
        assert_eq!(
            passed(&bytes, 7, &resets),
            [
                frame(DATA, END_STREAM, 3, b"late"),
                frame(DATA, 0, 5, b"live"),
                frame(DATA, END_STREAM, 3, b"late")
            ]
            .concat()
        );
    }

    #[test]
    fn small_data_of_one_stream_that_comes_together_is_joined() {
        let bytes = [frame(DATA, 0, 1, b"a"), frame(DATA, 0, 1, b"bc"), frame(DATA, END_STREAM, 1, b"d")];
        let joined = [frame(DATA, 0, 1, b"abc"), frame(DATA, END_STREAM, 1, b"d")].concat();
        assert_eq!(passed(&bytes.concat(), 100, &Resets::default()), joined);
        // No frame waits for another.
        assert_eq!(passed(&bytes.concat(), 15, &Resets::default()), bytes.concat());
    }

    #[test]
    fn pieces_of_a_header_list_are_joined_to_full_frames() {
        let full = MAX_FRAME_BYTES as usize;
        let list = b"\x00\x01a\x01b".repeat(full / 2);
        let first = frame(HEADERS, END_STREAM, 1, &list[..7]);
        let pieces: Vec<Vec<u8>> =
            list[7..].chunks(1000).map(|piece| frame(CONTINUATION, 0, 1, piece)).collect();
        let last = frame(CONTINUATION, END_HEADERS, 1, b"");
        let joined = [
            frame(HEADERS, END_STREAM, 1, &list[..full]),
            frame(CONTINUATION, 0, 1, &list[full..2 * full]),
            frame(CONTINUATION, END_HEADERS, 1, &list[2 * full..]),
        ]
        .concat();
        let bytes = [first, pieces.concat(), last].concat();
        for size in [1, 10, 999, 5000, bytes.len()] {
            assert_eq!(passed(&bytes, size, &Resets::default()), joined, "in pieces of {size}");
        }
    }

    #[test]
    fn a_field_that_is_not_allowed_is_found_in_any_piece_and_behind_padding() {
        let field = b"\x40\x04X-Ab\x01c";
        let mended =
            |flags, before: &[u8]| frame(HEADERS, flags, 1, &[before, b"\x40\x02te\x03xxx"].concat());
        let (first, rest) = field.split_at(4);
        let pieces = [frame(HEADERS, 0, 1, first), frame(CONTINUATION, END_HEADERS, 1, rest)].concat();
        assert_eq!(passed(&pieces, 3, &Resets::default()), mended(END_HEADERS, b""));
        let priority = b"\0\0\0\0\x0f";
        let padded = [&[2][..], priority, field, &[0, 0]].concat();
        let padded = frame(HEADERS, END_HEADERS | PADDED | WITH_PRIORITY, 1, &padded);
        assert_eq!(passed(&padded, 3, &Resets::default()), mended(END_HEADERS | WITH_PRIORITY, priority));
    }

    #[test]
    fn a_frame_that_is_a_fault_of_its_stream_becomes_one_that_the_library_takes_for_such() {
        let head = frame(HEADERS, END_HEADERS, 1, b"\x82");
        let instead = frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 0]);
        for fault in [
            frame(WINDOW_UPDATE, 0, 1, &[0; 4]),
            frame(WINDOW_UPDATE, 0, 1, &[0x80, 0, 0, 0]),
            frame(PRIORITY, 0, 1, &[0; 4]),
            frame(PRIORITY, 0, 1, &[0; 6]),
            frame(PRIORITY, 0, 1, b""),
        ] {
            let bytes = [head.clone(), fault, head.clone()].concat();
            for size in [1, 3, 100] {
                let expected = [head.clone(), instead.clone(), head.clone()].concat();
                assert_eq!(passed(&bytes, size, &Resets::default()), expected);
            }
        }
        // Faults of the connection, and none.
        for other in [
            frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
            frame(WINDOW_UPDATE, 0, 3, &[0; 4]),
            frame(WINDOW_UPDATE, 0, 1, &[0; 3]),
            frame(WINDOW_UPDATE, 0, 1, &[0, 0, 1, 0]),
            frame(PRIORITY, 0, 0, &[0; 4]),
            frame(PRIORITY, 0, 1, &[0; 5]),
        ] {
            let bytes = [head.clone(), other, head.clone()].concat();
            assert_eq!(passed(&bytes, 5, &Resets::default()), bytes);
        }
    }

    #[test]
    fn padding_longer_than_its_frame_is_seen_by_the_library() {
        for (flags, payload) in [
            (PADDED, &b""[..]),
            (PADDED, b"\x03ab"),
            (WITH_PRIORITY, b"abcd"),
            (PADDED | WITH_PRIORITY, b"\x01abcde"),
        ] {
            let bytes = frame(HEADERS, END_HEADERS | flags, 1, payload);
            assert_eq!(passed(&bytes, 2, &Resets::default()), bytes);
        }
    }

    #[test]
    fn pieces_without_end_pass_as_they_are_in_the_end() {
        let first = frame(HEADERS, 0, 1, b"");
        let piece = frame(CONTINUATION, 0, 1, b"");
        let flood = [first.clone(), piece.repeat(MAX_PIECES as usize + 199)].concat();
        assert_eq!(passed(&flood, 1000, &Resets::default()), [first, piece.repeat(200)].concat());
    }

    #[test]
    fn a_list_that_is_interrupted_is_seen_by_the_library() {
        let first = frame(HEADERS, 0, 1, b"a");
        for other in [
            frame(PING, 0, 0, b"12345678"),
            frame(CONTINUATION, END_HEADERS, 3, b"c"),
            frame(DATA, 0, 1, b""),
            frame(HEADERS, END_HEADERS, 3, b"c"),
        ] {
            let bytes = [first.clone(), frame(CONTINUATION, 0, 1, b"b"), other.clone()].concat();
            assert_eq!(passed(&bytes, 4, &Resets::default()), [frame(HEADERS, 0, 1, b"ab"), other].concat());
        }
    }

    /// What frames mean, however content and header lists are cut into pieces.
    #[derive(Clone, Debug, PartialEq)]
    enum Meaning {
        Data { stream: u32, content: Vec<u8>, flags: u8 },
        List { stream: u32, list: Vec<u8>, flags: u8 },
        Other(u8, u32, Vec<u8>),
    }

    fn meaning(mut bytes: &[u8]) -> Vec<Meaning> {
        let mut all: Vec<Meaning> = Vec::new();
        while let Some(FrameHead { length, kind, flags, stream }) = FrameHead::parse(bytes) {
            let payload = bytes[HEAD_BYTES..][..length].to_vec();
            bytes = &bytes[HEAD_BYTES + length..];
            match (kind, all.last_mut()) {
                (DATA, _) if payload.is_empty() && flags == 0 => {}
                (DATA, Some(Meaning::Data { stream: last, content, flags: 0 }))
                    if *last == stream && flags == 0 =>
                {
                    content.extend(payload);
                }
                (DATA, _) => all.push(Meaning::Data { stream, content: payload, flags }),
                (HEADERS, _) => all.push(Meaning::List { stream, list: payload, flags }),
                (CONTINUATION, Some(Meaning::List { list, flags: first, .. })) => {
                    list.extend(payload);
                    *first |= flags;
                }
                _ => all.push(Meaning::Other(kind, stream, payload)),
            }
        }
        all
    }

    /// Whole messages and parts of messages, as a peer may send them.
    fn any_frames() -> impl Strategy<Value = Vec<u8>> {
        let payload = || prop::collection::vec(any::<u8>(), 0..40);
        let stream = || (0..3_u32).prop_map(|number| 2 * number + 1);
        let data = (prop::sample::select(vec![0, 0, 0, END_STREAM]), stream(), payload());
        let list = (stream(), 0..100_usize, 1..20_usize).prop_map(|(stream, fields, size)| {
            let list = [&b"\x82"[..], &b"\x00\x01a\x03bcd".repeat(fields)].concat();
            let pieces: Vec<&[u8]> = list.chunks(size).collect();
            let last = pieces.len() - 1;
            let frames = pieces.iter().enumerate().map(|(number, piece)| {
                let kind = if number == 0 { HEADERS } else { CONTINUATION };
                frame(kind, if number == last { END_HEADERS } else { 0 }, stream, piece)
            });
            frames.collect::<Vec<_>>().concat()
        });
        prop_oneof![
            3 => data.prop_map(|(flags, stream, content)| frame(DATA, flags, stream, &content)),
            1 => list,
            1 => (3..8_u8, stream(), payload()).prop_map(|(kind, stream, bytes)| frame(kind, 0, stream, &bytes)),
        ]
    }

    proptest! {
        #[test]
        fn what_passes_means_what_was_sent(
            frames in prop::collection::vec(any_frames(), 0..30),
            size in 1..200_usize,
        ) {
            let bytes = frames.concat();
            prop_assert_eq!(meaning(&passed(&bytes, size, &Resets::default())), meaning(&bytes));
        }
    }
}
