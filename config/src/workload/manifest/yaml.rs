//! The text of a file, cut into documents and parsed: YAML, JSON, and JSON objects one after another. A document
//! that cannot be parsed hides none of the others.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

/// One document of a file.
pub(super) struct ParsedDocument {
    /// Its place among the documents of the file, from 1.
    pub(super) number: u32,
    /// The line on which it begins, from 1.
    pub(super) line: u64,
    pub(super) value: Value,
    pub(super) lines: Lines,
}

/// A document that cannot be parsed, in one line about its syntax.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// The place of the document in the file, from 1.
    pub number: u32,
    /// The line that is at fault, from 1.
    pub line: u64,
    /// The fault, as a sentence whose subject is the file.
    pub message: String,
}

/// The lines of a value's fields or elements.
#[derive(Debug, Default)]
pub(super) enum Lines {
    #[default]
    None,
    Fields(BTreeMap<String, (u32, Lines)>),
    Items(Vec<(u32, Lines)>),
}

impl Lines {
    /// The line of a path such as `spec.containers[0].image`, or of as much of it as there is, counted within the
    /// document. A key may hold dots of its own.
    pub(super) fn of(&self, path: &str) -> Option<u32> {
        match self {
            Lines::None => None,
            Lines::Fields(fields) => {
                let follows = |key: &str| {
                    let rest = path.strip_prefix(key)?;
                    (rest.is_empty() || rest.starts_with(['.', '['])).then_some(rest)
                };
                let found = fields.iter().filter_map(|(key, inside)| Some((follows(key)?, inside)));
                // The longest key that fits is meant: `a.b` rather than `a`.
                let (rest, (line, inside)) = found.min_by_key(|(rest, _)| rest.len())?;
                inside.of(rest.strip_prefix('.').unwrap_or(rest)).or(Some(*line))
            }
            Lines::Items(items) => {
                let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
                let (line, inside) = items.get(index.parse::<usize>().ok()?)?;
                inside.of(rest.strip_prefix('.').unwrap_or(rest)).or(Some(*line))
            }
        }
    }
}

/// Parses a file; empty documents are left out.
pub(super) fn parse(text: &str) -> (Vec<ParsedDocument>, Vec<SyntaxError>) {
    let (mut documents, mut errors) = (Vec::new(), Vec::new());
    let mut number = 0;
    for (before, chunk) in chunks(text) {
        match parse_chunk(chunk) {
            Ok(found) => {
                for located in found {
                    number += 1;
                    if !located.value.value.is_null() {
                        documents.push(ParsedDocument {
                            number,
                            line: before + located.referenced.line(),
                            value: located.value.value,
                            lines: located.value.lines.moved(before),
                        });
                    }
                }
            }
            Err(error) => {
                number += 1;
                errors.push(syntax_error(&error, chunk, before, number));
            }
        }
    }
    // A template fails in every document; one line says so.
    if let Some(template) = errors.iter().position(|error| error.message.contains(RENDER_FIRST)) {
        errors = vec![errors.swap_remove(template)];
    }
    (documents, errors)
}

/// The advice about a template.
pub(in crate::workload) const RENDER_FIRST: &str = "render it first, as with `helm template`";

/// Cuts a text into parts that can be parsed alone, each with the number of lines before it.
fn chunks(text: &str) -> Vec<(u64, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('{')
        && let Some(objects) = json_objects(text)
    {
        return objects;
    }
    let (mut parts, mut start, mut first_line) = (Vec::new(), 0, 0);
    let (mut at, mut line) = (0, 0);
    // Only comments and directives so far: they belong to the document that begins with the next marker.
    let mut is_prologue = true;
    for whole in text.split_inclusive('\n') {
        let marker = whole.trim_end();
        if is_marker(marker, "---") && !is_prologue {
            parts.push((first_line, &text[start..at]));
            (start, first_line) = (at, line);
        }
        is_prologue = if is_marker(marker, "---") {
            false
        } else {
            is_prologue && (marker.is_empty() || marker.starts_with(['#', '%']))
        };
        (at, line) = (at + whole.len(), line + 1);
        if is_marker(marker, "...") {
            parts.push((first_line, &text[start..at]));
            (start, first_line, is_prologue) = (at, line, true);
        }
    }
    parts.push((first_line, &text[start..]));
    parts
}

/// A line of three dashes or dots at its very beginning separates documents wherever it stands: no text may go on
/// over it (YAML 1.2, 9.1.2).
fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t']))
}

/// JSON objects that follow each other, a line each or each on several lines; nothing if there is but one.
fn json_objects(text: &str) -> Option<Vec<(u64, &str)>> {
    let is_whole = |line: &str| line.is_empty() || line.starts_with('{') && line.ends_with('}');
    let lines = || text.lines().map(str::trim).enumerate();
    // A broken line is then a fault of that line alone.
    if lines().filter(|(_, line)| !line.is_empty()).count() > 1 && lines().all(|(_, line)| is_whole(line)) {
        let full = lines().filter(|(_, line)| !line.is_empty());
        return Some(full.map(|(at, line)| (at as u64, line)).collect());
    }
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    let (mut objects, mut start, mut before) = (Vec::new(), 0, 0);
    while let Some(object) = stream.next() {
        object.ok()?;
        let part = &text[start..stream.byte_offset()];
        objects.push((before, part));
        before += part.matches('\n').count() as u64;
        start = stream.byte_offset();
    }
    (objects.len() > 1).then_some(objects)
}

