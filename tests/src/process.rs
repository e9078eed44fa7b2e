//! Processes, as the kernel shows them: who is alive, and who belongs to which test.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, process};

use rustix::process::{Pid, Signal};

/// Whether a process runs. One that has exited and only waits to be reaped does not.
pub fn is_running(pid: u32) -> bool {
    // The state is the first field after the command's name, which stands in parentheses and may contain any.
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit_once(") ").and_then(|(_, fields)| fields.chars().next());
    !matches!(state, Some('Z' | 'X') | None)
}

/// Sends a signal to one process, if it is still there.
pub fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process number");
    let _ = rustix::process::kill_process(pid, signal);
}

/// A mark in the environment of a process that everything it starts inherits, however far removed: by it a test
/// finds what has been left behind.
#[derive(Clone, Debug)]
pub struct Mark(String);

impl Mark {
    /// The environment variable that holds the mark.
    pub const NAME: &str = "PILOTLIGHT_TEST_MARK";

    /// A mark that no other test has.
    #[expect(clippy::new_without_default, reason = "two of them are never equal")]
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        Mark(format!("{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed)))
    }

    /// The value of the environment variable.
    pub fn value(&self) -> &OsStr {
        OsStr::new(&self.0)
    }

    /// Every running process that bears the mark.
    pub fn bearers(&self) -> Vec<Bearer> {
        let wanted = format!("{}={}", Mark::NAME, self.0);
        let entries = fs::read_dir("/proc").expect("process tests need /proc");
        entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let pid = path.file_name()?.to_str()?.parse().ok()?;
                let marked = words(&path.join("environ"))?.contains(&wanted);
                (marked && is_running(pid))
                    .then(|| words(&path.join("cmdline")))
                    .flatten()
                    .map(|command| Bearer { pid, command })
            })
            .collect()
    }
}

/// One marked process.
#[derive(Clone, Debug)]
pub struct Bearer {
    /// The process's number.
    pub pid: u32,
    /// The command line.
    pub command: Vec<String>,
}

impl Bearer {
    /// Whether it is a queue-proxy: the small executable, or the subcommand of the large one.
    pub fn is_queue_proxy(&self) -> bool {
        let program =
            self.command.first().map(|program| Path::new(program).ends_with("pilotlight-queue-proxy"));
        program == Some(true) || self.command.get(1).is_some_and(|word| word == "queue-proxy")
    }
}

fn words(path: &Path) -> Option<Vec<String>> {
    let bytes = fs::read(path).ok()?;
    Some(
        bytes.split(|&byte| byte == 0).map(|word| OsStr::from_bytes(word).to_string_lossy().into()).collect(),
    )
}
