//! Fields of a header list (HPACK, RFC 7541) that HTTP does not allow.
//!
//! One of them makes a message malformed, which is a fault of its stream (RFC 9113, 8.1.1). The library takes it for one of
//! the connection, because it cannot put such a field into the table that the connection's header lists share. So it is
//! given another field in its place, of the same size, which it can put there and which makes a message malformed as well.
//! So is the length of a `CONNECT`, which has no body (RFC 9110, 9.3.6): the library ends the connection for it.
//!
//! Only fields that are written out need a look: any other refers to one that was written out before. So nothing has to be
//! remembered from one list to the next.

use std::borrow::Cow;
use std::str::from_utf8;

use http::{HeaderName, Method, StatusCode};

/// The list with other fields in place of those that are not allowed; `None`: there are none, or it is no list at all.
pub(super) fn mend(list: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader { list, at: 0 };
    let mut is_connect = false;
    let (mut mended, mut from) = (Vec::new(), 0);
    while let Some(&first) = list.get(reader.at) {
        let begin = reader.at;
        let (pattern, bits) = match first {
            // A reference to a whole field, and the size of the table.
            0x80.. => {
                reader.integer(7)?;
                continue;
            }
            0x20..0x40 => {
                reader.integer(5)?;
                continue;
            }
            // A field that enters the table, and one that does not.
            0x40.. => (INDEXED, 6),
            _ => (first & 0xf0, 4),
        };
        let name = match reader.integer(bits)? {
            0 => Name::Written(reader.text()?),
            index => {
                STATIC.get(index - 1).map_or(Name::InTable, |name| Name::Written(name.as_bytes().into()))
            }
        };
        let until_value = reader.at;
        let value = reader.text()?;
        is_connect |= name.is(b":method") && *value == *b"CONNECT";
        if !is_allowed(&name, &value) || (is_connect && name.is(b"content-length")) {
            mended.extend_from_slice(&list[from..begin]);
            match name {
                Name::Written(name) => write_malformed(pattern, name.len() + value.len(), &mut mended)?,
                Name::InTable => {
                    mended.extend_from_slice(&list[begin..until_value]);
                    write_text(&b"x".repeat(value.len()), &mut mended);
                    write_malformed(0, MALFORMED.len(), &mut mended)?;
                }
            }
            from = reader.at;
        }
    }
    if from == 0 {
        return None;
    }
    mended.extend_from_slice(&list[from..]);
    Some(mended)
}

/// The name of a field that is written out.
enum Name<'a> {
    Written(Cow<'a, [u8]>),
    /// A name that was written out before; only the library knows which. It keeps its place in the table, and whoever
    /// refers to the field later gets a value of so many x.
    InTable,
}

impl Name<'_> {
    fn is(&self, name: &[u8]) -> bool {
        matches!(self, Name::Written(written) if **written == *name)
    }
}

/// Whether the library takes a field: what it asks of each (h2, `hpack/header.rs`).
fn is_allowed(name: &Name<'_>, value: &[u8]) -> bool {
    let Name::Written(name) = name else { return is_value(value) };
    match &**name {
        b":authority" | b":path" | b":protocol" | b":scheme" => from_utf8(value).is_ok(),
        b":method" => Method::from_bytes(value).is_ok(),
        b":status" => StatusCode::from_bytes(value).is_ok(),
        name => is_name(name) && is_value(value),
    }
}

/// The verdict of [`HeaderName::from_lowercase`], for usual names without a copy of them.
fn is_name(name: &[u8]) -> bool {
    let is_usual = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    let is_usual = (1..256).contains(&name.len()) && name.iter().all(is_usual);
    is_usual || HeaderName::from_lowercase(name).is_ok()
}

/// The verdict of [`http::HeaderValue::from_bytes`], without a copy of the value.
fn is_value(value: &[u8]) -> bool {
    value.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f))
}

/// Writes a field of this size that makes a message malformed: `te` with any other value than `trailers` (RFC 9113, 8.2.2).
fn write_malformed(pattern: u8, size: usize, into: &mut Vec<u8>) -> Option<()> {
    let size = if pattern == INDEXED { size } else { size.max(MALFORMED.len()) };
    let value = size.checked_sub(MALFORMED.len())?;
    into.push(pattern);
    write_text(MALFORMED, into);
    write_text(&b"x".repeat(value), into);
    Some(())
}

fn write_text(text: &[u8], into: &mut Vec<u8>) {
    match text.len().checked_sub(127) {
        // A length below 127 is a byte, without the bit for Huffman's code.
        None => into.push(text.len() as u8),
        Some(mut rest) => {
            into.push(127);
            while rest >= 128 {
                into.push((rest % 128) as u8 | 128);
                rest /= 128;
            }
            into.push(rest as u8);
        }
    }
    into.extend_from_slice(text);
}

