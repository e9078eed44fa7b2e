//! Exact random numbers in a few nanoseconds: exponential and normal by Marsaglia and Tsang's ziggurat (2000),
//! gamma by theirs, too (2000). Every draw is exact, not an approximation cut off at some distance.
//!
//! The ziggurat covers the area under a density with 256 layers of equal area. Nearly always a point falls into
//! the part of its layer that lies wholly under the density: one random number, one multiplication, one
//! comparison. Layer and place within it come from different bits of the same random number.
//!
//! rand_distr has the same methods, but keeps the numbers of a seed within a minor version only; here a seed yields the
//! same numbers for ever, because reports and documents name seeds.

use std::sync::LazyLock;

use pilotlight_core::Rng;

/// An exponentially distributed number with mean 1.
#[inline]
pub(crate) fn exponential(rng: &mut Rng) -> f64 {
    let layers = &*EXPONENTIAL;
    loop {
        let bits = rng.next_u64();
        let layer = (bits & 0xff) as usize;
        let x = unit(bits) * layers.edge[layer];
        if x < layers.edge[layer + 1] {
            return x;
        }
        if layer == 0 {
            // Beyond the last edge the distribution repeats itself.
            return EXPONENTIAL_TAIL - (1.0 - rng.unit()).ln();
        }
        if layers.is_under_density(layer, rng, (-x).exp()) {
            return x;
        }
    }
}

/// A normally distributed number with mean 0 and standard deviation 1.
#[inline]
pub(crate) fn normal(rng: &mut Rng) -> f64 {
    let layers = &*NORMAL;
    loop {
        let bits = rng.next_u64();
        let layer = (bits & 0xff) as usize;
        let x = unit(bits) * layers.edge[layer];
        let sign = if bits & 0x100 == 0 { 1.0 } else { -1.0 };
        if x < layers.edge[layer + 1] {
            return sign * x;
        }
        if layer == 0 {
            return sign * normal_tail(rng);
        }
        if layers.is_under_density(layer, rng, (-0.5 * x * x).exp()) {
            return sign * x;
        }
    }
}

/// Draws gamma-distributed numbers with scale 1: mean and variance equal the shape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct GammaSampler {
    /// `shape - 1/3`, of the shape moved above 1.
    d: f64,
    c: f64,
    /// For a shape below 1: its inverse, the power of the number that brings it back down.
    boost: Option<f64>,
}

impl GammaSampler {
    /// `shape` is finite and above zero.
    pub(crate) fn new(shape: f64) -> Self {
        let boost = (shape < 1.0).then(|| 1.0 / shape);
        let d = if shape < 1.0 { shape + 1.0 } else { shape } - 1.0 / 3.0;
        GammaSampler { d, c: 1.0 / (9.0 * d).sqrt(), boost }
    }

    /// One number.
    #[inline]
    pub(crate) fn sample(&self, rng: &mut Rng) -> f64 {
        let value = loop {
            let x = normal(rng);
            let v = 1.0 + self.c * x;
            if v <= 0.0 {
                continue;
            }
            let v = v * v * v;
            let u = 1.0 - rng.unit();
            let squared = x * x;
            if u < 1.0 - 0.0331 * squared * squared || u.ln() < 0.5 * squared + self.d * (1.0 - v + v.ln()) {
                break self.d * v;
            }
        };
        match self.boost {
            None => value,
            Some(inverse_shape) => value * (1.0 - rng.unit()).powf(inverse_shape),
        }
    }
}

/// A normal number beyond the last edge (Marsaglia 1964).
#[cold]
fn normal_tail(rng: &mut Rng) -> f64 {
    loop {
        let x = -(1.0 - rng.unit()).ln() / NORMAL_TAIL;
        let y = -(1.0 - rng.unit()).ln();
        if y + y > x * x {
            return NORMAL_TAIL + x;
        }
    }
}

/// The layers under a density that falls from 1 at zero.
struct Layers {
    /// Right edges, falling. The lowest layer's includes the tail, as if it were a box of the same area.
    edge: [f64; LAYERS + 1],
    /// The density at each edge.
    density: [f64; LAYERS + 1],
}

impl Layers {
    /// From the start of the tail and the area of each layer.
    fn new(tail: f64, area: f64, density: impl Fn(f64) -> f64, inverse: impl Fn(f64) -> f64) -> Self {
        let mut edge = [0.0; LAYERS + 1];
        edge[0] = area / density(tail);
        edge[1] = tail;
        for layer in 2..LAYERS {
            edge[layer] = inverse(area / edge[layer - 1] + density(edge[layer - 1]));
        }
        Layers { edge, density: edge.map(density) }
    }

