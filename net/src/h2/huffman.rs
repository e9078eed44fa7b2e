//! Huffman's code of HPACK (RFC 7541, 5.2).

/// The text in this code; `None`: it is none.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<u8>> {
    // A byte has five bits at least.
    let mut text = Vec::with_capacity(bytes.len() * 8 / SHORTEST + 1);
    let mut bytes = bytes.iter();
    // The bits that are not decoded yet begin at the highest.
    let (mut bits, mut count) = (0_u64, 0);
    loop {
        while count <= 56
            && let Some(byte) = bytes.next()
        {
            bits |= u64::from(*byte) << (56 - count);
            count += 8;
        }
        let Some((byte, length)) = first_of(bits, count) else { break };
        text.push(byte);
        bits <<= length;
        count -= length;
    }
    // The last byte is filled up with ones, the beginning of a code that nothing has.
    let is_padding = count < 8 && bits == !(u64::MAX >> count);
    is_padding.then_some(text)
}

/// The first byte in these bits, and the length of its code.
fn first_of(bits: u64, count: usize) -> Option<(u8, usize)> {
    (SHORTEST..=LONGEST.min(count)).find_map(|length| {
        let code = bits >> (64 - length);
        let at = code.checked_sub(CODE.first[length]).filter(|at| *at < CODE.count[length])?;
        Some((CODE.bytes[(CODE.before[length] + at) as usize], length))
    })
}

/// The code: it is canonical, and follows from the lengths. Codes of one length are numbers in a row, and those of the next
/// length go on where they end.
struct Code {
    /// Bytes by the lengths of their codes.
    bytes: [u8; 256],
    /// The first code of each length, the number of codes of that length, and of the shorter ones.
    first: [u64; LONGEST + 1],
    count: [u64; LONGEST + 1],
    before: [u64; LONGEST + 1],
}

const CODE: Code = {
    let mut code = Code { bytes: [0; 256], first: [0; 31], count: [0; 31], before: [0; 31] };
    let (mut length, mut next, mut at) = (SHORTEST, 0, 0);
    while length <= LONGEST {
        next <<= 1;
        code.first[length] = next;
        code.before[length] = at as u64;
        let mut byte = 0;
        while byte < 256 {
            if LENGTHS[byte] as usize == length {
                code.bytes[at] = byte as u8;
                at += 1;
                next += 1;
            }
            byte += 1;
        }
        code.count[length] = at as u64 - code.before[length];
        length += 1;
    }
    code
};

const SHORTEST: usize = 5;
const LONGEST: usize = 30;

/// Bits of the code of each byte (RFC 7541, appendix B).
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, // 0
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28, // 16
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, // 32
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, // 48
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, // 64
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, // 80
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, // 96
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, // 112
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, // 128
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, // 144
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, // 160
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, // 176
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, // 192
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, // 208
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, // 224
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, // 240
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        // RFC 7541, C.4 and C.6.
        for (code, text) in [
            ("f1e3c2e5f23a6ba0ab90f4ff", "www.example.com"),
            ("a8eb10649cbf", "no-cache"),
            ("25a849e95ba97d7f", "custom-key"),
            ("25a849e95bb8e8b4bf", "custom-value"),
            ("d07abe941054d444a8200595040b8166e082a62d1bff", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("9d29ad171863c78f0b97c8e9ae82ae43d3", "https://www.example.com"),
            ("", ""),
        ] {
            assert_eq!(decode(&bytes(code)).as_deref(), Some(text.as_bytes()));
        }
    }

    #[test]
    fn what_is_no_code_is_refused() {
        // Padding of zeros, of eight bits, and the code that nothing has.
        for code in ["00", "a8eb10649cbfff", "ffffffff"] {
            assert_eq!(decode(&bytes(code)), None);
        }
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(digits).collect()
    }
}
