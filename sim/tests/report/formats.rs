//! JSON and CSV against what is published about them.

use std::collections::BTreeSet;

use pilotlight_sim::report::csv::{POINT_COLUMNS, outcomes, timelines};
use pilotlight_sim::report::{Page, ReportedRun, json};
use pilotlight_sim::{Metric, Outcome, Point};
use serde_json::Value;

use crate::samples;

/// A page with every optional field.
fn full() -> Page {
    let mut page = samples::search();
    let margins = samples::comparison().runs[1].margins.clone();
    page.runs[0].margins = margins;
    page.runs[0].outcome.slo_fraction = Some(0.97);
    page
}

/// Walks a value along the schema: every field must be described, typed and, where required, present. What it
/// meets is noted, so that what the schema has too much of shows.
struct Walk<'a> {
    schema: &'a Value,
    met: BTreeSet<String>,
    wrong: Vec<String>,
}

impl Walk<'_> {
    fn check(&mut self, path: &str, rule: &Value, value: &Value) {
        let rule = match rule["$ref"].as_str() {
            Some(reference) => {
                let name = reference.strip_prefix("#/$defs/").unwrap();
                self.met.insert(format!("$defs/{name}"));
                &self.schema["$defs"][name]
            }
            None => rule,
        };
        if let Some(expected) = rule.get("const") {
            if expected != value {
                self.wrong.push(format!("{path}: not {expected}"));
            }
            return;
        }
        let types: Vec<&str> = match &rule["type"] {
            Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
            one => one.as_str().into_iter().collect(),
        };
        let found = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_u64() => "integer",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let is_number = found == "integer" && types.contains(&"number");
        if !types.contains(&found) && !is_number {
            self.wrong.push(format!("{path}: {found}, not one of {types:?}"));
        }
        if let Some(items) = value.as_array() {
            items.iter().for_each(|item| self.check(&format!("{path}[]"), &rule["items"], item));
        }
        let Some(fields) = value.as_object() else { return };
        for required in rule["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !fields.contains_key(required) {
                self.wrong.push(format!("{path}: {required} is missing"));
            }
        }
        for (name, field) in fields {
            let inner = format!("{path}.{name}");
            match (rule["properties"].get(name), rule.get("additionalProperties")) {
                (Some(rule), _) => {
                    if rule["description"].as_str().is_none_or(str::is_empty) {
                        self.wrong.push(format!("{inner} is not described"));
                    }
                    self.met.insert(format!("{path}.{name}"));
                    self.check(&inner, rule, field);
                }
                (None, Some(rule)) => self.check(&inner, rule, field),
                (None, None) => self.wrong.push(format!("{inner} is not in the schema")),
            }
        }
    }

    /// Fields of the schema that no value had.
    fn unmet(&self, path: &str, rule: &Value, unmet: &mut Vec<String>) {
        let rule = match rule["$ref"].as_str() {
            Some(reference) => &self.schema["$defs"][reference.strip_prefix("#/$defs/").unwrap()],
            None => rule,
        };
        if rule["items"].is_object() {
            self.unmet(&format!("{path}[]"), &rule["items"], unmet);
        }
        for (name, rule) in rule["properties"].as_object().into_iter().flatten() {
            let inner = format!("{path}.{name}");
            if !self.met.contains(&inner) {
                unmet.push(inner.clone());
            }
            self.unmet(&inner, rule, unmet);
        }
    }
}

fn walked(page: &Page) -> (Vec<String>, Vec<String>) {
    let schema: Value = serde_json::from_str(include_str!("../../schema/outcome.v1.json")).unwrap();
    let document: Value = serde_json::from_str(&json::page(page)).unwrap();
    let mut walk = Walk { schema: &schema, met: BTreeSet::new(), wrong: Vec::new() };
    walk.check("", &schema, &document);
    let mut unmet = Vec::new();
    walk.unmet("", &schema, &mut unmet);
    (walk.wrong, unmet)
}

#[test]
fn the_schema_has_every_field_of_a_page_and_no_other() {
    let (wrong, unmet) = walked(&full());
    assert_eq!((wrong, unmet), (Vec::<String>::new(), Vec::<String>::new()));
}

#[test]
fn a_page_without_anything_optional_is_as_the_schema_says_too() {
    let bare = Page { runs: vec![ReportedRun::new("", Outcome::default())], ..Page::default() };
    assert_eq!(walked(&bare).0, Vec::<String>::new());
}

#[test]
fn json_is_the_same_for_the_same_page() {
    assert_eq!(json::page(&full()), json::page(&full()));
    assert!(json::page(&full()).starts_with("{\n  \"schema\": 1,\n"));
}

#[test]
fn the_documented_columns_are_those_that_are_written() {
    let documented = |text: &str| -> Vec<String> {
        let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
        rows.flat_map(|names| names.split(", ").map(|name| name.trim_matches('`').to_owned())).collect()
    };
    let header =
        |csv: &str| -> Vec<String> { csv.lines().next().unwrap().split(',').map(str::to_owned).collect() };
    let (runs, timeline) = include_str!("../../schema/README.md").split_once("## Timelines").unwrap();
    assert_eq!(documented(runs), header(&outcomes(&[])));
    assert_eq!(documented(timeline), header(&timelines(&[])));
}

#[test]
fn the_columns_of_a_timeline_are_the_fields_of_a_point() {
    let point = Point {
        at_s: 1.0,
        arrivals_per_s: 2.0,
        completions_per_s: 3.0,
        failures_per_s: 4.0,
        in_flight: 5.0,
        queued: 6.0,
        target: 7.0,
        wanted: 8.0,
        ready: 9.0,
        starting: 10.0,
        pending: 11.0,
        terminating: 12.0,
        nodes: 13.0,
        panic_fraction: 14.0,
        latency_p50_s: 15.0,
        latency_p95_s: 16.0,
        latency_max_s: 17.0,
    };
    let fields = serde_json::to_value(point).unwrap();
    assert_eq!(fields.as_object().unwrap().len(), POINT_COLUMNS.len());
    for column in POINT_COLUMNS {
        assert_eq!(fields[column.name], (column.value)(&point), "{}", column.name);
    }
}

#[test]
fn a_row_has_a_field_for_every_column_and_quotes_what_needs_it() {
    let runs =
        [ReportedRun::new("a, \"b\"", samples::SKETCH.outcome(1)), ReportedRun::new("c", Outcome::default())];
    let text = outcomes(&runs);
    let rows: Vec<&str> = text.split_terminator("\r\n").collect();
    assert_eq!(rows.len(), 3);
    assert!(rows[1].starts_with("\"a, \"\"b\"\"\",1,1200,"));
    assert_eq!(rows[2].split(',').count(), 3 + Metric::names().count());
    let at = rows[0].split(',').position(|name| name == "slo").unwrap();
    assert_eq!(rows[2].split(',').nth(at), Some(""));
    let timeline = timelines(&runs);
    assert_eq!(timeline.lines().count(), 1 + 1_200);
    assert!(timeline.lines().skip(1).all(|line| line.ends_with(|c: char| c.is_ascii_digit())));
}
