//! Streams that their sender has ended: of the last so many, a bit each.

/// The streams of one side of a connection, whose numbers follow each other (RFC 9113, 5.1.1).
#[derive(Debug)]
pub(super) struct Ended {
    /// A bit for each of the last streams, at its place modulo their number.
    bits: [u64; WORDS],
    /// The highest stream that has begun.
    begun: u32,
}

impl Ended {
    pub(super) fn none() -> Self {
        Ended { bits: [0; WORDS], begun: 0 }
    }

    /// A stream begins, unless it has.
    pub(super) fn begin(&mut self, stream: u32) {
        // Streams that are skipped are closed (RFC 9113, 5.1.1), and must not be taken for older ones.
        let from = self.begun.max(stream.saturating_sub(2 * STREAMS - 2));
        (from..=stream)
            .step_by(2)
            .skip(usize::from(from == self.begun))
            .for_each(|stream| self.set(stream, false));
        self.begun = self.begun.max(stream);
    }

    /// The sender has ended a stream.
    pub(super) fn end(&mut self, stream: u32) {
        if self.knows(stream) {
            self.set(stream, true);
        }
    }

    /// Whether its sender has ended a stream; false if that is too long ago.
    pub(super) fn contains(&self, stream: u32) -> bool {
        let (word, bit) = place(stream);
        self.knows(stream) && self.bits[word] & bit != 0
    }

    /// Whether a stream has begun.
    pub(super) fn has_begun(&self, stream: u32) -> bool {
        (1..=self.begun).contains(&stream)
    }

    fn knows(&self, stream: u32) -> bool {
        self.has_begun(stream) && self.begun - stream < 2 * STREAMS
    }

    fn set(&mut self, stream: u32, is_ended: bool) {
        let (word, bit) = place(stream);
        if is_ended {
            self.bits[word] |= bit;
        } else {
            self.bits[word] &= !bit;
        }
    }
}

fn place(stream: u32) -> (usize, u64) {
    let place = stream / 2 % STREAMS;
    ((place / u64::BITS) as usize, 1 << (place % u64::BITS))
}

/// Words of 64 bits: streams of four times as many as there may be at once.
const WORDS: usize = 16;
const STREAMS: u32 = WORDS as u32 * u64::BITS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_thousand_streams_are_known_by_their_ends() {
        let mut ended = Ended::none();
        ended.end(1);
        assert!(!ended.contains(1), "it has not begun");
        for stream in (1..8001).step_by(2) {
            ended.begin(stream);
            assert!(!ended.contains(stream), "{stream}");
            if stream % 3 == 0 {
                ended.end(stream);
            }
        }
        for stream in (1..8001).step_by(2) {
            assert_eq!(ended.contains(stream), stream % 3 == 0 && stream > 7999 - 2048, "{stream}");
        }
        assert!(!ended.contains(8001) && !ended.has_begun(8001) && ended.has_begun(1));
    }

    #[test]
    fn a_stream_that_skips_others_takes_none_of_their_ends() {
        for skipped in [0, 2, 200, 2046, 2048, 2050, 100_000] {
            let mut ended = Ended::none();
            for stream in (1..4001).step_by(2) {
                ended.begin(stream);
                ended.end(stream);
            }
            let next = 4001 + skipped;
            ended.begin(next);
            let those = (1..=next).step_by(2).filter(|stream| ended.contains(*stream));
            assert!(those.eq((1..4001).step_by(2).filter(|stream| next - stream < 2048)), "{skipped}");
        }
    }
}
