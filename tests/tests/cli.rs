//! The command line as people use it: pipes that close early, files that are cut, slips of the fingers.

use std::io::Read;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use pilotlight_tests::manifest::{arg, file, service, text_file};
use pilotlight_tests::run::{Pilotlight, run_to_end};
use pilotlight_tests::{SOON, binary, eventually};
use rustix::process::Signal;
use serde_json::Value;

/// A journal with one decision: a pod, and none again.
async fn journal() -> String {
    let journal = tempfile::NamedTempFile::new().expect("a temporary file");
    let mut pilotlight = Pilotlight::sample(&["--name", "hello", "--journal", arg(journal.path())]).await;
    assert_eq!(pilotlight.get("/").await.status, 200);
    pilotlight.signal(Signal::INT);
    pilotlight.exit(SOON).await;
    std::fs::read_to_string(journal.path()).expect("text")
}

#[tokio::test]
async fn a_journal_that_was_cut_off_is_explained_and_replayed_as_far_as_it_goes() {
    let text = journal().await;
    let last = text.trim_end().lines().last().expect("a line").to_owned();
    let cut = text_file(&format!("{text}{}", &last[..last.len() / 2]));
    let explained = run_to_end(["explain", "--journal", arg(cut.path()), "hello"]).await;
    assert_eq!(explained.code, Some(0), "{explained:?}");
    assert!(explained.stdout.contains("default/hello: start at 1 [stable-demand]"), "{explained:?}");
    let unknown = run_to_end(["explain", "--journal", arg(cut.path()), "helo"]).await;
    assert_eq!(unknown.stderr, "error: no decision about helo; there is default/hello");
    let replayed = run_to_end(["sim", "replay", arg(cut.path())]).await;
    assert_eq!(replayed.code, Some(0), "{replayed:?}");
    assert!(replayed.stdout.contains("\"differing\": 0"), "{replayed:?}");
}

#[tokio::test]
async fn what_is_no_journal_is_named_with_its_line_and_said_once() {
    let wrong = text_file("no journal\n{}\n");
    for command in [&["explain", "--journal"][..], &["sim", "replay"]] {
        let ended = run_to_end(command.iter().copied().chain([arg(wrong.path())])).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let told = format!("{}: line 1: not a record of a decision: ", arg(wrong.path()));
        assert!(ended.stderr.contains(&told), "{ended:?}");
        assert_eq!(ended.stderr.matches("expected").count(), 1, "{ended:?}");
    }
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_is_no_error() {
    let text = text_file(&journal().await);
    for args in [&["explain", "--journal", arg(text.path())][..], &["sim", "replay", arg(text.path())]] {
        let mut command = Command::new(binary());
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("started");
        drop(process.stdout.take());
        let status = eventually("the exit", SOON, async || process.try_wait().expect("our child")).await;
        let mut stderr = String::new();
        process.stderr.take().expect("piped").read_to_string(&mut stderr).expect("text");
        assert!(status.success() && stderr.is_empty(), "{args:?}: {status}: {stderr}");
    }
}

#[tokio::test]
async fn a_command_without_the_two_dashes_is_told_about_them() {
    let ended = run_to_end(["run", "./app", "--port", "{port}"]).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("pilotlight run [OPTIONS] -- ./app"), "{ended:?}");
}

#[tokio::test]
async fn every_workload_that_cannot_run_here_is_named() {
    let manifest = file(&[
        service("one", &[], &["/no/such/program"]),
        service("two", &[], &["sleep", "1"]),
        service("three", &[], &["no-such-program-in-path"]),
    ]);
    let ended = run_to_end(["run", "--listen", "127.0.0.1:0", "-f", arg(manifest.path())]).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("default/one: cannot run /no/such/program"), "{ended:?}");
    assert!(ended.stderr.contains("default/three: cannot run no-such-program-in-path"), "{ended:?}");
}

#[tokio::test]
async fn every_program_refuses_wrong_settings_in_the_same_words_and_with_2() {
    for args in [
        &["run", "--max", "abc", "--min", "x", "--", "sleep", "1"][..],
        &["run", "-f", "/none.yaml"],
        &["run"],
        &["run", "--listen", "here", "--sample"],
        &["lint", "/none.yaml"],
        &["activator", "--autoscaler", "http://x", "--endpoints", "y"],
        &["activator", "--drain-wait", "1"],
        &["autoscaler", "-f", "/none.yaml", "--pilotlight", "/none"],
        &["queue-proxy"],
        &["queue-proxy", "--serve"],
        &["rnu"],
    ] {
        let ended = run_to_end(args.iter().copied()).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{args:?}: {ended:?}");
        let is_fault = |line: &&str| !line.is_empty() && !line.starts_with(' ');
        let mut faults = ended.stderr.lines().filter(is_fault).take_while(|line| !line.starts_with("Usage:"));
        let is_followed = |line: &str| line.starts_with("error: ") || line.starts_with("For more");
        assert!(ended.stderr.starts_with("error: ") && faults.all(is_followed), "{args:?}: {ended:?}");
    }
}

