//! Dates as logs and tables write them, in nanoseconds since 1970.

/// ISO 8601 and what is commonly taken for it: `2023-11-16 18:17:03.9799600`, `2016-04-15T20:17:00.310Z`, with an
/// offset such as `+01:00`. Without one it is taken as UTC.
pub(super) fn iso(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    if bytes.len() < 19 || !text.is_ascii() || !matches!(bytes[10], b'T' | b't' | b' ') {
        return None;
    }
    if bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let days = days_since_1970(number(&text[..4])?, number(&text[5..7])?, number(&text[8..10])?)?;
    let seconds = time_of_day(&text[11..19])?;
    let rest = &text[19..];
    let (fraction, zone) = match rest.strip_prefix(['.', ',']) {
        Some(after) => {
            let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
            (fraction_nanos(&after[..end])?, &after[end..])
        }
        None => (0, rest),
    };
    nanos(days, seconds - offset(zone.trim_start())?, fraction)
}

/// The common log format's: `10/Oct/2000:13:55:36 -0700`.
pub(super) fn common_log(text: &str) -> Option<i64> {
    if !text.is_ascii() || text.len() < 20 {
        return None;
    }
    let (date, zone) = (&text[..20], text[20..].trim_start());
    let month = MONTHS.iter().position(|month| *month == &date[3..6])? as i64 + 1;
    let separators = [date.as_bytes()[2], date.as_bytes()[6], date.as_bytes()[11]];
    if separators != *b"//:" {
        return None;
    }
    let days = days_since_1970(number(&date[7..11])?, month, number(&date[..2])?)?;
    nanos(days, time_of_day(&date[12..20])? - offset(zone)?, 0)
}

/// Whether a text begins with such a date, without its offset.
pub(super) fn common_log_start(text: &str) -> bool {
    text.get(..20).is_some_and(|date| common_log(date).is_some())
}

fn nanos(days: i64, seconds: i64, fraction: i64) -> Option<i64> {
    days.checked_mul(86_400)?.checked_add(seconds)?.checked_mul(1_000_000_000)?.checked_add(fraction)
}

/// `HH:MM:SS`; a leap second is the second before it.
fn time_of_day(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let (hour, minute, second) = (number(&text[..2])?, number(&text[3..5])?, number(&text[6..8])?);
    let is_time = bytes[2] == b':' && bytes[5] == b':' && hour < 24 && minute < 60 && second <= 60;
    is_time.then(|| hour * 3_600 + minute * 60 + second.min(59))
}

/// Seconds east of Greenwich: `Z`, nothing, `UTC`, `+0100`, `-07:00`.
fn offset(zone: &str) -> Option<i64> {
    if matches!(zone, "" | "Z" | "z" | "UTC") {
        return Some(0);
    }
    let (sign, digits) = match zone.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = match digits.len() {
        2 => (digits, "0"),
        4 => digits.split_at(2),
        5 => digits.split_once(':')?,
        _ => return None,
    };
    Some(sign * (number(hours)? * 3_600 + number(minutes)? * 60))
}

/// Digits behind the point; those beyond nanoseconds are dropped.
fn fraction_nanos(digits: &str) -> Option<i64> {
    let kept = &digits[..digits.len().min(9)];
    Some(number(kept)? * 10_i64.pow(9 - kept.len() as u32))
}

/// Digits only: no sign, no space.
fn number(digits: &str) -> Option<i64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { digits.parse().ok() } else { None }
}

/// In the Gregorian calendar: years are counted from March, so that the leap day comes last.
fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // Months from March are 153 days for every five.
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    Some(year * 365 + leap_days + day_of_year - DAYS_TO_1970)
}

/// From March of the year 0 to January 1970.
const DAYS_TO_1970: i64 = 719_468;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

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
        assert_eq!(common_log("10/Oct/2000:13:55:36 -0700"), Some(971_211_336 * SECOND));
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "2023-11-16",
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
