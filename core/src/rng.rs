//! A small seeded generator, so that everything random can be repeated.

/// A deterministic pseudo-random generator (SplitMix64). Not for secrets.
///
/// ```
/// use pilotlight_core::Rng;
/// let (mut a, mut b) = (Rng::new(7), Rng::new(7));
/// assert_eq!(a.next_u64(), b.next_u64());
/// assert!(a.below(10) < 10);
/// ```
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// A generator that always yields the same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Rng { state: seed }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`, evenly spread; 0 if `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }

    /// A number in `[0, 1)`, evenly spread.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Puts the items in a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_yields_the_published_numbers_of_splitmix64() {
        let mut rng = Rng::new(1_234_567);
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(expected.map(|_| rng.next_u64()), expected);
    }

    #[test]
    fn below_reaches_every_number_below_the_bound_about_equally_often() {
        let mut rng = Rng::new(1);
        let mut hits = [0u32; 7];
        for _ in 0..70_000 {
            hits[rng.below(7)] += 1;
        }
        // Ten thousand each; five standard deviations are 463.
        assert!(hits.iter().all(|count| count.abs_diff(10_000) < 463), "{hits:?}");
        assert_eq!((rng.below(1), rng.below(0)), (0, 0));
    }

    #[test]
    fn unit_lies_in_the_unit_interval_and_averages_to_its_middle() {
        let mut rng = Rng::new(2);
        let numbers: Vec<f64> = (0..10_000).map(|_| rng.unit()).collect();
        assert!(numbers.iter().all(|number| (0.0..1.0).contains(number)));
        // Five standard deviations of the mean of 10,000 are 0.0145.
        assert!((numbers.iter().sum::<f64>() / 10_000.0 - 0.5).abs() < 0.0145);
    }

    #[test]
    fn shuffling_keeps_every_item_and_brings_each_to_each_place() {
        let mut rng = Rng::new(3);
        let mut seen = [[false; 5]; 5];
        for _ in 0..1_000 {
            let mut items = [0, 1, 2, 3, 4];
            rng.shuffle(&mut items);
            for (place, &item) in items.iter().enumerate() {
                seen[item][place] = true;
            }
            items.sort_unstable();
            assert_eq!(items, [0, 1, 2, 3, 4]);
        }
        assert_eq!(seen, [[true; 5]; 5]);
    }
}
