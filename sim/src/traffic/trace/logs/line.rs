//! The parts of a log line: words, "quoted" with `\"` inside, and [bracketed].

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bare,
    Quoted,
    Bracketed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a str,
}

impl<'a> Part<'a> {
    /// The name before an equals sign, if there is one, and the value without quotes.
    pub(super) fn value(&self) -> (Option<&'a str>, &'a str) {
        let is_name = |name: &str| {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.$".contains(&byte))
        };
        match self.text.split_once('=') {
            Some((name, value)) if self.kind == Kind::Bare && is_name(name) => {
                (Some(name), value.trim_matches('"'))
            }
            _ => (None, self.text),
        }
    }
}

pub(super) fn split(line: &str) -> Vec<Part<'_>> {
    let (mut parts, mut rest) = (Vec::new(), line.trim_start());
    while !rest.is_empty() {
        let (kind, text, after) = match rest.as_bytes()[0] {
            b'"' => {
                let end = closing_quote(&rest[1..]);
                (Kind::Quoted, &rest[1..=end], rest.get(end + 2..).unwrap_or(""))
            }
            b'[' => {
                let end = rest.find(']').unwrap_or(rest.len());
                (Kind::Bracketed, &rest[1..end], rest.get(end + 1..).unwrap_or(""))
            }
            _ => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                (Kind::Bare, &rest[..end], &rest[end..])
            }
        };
        parts.push(Part { kind, text });
        rest = after.trim_start();
    }
    parts
}

/// The end of the quote, or of the text.
fn closing_quote(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if !is_escaped => return at,
            b'\\' => is_escaped = !is_escaped,
            _ => is_escaped = false,
        }
    }
    text.len()
}
