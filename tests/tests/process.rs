//! Children started through the guard: they run as asked, and they never outlive the starter.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child as Starter, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use pilotlight_local::guard::{Child, Guard, Spawn};
use pilotlight_tests::process::{Mark, is_running, send};
use pilotlight_tests::{SOON, eventually};
use rustix::process::Signal;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

const GUARDED: &str = env!("CARGO_BIN_EXE_guarded");
/// Starts a grandchild, says its number, and stays.
const PARENT: &str = "sleep 1000 & echo $!; wait";

fn guard() -> Guard {
    Guard::start_as(Path::new(GUARDED)).expect("a guard process")
}

fn shell(script: &str) -> Spawn {
    Spawn::new("/bin/sh").arg("-c").arg(script)
}

/// Everything a command says, and how it ends.
async fn outcome(guard: &Guard, command: Spawn) -> (String, String, ExitStatus) {
    let mut child = guard.spawn(command).await.expect("started");
    let (mut out, mut err) = (String::new(), String::new());
    let whole = async {
        child.take_stdout().expect("not taken").read_to_string(&mut out).await.expect("text");
        child.take_stderr().expect("not taken").read_to_string(&mut err).await.expect("text");
        child.wait().await
    };
    let status = timeout(SOON, whole).await.expect("the command ends by itself");
    (out, err, status)
}

/// The first line of a child's output as a number.
async fn said_number(child: &mut Child) -> u32 {
    let mut stdout = child.take_stdout().expect("not taken");
    let mut said = Vec::new();
    while !said.ends_with(b"\n") {
        assert!(stdout.read_buf(&mut said).await.expect("readable") > 0, "no number, but the end");
    }
    String::from_utf8_lossy(&said).trim().parse().expect("a number")
}

async fn gone(what: &str, pid: u32) {
    eventually(&format!("{what} has gone"), SOON, async || (!is_running(pid)).then_some(())).await;
}

#[tokio::test]
async fn output_errors_and_exit_status_arrive() {
    let (out, err, status) = outcome(&guard(), shell("echo out; echo err >&2; exit 3")).await;
    assert_eq!((out.as_str(), err.as_str(), status.code()), ("out\n", "err\n", Some(3)));
}

#[tokio::test]
async fn arguments_environment_and_directory_are_as_asked() {
    let command = Spawn { cwd: Some("/".into()), ..shell("echo \"$0 $1 $GREETING $(pwd)\"") };
    let command = command.arg("--").arg("two words").env("GREETING", "hi");
    assert_eq!(outcome(&guard(), command).await.0, "-- two words hi /\n");
}

#[tokio::test]
async fn standard_input_is_empty() {
    let (out, _, status) = outcome(&guard(), Spawn::new("cat")).await;
    assert_eq!((out.as_str(), status.code()), ("", Some(0)));
}

#[tokio::test]
async fn a_program_that_does_not_exist_exits_with_127_and_is_named() {
    let (_, err, status) = outcome(&guard(), Spawn::new("no-such-program")).await;
    assert_eq!(status.code(), Some(127));
    assert!(err.starts_with("pilotlight: cannot start no-such-program: No such file"), "{err}");
}

#[tokio::test]
async fn a_file_that_is_no_program_exits_with_126_and_is_named() {
    let (_, err, status) = outcome(&guard(), Spawn::new("/etc/passwd")).await;
    assert_eq!(status.code(), Some(126));
    assert!(err.starts_with("pilotlight: cannot start /etc/passwd: Permission denied"), "{err}");
}

#[tokio::test]
async fn a_directory_that_does_not_exist_is_an_error_that_names_it() {
    let command = Spawn { cwd: Some("/no/such/directory".into()), ..Spawn::new("true") };
    let error = guard().spawn(command).await.expect_err("cannot start there").to_string();
    assert!(error.starts_with("cannot start in /no/such/directory: No such file"), "{error}");
}

#[tokio::test]
async fn a_child_can_be_waited_for_again_and_again() {
    let guard = guard();
    let child = guard.spawn(shell("exit 5")).await.expect("started");
    let waiter = child.waiter();
    assert_eq!(child.wait().await.code(), Some(5));
    assert_eq!((child.wait().await.code(), waiter.await.code()), (Some(5), Some(5)));
    assert_eq!(child.exit_status().and_then(|status| status.code()), Some(5));
    // Its number may be anybody's now; neither call may signal it.
    child.terminate();
    child.kill();
}

#[tokio::test]
async fn terminate_asks_the_whole_group_and_lets_it_answer() {
    let guard = guard();
    let script = "trap 'kill $!; exit 7' TERM; sleep 1000 & echo $!; wait";
    let mut child = guard.spawn(shell(script)).await.expect("started");
    let grandchild = said_number(&mut child).await;
    child.terminate();
    assert_eq!(child.wait().await.code(), Some(7));
    gone("the grandchild", grandchild).await;
}

