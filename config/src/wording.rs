//! Numbers and times as people write them, for explanations and tables.

use std::time::Duration;

/// A number with at most three digits after the point: `1000`, `7.5`, `0.009`.
pub(crate) fn plain(value: f64) -> String {
    let rounded = format!("{value:.3}");
    let shown = rounded.trim_end_matches('0').trim_end_matches('.');
    let is_lost = shown.trim_start_matches('-') == "0" && value != 0.0;
    if is_lost || value.abs() >= 1e15 { format!("{value:e}") } else { shown.to_owned() }
}

/// The same with commas between thousands: `1,000`.
pub(crate) fn number(value: f64) -> String {
    let shown = plain(value);
    if shown.contains('e') {
        return shown;
    }
    match shown.split_once('.') {
        Some((whole, fraction)) => format!("{}.{fraction}", with_commas(whole)),
        None => with_commas(&shown),
    }
}

/// How many of something: `1 pod`, `1,200 pods`.
pub(crate) fn count(number: u32, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", with_commas(&number.to_string()))
}

/// A length of time in its two largest units: `6 s`, `1 min 30 s`, `1 h`, `300 ms`. Below two minutes all in
/// seconds, as one counts them.
pub(crate) fn time(length: Duration) -> String {
    let seconds = length.as_secs();
    if length < Duration::from_secs(1) && !length.is_zero() {
        return format!("{} ms", number(length.as_secs_f64() * 1e3));
    }
    if seconds < 120 && (seconds != 60 || length.subsec_nanos() != 0) {
        return format!("{} s", number(length.as_secs_f64()));
    }
    let pair = |large: u64, large_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large} {large_unit}"),
        small => format!("{large} {large_unit} {small} {small_unit}"),
    };
    match seconds {
        ..3_600 => pair(seconds / 60, "min", seconds % 60, "s"),
        _ => pair(seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
    }
}

fn with_commas(digits: &str) -> String {
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", digits),
    };
    let mut shown = String::from(sign);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas_and_no_needless_digits() {
        for (value, shown) in [
            (0.0, "0"),
            (7.0, "7"),
            (0.7 * 100.0, "70"),
            (7.25, "7.25"),
            (1_000.0, "1,000"),
            (-1_234_567.5, "-1,234,567.5"),
            (0.009, "0.009"),
            (1e-7, "1e-7"),
            (f64::MAX, "1.7976931348623157e308"),
        ] {
            assert_eq!(number(value), shown);
        }
        assert_eq!(count(1, "pod"), "1 pod");
        assert_eq!(count(1_200, "pod"), "1,200 pods");
    }

    #[test]
    fn times_are_told_as_one_would_tell_them() {
        for (millis, shown) in [
            (0, "0 s"),
            (300, "300 ms"),
            (1_500, "1.5 s"),
            (60_000, "1 min"),
            (62_000, "62 s"),
            (120_000, "2 min"),
            (150_000, "2 min 30 s"),
            (3_600_000, "1 h"),
            (5_400_000, "1 h 30 min"),
        ] {
            assert_eq!(time(Duration::from_millis(millis)), shown);
        }
    }
}