    /// Whether a random height in a layer lies under the density there.
    #[cold]
    fn is_under_density(&self, layer: usize, rng: &mut Rng, density: f64) -> bool {
        let (low, high) = (self.density[layer], self.density[layer + 1]);
        low + (high - low) * rng.unit() < density
    }
}

/// The upper bits as a number in `[0, 1)`.
#[inline]
fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

static EXPONENTIAL: LazyLock<Layers> = LazyLock::new(|| {
    let area = (EXPONENTIAL_TAIL + 1.0) * (-EXPONENTIAL_TAIL).exp();
    Layers::new(EXPONENTIAL_TAIL, area, |x| (-x).exp(), |y| -y.ln())
});

static NORMAL: LazyLock<Layers> = LazyLock::new(|| {
    // The area of the tail is its density times Mills' ratio, a continued fraction.
    let mills = (1..=60).rev().fold(NORMAL_TAIL, |rest, n| NORMAL_TAIL + f64::from(n) / rest);
    let at_tail = (-0.5 * NORMAL_TAIL * NORMAL_TAIL).exp();
    let area = at_tail * (NORMAL_TAIL + 1.0 / mills);
    Layers::new(NORMAL_TAIL, area, |x| (-0.5 * x * x).exp(), |y| (-2.0 * y.ln()).sqrt())
});

const LAYERS: usize = 256;

// The tails begin here, so that 256 layers of equal area end at the top: the published values for this number.
const EXPONENTIAL_TAIL: f64 = 7.697_117_470_131_05;
const NORMAL_TAIL: f64 = 3.654_152_885_361_009;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layers_have_equal_areas_up_to_the_top() {
        for (layers, inverse_at_top) in [(&*EXPONENTIAL, 1.0), (&*NORMAL, 1.0)] {
            let last = LAYERS - 1;
            let area = layers.edge[0] * layers.density[1];
            let top = layers.density[last] + area / layers.edge[last];
            assert!((top - inverse_at_top).abs() < 1e-9, "{top}");
            assert!(layers.edge.windows(2).all(|pair| pair[0] > pair[1]));
        }
    }

    /// The share of draws at most `x`, for several `x`, against the distribution: within five standard
    /// deviations of the binomial, which a right sampler misses about once in a million runs.
    fn follows(mut draw: impl FnMut() -> f64, points: &[(f64, f64)]) {
        const DRAWS: usize = 1_000_000;
        let draws: Vec<f64> = (0..DRAWS).map(|_| draw()).collect();
        for &(x, share) in points {
            let found = draws.iter().filter(|&&value| value <= x).count() as f64 / DRAWS as f64;
            let deviation = (share * (1.0 - share) / DRAWS as f64).sqrt();
            assert!((found - share).abs() < 5.0 * deviation, "{found} instead of {share} up to {x}");
        }
    }

    #[test]
    fn exponential_numbers_follow_their_distribution_into_the_tail() {
        let mut rng = Rng::new(11);
        let points: Vec<_> =
            [0.001, 0.1, 0.7, 2.0, 5.0, 7.6, 8.0, 9.0].map(|x: f64| (x, 1.0 - (-x).exp())).to_vec();
        follows(|| exponential(&mut rng), &points);
    }

    #[test]
    fn normal_numbers_follow_their_distribution_into_both_tails() {
        let mut rng = Rng::new(12);
        let table = [(1.0, 0.841_344_746), (2.0, 0.977_249_868), (3.0, 0.998_650_102), (3.8, 0.999_927_652)];
        let both = table.iter().flat_map(|&(x, share)| [(x, share), (-x, 1.0 - share)]);
        let points: Vec<_> = both.chain([(0.0, 0.5), (0.1, 0.539_827_837)]).collect();
        follows(|| normal(&mut rng), &points);
    }

    #[test]
    fn gamma_numbers_follow_their_distribution_for_shapes_on_both_sides_of_one() {
        for (seed, shape) in [(13, 0.25), (14, 1.0), (15, 4.0), (16, 50.0)] {
            let (mut rng, gamma) = (Rng::new(seed), GammaSampler::new(shape));
            let points =
                [0.01, 0.1, 0.5, 0.9, 0.99].map(|q| (super::super::special::gamma_quantile(shape, q), q));
            follows(|| gamma.sample(&mut rng), &points);
        }
    }

    #[test]
    fn a_seed_yields_the_same_numbers_for_ever() {
        let mut rng = Rng::new(7);
        let drawn = [exponential(&mut rng), normal(&mut rng), GammaSampler::new(0.5).sample(&mut rng)];
        let expected = [0.272_632_300_042_768_84, 0.041_285_914_494_439, 2.629_053_955_128_690_7];
        for (found, expected) in drawn.into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{drawn:?}");
        }
    }
}
