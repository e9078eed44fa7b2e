//! Texts in the columns of a terminal, where an East Asian character may take two (Unicode, UAX 11).

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns that a text takes.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// The front of a text, as much of it as fits in so many columns.
pub(crate) fn front(text: &str, columns: usize) -> &str {
    let mut taken = 0;
    let end = text.char_indices().find(|(_, char)| {
        taken += char.width().unwrap_or(0);
        taken > columns
    });
    &text[..end.map_or(text.len(), |(at, _)| at)]
}

/// The end of a text, as much of it as fits in so many columns.
fn back(text: &str, columns: usize) -> &str {
    let mut taken = 0;
    let begin = text.char_indices().rev().find(|(_, char)| {
        taken += char.width().unwrap_or(0);
        taken > columns
    });
    &text[begin.map_or(0, |(at, char)| at + char.len_utf8())..]
}

/// A text in at most so many columns, with an ellipsis at the end where some of it is missing.
pub(crate) fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    front(text, columns.saturating_sub(1)).trim_end().to_owned() + ELLIPSIS
}

/// The same with the ellipsis inside: names often differ at their ends.
pub(crate) fn cut_middle(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let tail = columns.saturating_sub(1) / 2;
    front(text, columns.saturating_sub(1 + tail)).to_owned() + ELLIPSIS + back(text, tail)
}

/// A text filled up with blanks to so many columns.
pub(crate) fn pad(text: &str, columns: usize, is_left: bool) -> String {
    let blanks = " ".repeat(columns.saturating_sub(width(text)));
    if is_left { format!("{text}{blanks}") } else { format!("{blanks}{text}") }
}

const ELLIPSIS: &str = "…";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wide_character_takes_two_columns() {
        assert_eq!([width("abc"), width("日本"), width("e\u{301}")], [3, 4, 1]);
        let text = "日本語ab";
        let fronts = [(0, ""), (1, ""), (2, "日"), (3, "日"), (7, "日本語a")];
        for (columns, expected) in fronts {
            assert_eq!(front(text, columns), expected, "{columns}");
        }
        for (columns, expected) in [(0, ""), (1, "b"), (3, "ab"), (4, "語ab")] {
            assert_eq!(back(text, columns), expected, "{columns}");
        }
    }

    #[test]
    fn a_text_is_cut_and_filled_to_its_columns() {
        let text = "日本語ab";
        assert_eq!(cut(text, 8), text);
        assert_eq!(cut(text, 7), "日本語…");
        assert_eq!(cut(text, 6), "日本…");
        assert_eq!(cut_middle(text, 6), "日…ab");
        assert_eq!(pad("日", 4, true), "日  ");
        assert_eq!(pad("日", 4, false), "  日");
    }
}
