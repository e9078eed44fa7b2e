//! Label and field selectors.

use serde_json::{Map, Value};

use super::failure::{Failure, Result};

/// The objects that a list or watch asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// Empty: all namespaces.
    pub(crate) namespace: String,
    labels: Vec<Requirement>,
    fields: Vec<FieldRequirement>,
}

#[derive(Clone, Debug, PartialEq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Above(i64),
    Below(i64),
}

#[derive(Clone, Debug, PartialEq)]
struct FieldRequirement {
    path: Vec<String>,
    value: String,
    is_equal: bool,
}

impl Selection {
    pub(crate) fn parse(namespace: &str, labels: &str, fields: &str, is_custom: bool) -> Result<Self> {
        Ok(Self {
            namespace: namespace.into(),
            labels: parse_labels(labels)?,
            fields: parse_fields(fields, is_custom)?,
        })
    }

    /// The one object of this name, if it is selected.
    pub(crate) fn with_name(mut self, name: &str) -> Self {
        let path = vec!["metadata".into(), "name".into()];
        self.fields.push(FieldRequirement { path, value: name.into(), is_equal: true });
        self
    }

    /// Whether all objects of the namespace are selected.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        (self.namespace.is_empty() || metadata["namespace"] == self.namespace.as_str())
            && matches_all(&self.labels, metadata["labels"].as_object())
            && self.fields.iter().all(|field| field.matches(object))
    }
}

/// Whether a label selector object (`matchLabels`, `matchExpressions`) selects these labels.
pub(crate) fn label_selector_matches(selector: &Value, labels: &Value) -> bool {
    let pairs = selector["matchLabels"].as_object().into_iter().flatten();
    let are_equal = pairs.into_iter().all(|(key, value)| labels.get(key) == Some(value));
    let mut expressions = selector["matchExpressions"].as_array().into_iter().flatten();
    are_equal
        && expressions.all(|expression| {
            let value = expression["key"].as_str().and_then(|key| labels.get(key));
            let is_listed = || {
                value.is_some()
                    && expression["values"]
                        .as_array()
                        .is_some_and(|all| all.iter().any(|each| Some(each) == value))
            };
            match expression["operator"].as_str() {
                Some("In") => is_listed(),
                Some("NotIn") => !is_listed(),
                Some("Exists") => value.is_some(),
                Some("DoesNotExist") => value.is_none(),
                _ => false,
            }
        })
}

impl FieldRequirement {
    fn matches(&self, object: &Value) -> bool {
        let value = self.path.iter().try_fold(object, |value, name| value.get(name));
        let is_equal = match value {
            Some(Value::String(text)) => *text == self.value,
            Some(Value::Null) | None => self.value.is_empty(),
            Some(other) => is_written(other, &self.value),
        };
        is_equal == self.is_equal
    }
}

/// Whether a number or a truth value is written like this.
fn is_written(value: &Value, text: &str) -> bool {
    let written = value.to_string();
    written == text
}

fn matches_all(requirements: &[Requirement], labels: Option<&Map<String, Value>>) -> bool {
    requirements.iter().all(|Requirement { key, test }| {
        let value = labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match test {
            Test::In(values) => value.is_some_and(|value| values.iter().any(|each| each == value)),
            Test::NotIn(values) => value.is_none_or(|value| values.iter().all(|each| each != value)),
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
            Test::Above(limit) => number().is_some_and(|number| number > *limit),
            Test::Below(limit) => number().is_some_and(|number| number < *limit),
        }
    })
}

fn parse_labels(text: &str) -> Result<Vec<Requirement>> {
    split_outside_parentheses(text).map(|part| parse_label(part.trim(), text)).collect()
}

