//! The command line as people use it: pipes that close early, files that are cut, slips of the fingers.

use std::io::Read;
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
    assert!(explained.stdout.contains("default/hello: - -> 1 [stable-demand]"), "{explained:?}");
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
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("default/one: cannot run /no/such/program"), "{ended:?}");
    assert!(ended.stderr.contains("default/three: cannot run no-such-program-in-path"), "{ended:?}");
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
