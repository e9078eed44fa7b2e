//! Dates as logs and tables write them, in nanoseconds since 1970.

use jiff::civil::DateTime;
use jiff::fmt::{strtime, temporal::DateTimeParser};
use jiff::tz::Offset;

/// ISO 8601 and what is commonly taken for it: `2023-11-16 18:17:03.9799600`, `2016-04-15T20:17:00.310Z`, with an
/// offset such as `+01:00`. Without one it is taken as UTC.
pub(super) fn iso(text: &str) -> Option<i64> {
    static PARSER: DateTimeParser = DateTimeParser::new();
    let (date, rest) = text.split_at_checked(19)?;
    // The parser also takes dates without a time or without seconds.
    if date.as_bytes()[13] != b':' || date.as_bytes()[16] != b':' {
        return None;
    }
    let date = PARSER.parse_datetime(date).ok()?;
    let (fraction, zone) = fraction(rest)?;
    nanos(date, zone)?.checked_add(fraction)
}

/// The common log format's: `10/Oct/2000:13:55:36 -0700`; HAProxy's with milliseconds, `06/Feb/2009:12:14:14.655`.
pub(super) fn common_log(text: &str) -> Option<i64> {
    let (date, rest) = text.split_at_checked(20)?;
    let date = strtime::parse("%d/%b/%Y:%H:%M:%S", date).and_then(|date| date.to_datetime()).ok()?;
    let (fraction, zone) = fraction(rest)?;
    nanos(date, zone)?.checked_add(fraction)
}

/// A bare number since 1970 in seconds, milliseconds, microseconds or nanoseconds: which, its size tells. Smaller
/// numbers are seconds since the trace began.
pub(super) fn bare(number: f64) -> Option<i64> {
    let unit = match number {
        n if n < 0.0 || !n.is_finite() => return None,
        n if n < 1e11 => 1e9,
        n if n < 1e14 => 1e6,
        n if n < 1e17 => 1e3,
        _ => 1.0,
    };
    Some((number * unit).round() as i64)
}

fn nanos(date: DateTime, zone: &str) -> Option<i64> {
    let timestamp = offset(zone.trim_start())?.to_timestamp(date).ok()?;
    i64::try_from(timestamp.as_nanosecond()).ok()
}

/// The offset from UTC: `Z`, nothing, `UTC`, `+0100`, `-07:00`, `-07`.
fn offset(zone: &str) -> Option<Offset> {
    match zone {
        "" | "Z" | "z" | "UTC" => Some(Offset::UTC),
        hours if hours.len() == 3 => offset(&format!("{hours}00")),
        zone => strtime::parse("%z", zone).or_else(|_| strtime::parse("%:z", zone)).ok()?.offset(),
    }
}

/// Nanoseconds behind a point, or none, and what follows.
fn fraction(text: &str) -> Option<(i64, &str)> {
    let Some(after) = text.strip_prefix(['.', ',']) else { return Some((0, text)) };
    let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    Some((fraction_nanos(&after[..end])?, &after[end..]))
}

/// Digits behind the point; those beyond nanoseconds are dropped.
fn fraction_nanos(digits: &str) -> Option<i64> {
    let kept = &digits[..digits.len().min(9)];
    Some(kept.parse::<i64>().ok()? * 10_i64.pow(9 - kept.len() as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn dates_are_counted_from_1970() {
        assert_eq!(iso("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(iso("2000-02-29 23:59:59"), Some(951_868_799 * SECOND));
        assert_eq!(iso("2000-03-01T01:00:00+01:00"), Some(951_868_800 * SECOND));
        assert_eq!(iso("2023-11-16 18:17:03.9799600"), Some(1_700_158_623 * SECOND + 979_960_000));
        assert_eq!(iso("2016-04-15T20:17:00.310Z"), Some(1_460_751_420 * SECOND + 310_000_000));
        assert_eq!(iso("2023-11-16 18:17:03.1234567899 +0100"), Some(1_700_155_023 * SECOND + 123_456_789));
        assert_eq!(
            iso("2023-11-16t18:17:60,5-07"),
            Some(1_700_183_879 * SECOND + 500_000_000),
            "a leap second"
        );
        assert_eq!(iso("2023-11-16 18:17:03 UTC"), Some(1_700_158_623 * SECOND));
        assert_eq!(common_log("10/Oct/2000:13:55:36 -0700"), Some(971_211_336 * SECOND));
        assert_eq!(common_log("06/Feb/2009:12:14:14.655"), Some(1_233_922_454 * SECOND + 655_000_000));
        assert_eq!(common_log("10/Oct/2000:13:55:36 +05:30"), Some((971_211_336 - 45_000) * SECOND));
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "2023-11-16",
            "2023-11-16T18:17+01",
            "2023-02-29 00:00:00",
            "2023-13-01 00:00:00",
            "2023-11-16 24:00:00",
            "2023-11-16 18:17:03.",
            "2023-11-16 18:17:03 PST",
            "2023-11-16x18:17:03",
            "+023-11-16 18:17:03",
            "2023-11-16 18:17:0\u{e9}",
        ] {
            assert_eq!(iso(text), None, "{text:?}");
        }
        for text in
            ["", "10/Okt/2000:13:55:36 -0700", "10/Oct/2000 13:55:36 -0700", "32/Oct/2000:13:55:36 +0000"]
        {
            assert_eq!(common_log(text), None, "{text:?}");
        }
    }
}
