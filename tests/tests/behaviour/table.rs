//! The table of `docs/behaviour.md` says only what is so.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// One row: the number of the case, what must happen, and what proves it.
struct Row {
    number: usize,
    what: String,
    proof: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

fn rows() -> Vec<Row> {
    let page = fs::read_to_string(root().join("docs/behaviour.md")).expect("the page");
    let rows = page.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
        let [number, what, proof] = cells.as_slice() else { panic!("three cells: {line}") };
        let number = number.parse().ok()?;
        Some(Row { number, what: (*what).to_owned(), proof: (*proof).to_owned() })
    });
    rows.collect()
}

/// The tests a cell names, as `path/of/file.rs::name`.
fn tests_in(proof: &str) -> Vec<(&str, &str)> {
    proof
        .split('`')
        .filter_map(|word| word.split_once("::"))
        .filter(|(file, _)| file.ends_with(".rs"))
        .collect()
}

fn is_test(file: &str, name: &str) -> bool {
    let source = fs::read_to_string(root().join(file)).unwrap_or_default();
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    lines.iter().enumerate().any(|(at, line)| {
        let declared = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        let is_it = declared.and_then(|rest| rest.split_once('(')).is_some_and(|(found, _)| found == name);
        is_it
            && lines[..at]
                .iter()
                .rev()
                .take_while(|line| line.starts_with('#'))
                .any(|line| line.contains("test"))
    })
}

#[test]
fn every_case_has_one_row_and_says_what_must_happen() {
    let rows = rows();
    let numbers: Vec<usize> = rows.iter().map(|row| row.number).collect();
    assert_eq!(numbers, (1..=93).collect::<Vec<_>>());
    for row in rows {
        assert!(row.what.len() > 10, "case {}: {:?}", row.number, row.what);
    }
}

#[test]
fn every_case_names_tests_that_exist_or_says_why_there_are_none() {
    let mut wrong = Vec::new();
    for Row { number, proof, .. } in rows() {
        let tests = tests_in(&proof);
        let has_reason =
            ["differs: ", "not yet: ", "Kubernetes adapter: "].iter().any(|word| proof.contains(word));
        if tests.is_empty() && !has_reason {
            wrong.push(format!("case {number} has neither a test nor a reason: {proof}"));
        }
        let missing = tests.into_iter().filter(|(file, name)| !is_test(file, name));
        wrong.extend(missing.map(|(file, name)| format!("case {number}: no test {name} in {file}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_search_for_tests_finds_tests_and_nothing_else() {
    let this = "tests/tests/behaviour/table.rs";
    assert!(is_test(this, "the_search_for_tests_finds_tests_and_nothing_else"));
    assert!(is_test(
        "tests/tests/mixed/main.rs",
        "nothing_is_lost_or_cut_while_one_pod_becomes_eight_and_one_again"
    ));
    for (file, name) in [(this, "root"), (this, "no_such_test"), ("no/such/file.rs", "is_test")] {
        assert!(!is_test(file, name), "{file}::{name}");
    }
    let all: BTreeSet<_> = tests_in("`a/b.rs::c`, d, and `e.rs::f`; not `g::h`").into_iter().collect();
    assert_eq!(all, [("a/b.rs", "c"), ("e.rs", "f")].into());
}
