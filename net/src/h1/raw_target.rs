//! Targets that are no URI (RFC 3986) and that clients send all the same: quotes and angle brackets in a query, bytes of
//! any encoding in a path. A proxy needs from a target only where authority, path and query begin, so the rest passes byte
//! for byte, as it does in Go, but for blanks and control characters, which end a target for some readers.

use bytes::{Bytes, BytesMut};

/// Path and query as the client wrote them. An extension of a request whose `Uri` stands for them, with the odd bytes
/// percent-encoded; a request without it was a URI already.
#[derive(Clone, Debug)]
pub(super) struct RawTarget(Bytes);

impl RawTarget {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The request line and what follows it, with the target made a URI; `None` if that changes nothing, or if there is no
    /// path in the target. The second value is how many bytes longer it is.
    pub(super) fn escape(bytes: &[u8]) -> Option<(Bytes, usize, RawTarget)> {
        let from = bytes.iter().position(|byte| *byte == b' ')? + 1;
        let length = bytes[from..].iter().position(u8::is_ascii_whitespace)?;
        let from = from + path_of(&bytes[from..from + length])?;
        let (before, rest) = bytes.split_at(from);
        let (path, after) = rest.split_at(rest.iter().position(u8::is_ascii_whitespace)?);
        if !path.iter().any(|byte| is_odd(*byte)) {
            return None;
        }
        let mut escaped = BytesMut::with_capacity(bytes.len() + 2 * path.len());
        escaped.extend_from_slice(before);
        for byte in path {
            if is_odd(*byte) {
                escaped.extend_from_slice(&[b'%', hex(byte >> 4), hex(byte & 0xf)]);
            } else {
                escaped.extend_from_slice(&[*byte]);
            }
        }
        escaped.extend_from_slice(after);
        let longer = escaped.len() - bytes.len();
        // `Uri` leaves out a fragment, which is for the client alone (RFC 9110, 7.1).
        let path = path.split(|byte| *byte == b'#').next().unwrap_or_default();
        Some((escaped.freeze(), longer, RawTarget(Bytes::copy_from_slice(path))))
    }
}

/// Where the path of a target begins, or its query if the path is empty: behind the authority of an absolute-form target.
fn path_of(target: &[u8]) -> Option<usize> {
    if target.starts_with(b"/") {
        return Some(0);
    }
    let authority = target.windows(3).position(|three| three == b"://")? + 3;
    let path = target[authority..].iter().position(|byte| b"/?#".contains(byte))?;
    (target[authority + path] != b'#').then_some(authority + path)
}

/// Whether a byte has no place in the path and query of a URI.
fn is_odd(byte: u8) -> bool {
    !byte.is_ascii() || b"\"<>[\\]^`{|}".contains(&byte)
}

fn hex(digit: u8) -> u8 {
    b"0123456789ABCDEF"[usize::from(digit)]
}
