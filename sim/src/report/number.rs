//! Numbers as people write them: few digits, a unit, commas. Every table, chart and message takes them from here.

use crate::outcome::{Metric, Unit};

impl Unit {
    /// `value` with its unit.
    ///
    /// ```
    /// use pilotlight_sim::Unit;
    /// assert_eq!(Unit::Seconds.show(0.4123), "412 ms");
    /// assert_eq!(Unit::Fraction.show(0.99996), "99.99 %");
    /// assert_eq!(Unit::Count.show(12345.0), "12,345");
    /// ```
    pub fn show(self, value: f64) -> String {
        match self {
            _ if !value.is_finite() => "?".to_owned(),
            Unit::Seconds => seconds(value),
            Unit::Fraction => percent(value),
            Unit::Count => with_commas(value, 0),
            Unit::SecondsInAll | Unit::Ratio => amount(value),
        }
    }
}

/// `value` of the metric `name`, with its unit.
pub(crate) fn shown(name: &str, value: f64) -> String {
    Metric::named(name).map_or(Unit::Ratio, |metric| metric.unit).show(value)
}

/// A time in the one or two units that suit its length: `850 µs`, `412 ms`, `1.24 s`, `2 min 5 s`, `3 h 20 min`.
pub(crate) fn seconds(value: f64) -> String {
    // Rounded first: 999.7 ms are 1 s, not 1000 ms.
    let rounded = significant(value);
    match rounded.abs() {
        0.0 => "0 s".to_owned(),
        ..1e-3 => format!("{} µs", trimmed(rounded * 1e6)),
        1e-3..1.0 => format!("{} ms", trimmed(rounded * 1e3)),
        1.0..120.0 => format!("{} s", trimmed(rounded)),
        _ => pair(value.round()),
    }
}

/// The value in at most 10 characters, for columns: `12.6 min` where `12 min 38 s` is too much.
pub(crate) fn short_seconds(value: f64) -> String {
    let shown = seconds(value);
    match value {
        _ if shown.chars().count() <= 10 => shown,
        ..3_600.0 => format!("{} min", amount(value / 60.0)),
        ..86_400.0 => format!("{} h", amount(value / 3_600.0)),
        _ => format!("{} d", amount(value / 86_400.0)),
    }
}

fn pair(whole_seconds: f64) -> String {
    let total = whole_seconds as u64;
    let (large, small) = match total {
        ..3_600 => ((60, "min"), (1, "s")),
        3_600..172_800 => ((3_600, "h"), (60, "min")),
        _ => ((86_400, "d"), (3_600, "h")),
    };
    match (total / large.0, total % large.0 / small.0) {
        (many, 0) => format!("{} {}", with_commas(many as f64, 0), large.1),
        (many, rest) => format!("{} {} {rest} {}", with_commas(many as f64, 0), large.1, small.1),
    }
}

/// A share. What is not all is never shown as 100 %, and what is not nothing never as 0 %.
pub(crate) fn percent(fraction: f64) -> String {
    let percent = fraction * 100.0;
    if percent > 0.0 && percent < 0.01 {
        return "<0.01 %".to_owned();
    }
    let hundredths = match percent {
        99.0..100.0 => (percent * 100.0 + 1e-6).floor(),
        10.0..99.0 => (percent * 10.0).round() * 10.0,
        _ => (percent * 100.0).round(),
    };
    format!("{} %", trimmed(hundredths / 100.0))
}

/// By how much `value` differs from `base`, in percent of it: `−12 %`, `+3.4 %`, `=`.
pub(crate) fn change(base: f64, value: f64) -> Option<String> {
    if base == 0.0 || !base.is_finite() || !value.is_finite() {
        return (base == value).then(|| "=".to_owned());
    }
    let percent = (value / base - 1.0) * 100.0;
    let size = percent.abs();
    Some(match size {
        ..0.05 => "=".to_owned(),
        // Many times as much reads better as such than as thousands of percent.
        1000.0.. => format!("×{}", amount(value / base)),
        _ => {
            let sign = if percent < 0.0 { '−' } else { '+' };
            format!(
                "{sign}{} %",
                if size < 10.0 { trimmed((size * 10.0).round() / 10.0) } else { with_commas(size, 0) }
            )
        }
    })
}

