//! How long things take: distributions of a time, sampled in nanoseconds of real time from a seeded generator.
//!
//! A [`DistributionSpec`] is what someone wrote (`lognormal:p50=100ms,p99=1s`); a [`Distribution`] is what can
//! be sampled. They differ because an empirical distribution lies in a file, which is read in a step of its own.

mod sampler;
mod special;
mod text;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pilotlight_core::Rng;

pub(crate) use sampler::{GammaSampler, exponential};
pub use text::{DistError, DistributionSpec, TimeUnit};

/// A distribution of a time, ready to be sampled. Cheap to clone.
///
/// ```
/// use pilotlight_core::Rng;
/// use pilotlight_sim::dist::Distribution;
/// let service: Distribution = "lognormal:p50=100ms,p99=1s".parse()?;
/// let mut rng = Rng::new(7);
/// assert!(service.sample(&mut rng) > std::time::Duration::ZERO);
/// assert_eq!(service.quantile(0.5).as_millis(), 100);
/// assert_eq!(service.to_string(), "lognormal:p50=100ms,p99=1s");
/// # Ok::<(), pilotlight_sim::dist::DistError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Distribution {
    /// Always the same.
    Constant(Duration),
    /// Memoryless, like the time between independent events.
    Exponential(Exponential),
    /// Most values near the median and a long tail, like most measured service times.
    Lognormal(Lognormal),
    /// Between constant and exponential, or more spread out than the latter.
    Gamma(Gamma),
    /// Evenly spread.
    Uniform(Uniform),
    /// Straight lines between known percentiles, as a dashboard shows them.
    Percentiles(Percentiles),
    /// Measured values, drawn one as often as another.
    Empirical(Empirical),
}

/// [`Distribution::Exponential`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exponential {
    mean: Duration,
}

/// [`Distribution::Lognormal`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lognormal {
    p50: Duration,
    p99: Duration,
    /// Mean of the logarithm of the nanoseconds, and its standard deviation.
    mu: f64,
    sigma: f64,
}

/// [`Distribution::Gamma`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gamma {
    mean: Duration,
    shape: f64,
    sampler: GammaSampler,
    nanos_per_unit: f64,
}

/// [`Distribution::Uniform`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Uniform {
    low: Duration,
    high: Duration,
}

/// [`Distribution::Percentiles`].
#[derive(Clone, Debug, PartialEq)]
pub struct Percentiles {
    /// Share and nanoseconds, both rising; the first share is 0 and the last 1.
    knots: Arc<[(f64, f64)]>,
}

/// [`Distribution::Empirical`].
#[derive(Clone, Debug, PartialEq)]
pub struct Empirical {
    /// Rising nanoseconds; at least one.
    samples: Arc<[u64]>,
    /// How it was written.
    name: Arc<str>,
}

impl Distribution {
    /// Exponential with this mean, which is above zero.
    pub fn exponential(mean: Duration) -> Result<Self, DistError> {
        positive("mean", mean)?;
        Ok(Distribution::Exponential(Exponential { mean }))
    }

    /// Lognormal with this median and 99th percentile.
    pub fn lognormal(p50: Duration, p99: Duration) -> Result<Self, DistError> {
        positive("p50", p50)?;
        if p99 < p50 {
            return Err(DistError::Order { low: "p50", high: "p99" });
        }
        let (mu, log_p99) = (nanos(p50).ln(), nanos(p99).ln());
        let sigma = (log_p99 - mu) / special::normal_quantile(0.99);
        Ok(Distribution::Lognormal(Lognormal { p50, p99, mu, sigma }))
    }

    /// Gamma with this mean and shape. The coefficient of variation is one over the shape's root: shape 1 is
    /// exponential, 4 half as spread out, 0.25 twice.
    pub fn gamma(mean: Duration, shape: f64) -> Result<Self, DistError> {
        positive("mean", mean)?;
        if !(1e-3..=1e9).contains(&shape) {
            return Err(DistError::Shape { shape });
        }
        let nanos_per_unit = nanos(mean) / shape;
        Ok(Distribution::Gamma(Gamma { mean, shape, sampler: GammaSampler::new(shape), nanos_per_unit }))
    }

    /// Evenly spread from `low` to `high`.
    pub fn uniform(low: Duration, high: Duration) -> Result<Self, DistError> {
        if high < low {
            return Err(DistError::Order { low: "the lower end", high: "the upper end" });
        }
        Ok(Distribution::Uniform(Uniform { low, high }))
    }

