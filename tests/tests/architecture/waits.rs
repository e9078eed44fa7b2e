//! Tests wait for conditions and count events: none asserts how fast something was, none sleeps for luck.
//!
//! Under a paused clock (`start_paused`) both are exact, and allowed. "Not before" (`elapsed() >= ..`) is allowed as well:
//! a slow machine cannot break it. A deadline is no assertion: `timeout(..)` and `eventually(..)` say when to give up, and
//! may be long.

use std::collections::BTreeSet;

use crate::source::Source;
use crate::{Crate, crates};

/// Files whose tests look at the clock, and the reason.
const CLOCKS: &[(&str, &str)] = &[
    ("net/tests/http/server.rs", "a connection is used for longer than a limit"),
    ("net/tests/http/upgrade.rs", "a client talks for longer than a limit"),
    ("tests/src/cluster/api/table.rs", "an API server shows how old objects are"),
    ("tests/tests/fidelity.rs", "a run begins with an even second, as a simulated one"),
];

/// Files whose tests sleep, and the reason.
const SLEEPS: &[(&str, &str)] = &[
    ("activator/tests/it/harness.rs", LOOKS_AGAIN),
    ("autoscaler/src/ingest/tests.rs", LOOKS_AGAIN),
    ("controller/src/data/start/tests.rs", LOOKS_AGAIN),
    ("controller/src/leader/work/tests.rs", LOOKS_AGAIN),
    ("net/tests/http/support.rs", LOOKS_AGAIN),
    ("net/tests/tls/support.rs", LOOKS_AGAIN),
    ("queue-proxy/src/readiness/tests.rs", "an app that is slow to answer"),
    ("queue-proxy/tests/proxy/support.rs", LOOKS_AGAIN),
    ("tests/src/lib.rs", LOOKS_AGAIN),
    ("tests/tests/campaign/run.rs", "faults and changes that come at times drawn from a seed"),
    ("tests/tests/fidelity.rs", "load that comes by a schedule"),
    ("tests/tests/mixed/clients.rs", "clients with pauses between their requests"),
];

const LOOKS_AGAIN: &str = "looks again and again for a condition, until a deadline";

#[test]
fn tests_do_not_measure_how_fast_something_was() {
    let is_look = |code: &str| {
        let is_not_before = code.contains(".elapsed() >=");
        !is_not_before && [".elapsed()", ".duration_since("].iter().any(|word| code.contains(word))
    };
    assert_only_in(CLOCKS, is_look);
}

#[test]
fn tests_do_not_sleep() {
    assert_only_in(SLEEPS, |code| ["sleep", "sleep_until"].iter().any(|name| calls(code, name)));
}

fn assert_only_in(allowed: &[(&str, &str)], is_offence: impl Fn(&str) -> bool) {
    let mut unused: BTreeSet<_> = allowed.iter().map(|(file, _)| *file).collect();
    let mut faults = Vec::new();
    let crates = crates();
    for source in crates.iter().flat_map(|Crate { sources, .. }| sources) {
        let file = source.path.to_str().expect("a plain name");
        for (line, code) in in_real_time(source).filter(|(_, code)| is_offence(code)) {
            println!("{file}:{line}: {}", code.trim());
            if !unused.remove(file) && !allowed.iter().any(|(allowed, _)| *allowed == file) {
                faults.push(format!("{file}:{line}: {}", code.trim()));
            }
        }
    }
    assert!(faults.is_empty(), "wait for a condition, count, or pause the clock: {faults:#?}");
    assert!(unused.is_empty(), "take off the list: {unused:#?}");
}

/// Lines of tests whose clock is not paused. Benches and programs are no tests.
fn in_real_time(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    let is_below = |folder: &str| source.path.iter().any(|part| part == folder);
    let is_program = ["benches", "examples", "bin", "fuzz"].into_iter().any(is_below);
    // What tests share is paused if all of them are.
    let tests = || source.lines().filter(|(_, code)| code.trim().starts_with("#[tokio::test"));
    let is_all_paused = tests().count() > 0 && tests().all(|(_, code)| code.contains("start_paused"));
    let mut is_test = source.is_for_tests() || source.path.starts_with("tests/src");
    let (mut is_paused, mut attributes) = (false, String::new());
    source.lines().filter(move |(_, code)| {
        is_test |= code.starts_with("mod tests {");
        let code = code.trim();
        if code.starts_with("#[") {
            attributes += code;
        } else if code.contains("fn ") && !code.ends_with(';') {
            is_paused = attributes.contains("start_paused");
            attributes.clear();
        }
        is_test && !is_paused && !is_all_paused && !is_program
    })
}

fn calls(code: &str, name: &str) -> bool {
    let is_word = |each: char| each.is_alphanumeric() || each == '_';
    code.match_indices(name)
        .any(|(at, _)| !code[..at].ends_with(is_word) && code[at + name.len()..].starts_with('('))
}

#[test]
fn tests_with_a_paused_clock_are_told_from_others() {
    let mixed = "fn f() {}\nmod tests {\n#[tokio::test(start_paused = true)]\nasync fn a() {\n    sleep(x);\n}\n\
                 #[tokio::test]\nasync fn b() {\n    is_asleep(x);\n    sleep(x);\n}\n}\n";
    let slept = |code: &str| {
        let source = Source::parse("some/src/file.rs".into(), code);
        in_real_time(&source)
            .filter(|(_, code)| calls(code, "sleep"))
            .map(|(line, _)| line)
            .collect::<Vec<_>>()
    };
    assert_eq!(slept(mixed), [10]);
    let paused = "mod tests {\n#[tokio::test(start_paused = true)]\nasync fn a() {}\nfn helper() {\n    sleep(x);\n}\n}\n";
    assert_eq!(slept(paused), [0; 0]);
}
