//! The head of a frame (RFC 9113, 4.1), and the kinds of frames that count here.

use bytes::BytesMut;

/// Everything of a frame but its payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameHead {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl FrameHead {
    /// The head in these bytes; `None`: more are needed.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, kind, flags, ref stream @ ..] = bytes.first_chunk::<HEAD_BYTES>()?;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        // The highest bit is reserved.
        let stream = u32::from_be_bytes(*stream) & (u32::MAX >> 1);
        Some(FrameHead { length, kind, flags, stream })
    }

    pub(super) fn write(self, into: &mut BytesMut) {
        into.extend_from_slice(&self.length_bytes());
        into.extend_from_slice(&[self.kind, self.flags]);
        into.extend_from_slice(&self.stream.to_be_bytes());
    }

    /// The length, which has 24 bits: it was read from as many, or is that of a frame of ours.
    pub(super) fn length_bytes(self) -> [u8; 3] {
        let [.., a, b, c] = self.length.to_be_bytes();
        [a, b, c]
    }
}

pub(super) const HEAD_BYTES: usize = 9;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;
pub(super) const WITH_PRIORITY: u8 = 32;

/// Bytes of a priority, in a frame of its own or in HEADERS.
pub(super) const PRIORITY_BYTES: usize = 5;
