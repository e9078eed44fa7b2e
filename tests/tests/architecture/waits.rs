//! Tests wait for conditions and count events: none asserts how fast something was, none sleeps for luck.
//!
//! Under a paused clock (`start_paused`) both are exact, and allowed. A deadline is no assertion: `timeout(..)` and
//! `eventually(..)` say when to give up, and may be long.

use crate::source::Source;
use crate::{Crate, Ratchet, crates};

/// Crates that are not there yet, with the most looks at a clock in their tests. Lower it; never raise it.
const CLOCKS_NOT_YET: &[(&str, usize)] =
    &[("pilotlight-net", 3), ("pilotlight-queue-proxy", 3), ("pilotlight-tests", 6)];

/// The same for sleeps. The harness has one for each place that looks again and again for a condition.
const SLEEPS_NOT_YET: &[(&str, usize)] = &[
    ("pilotlight-activator", 1),
    ("pilotlight-net", 4),
    ("pilotlight-queue-proxy", 5),
    ("pilotlight-tests", 5),
];

#[test]
fn tests_do_not_measure_how_fast_something_was() {
    let ratchet = count("looks at a clock in tests", CLOCKS_NOT_YET, &[".elapsed()", ".duration_since("]);
    ratchet.hold();
}

#[test]
fn tests_do_not_sleep() {
    let ratchet = count("sleeps in tests", SLEEPS_NOT_YET, &["sleep(", "sleep_until("]);
    ratchet.hold();
}

fn count(what: &'static str, not_yet: &[(&'static str, usize)], words: &[&str]) -> Ratchet {
    let mut ratchet = Ratchet::new(what, not_yet);
    for Crate { name, sources } in crates() {
        let mut found = 0;
        for source in &sources {
            for (line, code) in in_real_time(source) {
                if words.iter().any(|word| is_called(code, word)) {
                    println!("{}:{line}: {}", source.path.display(), code.trim());
                    found += 1;
                }
            }
        }
        ratchet.count(&name, found);
    }
    ratchet
}

/// Lines of tests whose clock is not paused. Benches and programs are no tests.
fn in_real_time(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    let folder = |name: &str| source.path.iter().any(|part| part == name);
    let is_test_crate = source.path.starts_with("tests/src");
    let is_program = folder("benches") || folder("examples") || folder("bin") || folder("fuzz");
    let mut is_test = source.is_for_tests() || is_test_crate;
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
        is_test && !is_paused && !is_program
    })
}

fn is_called(code: &str, word: &str) -> bool {
    let before = |at: usize| code[..at].chars().next_back();
    let is_whole = |at: usize| !before(at).is_some_and(|last| last.is_alphanumeric() || last == '_');
    code.match_indices(word).any(|(at, _)| word.starts_with('.') || is_whole(at))
}

#[test]
fn tests_with_a_paused_clock_are_told_from_others() {
    let code = "fn f() {}\nmod tests {\n    #[tokio::test(start_paused = true)]\n    async fn a() {\n        sleep(x);\n    }\n\
                #[test]\nfn b() {\n    is_asleep(x);\n    sleep(x);\n}\n}\n";
    let source = Source::parse("some/src/file.rs".into(), code);
    let slept: Vec<_> = in_real_time(&source).filter(|(_, code)| is_called(code, "sleep(")).collect();
    assert_eq!(slept, [(10, "    sleep(x);")]);
}
