//! Frames in pieces of any size: what passes means what was sent, and costs nobody else.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    FrameHead { length: payload.len(), kind, flags, stream }.write(&mut bytes);
    [&bytes[..], payload].concat()
}

/// The bytes that the library reads if these bytes come in pieces of this size.
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
    let bytes = [frame(DATA, 0, 3, b"late"), frame(DATA, 0, 5, b"live"), frame(DATA, 0, 3, b"late")].concat();
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
    let pieces: Vec<Vec<u8>> = list[7..].chunks(1000).map(|piece| frame(CONTINUATION, 0, 1, piece)).collect();
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
    let mended = |flags, before: &[u8]| frame(HEADERS, flags, 1, &[before, b"\x40\x02te\x03xxx"].concat());
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
fn what_comes_behind_the_end_of_a_stream_comes_behind_a_fault_of_that_stream() {
    let fault = frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 0]);
    let (head, last) =
        (frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x82"), frame(DATA, END_STREAM, 1, b"last"));
    let open = frame(HEADERS, END_HEADERS, 1, b"\x82");
    let reset = frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]);
    for ended in [head.clone(), [open.clone(), last.clone()].concat(), [open.clone(), reset].concat()] {
        for behind in [&head, &open] {
            let bytes = [&ended[..], behind].concat();
            assert_eq!(passed(&bytes, 3, &Resets::default()), [&ended[..], &fault, behind].concat());
        }
        let bytes = [&ended[..], &frame(DATA, 0, 1, b"more"), &last].concat();
        let expected = [&ended[..], &fault, &frame(DATA, END_STREAM, 1, b"more"), &fault, &last].concat();
        assert_eq!(passed(&bytes, 3, &Resets::default()), expected);
        let other = [frame(HEADERS, END_HEADERS, 3, b"\x82"), frame(DATA, 0, 3, b"of another")].concat();
        let bytes = [&ended[..], &other].concat();
        assert_eq!(passed(&bytes, 3, &Resets::default()), bytes);
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

/// The meaning of frames, however content and header lists are cut into pieces. Content behind the end of a stream is
/// another end.
#[derive(Clone, Debug, PartialEq)]
enum Meaning {
    Data { stream: u32, content: Vec<u8>, flags: u8 },
    List { stream: u32, list: Vec<u8>, flags: u8 },
    Other(u8, u32, Vec<u8>),
}

fn meaning(mut bytes: &[u8]) -> Vec<Meaning> {
    let (mut all, mut ended, mut begun) = (Vec::<Meaning>::new(), HashSet::new(), 0);
    while let Some(FrameHead { length, kind, mut flags, stream }) = FrameHead::parse(bytes) {
        let is_nothing = kind == DATA && length == 0 && flags == 0;
        if kind == DATA && !is_nothing && ended.contains(&stream) {
            flags = END_STREAM;
        }
        if kind == HEADERS {
            begun = begun.max(stream);
        }
        let is_end = kind == RST_STREAM || (matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0);
        if is_end && stream <= begun {
            ended.insert(stream);
        }
        let payload = bytes[HEAD_BYTES..][..length].to_vec();
        bytes = &bytes[HEAD_BYTES + length..];
        match (kind, all.last_mut()) {
            (DATA, _) if is_nothing => {}
            (DATA, Some(Meaning::Data { stream: last, content, flags: 0 }))
                if *last == stream && flags == 0 =>
            {
                content.extend(payload);
            }
            (DATA, _) => all.push(Meaning::Data { stream, content: payload, flags }),
            (PRIORITY, _) if payload == [&stream.to_be_bytes()[..], &[0]].concat() => {}
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
