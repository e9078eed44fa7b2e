//! How arrivals follow a rate: all of these are renewal processes in the time in which the rate is 1 (operational
//! time), so one sampler of gaps serves every curve, exactly.

use std::fmt;
use std::str::FromStr;

use pilotlight_core::Rng;

use crate::dist::{GammaSampler, exponential};

/// How arrivals follow a rate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Process {
    /// Evenly spaced, the first at the very start; the seed does not matter.
    Uniform,
    /// Independent of one another, like the users of a public service.
    #[default]
    Poisson,
    /// Gaps that follow a gamma distribution: burstier than Poisson for a coefficient of variation above 1, more
    /// even below.
    Gamma {
        /// Standard deviation of the gaps over their mean.
        cv: f64,
    },
}

/// Draws the gaps of a process, with mean 1.
#[derive(Clone, Copy, Debug)]
pub(super) enum Gaps {
    Uniform,
    Poisson,
    Gamma { sampler: GammaSampler, inverse_shape: f64 },
}

impl Process {
    /// The gaps, and the first of them: the time to the first arrival.
    pub(super) fn gaps(self, rng: &mut Rng) -> (Gaps, f64) {
        match self {
            Process::Uniform => (Gaps::Uniform, 0.0),
            Process::Poisson => (Gaps::Poisson, exponential(rng)),
            Process::Gamma { cv } => {
                let shape = cv.powi(-2);
                let gaps = Gaps::Gamma { sampler: GammaSampler::new(shape), inverse_shape: cv * cv };
                // Begun in the middle of things: a long gap is met more often than a short one (shape + 1), and
                // at a random place. Otherwise the rate would be wrong at the start.
                let met = GammaSampler::new(shape + 1.0).sample(rng) * cv * cv;
                (gaps, met * rng.unit())
            }
        }
    }
}

impl Gaps {
    #[inline]
    pub(super) fn next(&self, rng: &mut Rng) -> f64 {
        match self {
            Gaps::Uniform => 1.0,
            Gaps::Poisson => exponential(rng),
            Gaps::Gamma { sampler, inverse_shape } => sampler.sample(rng) * inverse_shape,
        }
    }
}

/// Why a text is not an arrival process.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an arrival process: use uniform, poisson or gamma:cv=2 (cv from 0.001 to 30)")]
pub struct ProcessError {
    text: String,
}

impl FromStr for Process {
    type Err = ProcessError;
    fn from_str(text: &str) -> Result<Self, ProcessError> {
        let cv = |text: &str| text.parse().ok().filter(|cv| (0.001..=30.0).contains(cv));
        let process = match text {
            "uniform" => Some(Process::Uniform),
            "poisson" => Some(Process::Poisson),
            _ => text.strip_prefix("gamma:cv=").and_then(cv).map(|cv| Process::Gamma { cv }),
        };
        process.ok_or_else(|| ProcessError { text: text.to_owned() })
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Process::Uniform => f.write_str("uniform"),
            Process::Poisson => f.write_str("poisson"),
            Process::Gamma { cv } => write!(f, "gamma:cv={cv}"),
        }
    }
}
