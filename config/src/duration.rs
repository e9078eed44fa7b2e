//! Go's durations, the notation of every time in Knative's settings: `30s`, `1h15m`, `1.5s`, `300ms`.
//!
//! The grammar is exact, with Go's overflow rules and its one unitless value, `0`; nothing is trimmed. What is
//! written back is what Go would write: `1h0m0s`, `1m9.082s`, `300ms`.

use std::time::Duration;

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Nothing but a sign.
    #[error("a duration is written like 30s or 1m30s")]
    Empty,
    /// A character where a number should start.
    #[error("a duration is written like 30s or 1m30s")]
    NotANumber,
    /// A number without a unit.
    #[error("a number needs a unit, such as {number}s")]
    MissingUnit {
        /// The number as written.
        number: String,
    },
    /// A unit Go does not know.
    #[error("{unit:?} is not a unit of time: use h, m, s, ms, us or ns")]
    UnknownUnit {
        /// The unit as written.
        unit: String,
    },
    /// More than about 292 years.
    #[error("it is longer than the longest duration, 2562047h47m16.854775807s")]
    TooLong,
    /// Legal in Go, but no duration that can be waited for.
    #[error("it is negative")]
    Negative,
}

/// Reads a duration that is not negative.
///
/// ```
/// use pilotlight_config::duration;
/// use std::time::Duration;
/// assert_eq!(duration::parse("1m30.5s"), Ok(Duration::from_millis(90_500)));
/// assert_eq!(duration::parse("60").unwrap_err().to_string(), "a number needs a unit, such as 60s");
/// ```
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let nanos = parse_nanos(text)?;
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| DurationError::Negative)
}

/// Reads a duration of either sign, in nanoseconds: all of what Go's `time.ParseDuration` accepts.
pub fn parse_nanos(text: &str) -> Result<i64, DurationError> {
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(DurationError::Empty);
    }
    let mut total = 0u64;
    while !rest.is_empty() {
        let (nanos, after) = term(rest)?;
        total = total.checked_add(nanos).filter(|&sum| sum <= LIMIT).ok_or(DurationError::TooLong)?;
        rest = after;
    }
    match (negative, i64::try_from(total)) {
        (false, Ok(nanos)) => Ok(nanos),
        (true, Ok(nanos)) => Ok(-nanos),
        // 2^63 itself exists only below zero.
        (true, Err(_)) => Ok(i64::MIN),
        (false, Err(_)) => Err(DurationError::TooLong),
    }
}

/// Writes a duration as Go does: the largest unit first, seconds with their fraction last, below one second a
/// single unit.
///
/// ```
/// use pilotlight_config::duration;
/// use std::time::Duration;
/// assert_eq!(duration::format(Duration::from_secs(3_600)), "1h0m0s");
/// assert_eq!(duration::format(Duration::from_millis(300)), "300ms");
/// assert_eq!(duration::format(Duration::ZERO), "0s");
/// ```
pub fn format(duration: Duration) -> String {
    format_nanos(duration.as_nanos())
}

/// Go's bound on the sum, one above the largest positive value.
const LIMIT: u64 = 1 << 63;

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

fn unit_nanos(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        // U+00B5 (micro sign) and U+03BC (Greek mu) look alike and both occur.
        "us" | "\u{b5}s" | "\u{3bc}s" => MICROSECOND,
        "ms" => MILLISECOND,
        "s" => SECOND,
        "m" => 60 * SECOND,
        "h" => 3_600 * SECOND,
        _ => return None,
    })
}

/// One number with its unit, in nanoseconds, and what follows it.
fn term(text: &str) -> Result<(u64, &str), DurationError> {
    let is_unit_end = |c: char| c == '.' || c.is_ascii_digit();
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (whole_digits, rest) = text.split_at(digits_end);
    let mut fraction_digits = "";
    let mut rest = rest;
    if let Some(after_dot) = rest.strip_prefix('.') {
        let end = after_dot.find(|c: char| !c.is_ascii_digit()).unwrap_or(after_dot.len());
        (fraction_digits, rest) = after_dot.split_at(end);
    }
    if whole_digits.is_empty() && fraction_digits.is_empty() {
        return Err(DurationError::NotANumber);
    }
    let number = &text[..text.len() - rest.len()];
    let whole = leading_int(whole_digits)?;

    let unit_end = rest.find(is_unit_end).unwrap_or(rest.len());
    let (unit, after) = rest.split_at(unit_end);
    if unit.is_empty() {
        return Err(DurationError::MissingUnit { number: number.to_owned() });
    }
    let unit_nanos = unit_nanos(unit).ok_or_else(|| DurationError::UnknownUnit { unit: unit.to_owned() })?;

    let mut nanos = whole.checked_mul(unit_nanos).filter(|&n| n <= LIMIT).ok_or(DurationError::TooLong)?;
    let (fraction, scale) = leading_fraction(fraction_digits);
    if fraction > 0 {
        // In floating point and truncated, as Go does it, so that the last nanosecond agrees.
        nanos += (fraction as f64 * (unit_nanos as f64 / scale)) as u64;
        if nanos > LIMIT {
            return Err(DurationError::TooLong);
        }
    }
    Ok((nanos, after))
}