/// Parses one part. A text in quotes that goes on at its key's indentation is no YAML by the letter, and every
/// Kubernetes tool reads it: such lines are moved to the right, where they mean the same.
fn parse_chunk(chunk: &str) -> Result<Vec<Spanned<Located>>, serde_saphyr::Error> {
    let mut moved: Option<String> = None;
    for _ in 0..MOST_MOVED_LINES {
        let text = moved.as_deref().unwrap_or(chunk);
        let error = match parse_strictly(text) {
            Err(error) if error.without_snippet().to_string().starts_with(UNDERINDENTED) => error,
            other => return other,
        };
        let Some(line) = error.location().map(|location| location.line()) else { return Err(error) };
        let start: usize = text.split_inclusive('\n').take(line as usize - 1).map(str::len).sum();
        moved = Some(format!("{}{}{}", &text[..start], " ".repeat(DEEP), &text[start..]));
    }
    parse_strictly(moved.as_deref().unwrap_or(chunk))
}

fn parse_strictly(text: &str) -> Result<Vec<Spanned<Located>>, serde_saphyr::Error> {
    // Every node takes a byte at least, so that only aliases can make more of a text than its size; these, and the
    // depth, keep their limits.
    let most = text.len().saturating_add(1_000);
    let options = serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_events: most.saturating_mul(4),
            max_nodes: most.saturating_mul(2),
            max_documents: most,
        },
    };
    serde_saphyr::from_multiple_with_options(text, options)
}

const UNDERINDENTED: &str = "invalid indentation in multiline quoted scalar";
const MOST_MOVED_LINES: usize = 100;
/// Deeper than any key.
const DEEP: usize = 200;

fn syntax_error(error: &serde_saphyr::Error, chunk: &str, before: u64, number: u32) -> SyntaxError {
    if let Some(at) = chunk.lines().position(|line| line.contains("{{")) {
        let line = before + at as u64 + 1;
        let message = format!("is a template, which line {line} shows by its {{{{: {RENDER_FIRST}");
        return SyntaxError { number, line, message };
    }
    let text = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    let text = text.replace(", set DuplicateKeyPolicy in Options if acceptable", "");
    let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
    let text = text.strip_suffix(&format!(" at line {line}, column {column}")).unwrap_or(&text);
    let line = before + line;
    SyntaxError {
        number,
        line,
        message: format!("is not valid YAML: {text} at line {line}, column {column}"),
    }
}

/// A value and the lines of its parts.
#[derive(Debug)]
struct Located {
    value: Value,
    lines: Lines,
}