    /// Straight lines between percentiles: pairs of a share in `0..=1` and its value, both rising. Below the
    /// first and above the last, the distribution stays at their values.
    pub fn percentiles(known: impl IntoIterator<Item = (f64, Duration)>) -> Result<Self, DistError> {
        let mut knots: Vec<(f64, f64)> =
            known.into_iter().map(|(share, time)| (share, nanos(time))).collect();
        let (Some(&(first, lowest)), Some(&(last, highest))) = (knots.first(), knots.last()) else {
            return Err(DistError::NoSamples);
        };
        if knots.iter().any(|(share, _)| !(0.0..=1.0).contains(share)) {
            return Err(DistError::Share);
        }
        if knots.windows(2).any(|pair| pair[1].0 <= pair[0].0 || pair[1].1 < pair[0].1) {
            return Err(DistError::Order { low: "a lower percentile", high: "a higher one" });
        }
        if first > 0.0 {
            knots.insert(0, (0.0, lowest));
        }
        if last < 1.0 {
            knots.push((1.0, highest));
        }
        Ok(Distribution::Percentiles(Percentiles { knots: knots.into() }))
    }

    /// The measured `samples`, in any order, each as likely as another: their mean and quantiles are the
    /// distribution's. Nothing is interpolated, so that what was never measured never happens. `name` is how the
    /// distribution is written.
    pub fn empirical(name: &str, samples: &[Duration]) -> Result<Self, DistError> {
        if samples.is_empty() {
            return Err(DistError::NoSamples);
        }
        let mut samples: Vec<u64> = samples.iter().map(|&sample| saturating_nanos(sample)).collect();
        samples.sort_unstable();
        Ok(Distribution::Empirical(Empirical { samples: samples.into(), name: name.into() }))
    }

    /// One value.
    #[inline]
    pub fn sample(&self, rng: &mut Rng) -> Duration {
        let nanos = match self {
            Distribution::Constant(time) => return *time,
            Distribution::Exponential(e) => exponential(rng) * nanos(e.mean),
            Distribution::Lognormal(l) => (l.mu + l.sigma * sampler::normal(rng)).exp(),
            Distribution::Gamma(g) => g.sampler.sample(rng) * g.nanos_per_unit,
            Distribution::Uniform(u) => nanos(u.low) + rng.unit() * nanos(u.high - u.low),
            Distribution::Percentiles(p) => p.at(rng.unit()),
            Distribution::Empirical(e) => return Duration::from_nanos(e.samples[rng.below(e.samples.len())]),
        };
        rounded(nanos)
    }

    /// The mean of all values.
    pub fn mean(&self) -> Duration {
        rounded(match self {
            Distribution::Constant(time) => return *time,
            Distribution::Exponential(e) => return e.mean,
            Distribution::Lognormal(l) => (l.mu + 0.5 * l.sigma * l.sigma).exp(),
            Distribution::Gamma(g) => return g.mean,
            Distribution::Uniform(u) => 0.5 * (nanos(u.low) + nanos(u.high)),
            Distribution::Percentiles(p) => {
                let area = |pair: &[(f64, f64)]| (pair[1].0 - pair[0].0) * 0.5 * (pair[0].1 + pair[1].1);
                p.knots.windows(2).map(area).sum()
            }
            Distribution::Empirical(e) => {
                let sum: u128 = e.samples.iter().map(|&sample| u128::from(sample)).sum();
                return Duration::from_nanos((sum / e.samples.len() as u128) as u64);
            }
        })
    }

    /// The value that a share `q` of all values does not exceed. The longest duration where there is no largest
    /// value; `q` beyond `0..=1` is taken as the nearer end.
    pub fn quantile(&self, q: f64) -> Duration {
        let q = q.clamp(0.0, 1.0);
        rounded(match self {
            Distribution::Constant(time) => return *time,
            Distribution::Exponential(e) => -nanos(e.mean) * (-q).ln_1p(),
            Distribution::Lognormal(l) if l.sigma == 0.0 => return l.p50,
            Distribution::Lognormal(l) => (l.mu + l.sigma * special::normal_quantile(q)).exp(),
            Distribution::Gamma(g) => special::gamma_quantile(g.shape, q) * g.nanos_per_unit,
            Distribution::Uniform(u) => nanos(u.low) + q * nanos(u.high - u.low),
            Distribution::Percentiles(p) => p.at(q),
            Distribution::Empirical(e) => {
                let rank = (q * e.samples.len() as f64).ceil() as usize;
                return Duration::from_nanos(e.samples[rank.clamp(1, e.samples.len()) - 1]);
            }
        })
    }
}

impl Percentiles {
    /// The value at a share, in nanoseconds.
    fn at(&self, share: f64) -> f64 {
        let above = self.knots.partition_point(|knot| knot.0 <= share).clamp(1, self.knots.len() - 1);
        let ((low_share, low), (high_share, high)) = (self.knots[above - 1], self.knots[above]);
        low + (high - low) * ((share - low_share) / (high_share - low_share))
    }
}

impl From<Duration> for Distribution {
    fn from(time: Duration) -> Self {
        Distribution::Constant(time)
    }
}

/// As it would be written in a scenario.
impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        text::write(self, f)
    }
}

fn positive(name: &'static str, time: Duration) -> Result<(), DistError> {
    if time.is_zero() { Err(DistError::Zero { name }) } else { Ok(()) }
}