fn leading_int(digits: &str) -> Result<u64, DurationError> {
    digits.bytes().try_fold(0u64, |value, digit| {
        value
            .checked_mul(10)
            .and_then(|v| v.checked_add(u64::from(digit - b'0')))
            .filter(|&v| v <= LIMIT)
            .ok_or(DurationError::TooLong)
    })
}

/// The digits as a number and the power of ten it is divided by; digits beyond the precision are dropped.
fn leading_fraction(digits: &str) -> (u64, f64) {
    let mut value = 0u64;
    let mut scale = 1.0;
    for digit in digits.bytes() {
        if value > (LIMIT - 1) / 10 {
            break;
        }
        let next = value * 10 + u64::from(digit - b'0');
        if next > LIMIT {
            break;
        }
        value = next;
        scale *= 10.0;
    }
    (value, scale)
}

fn format_nanos(nanos: u128) -> String {
    let (micro, milli, second) = (u128::from(MICROSECOND), u128::from(MILLISECOND), u128::from(SECOND));
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < second {
        let (unit, divisor) = match nanos {
            n if n < micro => ("ns", 1),
            n if n < milli => ("\u{b5}s", micro),
            _ => ("ms", milli),
        };
        return format!("{}{unit}", with_fraction(nanos, divisor));
    }
    let minutes = nanos / (60 * second);
    let seconds = with_fraction(nanos % (60 * second), second);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, m) => format!("{m}m{seconds}s"),
        (h, m) => format!("{h}h{m}m{seconds}s"),
    }
}

/// `value / divisor` in decimals, without trailing zeros. `divisor` is a power of ten.
fn with_fraction(value: u128, divisor: u128) -> String {
    let (whole, fraction) = (value / divisor, value % divisor);
    if fraction == 0 {
        return whole.to_string();
    }
    let width = divisor.ilog10() as usize;
    format!("{whole}.{}", format!("{fraction:0width$}").trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_go_reads() {
        let cases: &[(&str, i64)] = &[
            ("0", 0),
            ("+0", 0),
            ("-0", 0),
            ("0s", 0),
            ("5s", 5_000_000_000),
            ("+5s", 5_000_000_000),
            ("-5s", -5_000_000_000),
            ("5.s", 5_000_000_000),
            (".5s", 500_000_000),
            ("1.0s", 1_000_000_000),
            ("1.004s", 1_004_000_000),
            ("100.00100s", 100_001_000_000),
            ("10ns", 10),
            ("11us", 11_000),
            ("12\u{b5}s", 12_000),
            ("12\u{3bc}s", 12_000),
            ("13ms", 13_000_000),
            ("3h30m", 12_600_000_000_000),
            ("10.5s4m", 250_500_000_000),
            ("-2m3.4s", -123_400_000_000),
            ("1h2m3s4ms5us6ns", 3_723_004_005_006),
            ("52763797000ns", 52_763_797_000),
            ("0.3333333333333333333h", 1_200_000_000_000),
            ("0.100000000000000000000h", 360_000_000_000),
            ("0.830103483285477580700h", 2_988_372_539_827),
            ("9007199254740993ns", 9_007_199_254_740_993),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
            ("-9223372036854775.808us", i64::MIN),
            ("-2562047h47m16.854775808s", i64::MIN),
        ];
        for (text, nanos) in cases {
            assert_eq!(parse_nanos(text), Ok(*nanos), "{text}");
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        for text in [
            "",
            "3",
            "-",
            "s",
            ".",
            "-.",
            ".s",
            "+.s",
            "1d",
            " 1s",
            "1s ",
            "1 s",
            "1e3s",
            "0x1s",
            "--1s",
            "1s-1s",
            "\u{3bc}",
            "\u{665}s",
            "3000000h",
            "9223372036854775808ns",
            "9223372036854775.808us",
            "-9223372036854775809ns",
            "92233720368547758079ns",
            "9223372036854ms775us808ns",
        ] {
            assert!(parse_nanos(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_error_says_what_is_wrong_with_the_text() {
        assert_eq!(parse("1.5"), Err(DurationError::MissingUnit { number: "1.5".into() }));
        assert_eq!(parse("2d"), Err(DurationError::UnknownUnit { unit: "d".into() }));
        assert_eq!(parse("-1s"), Err(DurationError::Negative));
        assert_eq!(parse("300000h1"), Err(DurationError::MissingUnit { number: "1".into() }));
    }

    #[test]
    fn writes_what_go_writes() {
        let cases: &[(u64, &str)] = &[
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1\u{b5}s"),
            (2_200_000, "2.2ms"),
            (300_000_000, "300ms"),
            (3_300_000_000, "3.3s"),
            (245_000_000_000, "4m5s"),
            (69_082_000_000, "1m9.082s"),
            (18_367_001_000_000, "5h6m7.001s"),
            (3_600_000_000_000, "1h0m0s"),
            (28_800_000_000_001, "8h0m0.000000001s"),
            (i64::MAX as u64, "2562047h47m16.854775807s"),
        ];
        for (nanos, text) in cases {
            assert_eq!(format(Duration::from_nanos(*nanos)), *text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_the_same(nanos in 0..=i64::MAX) {
            prop_assert_eq!(parse_nanos(&format(Duration::from_nanos(nanos as u64))), Ok(nanos));
        }

        #[test]
        fn garbage_never_panics(text in "[-+0-9.hmsuµμn ]{0,40}|\\PC{0,20}") {
            let _ = parse(&text);
        }
    }
}
