//! The frames that the library writes, of which one kind counts: RST_STREAM.

use std::collections::{HashSet, VecDeque};

use super::frame::{FrameHead, HEAD_BYTES, RST_STREAM};

/// The frames of one connection, in the order in which they are written.
#[derive(Debug)]
pub(super) struct Outbound {
    /// Bytes of a frame's head, until it is whole; of RST_STREAM, its payload as well.
    head: Vec<u8>,
    /// Bytes of the payload that are still to come.
    rest: usize,
}

/// An RST_STREAM frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WrittenReset {
    pub(super) stream: u32,
    pub(super) code: u32,
}

/// The streams that were reset last: their peers may not have heard of it, and send on.
#[derive(Debug, Default)]
pub(super) struct Resets {
    streams: HashSet<u32>,
    in_order: VecDeque<u32>,
}

impl Outbound {
    /// Frames that begin after so many bytes.
    pub(super) fn after(preface: usize) -> Self {
        Outbound { head: Vec::with_capacity(RESET_BYTES), rest: preface }
    }

    /// Follows bytes that were written, and tells of each RST_STREAM that is whole.
    pub(super) fn wrote(&mut self, mut bytes: &[u8], mut reset: impl FnMut(WrittenReset)) {
        while !bytes.is_empty() {
            let wanted = if self.rest > 0 { self.rest } else { self.head_bytes() - self.head.len() };
            let (written, later) = bytes.split_at(wanted.min(bytes.len()));
            bytes = later;
            if self.rest > 0 {
                self.rest -= written.len();
                continue;
            }
            self.head.extend_from_slice(written);
            if self.head.len() < self.head_bytes() {
                continue;
            }
            if let Some(head) = FrameHead::parse(&self.head) {
                match self.head[HEAD_BYTES..].first_chunk() {
                    Some(code) => {
                        reset(WrittenReset { stream: head.stream, code: u32::from_be_bytes(*code) });
                    }
                    None => self.rest = head.length,
                }
            }
            self.head.clear();
        }
    }

    fn head_bytes(&self) -> usize {
        let is_reset = self.head.get(3) == Some(&RST_STREAM);
        if is_reset { RESET_BYTES } else { HEAD_BYTES }
    }
}

impl Resets {
    pub(super) fn add(&mut self, stream: u32) {
        if !self.streams.insert(stream) {
            return;
        }
        self.in_order.push_back(stream);
        if self.in_order.len() > MAX_RESETS
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.streams.remove(&oldest);
        }
    }

    pub(super) fn contains(&self, stream: u32) -> bool {
        self.streams.contains(&stream)
    }
}

const RESET_BYTES: usize = HEAD_BYTES + 4;

/// Streams that are remembered: those of a few round trips on a busy connection.
const MAX_RESETS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_is_seen_between_other_frames_however_it_is_written() {
        let bytes = [
            &b"PREFACE"[..],
            &[0, 0, 5, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4, 5],
            &[0, 0, 4, RST_STREAM, 0, 0, 0, 0, 7, 0, 0, 0, 8],
            &[0, 0, 0, 4, 1, 0, 0, 0, 0],
            &[0, 0, 4, RST_STREAM, 0, 0, 0, 0, 9, 0, 0, 0, 1],
        ]
        .concat();
        for size in 1..=bytes.len() {
            let (mut outbound, mut seen) = (Outbound::after(7), Vec::new());
            for piece in bytes.chunks(size) {
                outbound.wrote(piece, |reset| seen.push((reset.stream, reset.code)));
            }
            assert_eq!(seen, [(7, 8), (9, 1)], "in pieces of {size}");
        }
    }

    #[test]
    fn the_last_resets_are_remembered() {
        let mut resets = Resets::default();
        let all = 0..2 * u32::try_from(MAX_RESETS).unwrap();
        all.clone().for_each(|stream| resets.add(stream));
        assert_eq!(all.filter(|stream| resets.contains(*stream)).count(), MAX_RESETS);
    }
}