#[tokio::test]
async fn slips_are_answered_with_what_was_meant() {
    for (args, told) in [
        (&["rnu"][..], "a similar subcommand exists: 'run'"),
        (&["smi"], "a similar subcommand exists: 'sim'"),
        (&["run", "./app"], "the command comes after two dashes"),
        (&["run", "--", "sleep 1"], "this is one word; without the quotes it is sleep and its arguments"),
        (&["run", "--listen", "here", "--sample"], "such as 127.0.0.1:8080 or 8080"),
        (&["explain", "--admin", "http://here"], "such as 127.0.0.1:8080 or 8080"),
        (&["man", "rnu"], "there is no command rnu; there is run, demo, "),
    ] {
        let ended = run_to_end(args.iter().copied()).await;
        assert!(ended.code == Some(2) && ended.stderr.contains(told), "{args:?}: {ended:?}");
    }
}

#[tokio::test]
async fn completions_manual_pages_and_the_version_are_printed() {
    for (args, told) in [
        (&["completions", "bash"][..], "_pilotlight()"),
        (&["completions", "zsh"], "#compdef pilotlight"),
        (&["completions", "fish"], "complete -c pilotlight"),
        (&["man"], ".TH pilotlight"),
        (&["man", "run"], "pilotlight\\-run"),
        (&["version"], "pilotlight 0."),
    ] {
        let ended = run_to_end(args.iter().copied()).await;
        assert!(ended.code == Some(0) && ended.stdout.contains(told), "{args:?}: {ended:?}");
    }
}

#[tokio::test]
async fn of_a_flag_given_twice_the_last_counts_and_a_port_alone_is_an_address() {
    let flags =
        ["--target", "1", "--target", "2", "--listen", "1", "--listen", ":2", "--admin", "localhost:3"];
    let ended = run_to_end(["run", "--check-config", "--sample"].iter().chain(&flags)).await;
    let told = "requests: 127.0.0.1:2, admin port: 127.0.0.1:3";
    assert!(ended.code == Some(0) && ended.stdout.contains(told), "{ended:?}");
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_told_with_its_reason_once() {
    for args in
        [&["run", "-f", "/none.yaml"][..], &["lint", "/none.yaml"], &["autoscaler", "-f", "/none.yaml"]]
    {
        let ended = run_to_end(args.iter().copied()).await;
        let told = "error: cannot read /none.yaml: No such file or directory (os error 2)";
        assert_eq!(ended.stderr, told, "{args:?}");
    }
}

#[tokio::test]
async fn a_check_of_the_settings_says_what_is_in_force_and_opens_no_port() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken.local_addr().expect("bound").to_string();
    let manifest = file(&[service("one", &[], &["sleep", "1"]), service("two", &[], &["sleep", "1"])]);
    let manifest = arg(manifest.path());
    let run = ["run", "--check-config", "--listen", &taken, "--admin", &taken, "-f", manifest];
    let ended = run_to_end(run).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let requests = format!("requests: {taken}, admin port: {taken}");
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines, ["configuration is valid", "services: default/one, default/two", &requests]);

    let autoscaler = ["autoscaler", "--check-config", "--listen", &taken, "--admin", &taken, "-f", manifest];
    let ended = run_to_end(autoscaler).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.starts_with("configuration is valid\nworkloads: default/one, default/two"),
        "{ended:?}"
    );
    assert!(ended.stdout.ends_with(&format!("stats: {taken}, admin port: {taken}")), "{ended:?}");
}

#[tokio::test]
async fn help_lists_the_flags_that_all_have_and_the_variables() {
    for program in ["run", "activator", "autoscaler", "queue-proxy"] {
        let help = run_to_end([program, "--help"]).await;
        assert_eq!(help.code, Some(0), "{help:?}");
        let flags = ["--admin <ADDRESS>", "--log-format <FORMAT>", "--log-level <LEVEL>", "--check-config"];
        for word in flags.iter().chain(&["Environment:", "PILOTLIGHT_LOG_FORMAT", "RUST_LOG"]) {
            assert!(help.stdout.contains(word), "{word} in the help of {program}:\n{}", help.stdout);
        }
        assert!(!help.stdout.contains("--log-json"), "{}", help.stdout);
    }
}

#[tokio::test]
async fn machines_read_every_line_as_json_also_when_nothing_starts() {
    let mut pilotlight = Pilotlight::sample(&[]).await;
    assert_eq!(pilotlight.get("/").await.status, 200);
    let listen = pilotlight.address.to_string();
    let ended = run_to_end(["run", "--sample", "--log-format", "json", "--listen", &listen]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("in use") && ended.stderr.contains("--listen"), "{ended:?}");
    pilotlight.signal(Signal::INT);
    pilotlight.exit(SOON).await;
    pilotlight.nothing_is_left().await;
    let said = pilotlight.said();
    assert!(said.contains("\"event\":\"summary\""), "{said}");
    for line in said.lines().chain(ended.stderr.lines()) {
        assert!(serde_json::from_str::<Value>(line).is_ok_and(|line| line.is_object()), "{line}");
    }
}
