//! Rust sources, taken apart as far as the rules of the house need: code without comments and literals, comments
//! without code.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{fs, iter};

/// One `.rs` file of a crate.
pub(crate) struct Source {
    /// From the root of the workspace.
    pub(crate) path: PathBuf,
    /// The code alone: comments and the contents of literals are blanks, lines stay where they are.
    pub(crate) code: String,
    pub(crate) comments: Vec<Comment>,
}

/// Consecutive lines of one kind (`//`, `///`, `//!`), or the comment at the end of a line of code.
pub(crate) struct Comment {
    /// Line of the first words.
    pub(crate) line: usize,
    pub(crate) text: String,
    kind: &'static str,
    last_line: usize,
    is_trailing: bool,
}

impl Source {
    pub(crate) fn read(root: &Path, path: &Path) -> Self {
        Self::parse(path.into(), &fs::read_to_string(root.join(path)).expect("readable"))
    }

    pub(crate) fn parse(path: PathBuf, text: &str) -> Self {
        let mut source = Self { path, code: String::with_capacity(text.len()), comments: Vec::new() };
        let mut rest = text;
        while !rest.is_empty() {
            let (length, token) = next(rest, &source.code);
            let (token_text, after) = rest.split_at(length);
            match token {
                Token::Code => source.code.push_str(token_text),
                Token::Literal => source.blank(token_text, '"'),
                Token::BlockComment => source.blank(token_text, ' '),
                Token::LineComment => {
                    source.add_comment(token_text);
                    source.blank(token_text, ' ');
                }
            }
            rest = after;
        }
        source.comments.retain(|comment| comment.text.contains(char::is_alphabetic));
        source
    }

    /// The lines of code, numbered from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.code.lines())
    }

    /// Whether the whole file is for tests, examples or benches.
    pub(crate) fn is_for_tests(&self) -> bool {
        let is_src = self.path.iter().nth(1).is_some_and(|folder| folder == "src");
        let is_tests = |part: &OsStr| part == "tests" || part == "tests.rs";
        !is_src || self.path.iter().any(is_tests)
    }

    fn blank(&mut self, text: &str, with: char) {
        self.code.extend(text.chars().map(|each| if each == '\n' { '\n' } else { with }));
    }

    fn add_comment(&mut self, text: &str) {
        let line = self.code.matches('\n').count() + 1;
        let is_trailing = !self.code.rsplit('\n').next().unwrap_or_default().trim().is_empty();
        let kind =
            ["////", "///", "//!", "//"].into_iter().find(|kind| text.starts_with(kind)).expect("a comment");
        let words = text[kind.len()..].trim();
        if let Some(last) = self.comments.last_mut()
            && !is_trailing
            && !last.is_trailing
            && (last.kind, last.last_line + 1) == (kind, line)
        {
            last.last_line = line;
            if last.text.is_empty() {
                (last.line, last.text) = (line, words.into());
            }
            return;
        }
        self.comments.push(Comment { line, text: words.into(), kind, last_line: line, is_trailing });
    }
}

enum Token {
    Code,
    Literal,
    LineComment,
    BlockComment,
}

/// Length and kind of what `rest` begins with. It follows `before`.
fn next(rest: &str, before: &str) -> (usize, Token) {
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), Token::LineComment);
    }
    if rest.starts_with("/*") {
        return (block_comment(rest), Token::BlockComment);
    }
    let is_in_word = before.ends_with(|last: char| last.is_alphanumeric() || last == '_');
    if !is_in_word && let Some(length) = raw_string(rest) {
        return (length, Token::Literal);
    }
    if rest.starts_with('"') {
        return (quoted(rest, '"').unwrap_or(rest.len()), Token::Literal);
    }
    if rest.starts_with('\'')
        && let Some(length) = character(rest)
    {
        return (length, Token::Literal);
    }
    (rest.chars().next().map_or(1, char::len_utf8), Token::Code)
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    for (at, _) in rest.char_indices() {
        if rest[at..].starts_with("/*") {
            depth += 1;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            if depth == 0 {
                return at + 2;
            }
        }
    }
    rest.len()
}

/// Length of `r"…"`, `r#"…"#`, `br"…"`.
fn raw_string(rest: &str) -> Option<usize> {
    let marks = rest.strip_prefix(['b', 'c']).unwrap_or(rest).strip_prefix('r')?;
    let hashes = marks.len() - marks.trim_start_matches('#').len();
    let content = marks[hashes..].strip_prefix('"')?;
    let end: String = iter::once('"').chain(iter::repeat_n('#', hashes)).collect();
    let start = rest.len() - content.len();
    Some(content.find(&end).map_or(rest.len(), |at| start + at + end.len()))
}

fn quoted(rest: &str, quote: char) -> Option<usize> {
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, each)) = chars.next() {
        if each == '\\' {
            chars.next();
        } else if each == quote {
            return Some(at + each.len_utf8());
        }
    }
    None
}

/// Length of a character, or none where a lifetime begins.
fn character(rest: &str) -> Option<usize> {
    let is_escaped = rest[1..].starts_with('\\');
    let is_closed = rest.chars().nth(2) == Some('\'');
    (is_escaped || is_closed).then(|| quoted(rest, '\'')).flatten()
}

#[test]
fn comments_and_literals_are_told_from_code() {
    let text = r##"
//! First words
//! go on.
fn f<'a>(x: &'a str) -> char {
    let url = "http://host"; // Trailing.
    // A second one.
    ///
    /// After an empty line.
    let raw = r#"a "// b" c"#; /* not /* seen */ */ '"'
}
"##;
    let source = Source::parse("some.rs".into(), text);
    let comments: Vec<_> = source.comments.iter().map(|each| (each.line, each.text.as_str())).collect();
    assert_eq!(
        comments,
        [(2, "First words"), (5, "Trailing."), (6, "A second one."), (8, "After an empty line.")]
    );
    assert_eq!(source.code.lines().count(), text.lines().count());
    let code: Vec<_> = source.lines().map(|(_, line)| line.trim()).collect();
    assert_eq!(code[4].trim_end_matches(['"', ' ', ';']), "let url =");
    assert!(!source.code.contains("seen") && !source.code.contains("// b"), "{}", source.code);
}