#[tokio::test]
async fn grandchildren_go_when_their_leader_exits() {
    let guard = guard();
    let mut child = guard.spawn(shell("sleep 1000 & echo $!; exit 0")).await.expect("started");
    let grandchild = said_number(&mut child).await;
    assert_eq!(child.wait().await.code(), Some(0));
    gone("the grandchild", grandchild).await;
}

#[tokio::test]
async fn dropping_a_child_kills_its_group() {
    let guard = guard();
    let mut child = guard.spawn(shell(PARENT)).await.expect("started");
    let (leader, grandchild) = (child.pid(), said_number(&mut child).await);
    assert!(is_running(leader) && is_running(grandchild));
    drop(child);
    gone("the child", leader).await;
    gone("the grandchild", grandchild).await;
}

#[tokio::test]
async fn dropping_the_guard_kills_everything_and_ends_the_guard_process() {
    let guard = guard();
    let mut child = guard.spawn(shell(PARENT)).await.expect("started");
    let (guard_pid, grandchild) = (guard.pid().expect("running"), said_number(&mut child).await);
    drop(guard);
    assert!(!is_running(guard_pid));
    assert!(!child.wait().await.success());
    gone("the grandchild", grandchild).await;
}

#[tokio::test]
async fn a_hundred_children_at_once_all_report() {
    let guard = guard();
    let mut children = Vec::new();
    for code in 0..100 {
        children.push(guard.spawn(shell(&format!("exit {code}"))).await.expect("started"));
    }
    for (code, child) in (0..100).zip(children) {
        assert_eq!(child.wait().await.code(), Some(code));
    }
}

/// A process of its own that starts [`PARENT`]s, to be killed.
struct Started {
    mark: Mark,
    starter: Starter,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

/// The process that [`Started::spawn`] has started.
#[derive(Debug)]
struct Family {
    guard: u32,
    child: u32,
}

impl Started {
    fn new() -> Self {
        let mark = Mark::new();
        let mut command = Command::new(GUARDED);
        command.args(["hold", "/bin/sh", "-c", PARENT]).env(Mark::NAME, mark.value());
        let mut starter = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("started");
        let stdin = starter.stdin.take().expect("piped");
        let stdout = BufReader::new(starter.stdout.take().expect("piped"));
        Started { mark, starter, stdin, stdout }
    }

    fn spawn(&mut self) -> Family {
        writeln!(self.stdin).expect("the starter reads");
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("the starter writes");
        let numbers: Vec<u32> = line.split_whitespace().map(|word| word.parse().expect("a number")).collect();
        let [guard, child, grandchild] = numbers[..] else { panic!("three numbers, not {line:?}") };
        assert!([guard, child, grandchild].into_iter().all(is_running), "{line}");
        Family { guard, child }
    }

    /// Kills the starter, and nobody else, with `kill -9`.
    fn kill(&mut self) {
        self.starter.kill().expect("running");
        self.starter.wait().expect("killed");
    }

    async fn nothing_is_left(&self) {
        eventually("nothing is left", SOON, async || self.mark.bearers().is_empty().then_some(())).await;
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.starter.kill();
        let _ = self.starter.wait();
        // Only what a failed test leaves behind.
        self.mark.bearers().iter().for_each(|bearer| send(bearer.pid, Signal::KILL));
    }
}

#[tokio::test]
async fn kill_9_of_the_starter_leaves_nothing() {
    let mut started = Started::new();
    for _ in 0..5 {
        started.spawn();
    }
    assert_eq!(started.mark.bearers().len(), 1 + 1 + 5 + 5);
    started.kill();
    started.nothing_is_left().await;
}

#[tokio::test]
async fn kill_9_of_starter_and_guard_together_leaves_no_child() {
    let mut started = Started::new();
    let family = started.spawn();
    // Stopped first, so that it has no moment to do its work in.
    send(family.guard, Signal::STOP);
    send(family.guard, Signal::KILL);
    started.kill();
    gone("the child", family.child).await;
}

#[tokio::test]
async fn a_guard_process_that_was_killed_is_replaced_and_knows_all_that_is_alive() {
    let mut started = Started::new();
    let before = started.spawn();
    send(before.guard, Signal::KILL);
    gone("the guard process", before.guard).await;
    let after = started.spawn();
    assert_ne!(before.guard, after.guard);
    started.kill();
    started.nothing_is_left().await;
}

#[tokio::test]
async fn polite_signals_do_not_move_the_guard_process() {
    let mut started = Started::new();
    let family = started.spawn();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::TERM] {
        send(family.guard, signal);
    }
    assert_eq!(started.spawn().guard, family.guard);
    started.kill();
    started.nothing_is_left().await;
}

#[tokio::test]
async fn killing_by_the_name_of_the_program_spares_the_guard_process() {
    let mut started = Started::new();
    let family = started.spawn();
    let name = std::fs::read_to_string(format!("/proc/{}/comm", family.guard)).expect("running");
    assert_eq!(name, "pl-guard\n");
    started.kill();
    started.nothing_is_left().await;
}
