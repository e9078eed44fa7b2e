//! The table of `docs/behaviour.md` says only what is so.

use std::collections::HashSet;
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

/// The tests a cell names. A name has several words.
fn tests_in(proof: &str) -> Vec<&str> {
    let is_name = |word: &&str| {
        word.contains('_') && word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
    };
    proof.split('`').skip(1).step_by(2).filter(is_name).collect()
}

/// Every test of the workspace.
fn all_tests() -> HashSet<String> {
    let mut tests = HashSet::new();
    collect_tests(root(), &mut tests);
    tests
}

fn collect_tests(folder: &Path, tests: &mut HashSet<String>) {
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            collect_tests(&path, tests);
        } else if name.ends_with(".rs") {
            tests.extend(tests_of(&fs::read_to_string(&path).expect("text")));
        }
    }
}

/// The functions under an attribute that makes them tests.
fn tests_of(source: &str) -> Vec<String> {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let is_test = |line: &&str| line.starts_with("#[test") || line.starts_with("#[tokio::test");
    let tests = lines.iter().enumerate().filter_map(|(at, line)| {
        let declared = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
        let mut attributes = lines[..at].iter().rev().take_while(|line| line.starts_with('#'));
        attributes.find(|line| is_test(line))?;
        declared.split('(').next().map(str::to_owned)
    });
    tests.collect()
}

#[test]
fn every_case_has_one_row_and_says_what_must_happen() {
    let rows = rows();
    let numbers: Vec<usize> = rows.iter().map(|row| row.number).collect();
    assert_eq!(numbers, (1..=127).collect::<Vec<_>>());
    for row in rows {
        assert!(row.what.len() > 10, "case {}: {:?}", row.number, row.what);
    }
}

#[test]
fn every_case_names_tests_that_exist_or_says_why_there_are_none() {
    let (all, mut wrong) = (all_tests(), Vec::new());
    for Row { number, proof, .. } in rows() {
        let tests = tests_in(&proof);
        let has_reason =
            ["differs: ", "not yet: ", "Kubernetes adapter: "].iter().any(|word| proof.contains(word));
        if tests.is_empty() && !has_reason {
            wrong.push(format!("case {number} has neither a test nor a reason: {proof}"));
        }
        let missing = tests.into_iter().filter(|test| !all.contains(*test));
        wrong.extend(missing.map(|test| format!("case {number}: there is no test {test}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_search_for_tests_finds_tests_and_nothing_else() {
    let all = all_tests();
    for test in ["the_search_for_tests_finds_tests_and_nothing_else", "nothing_stale_survives_a_disconnect"] {
        assert!(all.contains(test), "{test}");
    }
    for other in ["collect_tests", "no_such_test", "main"] {
        assert!(!all.contains(other), "{other}");
    }
    assert_eq!(
        tests_in("differs: `K-A` and `is_a_test`, or `Code` with is_no_test: `another_test`"),
        ["is_a_test", "another_test"]
    );
}
