//! A scenario written down: YAML as people write it, with the fields in the order of the docs.

use serde_json::{Map, Value};

use super::fields::{SECTIONS, Section};

/// The value as YAML that reads back the same.
pub(super) fn write(value: &Value) -> String {
    let mut text = String::new();
    block(value, 0, &mut text);
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text.trim_start().to_owned()
}

/// What stands behind `key:` or `-`, with what comes before it on the line.
fn block(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in ordered(fields) {
                line(indent, text);
                text.push_str(&scalar(name));
                text.push(':');
                block(value, indent + 1, text);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                line(indent, text);
                text.push('-');
                let start = text.len();
                block(item, indent + 1, text);
                // The first field of an item stands behind its dash.
                let rest = text[start..].trim_start().to_owned();
                text.truncate(start);
                text.push(' ');
                text.push_str(&rest);
            }
        }
        Value::String(string) => {
            text.push(' ');
            text.push_str(&scalar(string));
        }
        other => {
            text.push(' ');
            text.push_str(&other.to_string());
        }
    }
}

fn line(indent: usize, text: &mut String) {
    text.push('\n');
    text.push_str(&"  ".repeat(indent));
}

/// Fields as the docs have them, then the others by name.
fn ordered(fields: &Map<String, Value>) -> Vec<(&String, &Value)> {
    // Names come up in several sections: the one that knows most of these is theirs.
    let known =
        |section: &Section| section.fields.iter().filter(|field| fields.contains_key(field.name)).count();
    let section = SECTIONS.iter().rev().max_by_key(|section| known(section));
    let place =
        |name: &String| section.and_then(|section| section.fields.iter().position(|f| f.name == name));
    let mut ordered: Vec<(&String, &Value)> = fields.iter().collect();
    ordered.sort_by_key(|(name, _)| place(name).unwrap_or(usize::MAX));
    ordered
}

/// A text, in quotes if YAML would take it for anything else.
fn scalar(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "_./%<=+-".contains(c);
    let is_inner = |c: char| is_word(c) || " ():,".contains(c);
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric() || "_/.".contains(c));
    // What is made of these might be a number, a date or a time to somebody.
    let may_be_number = text.chars().all(|c| c.is_ascii_hexdigit() || "xXoO_.+-:".contains(c));
    let is_other_word = OTHER_WORDS.iter().any(|word| word.eq_ignore_ascii_case(text));
    let is_plain =
        starts_well && text.ends_with(is_word) && text.chars().all(is_inner) && !text.contains(": ");
    if is_plain && !may_be_number && !is_other_word {
        text.to_owned()
    } else {
        // JSON's quoted texts are YAML's.
        Value::from(text).to_string()
    }
}

const OTHER_WORDS: &[&str] = &["true", "false", "null", "yes", "no", "on", "off", "y", "n", ".nan", ".inf"];

#[cfg(test)]
mod tests {
    use pilotlight_config::workload::manifest::documents;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_scenario_is_written_as_people_write_it() {
        let value = json!({
            "settings": [{"name": "calm", "annotations": {"window": "2m", "min-scale": "1"}}, {"pods": 4}],
            "load": {"users": {"steps": [{"users": 5}, {"at": "1m", "users": 10}], "think": "exponential:1s"}},
            "duration": "5m",
            "description": "Users: step up",
            "app": {"cores": 1, "errors": []},
        });
        let text = "\
description: \"Users: step up\"
duration: 5m
load:
  users:
    steps:
      - users: 5
      - at: 1m
        users: 10
    think: exponential:1s
app:
  cores: 1
  errors: []
settings:
  - name: calm
    annotations:
      min-scale: \"1\"
      window: 2m
  - pods: 4
";
        assert_eq!(write(&value), text);
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let hostile = [
            "",
            " ",
            "a: b",
            "a #b",
            "- a",
            "'",
            "\"",
            "~",
            "null",
            "Yes",
            "1e3",
            "0x1f",
            "1_000",
            "2020-01-01",
            "12:30",
            "{a}",
            "[a]",
            "*a",
            "&a",
            "!a",
            "%a",
            "a\nb",
            "é",
            "p95<500ms",
            "a b",
            "0.5",
            ".5",
            "-1",
            "+1",
            "1m30s",
            "=",
        ];
        let value = json!({
            "texts": hostile, "nested": [[1, [2.5, null]], [], {}], "deep": [{"a": [{"b": [true]}]}],
            "1": {"a b": -3, "": "x"},
        });
        let text = write(&value);
        let read = documents(&text).unwrap();
        assert_eq!(read[0].root().value, Some(&value), "{text}");
    }
}
