//! A running `pilotlight run`: the real binary, real processes, real sockets.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;
use std::{env, thread};

use pilotlight_cli::load::Load;
use rustix::process::Signal;
use serde::Deserialize;
use tempfile::NamedTempFile;

use crate::http::{Answer, get};
use crate::process::{Bearer, Mark, send};
use crate::{eventually, manifest};

/// A `pilotlight run` on free ports, with [the shortest times there are](manifest::quick_config). Dropping it kills
/// it and everything it started.
pub struct Pilotlight {
    /// Where it takes requests.
    pub address: SocketAddr,
    /// Where it shows what it does.
    pub admin: SocketAddr,
    process: Started,
    _config: NamedTempFile,
}

impl Pilotlight {
    /// Starts `pilotlight run` with these arguments and waits until it listens.
    pub async fn run<Arg: AsRef<OsStr>>(args: impl IntoIterator<Item = Arg>) -> Pilotlight {
        let config = manifest::file(&[manifest::quick_config()]);
        let fixed =
            ["run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-format", "json", "--config"];
        let mut command = pilotlight();
        command.args(fixed).arg(config.path()).args(args);
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
        Pilotlight { address, admin, process, _config: config }
    }

    /// Starts `pilotlight run` for the [sample application](sample), with these arguments before the command.
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

    /// The application processes that run now: those started as `pilotlight sample`.
    pub fn pods(&self) -> Vec<Bearer> {
        let mut bearers = self.process.mark.bearers();
        bearers.retain(|bearer| bearer.command.get(1).is_some_and(|word| word == "sample"));
        bearers
    }

    /// Waits until exactly this many application processes run.
    pub async fn wait_for_pods(&self, count: usize, within: Duration) {
        eventually(&format!("{count} pods"), within, async || (self.pods().len() == count).then_some(()))
            .await;
    }

    /// Sends a signal to the process itself, and to nothing it started.
    pub fn signal(&self, signal: Signal) {
        send(self.process.child.id(), signal);
    }

    /// Waits until the process has exited.
    pub async fn exit(&mut self, within: Duration) -> ExitStatus {
        eventually("the exit", within, async || self.process.exit_status()).await
    }

    /// Waits until nothing is left of the process and all it started, down to the last grandchild.
    pub async fn nothing_is_left(&self) {
        eventually("nothing is left", SOON, async || self.process.mark.bearers().is_empty().then_some(()))
            .await;
    }

    /// Everything said so far, standard output first.
    pub fn said(&self) -> String {
        [self.process.stdout.lines(), self.process.stderr.lines()].concat().join("\n")
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None`: a signal killed it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
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

/// The `pilotlight` binary: what `PILOTLIGHT_BIN` names, or that of this workspace, built if need be.
pub fn binary() -> &'static Path {
    static BINARY: LazyLock<PathBuf> = LazyLock::new(|| {
        if let Some(path) = env::var_os("PILOTLIGHT_BIN") {
            return path.into();
        }
        // .../target/debug/deps/this-test
        let test = env::current_exe().expect("a test is a program");
        let profile = test.parent().and_then(Path::parent).expect("tests are in target/PROFILE/deps");
        let target = profile.parent().expect("profiles are in target");
        let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // Always, not only if it is missing: a test of yesterday's binary is worse than none.
        build.args(["build", "--quiet", "--package", "pilotlight", "--bin", "pilotlight", "--target-dir"]);
        build.arg(target).current_dir(env!("CARGO_MANIFEST_DIR"));
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo runs").success(), "the binary under test does not build");
        profile.join("pilotlight")
    });
    &BINARY
}

fn pilotlight() -> Command {
    let mut command = Command::new(binary());
    // The port of whoever runs the tests is not for the sample application.
    command.env_remove("PORT").stdin(Stdio::null());
    command
}

#[derive(Deserialize)]
struct Listening {
    event: String,
    address: SocketAddr,
    admin: SocketAddr,
}

/// A started process with its mark, its output being read.
struct Started {
    child: Child,
    mark: Mark,
    stdout: Lines,
    stderr: Lines,
    status: Option<ExitStatus>,
}

impl Started {
    fn new(mut command: Command) -> Self {
        let mark = Mark::new();
        command.env(Mark::NAME, mark.value()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("started");
        let stdout = Lines::read(child.stdout.take().expect("piped"));
        let stderr = Lines::read(child.stderr.take().expect("piped"));
        Started { child, mark, stdout, stderr, status: None }
    }

    fn exit_status(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("our child");
        }
        self.status
    }

    fn read_to_end(&mut self) {
        self.stdout.finish();
        self.stderr.finish();
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Only what a failed test leaves behind.
        self.mark.bearers().iter().for_each(|bearer| send(bearer.pid, Signal::KILL));
        if thread::panicking() {
            let (stdout, stderr) = (self.stdout.lines().join("\n"), self.stderr.lines().join("\n"));
            eprintln!("--- standard output\n{stdout}\n--- standard error\n{stderr}\n---");
        }
    }
}

/// What a process says, line by line, while it does.
struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Lines {
    fn read(pipe: impl Read + Send + 'static) -> Self {
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let sink = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                sink.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        Lines { lines, reader: Some(reader) }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("reading does not panic");
        }
    }
}

/// For what happens at once, on a machine that is busy with other tests.
pub const SOON: Duration = Duration::from_secs(15);
