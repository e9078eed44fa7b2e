//! The two functions without a closed form that quantiles need: the normal distribution's and the gamma
//! distribution's inverse. For reporting; samplers do not call these. The gamma quantiles of statrs 0.19 hold to nine
//! digits for shape 1, and to none for the shapes below 0.01 that are legal here.

use std::f64::consts::{PI, SQRT_2};

/// The standard normal distribution below which a share `q` lies; infinite at 0 and 1.
///
/// Halves an interval until it cannot be halved: exact to the last digits, and nobody waits for it.
pub(super) fn normal_quantile(q: f64) -> f64 {
    match q {
        q if q <= 0.0 => f64::NEG_INFINITY,
        q if q >= 1.0 => f64::INFINITY,
        // By symmetry, so that the small share, which is known to more digits, is the one compared.
        q if q > 0.5 => -normal_quantile(1.0 - q),
        q => bisect(-40.0, 0.0, |x| normal_below(x) < q),
    }
}

/// The standard gamma distribution (scale 1) of a shape below which a share `q` lies.
pub(super) fn gamma_quantile(shape: f64, q: f64) -> f64 {
    if q <= 0.0 {
        return 0.0;
    }
    if q >= 1.0 {
        return f64::INFINITY;
    }
    let mut high = shape.max(1.0);
    while gamma_below(shape, high) < q {
        high *= 2.0;
    }
    // In logarithms: for shapes far below 1 most of the distribution lies within a hair of zero.
    bisect(-745.0, high.ln(), |log_x| gamma_below(shape, log_x.exp()) < q).exp()
}

/// The share of the standard normal distribution below `x`, for `x <= 0`: half the incomplete gamma function.
fn normal_below(x: f64) -> f64 {
    0.5 * gamma_above(0.5, (x / SQRT_2) * (x / SQRT_2))
}

/// The share of the gamma distribution below `x`: the regularized lower incomplete gamma function.
fn gamma_below(shape: f64, x: f64) -> f64 {
    if x <= 0.0 {
        0.0
    } else if x < shape + 1.0 {
        lower_series(shape, x)
    } else {
        1.0 - upper_fraction(shape, x)
    }
}

/// The share above `x`, with all its digits where it is small.
fn gamma_above(shape: f64, x: f64) -> f64 {
    if x <= 0.0 {
        1.0
    } else if x < shape + 1.0 {
        1.0 - lower_series(shape, x)
    } else {
        upper_fraction(shape, x)
    }
}

/// The share below `x` as a power series, which converges fast for `x < shape + 1`.
fn lower_series(shape: f64, x: f64) -> f64 {
    let mut term = 1.0 / shape;
    let mut sum = term;
    let mut n = shape;
    while term > sum * 1e-17 {
        n += 1.0;
        term *= x / n;
        sum += term;
    }
    sum * density_factor(shape, x)
}

/// The share above `x` as a continued fraction (Lentz's method), which converges fast for `x > shape + 1`.
fn upper_fraction(shape: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let mut b = x + 1.0 - shape;
    let mut c = 1.0 / TINY;
    let mut d = 1.0 / b;
    let mut value = d;
    for i in 1..100_000 {
        let i = f64::from(i);
        let a = -i * (i - shape);
        b += 2.0;
        d = 1.0 / non_zero(a * d + b, TINY);
        c = non_zero(b + a / c, TINY);
        value *= d * c;
        if (d * c - 1.0).abs() < 1e-15 {
            break;
        }
    }
    value * density_factor(shape, x)
}

fn non_zero(value: f64, tiny: f64) -> f64 {
    if value.abs() < tiny { tiny } else { value }
}

/// `x^shape * e^-x / Gamma(shape)`.
fn density_factor(shape: f64, x: f64) -> f64 {
    (shape * x.ln() - x - ln_gamma(shape)).exp()
}

/// The logarithm of the gamma function, by Stirling's series after moving the argument up to where it is exact
/// to the last digits.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut product) = (x, 1.0);
    while x < 15.0 {
        product *= x;
        x += 1.0;
    }
    let squared = x * x;
    let series = (1.0 / 12.0
        - (1.0 / 360.0 - (1.0 / 1_260.0 - (1.0 / 1_680.0 - 1.0 / 1_188.0 / squared) / squared) / squared)
            / squared)
        / x;
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * PI).ln() + series - f64::ln(product)
}

/// The place between `low` and `high` at which `is_below` turns false, to the last digit.
fn bisect(mut low: f64, mut high: f64, is_below: impl Fn(f64) -> bool) -> f64 {
    loop {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            return middle;
        }
        if is_below(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(value: f64, expected: f64) {
        assert!((value - expected).abs() <= 1e-12 * expected.abs().max(0.1), "{value} is not {expected}");
    }

    #[test]
    fn normal_quantiles_are_the_published_ones() {
        close(normal_quantile(0.5), 0.0);
        close(normal_quantile(0.975), 1.959_963_984_540_054);
        close(normal_quantile(0.99), 2.326_347_874_040_841);
        close(normal_quantile(0.01), -2.326_347_874_040_841);
        close(normal_quantile(1e-9), -5.997_807_015_007_687);
    }

    #[test]
    fn gamma_functions_agree_where_there_is_a_closed_form() {
        close(ln_gamma(1.0), 0.0);
        close(ln_gamma(0.5), 0.5 * PI.ln());
        close(ln_gamma(10.0), 362_880_f64.ln());
        // Shape 1 is the exponential distribution, shape 2 its sum of two.
        close(gamma_quantile(1.0, 0.5), std::f64::consts::LN_2);
        close(gamma_quantile(1.0, 0.999), 1_000_f64.ln());
        let x = gamma_quantile(2.0, 0.9);
        close(1.0 - (1.0 + x) * (-x).exp(), 0.9);
        // Shape 1/2 is the square of a normal variable, halved.
        close(gamma_quantile(0.5, 0.95), normal_quantile(0.975).powi(2) / 2.0);
    }

    #[test]
    fn quantiles_end_where_the_distribution_does() {
        assert_eq!((gamma_quantile(0.1, 0.0), gamma_quantile(0.1, 1.0)), (0.0, f64::INFINITY));
        assert_eq!((normal_quantile(0.0), normal_quantile(1.0)), (f64::NEG_INFINITY, f64::INFINITY));
    }
}