/// A whole number with its sign: `+12`, `−3`, `0`.
pub(crate) fn signed(value: f64) -> String {
    let whole = value.round();
    let sign = if whole > 0.0 { "+" } else { "" };
    format!("{sign}{}", with_commas(whole, 0))
}

/// A number to three digits if it is small, to the whole if it is large.
pub(crate) fn amount(value: f64) -> String {
    if value.abs() < 1_000.0 { trimmed(significant(value)) } else { with_commas(value, 0) }
}

/// To three significant digits.
pub(crate) fn significant(value: f64) -> f64 {
    rounded(value, 3)
}

/// To so many significant digits.
pub(crate) fn rounded(value: f64, digits: i32) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let places = digits - 1 - value.abs().log10().floor() as i32;
    // By way of an integer power in each direction: multiplying with 0.01 would not be exact.
    let unit = 10f64.powi(places.abs());
    let rounded = if places >= 0 { (value * unit).round() / unit } else { (value / unit).round() * unit };
    // A value so small that its power is beyond all numbers.
    if rounded.is_finite() { rounded } else { 0.0 }
}

fn trimmed(value: f64) -> String {
    let text = with_commas(value, 4);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// With commas between thousands and so many digits after the point.
pub(crate) fn with_commas(value: f64, digits: usize) -> String {
    if value.abs() >= 1e15 {
        return format!("{value:.2e}");
    }
    let text = format!("{:.digits$}", value.abs());
    let (whole, fraction) =
        text.split_once('.').map_or((text.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let is_negative = value < 0.0 && text.chars().any(|c| c.is_ascii_digit() && c != '0');
    let mut shown = String::from(if is_negative { "−" } else { "" });
    for (at, digit) in whole.char_indices() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    if let Some(fraction) = fraction {
        shown.push('.');
        shown.push_str(fraction);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_the_unit_of_their_size() {
        for (value, shown) in [
            (0.0, "0 s"),
            (0.000_85, "850 µs"),
            (0.001, "1 ms"),
            (0.041_26, "41.3 ms"),
            (0.999_7, "1 s"),
            (1.236, "1.24 s"),
            (119.4, "119 s"),
            (119.6, "2 min"),
            (125.0, "2 min 5 s"),
            (3_600.0, "1 h"),
            (12_000.0, "3 h 20 min"),
            (604_800.0, "7 d"),
        ] {
            assert_eq!(seconds(value), shown, "{value}");
        }
        assert_eq!([758.0, 125.0, 103_680.0].map(short_seconds), ["12.6 min", "2 min 5 s", "1.2 d"]);
    }

    #[test]
    fn a_share_is_never_rounded_to_all_or_nothing() {
        for (value, shown) in [
            (1.0, "100 %"),
            (0.999_999, "99.99 %"),
            (0.999, "99.9 %"),
            (0.123_45, "12.3 %"),
            (0.045_67, "4.57 %"),
            (0.000_01, "<0.01 %"),
            (0.0, "0 %"),
        ] {
            assert_eq!(percent(value), shown, "{value}");
        }
    }

    #[test]
    fn counts_have_commas_and_nothing_is_minus_zero() {
        assert_eq!(with_commas(1_234_567.0, 0), "1,234,567");
        assert_eq!(with_commas(-0.2, 0), "0");
        assert_eq!(amount(12.345), "12.3");
        assert_eq!((amount(f64::MIN_POSITIVE), amount(1e300)), ("0".to_owned(), "1.00e300".to_owned()));
        assert_eq!(amount(12_345.6), "12,346");
        assert_eq!(Unit::Ratio.show(f64::NAN), "?");
    }

    #[test]
    fn changes_are_in_percent_of_what_was() {
        assert_eq!(change(100.0, 88.0).as_deref(), Some("−12 %"));
        assert_eq!(change(100.0, 103.44).as_deref(), Some("+3.4 %"));
        assert_eq!(change(100.0, 100.01).as_deref(), Some("="));
        assert_eq!(change(0.1, 4.2).as_deref(), Some("×42"));
        assert_eq!((change(0.0, 3.0), change(0.0, 0.0)), (None, Some("=".to_owned())));
    }
}
