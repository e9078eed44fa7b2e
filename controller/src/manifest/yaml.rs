//! JSON as YAML, as people write it: the name of a thing first, the rest by the alphabet, texts of several lines as blocks.

use serde_json::{Map, Value};

/// Writes an object. What a YAML reader reads again is the same.
pub fn to_yaml(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(object) if !object.is_empty() => write_object(&mut text, object, 0, false),
        other => write_scalar(&mut text, other, 0),
    }
    text
}

/// Writes the entries of a mapping. The first one may stand behind a dash.
fn write_object(text: &mut String, object: &Map<String, Value>, depth: usize, is_behind_dash: bool) {
    let mut keys: Vec<&String> = object.keys().collect();
    keys.sort_by_key(|key| (FIRST.iter().position(|first| first == key).unwrap_or(FIRST.len()), *key));
    for (at, key) in keys.into_iter().enumerate() {
        if at > 0 || !is_behind_dash {
            text.push_str(&"  ".repeat(depth));
        }
        text.push_str(&scalar(key));
        text.push(':');
        write_value(text, &object[key], depth);
    }
}

/// Writes what follows a key.
fn write_value(text: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(object) if !object.is_empty() => {
            text.push('\n');
            write_object(text, object, depth + 1, false);
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            for item in items {
                text.push_str(&"  ".repeat(depth));
                text.push('-');
                match item {
                    Value::Object(object) if !object.is_empty() => {
                        text.push(' ');
                        write_object(text, object, depth + 1, true);
                    }
                    other => write_value(text, other, depth + 1),
                }
            }
        }
        other => {
            text.push(' ');
            write_scalar(text, other, depth + 1);
        }
    }
}

fn write_scalar(text: &mut String, value: &Value, depth: usize) {
    match value {
        Value::String(string) if is_block(string) => {
            text.push('|');
            for line in string.lines() {
                text.push('\n');
                if !line.is_empty() {
                    text.push_str(&"  ".repeat(depth));
                    text.push_str(line);
                }
            }
        }
        Value::String(string) => text.push_str(&scalar(string)),
        // A whole number has no point, whatever it was read from.
        Value::Number(number) => {
            match number.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 1e15) {
                Some(whole) => text.push_str(&format!("{whole:.0}")),
                None => text.push_str(&number.to_string()),
            }
        }
        Value::Array(_) => text.push_str("[]"),
        Value::Object(_) => text.push_str("{}"),
        other => text.push_str(&other.to_string()),
    }
    text.push('\n');
}

/// Whether a text is written as a block: several lines, the last one ended, none with blanks that a reader may lose.
fn is_block(text: &str) -> bool {
    text.ends_with('\n')
        && !text.ends_with("\n\n")
        && !text.starts_with([' ', '\n'])
        && text.chars().all(|letter| letter == '\n' || !letter.is_control())
}

/// A text in one line, with quotes where YAML would read something else.
fn scalar(text: &str) -> String {
    let is_plain = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || " -_./:,()+=%@".contains(letter))
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if is_plain { text.to_owned() } else { Value::String(text.to_owned()).to_string() }
}

/// Keys that people look for first.
const FIRST: [&str; 4] = ["apiVersion", "kind", "metadata", "name"];
/// Words that YAML takes for something else than text.
const WORDS: [&str; 11] = ["true", "false", "yes", "no", "on", "off", "null", "y", "n", "inf", "nan"];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_written_as_people_write_them() {
        let object = json!({
            "spec": {"list": [{"name": "a", "b": 1}, {"c": []}], "plain": ["x", "y z"], "nested": [["q"]]},
            "kind": "Thing", "apiVersion": "v1", "data": {"text": "one\n\n  two\n", "empty": ""},
        });
        let expected = "\
apiVersion: v1
kind: Thing
data:
  empty: \"\"
  text: |
    one

      two
spec:
  list:
  - name: a
    b: 1
  - c: []
  nested:
  -
    - q
  plain:
  - x
  - y z
";
        assert_eq!(to_yaml(&object), expected);
    }

    #[test]
    fn whatever_yaml_would_read_otherwise_is_quoted() {
        for text in
            ["true", "1", "1.5", "- a", "a: b", "a #b", "", "*", "no", "x:", "\"", "a\\b", "0x1", "{a}", "~"]
        {
            assert!(to_yaml(&json!(text)).starts_with('"'), "{text}");
        }
        for text in ["a", "kube", "--flag", "http://x/y", "a,b", "100%"] {
            let is_quoted = to_yaml(&json!(text)).starts_with('"');
            assert_eq!(is_quoted, !text.starts_with(|first: char| first.is_ascii_alphabetic()), "{text}");
        }
        assert_eq!(to_yaml(&json!(2_147_483_647.0)), "2147483647\n");
        assert_eq!(to_yaml(&json!(0.01)), "0.01\n");
    }
}