fn nanos(time: Duration) -> f64 {
    saturating_nanos(time) as f64
}

fn saturating_nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// To the nearest nanosecond; the cast saturates.
#[inline]
fn rounded(nanos: f64) -> Duration {
    Duration::from_nanos((nanos + 0.5) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dist(text: &str) -> Distribution {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    const ALL: [&str; 10] = [
        "100ms",
        "exponential:100ms",
        "lognormal:p50=100ms,p99=1s",
        "lognormal:p50=100ms,p99=100ms",
        "gamma:mean=100ms,cv=0.5",
        "gamma:mean=100ms,cv=2",
        "gamma:mean=100ms,shape=1",
        "uniform:10ms..20ms",
        "percentiles:p50=10ms,p90=40ms,p99=100ms",
        "percentiles:p0=0s,p100=1s",
    ];

    /// Standard deviation in seconds, by integrating over the quantiles: independent of the samplers.
    fn deviation(of: &Distribution) -> f64 {
        let mean = of.mean().as_secs_f64();
        let steps = 1_000;
        let square =
            |step| (of.quantile((f64::from(step) + 0.5) / f64::from(steps)).as_secs_f64() - mean).powi(2);
        ((0..steps).map(square).sum::<f64>() / f64::from(steps)).sqrt()
    }

    #[test]
    fn samples_have_the_mean_that_is_promised() {
        const DRAWS: u32 = 400_000;
        for (seed, text) in (100..).zip(ALL) {
            let (of, mut rng) = (dist(text), Rng::new(seed));
            let mean = (0..DRAWS).map(|_| of.sample(&mut rng).as_secs_f64()).sum::<f64>() / f64::from(DRAWS);
            // Five standard deviations of the mean, and a nanosecond for the rounding.
            let bound = 5.0 * deviation(&of) / f64::from(DRAWS).sqrt() + 1e-9;
            assert!((mean - of.mean().as_secs_f64()).abs() < bound, "{text}: {mean}, seed {seed}");
        }
    }

    #[test]
    fn samples_have_the_quantiles_that_are_promised() {
        const DRAWS: usize = 200_000;
        for (seed, text) in (200..).zip(ALL) {
            let (of, mut rng) = (dist(text), Rng::new(seed));
            let draws: Vec<Duration> = (0..DRAWS).map(|_| of.sample(&mut rng)).collect();
            for q in [0.01, 0.5, 0.95, 0.999] {
                // Five standard deviations of the binomial on either side; between ties both shares count.
                let bound = 5.0 * (q * (1.0 - q) / DRAWS as f64).sqrt();
                let quantile = of.quantile(q);
                let share = |is: fn(&Duration, &Duration) -> bool| {
                    draws.iter().filter(|draw| is(draw, &quantile)).count() as f64 / DRAWS as f64
                };
                assert!(share(|a, b| a < b) - bound < q, "{text} at {q}, seed {seed}");
                assert!(share(|a, b| a <= b) + bound > q, "{text} at {q}, seed {seed}");
            }
        }
    }

    #[test]
    fn quantiles_can_be_checked_with_a_pencil() {
        let ms = Duration::from_millis;
        assert_eq!(dist("lognormal:p50=100ms,p99=1s").quantile(0.99), ms(1_000));
        assert_eq!(dist("uniform:10ms..20ms").quantile(0.25), Duration::from_micros(12_500));
        assert_eq!(dist("exponential:1s").quantile(0.5), Duration::from_nanos(693_147_181));
        assert_eq!(dist("percentiles:p50=10ms,p90=50ms").quantile(0.7), ms(30));
        assert_eq!(dist("percentiles:p50=10ms,p90=50ms").quantile(0.1), ms(10));
        let empirical = Distribution::empirical("it", &[3, 1, 2, 4].map(ms)).unwrap();
        assert_eq!([0.0, 0.25, 0.26, 1.0].map(|q| empirical.quantile(q)), [1, 1, 2, 4].map(ms));
        assert_eq!(empirical.mean(), Duration::from_micros(2_500));
        assert_eq!(dist("exponential:1s").quantile(1.0), Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn an_empirical_distribution_yields_what_was_measured_and_all_of_it() {
        let samples = [5, 7, 7, 1_000].map(Duration::from_millis);
        let of = Distribution::empirical("it", &samples).unwrap();
        let mut rng = Rng::new(3);
        let mut drawn: Vec<_> = (0..1_000).map(|_| of.sample(&mut rng)).collect();
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn, [5, 7, 1_000].map(Duration::from_millis));
    }

    #[test]
    fn a_seed_yields_the_same_times_for_ever() {
        let mut rng = Rng::new(42);
        let drawn = ALL.map(|text| dist(text).sample(&mut rng).as_micros());
        assert_eq!(
            drawn,
            [100_000, 105_262, 59_124, 100_000, 70_464, 2_030, 49_856, 15_133, 11_500, 665_159]
        );
    }
}
