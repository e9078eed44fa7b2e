//! Units that a name carries: `duration_ms`, `latencySeconds`. Whatever else is a bare number has no unit by itself.

use crate::dist::TimeUnit;

/// A name without its unit, in small letters and nothing else; and the unit, if it carries one.
pub(super) fn named(name: &str) -> (String, Option<TimeUnit>) {
    let words = words(name);
    let unit = |word: &String| UNITS.iter().find(|(name, _)| name == word).map(|&(_, unit)| unit);
    match words.split_last() {
        Some((last, others)) if !others.is_empty() && unit(last).is_some() => (others.concat(), unit(last)),
        _ => (words.concat(), None),
    }
}

/// The words of `snake_case`, `kebab-case` and `camelCase`, in small letters.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_small = false;
    for letter in name.chars() {
        let ends_word = !letter.is_alphanumeric() || (letter.is_uppercase() && was_small);
        if ends_word {
            words.push(String::new());
        }
        if letter.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(letter.to_lowercase());
        }
        was_small = letter.is_lowercase();
    }
    words.retain(|word| !word.is_empty());
    words
}

const UNITS: &[(&str, TimeUnit)] = &[
    ("s", TimeUnit::Seconds),
    ("sec", TimeUnit::Seconds),
    ("secs", TimeUnit::Seconds),
    ("second", TimeUnit::Seconds),
    ("seconds", TimeUnit::Seconds),
    ("ms", TimeUnit::Millis),
    ("msec", TimeUnit::Millis),
    ("msecs", TimeUnit::Millis),
    ("millis", TimeUnit::Millis),
    ("milliseconds", TimeUnit::Millis),
    ("us", TimeUnit::Micros),
    ("usec", TimeUnit::Micros),
    ("micros", TimeUnit::Micros),
    ("microseconds", TimeUnit::Micros),
    ("ns", TimeUnit::Nanos),
    ("nsec", TimeUnit::Nanos),
    ("nanos", TimeUnit::Nanos),
    ("nanoseconds", TimeUnit::Nanos),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_the_last_word_of_a_name() {
        let unit = |name| named(name).1;
        assert_eq!(named("response_time_ms"), ("responsetime".to_owned(), Some(TimeUnit::Millis)));
        assert_eq!(named("latencyMs"), ("latency".to_owned(), Some(TimeUnit::Millis)));
        assert_eq!(named("responseTime"), ("responsetime".to_owned(), None));
        assert_eq!(unit("duration_seconds"), Some(TimeUnit::Seconds));
        assert_eq!(unit("took-us"), Some(TimeUnit::Micros));
        assert_eq!(unit("elapsedNanos"), Some(TimeUnit::Nanos));
        for without in ["ms", "status", "items", "duration", ""] {
            assert_eq!(unit(without), None, "{without}");
        }
    }
}
