//! A running `pilotlight run`: the real binary, real processes, real sockets.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::process::ExitStatus;
use std::time::Duration;

use pilotlight_cli::load::Load;
use rustix::process::Signal;
use serde::Deserialize;
use tempfile::NamedTempFile;

use crate::http::{Answer, get};
use crate::process::Bearer;
use crate::started::{Lines, Started, binary, pilotlight};
use crate::{SOON, eventually, manifest};

/// A `pilotlight run` on free ports, with [the shortest times there are](manifest::quick_config). Dropping it kills
/// it and everything it started.
pub struct Pilotlight {
    /// Address for requests.
    pub address: SocketAddr,
    /// Address of its admin port.
    pub admin: SocketAddr,
    process: Started,
    _config: Option<NamedTempFile>,
}

impl Pilotlight {
    /// Starts `pilotlight run` with these arguments and waits until it listens.
    pub async fn run<Arg: AsRef<OsStr>>(args: impl IntoIterator<Item = Arg>) -> Pilotlight {
        let config = manifest::file(&[manifest::quick_config()]);
        let pilotlight = Pilotlight::run_with(manifest::arg(config.path()), args).await;
        Pilotlight { _config: Some(config), ..pilotlight }
    }

    /// The same, with the ConfigMap in this file.
    pub async fn run_with<Arg: AsRef<OsStr>>(
        config: &str,
        args: impl IntoIterator<Item = Arg>,
    ) -> Pilotlight {
        let fixed =
            ["run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-format", "json", "--config"];
        let mut command = pilotlight();
        command.args(fixed).arg(config).args(args);
        let mut process = Started::new(command);
        let first = eventually("the first line of output", SOON, async || {
            if let Some(status) = process.exit_status() {
                panic!("{status} instead of listening");
            }
            process.stdout.lines().into_iter().next()
        })
        .await;
        let Listening { event, address, admin } = serde_json::from_str(&first).expect("a line of JSON");
        assert_eq!(event, "listening");
        Pilotlight { address, admin, process, _config: None }
    }

    /// Starts `pilotlight run` for the sample application, with these arguments before the command.
    pub async fn sample(args: &[&str]) -> Pilotlight {
        let sample = sample_command();
        Pilotlight::run(args.iter().copied().chain(["--"]).chain(sample.iter().map(String::as_str))).await
    }

    /// Sends `GET path` and reads the whole response.
    pub async fn get(&self, path: &str) -> Answer {
        self.get_from("localhost", path).await
    }

    /// Sends `GET path` to one of several hosts and reads the whole response.
    pub async fn get_from(&self, host: &str, path: &str) -> Answer {
        get(self.address, host, path).await.expect("an answer")
    }

    /// A load on the front door.
    pub fn load(&self, path: &str) -> Load {
        Load { path: path.to_owned(), ..Load::new(self.address) }
    }

    /// Every process that runs now: itself, its guard, its pods and all that they started.
    pub fn processes(&self) -> Vec<Bearer> {
        self.process.mark.bearers()
    }

    /// The application processes that run now: those started as `pilotlight sample`.
    pub fn pods(&self) -> Vec<Bearer> {
        let mut processes = self.processes();
        processes.retain(|process| process.command.get(1).is_some_and(|word| word == "sample"));
        processes
    }

    /// Waits until exactly this many application processes run.
    pub async fn wait_for_pods(&self, count: usize, within: Duration) {
        eventually(&format!("{count} pods"), within, async || (self.pods().len() == count).then_some(()))
            .await;
    }

    /// Sends a signal to the process itself, and to nothing it started.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits until the process has exited.
    pub async fn exit(&mut self, within: Duration) -> ExitStatus {
        eventually("the exit", within, async || self.process.exit_status()).await
    }

    /// Waits until nothing is left of the process and all it started, down to the last grandchild.
    pub async fn nothing_is_left(&self) {
        eventually("nothing is left", SOON, async || self.processes().is_empty().then_some(())).await;
    }

    /// Everything said so far, standard output first.
    pub fn said(&self) -> String {
        [self.process.stdout.lines(), self.process.stderr.lines()].concat().join("\n")
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; `None`: a signal killed it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Runs `pilotlight` with these arguments to its end, which must come soon.
pub async fn run_to_end<Arg: AsRef<OsStr>>(args: impl IntoIterator<Item = Arg>) -> Ended {
    let mut command = pilotlight();
    command.args(args);
    let mut process = Started::new(command);
    let status = eventually("the exit", SOON, async || process.exit_status()).await;
    process.read_to_end();
    let text = |lines: &Lines| lines.lines().join("\n");
    Ended { code: status.code(), stdout: text(&process.stdout), stderr: text(&process.stderr) }
}

/// The command line of the sample application, with `{port}` for its port.
pub fn sample_command() -> Vec<String> {
    ["sample", "--port", "{port}"].iter().fold(vec![binary().display().to_string()], |mut words, word| {
        words.push((*word).to_owned());
        words
    })
}

#[derive(Deserialize)]
struct Listening {
    event: String,
    address: SocketAddr,
    admin: SocketAddr,
}
