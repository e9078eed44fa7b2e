//! A value and how sure of it one may be.

use serde::Serialize;

/// A value with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// The mean over the trials.
    pub mean: f64,
    /// The ends of the interval; `None` if there was one trial only.
    pub range: Option<(f64, f64)>,
}

impl Interval {
    /// A value of which nobody knows how sure it is.
    pub fn point(mean: f64) -> Self {
        Interval { mean, range: None }
    }

    /// The mean of independent `values`, by Student's t.
    ///
    /// # Panics
    /// If there is no value.
    pub fn of_mean(values: &[f64]) -> Self {
        let mean = mean(values);
        let Some(freedom) = values.len().checked_sub(2).map(|more| more + 1) else {
            return Interval::point(mean);
        };
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation_of_mean = (squares / freedom as f64 / values.len() as f64).sqrt();
        let half = student_975(freedom) * deviation_of_mean;
        Interval { mean, range: Some((mean - half, mean + half)) }
    }

    /// The result of a bootstrap: `values` are one for each resampled load, and 95 % of them are in the interval.
    ///
    /// # Panics
    /// If there is no value.
    pub fn of_resamples(values: &[f64]) -> Self {
        let mean = mean(values);
        if values.len() < 2 {
            return Interval::point(mean);
        }
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        Interval { mean, range: Some((quantile(&sorted, 0.025), quantile(&sorted, 0.975))) }
    }

    /// Whether it is below or above 0 as a whole: -1 or 1; `None` if it may be 0.
    pub fn sign(&self) -> Option<f64> {
        let (low, high) = self.range?;
        if low > 0.0 {
            Some(1.0)
        } else if high < 0.0 {
            Some(-1.0)
        } else {
            None
        }
    }

    /// Half its width; `None` if there was one trial only.
    pub fn margin(&self) -> Option<f64> {
        self.range.map(|(low, high)| (high - low) / 2.0)
    }

    pub(crate) fn scaled(self, by: f64) -> Self {
        Interval { mean: self.mean * by, range: self.range.map(|(low, high)| (low * by, high * by)) }
    }
}

pub(crate) fn mean(values: &[f64]) -> f64 {
    assert!(!values.is_empty(), "there is no mean of nothing");
    values.iter().sum::<f64>() / values.len() as f64
}

/// A quantile of sorted values, on straight lines between them.
fn quantile(sorted: &[f64], at: f64) -> f64 {
    let place = at * (sorted.len() - 1) as f64;
    let below = place.floor();
    let (low, high) = (sorted[below as usize], sorted[place.ceil() as usize]);
    low + (high - low) * (place - below)
}

/// The 97.5 % quantile of Student's t distribution.
fn student_975(freedom: usize) -> f64 {
    if let Some(&tabulated) = STUDENT_975.get(freedom - 1) {
        return tabulated;
    }
    // The Cornish-Fisher expansion around the normal distribution's quantile: exact to four digits here.
    let (z, n) = (1.959_963_985_f64, freedom as f64);
    let first = (z.powi(3) + z) / 4.0;
    let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
    let third = (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0;
    z + first / n + second / n.powi(2) + third / n.powi(3)
}

/// For 1 to 20 degrees of freedom.
const STUDENT_975: [f64; 20] = [
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788, 2.1604,
    2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_mean_is_that_of_the_textbook() {
        // Mean 3, variance 2.5 of five values: 3 +- 2.7764 * sqrt(0.5).
        let interval = Interval::of_mean(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        let (low, high) = interval.range.unwrap();
        assert_eq!(interval.mean, 3.0);
        assert!((low - 1.03679).abs() < 1e-4 && (high - 4.96321).abs() < 1e-4, "{low} {high}");
    }

    #[test]
    fn students_quantiles_go_on_where_the_table_ends() {
        for (freedom, expected) in
            [(21, 2.0796), (30, 2.0423), (60, 2.0003), (120, 1.9799), (100_000, 1.95998)]
        {
            assert!((student_975(freedom) - expected).abs() < 2e-4, "{freedom}: {}", student_975(freedom));
        }
    }

    #[test]
    fn ninety_five_in_a_hundred_resamples_are_inside() {
        let values: Vec<f64> = (0..=1_000).rev().map(f64::from).collect();
        assert_eq!(Interval::of_resamples(&values), Interval { mean: 500.0, range: Some((25.0, 975.0)) });
    }

    #[test]
    fn one_value_has_no_interval_and_no_sign() {
        assert_eq!(Interval::of_mean(&[7.0]), Interval::point(7.0));
        assert_eq!(Interval::point(7.0).sign(), None);
        assert_eq!(Interval::of_mean(&[7.0, 7.0]).sign(), Some(1.0), "no noise at all");
    }
}