fn parse_label(part: &str, all: &str) -> Result<Requirement> {
    let wrong = || Failure::bad_request(format!("unable to parse requirement: {part:?} of {all:?}"));
    let requirement = |key: &str, test| {
        let key = key.trim();
        let is_name = |each: char| each.is_ascii_alphanumeric() || "-_./".contains(each);
        if key.is_empty() || !key.chars().all(is_name) {
            return Err(wrong());
        }
        Ok(Requirement { key: key.into(), test })
    };
    if let Some(inner) = part.strip_suffix(')') {
        let (head, values) = inner.split_once('(').ok_or_else(wrong)?;
        let values = values.split(',').map(|value| value.trim().to_owned()).collect();
        let head = head.trim_end();
        if let Some(key) = head.strip_suffix(" notin") {
            return requirement(key, Test::NotIn(values));
        }
        return requirement(head.strip_suffix(" in").ok_or_else(wrong)?, Test::In(values));
    }
    let one = |value: &str| vec![value.trim().to_owned()];
    if let Some((key, value)) = part.split_once("!=") {
        return requirement(key, Test::NotIn(one(value)));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return requirement(key, Test::In(one(value)));
    }
    if let Some((key, value)) = part.split_once('>') {
        return requirement(key, Test::Above(value.trim().parse().map_err(|_| wrong())?));
    }
    if let Some((key, value)) = part.split_once('<') {
        return requirement(key, Test::Below(value.trim().parse().map_err(|_| wrong())?));
    }
    match part.strip_prefix('!') {
        Some(key) => requirement(key, Test::Absent),
        None => requirement(part, Test::Exists),
    }
}

/// Parts between commas that are in no parentheses.
fn split_outside_parentheses(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    text.split(move |each| {
        match each {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        each == ',' && depth == 0
    })
    .filter(|part| !part.trim().is_empty())
}

fn parse_fields(text: &str, is_custom: bool) -> Result<Vec<FieldRequirement>> {
    text.split(',')
        .filter(|part| !part.trim().is_empty())
        .map(|part| parse_field(part.trim(), is_custom))
        .collect()
}

fn parse_field(part: &str, is_custom: bool) -> Result<FieldRequirement> {
    let wrong = || Failure::bad_request(format!("invalid field selector: {part:?}"));
    let ((path, value), is_equal) = match part.split_once("!=") {
        Some(pair) => (pair, false),
        None => (part.split_once("==").or_else(|| part.split_once('=')).ok_or_else(wrong)?, true),
    };
    if is_custom && !["metadata.name", "metadata.namespace"].contains(&path) {
        return Err(Failure::bad_request(format!("field label not supported: {path}")));
    }
    let path = path.split('.').map(str::to_owned).collect();
    Ok(FieldRequirement { path, value: value.into(), is_equal })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_are_selected_by_equality_sets_and_existence() {
        let labels = json!({"app": "a", "tier": "web", "n": "7"});
        let selected = |text: &str| matches_all(&parse_labels(text).expect("a selector"), labels.as_object());
        for yes in [
            "",
            "app=a",
            "app==a,tier=web",
            "app in (a, b)",
            "app notin (b,c),tier",
            "!gone",
            "x!=1",
            "n>6",
            "n<8",
        ] {
            assert!(selected(yes), "{yes}");
        }
        for no in ["app=b", "app!=a", "app in (b,c)", "app notin (a)", "gone", "!app", "n>7", "app>1"] {
            assert!(!selected(no), "{no}");
        }
        for wrong in ["app in a", "a b", "=", "n>x", "app is (a)"] {
            assert!(parse_labels(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn fields_are_selected_by_equality() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "hostNetwork": true}});
        let selected = |text: &str| {
            let fields = parse_fields(text, false).expect("a selector");
            fields.iter().all(|field| field.matches(&pod))
        };
        for yes in [
            "metadata.name=p",
            "spec.nodeName==n",
            "status.phase!=Running",
            "status.phase=",
            "spec.hostNetwork=true",
        ] {
            assert!(selected(yes), "{yes}");
        }
        for no in ["metadata.name=q", "spec.nodeName!=n", "spec.nodeName="] {
            assert!(!selected(no), "{no}");
        }
        assert!(parse_fields("spec.x=1", true).is_err() && parse_fields("name", false).is_err());
    }
}
