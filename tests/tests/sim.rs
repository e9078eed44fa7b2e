//! The simulator as people use it: every command of its README and of its page in the docs, run as it is written; exit
//! codes; the same seed twice.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};

use pilotlight_tests::binary;
use pilotlight_tests::manifest::{arg, text_file};

#[test]
fn the_commands_of_the_readme_do_what_it_says() {
    run_page("sim/README.md", 8);
}

#[test]
fn the_commands_of_the_docs_do_what_they_say() {
    run_page("docs/simulation.md", 8);
}

/// Runs what stands after `$` in the `console` blocks of a page. The lines below each are to be in what it prints, on
/// one line each, however they are spaced; `...` stands for lines that are left out.
fn run_page(page: &str, least: usize) {
    let text = fs::read_to_string(root().join(page)).expect("the page");
    let mut faults = String::new();
    let mut commands = 0;
    let mut printed = String::new();
    let mut in_console = false;
    for line in text.lines() {
        if line.starts_with("```") {
            in_console = line == "```console";
        } else if !in_console {
        } else if let Some(command) = line.strip_prefix("$ ") {
            commands += 1;
            let output = shell(command);
            if !output.status.success() {
                let stderr = String::from_utf8_lossy(&output.stderr);
                let _ = writeln!(faults, "$ {command}\n  {}: {stderr}", output.status);
            }
            printed = String::from_utf8(output.stdout).expect("text");
        } else if line.trim() != "..."
            && !printed.lines().any(|printed| spaced(printed).contains(&spaced(line)))
        {
            let _ = writeln!(faults, "  not printed: {line}");
        }
    }
    assert!(faults.is_empty(), "{page}:\n{faults}");
    assert!(commands >= least, "{page} has {commands} commands only");
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
    let run = |seed: &str| {
        let output = pilotlight(&[
            "sim",
            "run",
            "--rate",
            "50",
            "--for",
            "1m",
            "--service-time",
            "exponential:80ms",
            "--startup",
            "1s",
            "--format",
            "json",
            "--seed",
            seed,
        ]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        output.stdout
    };
    assert_eq!(run("7"), run("7"));
    assert_ne!(run("7"), run("8"));
}

#[test]
fn an_assertion_that_fails_is_told_with_the_value_and_ends_with_one() {
    let command =
        ["sim", "run", "--rate", "10", "--for", "10s", "--service-time", "100ms", "--startup", "1s"];
    let with = |assertion: &str| pilotlight(&[&command[..], &["--assert", assertion]].concat());
    assert_eq!(with("p99<300ms && errors==0").status.code(), Some(0));
    let failed = with("p50<50ms");
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    let told = "assertion failed: p50<50ms (defaults, seed 1): p50 is 100 ms, not below 50 ms";
    assert_eq!(String::from_utf8_lossy(&failed.stderr).trim(), told);
}

#[test]
fn a_command_that_is_none_and_a_faulty_scenario_end_with_two() {
    for usage in [
        &["sim", "run"][..],
        &["sim", "run", "--rate", "5"],
        &["sim", "run", "--rte", "5"],
        &["sim", "run", "a.yaml", "--assert", "p99<"],
        &["sim", "tune", "a.yaml", "--minimize", "pods"],
        &["sim", "compare", "a.yaml", "--runs", "1"],
    ] {
        let output = pilotlight(usage);
        assert_eq!(output.status.code(), Some(2), "{usage:?}: {output:?}");
    }
    let faulty = text_file("load: {constant: {rate: 5, for: 1m}}\napp: {service-time: 5}\npods: {int: 2s}\n");
    let output = pilotlight(&["sim", "run", arg(faulty.path())]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let faults: Vec<&str> = stderr.lines().filter(|line| !line.starts_with("warning: ")).collect();
    assert_eq!(faults.len(), 2, "{stderr}");
    assert!(
        faults[0].contains("app.service-time: \"5\": a number needs a unit")
            && faults[1].contains("did you mean `init`?"),
        "{stderr}"
    );
}

#[test]
fn reports_timelines_and_rows_land_where_they_are_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let (timeline, report) = (folder.path().join("t.csv"), folder.path().join("r.html"));
    let output = pilotlight(&[
        "sim",
        "run",
        "--users",
        "5",
        "--for",
        "30s",
        "--service-time",
        "100ms",
        "--startup",
        "1s",
        "--format",
        "csv",
        "--runs",
        "3",
        "--timeline",
        arg(&timeline),
        "--report",
        arg(&report),
    ]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let rows = String::from_utf8(output.stdout).expect("text");
    assert_eq!(rows.lines().count(), 1 + 3, "{rows}");
    assert!(fs::read_to_string(timeline).expect("written").lines().count() > 10);
    let page = fs::read_to_string(report).expect("written");
    assert!(page.contains("pilotlight sim run --users 5") && page.contains("</html>"));
}

#[test]
fn a_trace_is_described_and_written_as_plain_csv_that_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let (log, plain) = (folder.path().join("trace.csv"), folder.path().join("plain.csv"));
    fs::write(&log, "app,func,end_timestamp,duration\na,f,10.5,0.5\na,f,12,1\na,f,11,0.25\n")
        .expect("written");
    let output = pilotlight(&["sim", "import", arg(&log), "--out", arg(&plain)]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(said.contains("recognised as azure-functions-2021, 3 requests"), "{said}");
    assert!(said.contains("max 1"), "{said}");
    let output =
        pilotlight(&["sim", "run", "--trace", arg(&plain), "--startup", "1s", "--assert", "requests==3"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn every_example_of_the_help_is_a_command_line_that_is_understood() {
    for verb in ["run", "compare", "sweep", "tune", "capacity", "import"] {
        let help = pilotlight(&["sim", verb, "--help"]);
        let help = String::from_utf8(help.stdout).expect("text");
        let (_, examples) =
            help.split_once("Examples:\n").unwrap_or_else(|| panic!("sim {verb} has examples"));
        // Long ones are wrapped.
        let examples = examples.split_whitespace().collect::<Vec<_>>().join(" ");
        for example in examples.split("pilotlight sim ").skip(1) {
            // Files that nobody has are a fault; a command line that is not understood would point at the help.
            let output = shell(&format!("pilotlight sim {example}"));
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(!stderr.contains("try '--help'"), "{example}: {output:?}");
        }
    }
}

fn pilotlight(args: &[&str]) -> Output {
    Command::new(binary()).args(args).current_dir(root()).output().expect("started")
}

/// Runs a line as a shell at the root of the repository does, with `pilotlight` to be found.
fn shell(line: &str) -> Output {
    let folder = Path::new(binary()).parent().expect("a folder").to_owned();
    let others = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(std::iter::once(folder).chain(env::split_paths(&others))).expect("a path");
    Command::new("sh").args(["-c", line]).env("PATH", path).current_dir(root()).output().expect("a shell")
}

fn spaced(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}
