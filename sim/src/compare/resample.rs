//! Another load like this one: the moving-block bootstrap over arrival time.

use std::time::Duration;

use pilotlight_core::{Rng, Time};

use crate::traffic::{Arrival, Traffic};

/// A load as long as `traffic`, put together from pieces of it: each `block` long, or the rest of the last one, and
/// beginning anywhere, as often as `seed` has it. Within a piece everything stays as it was: bursts, silences, and
/// which request took how long. Where two pieces meet, a burst or a silence may be cut; so blocks should be
/// much longer than either.
///
/// A block as long as the load, or longer, leaves nothing to choose: the load stays as it is.
pub fn resample(traffic: &Traffic, block: Duration, seed: u64) -> Traffic {
    let length = traffic.duration();
    if block.is_zero() || block >= length {
        return traffic.clone();
    }
    let original: Vec<Arrival> = traffic.arrivals(seed).collect();
    let mut rng = Rng::new(seed ^ BLOCKS);
    let mut arrivals = Vec::with_capacity(original.len());
    let mut filled = Duration::ZERO;
    while filled < length {
        let taken = block.min(length - filled);
        let from = Time::EPOCH + (length - block).mul_f64(rng.unit());
        let piece = &original[original.partition_point(|arrival| arrival.at < from)..];
        let piece = piece.iter().take_while(|arrival| arrival.at < from + taken);
        let moved =
            |arrival: &Arrival| Arrival { at: Time::EPOCH + filled + (arrival.at - from), ..*arrival };
        arrivals.extend(piece.map(moved));
        filled += taken;
    }
    Traffic::recorded(arrivals, length)
}

/// Salt, so that pieces are not drawn with the numbers that the load itself was.
const BLOCKS: u64 = 0x626c_6f63_6b73;

#[cfg(test)]
mod tests {
    use super::*;

    /// One request in each second, whose work tells which second it was.
    fn seconds(length: u64) -> Traffic {
        let arrival = |second| Arrival {
            at: Time::from_secs(second) + Duration::from_millis(500),
            service: Some(Duration::from_secs(second)),
        };
        Traffic::recorded((0..length).map(arrival).collect(), Duration::from_secs(length))
    }

    #[test]
    fn a_resampled_load_is_as_long_and_in_order_and_made_of_pieces() {
        let resampled = resample(&seconds(1_000), Duration::from_secs(100), 3);
        let arrivals: Vec<Arrival> = resampled.arrivals(0).collect();
        assert_eq!(resampled.duration(), Duration::from_secs(1_000));
        // Each seam may lose or double one.
        assert!(arrivals.len().abs_diff(1_000) <= 10, "{}", arrivals.len());
        assert!(arrivals.is_sorted_by_key(|arrival| arrival.at));
        let work: Vec<u64> = arrivals.iter().map(|arrival| arrival.service.unwrap().as_secs()).collect();
        let seams = work.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
        assert!((5..=9).contains(&seams), "{seams} seams");
    }

    #[test]
    fn the_same_seed_draws_the_same_pieces_and_another_draws_others() {
        let load =
            |seed| resample(&seconds(1_000), Duration::from_secs(100), seed).arrivals(0).collect::<Vec<_>>();
        assert_eq!(load(1), load(1));
        assert_ne!(load(1), load(2));
    }

    #[test]
    fn a_block_as_long_as_the_load_changes_nothing() {
        let resampled = resample(&seconds(50), Duration::from_secs(50), 9);
        assert!(resampled.arrivals(0).eq(seconds(50).arrivals(0)));
    }
}
