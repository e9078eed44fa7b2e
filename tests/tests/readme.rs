//! Every command of `README.md`, run as it is written, from the root of the workspace, one after the other.

use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use pilotlight_tests::process::{Mark, send};
use pilotlight_tests::{binary, eventually};
use rustix::process::Signal;

/// Commands that are not run here, by their beginning, and why.
const NOT_RUN: [(&str, &str); 1] = [("cargo ", "a build takes minutes, and this test is part of one")];

#[tokio::test]
async fn every_command_of_the_readme_runs_as_it_is_written() {
    for tool in ["curl", "python3"] {
        if Command::new(tool).arg("--version").output().is_err() {
            println!("{tool} is not installed: the commands of README.md are not run");
            return;
        }
    }
    let text = fs::read_to_string(root().join("README.md")).expect("the page");
    let mut reader = Reader::new();
    let mut faults = String::new();
    let commands = commands(&text);
    for command in &commands {
        if let Err(fault) = reader.type_in(command).await {
            let _ = writeln!(faults, "$ {command}\n  {fault}");
        }
    }
    if let Err(fault) = reader.stop().await {
        let _ = writeln!(faults, "{fault}");
    }
    assert!(faults.is_empty(), "{faults}");
    assert!(commands.len() >= 15, "{commands:?}");
}

#[test]
fn what_is_not_run_is_still_in_the_readme() {
    let text = fs::read_to_string(root().join("README.md")).expect("the page");
    for (beginning, why) in NOT_RUN {
        assert!(commands(&text).iter().any(|command| command.starts_with(beginning)), "{beginning}: {why}");
    }
}

/// The lines of the `sh` blocks, without the comments behind them. What `cargo run` builds and runs is built already.
fn commands(text: &str) -> Vec<String> {
    let mut in_block = false;
    let mut commands = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            in_block = line == "```sh";
        } else if in_block && !line.trim().is_empty() {
            let command = line.split_once("  #").map_or(line, |(command, _)| command);
            let command = command.trim();
            let built =
                command.strip_prefix("cargo run --release -- ").map(|args| format!("pilotlight {args}"));
            commands.push(built.unwrap_or_else(|| command.to_owned()));
        }
    }
    commands
}

/// Somebody with two terminals, in one of which `pilotlight run` may be running.
struct Reader {
    folder: tempfile::TempDir,
    path: std::ffi::OsString,
    /// The ports that stand in for 8080 and 8081, which may be taken here.
    ports: [u16; 2],
    running: Option<(Child, Mark)>,
}

impl Reader {
    fn new() -> Reader {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // What the commands write does not stay in the workspace.
        symlink(root().join("examples"), folder.path().join("examples")).expect("a link");
        let programs = binary().parent().expect("a folder").to_owned();
        let others = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([programs].into_iter().chain(env::split_paths(&others))).expect("a PATH");
        let listeners =
            [0; 2].map(|port| std::net::TcpListener::bind(("127.0.0.1", port)).expect("a free port"));
        let ports = listeners.map(|listener| listener.local_addr().expect("its address").port());
        Reader { folder, path, ports, running: None }
    }

    /// Runs a command to its end; a `pilotlight run` until it listens, and until the next of its kind.
    async fn type_in(&mut self, command: &str) -> Result<(), String> {
        if NOT_RUN.iter().any(|(beginning, _)| command.starts_with(beginning)) {
            return Ok(());
        }
        let [requests, admin] = self.ports;
        if command.starts_with("pilotlight run ") {
            self.stop().await?;
            let at = format!("pilotlight run --listen {requests} --admin {admin} ");
            return self.start(&command.replacen("pilotlight run ", &at, 1)).await;
        }
        if command.starts_with("pilotlight sim replay ") {
            // The journal is whole once its writer has ended.
            self.stop().await?;
        }
        let command = command
            .replace("127.0.0.1:8080", &format!("127.0.0.1:{requests}"))
            .replace("127.0.0.1:8081", &format!("127.0.0.1:{admin}"))
            .replace("pilotlight explain", &format!("pilotlight explain --admin {admin}"))
            .replace("curl ", "curl --silent --show-error --fail --max-time 60 ");
        let output = self.shell(&command).output().map_err(|error| error.to_string())?;
        let told = String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(()) } else { Err(format!("{}: {told}", output.status)) }
    }

    async fn start(&mut self, command: &str) -> Result<(), String> {
        let mark = Mark::new();
        let [out, errors] = ["out", "errors"].map(|name| self.folder.path().join(name));
        let file = |path: &Path| fs::File::create(path).expect("a file in the temporary folder");
        let mut shell = self.shell(&format!("exec {command}"));
        shell.env(Mark::NAME, mark.value()).stdin(Stdio::null()).stdout(file(&out)).stderr(file(&errors));
        let child = shell.process_group(0).spawn().map_err(|error| error.to_string())?;
        let child = &mut self.running.insert((child, mark)).0;
        let what = format!("listening: {command}");
        let ended = eventually(&what, PATIENCE, async || {
            let listens = fs::read_to_string(&out).is_ok_and(|text| text.contains("listening on "));
            let ended = child.try_wait().expect("a child").map(|status| status.to_string());
            (listens || ended.is_some()).then_some(ended)
        });
        match ended.await {
            None => Ok(()),
            Some(status) => Err(format!("{status}: {}", fs::read_to_string(&errors).unwrap_or_default())),
        }
    }

    /// Ctrl-C: it ends well, and leaves nothing behind.
    async fn stop(&mut self) -> Result<(), String> {
        let Some((child, mark)) = &mut self.running else { return Ok(()) };
        send(child.id(), Signal::INT);
        let status = eventually("the end of pilotlight run", PATIENCE, async || {
            child.try_wait().expect("a child").filter(|_| mark.bearers().is_empty())
        });
        let status = status.await;
        self.running = None;
        if status.success() { Ok(()) } else { Err(format!("pilotlight run: {status}")) }
    }

    fn shell(&self, command: &str) -> Command {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", command])
            .current_dir(self.folder.path())
            .env("PATH", &self.path)
            .env_remove("RUST_LOG");
        shell
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.running {
            let _ = child.kill();
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// A deadline for starts and ends, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);