impl Lines {
    /// The same, for a document that has lines before it.
    fn moved(self, before: u64) -> Lines {
        let by = u32::try_from(before).unwrap_or(u32::MAX);
        let moved = |(line, inside): (u32, Lines)| (line.saturating_add(by), inside.moved(before));
        match self {
            lines if by == 0 => lines,
            Lines::None => Lines::None,
            Lines::Items(items) => Lines::Items(items.into_iter().map(moved).collect()),
            Lines::Fields(fields) => {
                Lines::Fields(fields.into_iter().map(|(key, place)| (key, moved(place))).collect())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Located {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LocatedVisitor)
    }
}

struct LocatedVisitor;

impl LocatedVisitor {
    fn scalar<E>(value: impl Into<Value>) -> Result<Located, E> {
        Ok(Located { value: value.into(), lines: Lines::None })
    }
}

impl<'de> Visitor<'de> for LocatedVisitor {
    type Value = Located;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Located, E> {
        Self::scalar(value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Located, E> {
        Self::scalar(value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Located, E> {
        Self::scalar(value)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Located, E> {
        Self::scalar(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Located, E> {
        Self::scalar(value)
    }

    fn visit_string<E>(self, value: String) -> Result<Located, E> {
        Self::scalar(value)
    }

    fn visit_unit<E>(self) -> Result<Located, E> {
        Self::scalar(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Located, E> {
        Self::scalar(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Located, D::Error> {
        Deserialize::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Located, A::Error> {
        let (mut values, mut lines) = (Vec::new(), Vec::new());
        while let Some(item) = items.next_element::<Spanned<Located>>()? {
            lines.push((line_of(&item), item.value.lines));
            values.push(item.value.value);
        }
        Ok(Located { value: Value::Array(values), lines: Lines::Items(lines) })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Located, A::Error> {
        let (mut values, mut lines) = (Map::new(), BTreeMap::new());
        while let Some(key) = fields.next_key::<Spanned<String>>()? {
            let Located { value, lines: inside } = fields.next_value()?;
            lines.insert(key.value.clone(), (line_of(&key), inside));
            values.insert(key.value, value);
        }
        Ok(Located { value: Value::Object(values), lines: Lines::Fields(lines) })
    }
}

fn line_of<T>(spanned: &Spanned<T>) -> u32 {
    u32::try_from(spanned.referenced.line()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<(u32, u64, String)> {
        let (documents, errors) = parse(text);
        assert_eq!(errors, [], "{text}");
        documents.into_iter().map(|it| (it.number, it.line, it.value.to_string())).collect()
    }

    fn errors(text: &str) -> Vec<(u32, u64, String)> {
        parse(text).1.into_iter().map(|it| (it.number, it.line, it.message)).collect()
    }

    #[test]
    fn documents_are_numbered_and_know_their_line() {
        assert_eq!(
            values("# about\n%YAML 1.2\n---\na: 1\n--- # next\n\nb: |\n  ---\n  x\n...\nc: 3\n"),
            [
                (1, 4, r#"{"a":1}"#.to_owned()),
                (2, 7, r#"{"b":"---\nx\n"}"#.to_owned()),
                (3, 11, r#"{"c":3}"#.to_owned()),
            ]
        );
        assert_eq!(values("---\n---\na: 1\r\n---\r\nb: 2\n").len(), 2);
    }

    #[test]
    fn json_objects_follow_each_other_in_lines_or_without() {
        let two = |text| values(text).into_iter().map(|(_, line, value)| (line, value)).collect::<Vec<_>>();
        let expected = |second| vec![(1, r#"{"a":1}"#.to_owned()), (second, r#"{"b":2}"#.to_owned())];
        assert_eq!(two("{\"a\": 1}\n{\"b\": 2}\n"), expected(2));
        assert_eq!(two("{\n \"a\": 1\n}\n{\n \"b\": 2\n}\n"), expected(4));
        let [(_, line, message)] = &errors("{\"a\": 1}\n{\"b\": }}\n{\"c\": 3}\n")[..] else { panic!("one") };
        assert!(*line == 2 && message.contains("is not valid YAML"), "{message}");
        assert_eq!(parse("{\"a\": 1}\n{\"b\": }}\n{\"c\": 3}\n").0.len(), 2);
    }

    #[test]
    fn a_broken_document_hides_no_other() {
        let text = "a: 1\n---\nb: [\n---\nc: 3\nc: 4\n---\nd: 4\n";
        let [broken, twice] = &errors(text)[..] else { panic!("{:?}", errors(text)) };
        assert_eq!((broken.0, twice.0, twice.1), (2, 3, 6));
        assert_eq!(twice.2, "is not valid YAML: duplicate mapping key: c at line 6, column 1");
        let whole: Vec<u64> = parse(text).0.iter().map(|it| it.line).collect();
        assert_eq!(whole, [1, 8]);
    }

    #[test]
    fn a_quoted_text_may_go_on_at_its_keys_indentation() {
        let text = "metadata:\n  note: \"first line\n  second\n  third\"\n  name: x\n";
        assert_eq!(values(text)[0].2, r#"{"metadata":{"name":"x","note":"first line second third"}}"#);
        assert_eq!(values("a: 'one\ntwo'\n")[0].2, r#"{"a":"one two"}"#);
    }

    #[test]
    fn a_template_is_to_be_rendered_first() {
        let text = "{{- if .Values.on }}\na: {{ .Values.a }}\n---\nb: {{ .Values.b }}: 2\n{{- end }}\n";
        assert_eq!(
            errors(text),
            [(
                1,
                1,
                "is a template, which line 1 shows by its {{: render it first, as with `helm template`"
                    .into()
            )]
        );
    }

    #[test]
    fn a_path_leads_to_its_line() {
        let text = "\nspec:\n  annotations:\n    a.b/c: x\n    a: y\n  list:\n    - one: 1\n      two: 2\n    - three\n";
        let (documents, _) = parse(text);
        let line = |path| documents[0].lines.of(path);
        for (path, expected) in [
            ("spec", 2),
            ("spec.annotations.a.b/c", 4),
            ("spec.annotations.a", 5),
            ("spec.annotations.missing", 3),
            ("spec.list[0].two", 8),
            ("spec.list[1]", 9),
            ("spec.list[0].two.deeper", 8),
        ] {
            assert_eq!(line(path), Some(expected), "{path}");
        }
        assert_eq!(line("nothing"), None);
    }

    #[test]
    fn many_documents_are_read_and_a_bomb_is_not() {
        assert_eq!(values(&"a: 1\n---\n".repeat(2_000)).len(), 2_000);
        let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (name, of) in ["b", "c", "d", "e", "f", "g", "h"].iter().zip(["a", "b", "c", "d", "e", "f", "g"])
        {
            bomb += &format!("{name}: &{name} [{}]\n", vec![format!("*{of}"); 10].join(", "));
        }
        assert_eq!(errors(&bomb).len(), 1);
        assert_eq!(errors(&"[".repeat(10_000)).len(), 1);
    }
}
