//! Text on its way into markup.

/// Text as markup shows it, in elements and in attributes. What XML has no place for becomes a replacement
/// character.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' | '\t' => safe.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// A coordinate or a percentage: two digits after the point are a twentieth of a pixel on a wide screen.
pub(super) fn coordinate(value: f64) -> String {
    let value = if value.is_finite() { value } else { 0.0 };
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_means_markup_stays() {
        assert_eq!(escaped("a<b>&\"c'\u{0}\u{1b}\n"), "a&lt;b&gt;&amp;&quot;c&#39;\u{fffd}\u{fffd}\n");
    }

    #[test]
    fn coordinates_are_short_and_always_numbers() {
        assert_eq!(
            [1.0, 0.126, -0.001, f64::NAN, f64::INFINITY].map(coordinate),
            ["1", "0.13", "0", "0", "0"]
        );
    }
}