/// A header list, and how far it is read.
struct Reader<'a> {
    list: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A number whose first byte has so many bits for it (RFC 7541, 5.1), in at most five bytes, as the library has it.
    fn integer(&mut self, bits: u8) -> Option<usize> {
        let mask = u8::MAX >> (8 - bits);
        let mut number = usize::from(self.byte()? & mask);
        if number < usize::from(mask) {
            return Some(number);
        }
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            number += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// A text (RFC 7541, 5.2).
    fn text(&mut self) -> Option<Cow<'a, [u8]>> {
        let is_coded = self.list.get(self.at)? & 0x80 != 0;
        let length = self.integer(7)?;
        let text = self.list.get(self.at..)?.get(..length)?;
        self.at += length;
        if is_coded { super::huffman::decode(text).map(Cow::Owned) } else { Some(Cow::Borrowed(text)) }
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.list.get(self.at)?;
        self.at += 1;
        Some(byte)
    }
}

/// The first byte of a field that enters the table.
const INDEXED: u8 = 0x40;

const MALFORMED: &[u8] = b"te";

/// Names of the static table (RFC 7541, appendix A).
#[rustfmt::skip]
const STATIC: [&str; 61] = [
    ":authority", ":method", ":method", ":path", ":path", ":scheme", ":scheme", ":status", ":status", ":status",
    ":status", ":status", ":status", ":status", "accept-charset", "accept-encoding", "accept-language",
    "accept-ranges", "accept", "access-control-allow-origin", "age", "allow", "authorization", "cache-control",
    "content-disposition", "content-encoding", "content-language", "content-length", "content-location",
    "content-range", "content-type", "cookie", "date", "etag", "expect", "expires", "from", "host", "if-match",
    "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "last-modified", "link", "location",
    "max-forwards", "proxy-authenticate", "proxy-authorization", "range", "referer", "refresh", "retry-after",
    "server", "set-cookie", "strict-transport-security", "transfer-encoding", "user-agent", "vary", "via",
    "www-authenticate",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn field(pattern: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![pattern];
        write_text(name, &mut bytes);
        write_text(value, &mut bytes);
        bytes
    }

    #[test]
    fn bytes_are_allowed_as_the_library_has_it() {
        for byte in 0..=u8::MAX {
            let [alone, within] = [vec![byte], vec![b'a', byte, b'b']];
            for text in [&alone[..], &within] {
                assert_eq!(is_value(text), http::HeaderValue::from_bytes(text).is_ok(), "{byte}");
                assert_eq!(is_name(text), HeaderName::from_lowercase(text).is_ok(), "{byte}");
            }
        }
    }

    #[test]
    fn a_list_that_is_allowed_stays_as_it_is() {
        let list = [
            &[0x3f, 0xe1, 0x1f, 0x82, 0xbe, 0xff, 0x00][..],
            &field(INDEXED, b"x-a", b"b\tc\xe9"),
            &field(0, b":path", "/caf\u{e9}".as_bytes()),
            // user-agent, in Huffman's code, and a value of a name in the table.
            &[0x7a, 0x86, 0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf],
            &[0x0f, 0x40, 0x01, b'v'],
        ]
        .concat();
        assert_eq!(mend(&list), None);
    }

    #[test]
    fn a_field_that_is_not_allowed_becomes_one_of_its_size_that_is_none_either() {
        let (before, after) = (field(0, b"a", b"b"), field(INDEXED, b"c", b"d"));
        for (name, value) in [
            (&b"X-A"[..], &b"b"[..]),
            (b"x y", b"b"),
            (b"", b"a value of nothing"),
            (b":odd", b"b"),
            (b"x", b"two\nlines"),
            (b"x", b"\0"),
            (b":path", b"/caf\xe9"),
            (b":method", b"G T"),
            (b":status", b"twenty"),
        ] {
            for pattern in [0, 0x10, INDEXED] {
                let list = [before.clone(), field(pattern, name, value), after.clone()].concat();
                let instead = field(pattern, b"te", &b"x".repeat(name.len() + value.len() - 2));
                assert_eq!(mend(&list), Some([before.clone(), instead, after.clone()].concat()));
            }
        }
    }

    #[test]
    fn a_length_is_not_allowed_in_a_connect() {
        let list = |method: &[u8]| [field(0, b":method", method), field(0, b"content-length", b"3")].concat();
        assert_eq!(mend(&list(b"POST")), None);
        let mended = [field(0, b":method", b"CONNECT"), field(0, b"te", &b"x".repeat(13))].concat();
        assert_eq!(mend(&list(b"CONNECT")), Some(mended));
    }

    #[test]
    fn a_name_of_the_table_keeps_its_place() {
        // `:path` of the static table enters the table, and counts five bytes.
        let list = [&[0x44, 0x05][..], b"/caf\xe9"].concat();
        assert_eq!(mend(&list), Some(field(INDEXED, b"te", &b"x".repeat(8))));
        // A name of the dynamic table stays, with a value of the same length.
        let list = [&[0x7f, 0x01, 0x03][..], b"a\nb"].concat();
        assert_eq!(mend(&list), Some([&[0x7f, 0x01, 0x03][..], b"xxx", &field(0, b"te", b"")].concat()));
    }

    #[test]
    fn what_is_no_list_and_what_is_too_small_is_left_to_the_library() {
        for list in
            [&b"\x00"[..], b"\x00\x05ab", b"\x3f\xff\xff\xff\xff\xff", b"\x40\x01A\x00", b"\x00\x81\xfe\x00"]
        {
            assert_eq!(mend(list), None, "{list:?}");
        }
        assert_eq!(mend(b"\x00\x01A\x00"), Some(field(0, b"te", b"")));
    }
}
