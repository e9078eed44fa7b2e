//! The binary under test, and a process of it with everything it says.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, LazyLock};
use std::{env, thread};

use parking_lot::Mutex;
use rustix::process::Signal;

use crate::process::{Mark, send};

/// The `pilotlight` binary: what `PILOTLIGHT_BIN` names, or that of this workspace, built if need be. Tests run it as
/// they are built themselves; benches run what is shipped, from the profile `dist`.
pub fn binary() -> &'static Path {
    static BINARY: LazyLock<PathBuf> = LazyLock::new(|| {
        if let Some(path) = env::var_os("PILOTLIGHT_BIN") {
            return path.into();
        }
        // .../target/debug/deps/this-test
        let test = env::current_exe().expect("a test is a program");
        let folder = test.parent().and_then(Path::parent).expect("tests are in target/PROFILE/deps");
        let target = folder.parent().expect("profiles are in target");
        let profile = match folder.file_name().and_then(OsStr::to_str).expect("a profile has a plain name") {
            "debug" => "dev",
            // Cargo keeps the profile `bench` in the folder of `release`.
            "release" => "dist",
            other => other,
        };
        let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // Always, not only if it is missing: a test of yesterday's binary is worse than none.
        build.args(["build", "--quiet", "--package", "pilotlight", "--bin", "pilotlight"]);
        // Pods run the queue-proxy that lies beside it.
        build.args([
            "--package",
            "pilotlight-queue-proxy",
            "--bin",
            "pilotlight-queue-proxy",
            "--target-dir",
        ]);
        build.arg(target).current_dir(env!("CARGO_MANIFEST_DIR"));
        // What cargo tells this test about its package is not for the build: scripts that look at it would have to
        // run again, here and in the next build of the tests, and with them half of all crates.
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST") {
                build.env_remove(&name);
            }
        }
        build.args(["--profile", profile]);
        assert!(build.status().expect("cargo runs").success(), "the binary under test does not build");
        let built = if profile == "dev" { folder } else { &target.join(profile) };
        built.join("pilotlight")
    });
    &BINARY
}

pub(crate) fn pilotlight() -> Command {
    let mut command = Command::new(binary());
    // The port of whoever runs the tests is not for the sample application.
    command.env_remove("PORT").stdin(Stdio::null());
    command
}

/// A started process with its mark, its output being read.
pub(crate) struct Started {
    child: Child,
    pub(crate) mark: Mark,
    pub(crate) stdout: Lines,
    pub(crate) stderr: Lines,
    status: Option<ExitStatus>,
}

impl Started {
    pub(crate) fn new(mut command: Command) -> Self {
        let mark = Mark::new();
        command.env(Mark::NAME, mark.value()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("started");
        let stdout = Lines::read(child.stdout.take().expect("piped"));
        let stderr = Lines::read(child.stderr.take().expect("piped"));
        Started { child, mark, stdout, stderr, status: None }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn exit_status(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("our child");
        }
        self.status
    }

    /// Sends a signal to the process itself, and to nothing it started.
    pub(crate) fn signal(&self, signal: Signal) {
        send(self.child.id(), signal);
    }

    pub(crate) fn read_to_end(&mut self) {
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

/// Lines of a process's output, as they come.
pub(crate) struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Lines {
    fn read(pipe: impl Read + Send + 'static) -> Self {
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let sink = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                sink.lock().push(line);
            }
        });
        Lines { lines, reader: Some(reader) }
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().clone()
    }

    fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("reading does not panic");
        }
    }
}
