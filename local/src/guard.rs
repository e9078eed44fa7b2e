//! Child processes that never outlive us, not even when we are killed with `kill -9`.
//!
//! Three things work together, each covering what the others cannot:
//!
//! * **The process group.** Every child leads its own, so whatever it starts can be signalled with it.
//! * **The shim.** A child begins as our own executable (`__shim`), which asks the kernel to be killed when its
//!   parent dies, waits for the word to go, and becomes the real command. Before that word it dies by itself
//!   if we do; after it, its group is known to the guard.
//! * **The guard process** (`__guard`), one a run. It holds the list of live groups and nothing else; when its
//!   standard input closes, because we ended in whatever way, it kills them all and exits.
//!
//! A process that leaves its group on purpose (`setsid`, daemons) is out of reach, as it is for a shell.
//!
//! Every executable that uses [`Guard`] calls [`intercept`] first thing in `main`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use tokio::net::unix::pipe;
use tokio::sync::{oneshot, watch};

/// A command to start: a program and what surrounds it.
///
/// It inherits our environment; its standard input is empty, its output and errors come to us.
#[derive(Clone, Debug, Default)]
pub struct Spawn {
    /// A path, or a name that is looked up in `PATH`.
    pub program: OsString,
    /// Arguments of the program.
    pub args: Vec<OsString>,
    /// Environment variables set on top of ours.
    pub env: Vec<(OsString, OsString)>,
    /// The directory to start in; `None`: ours.
    pub cwd: Option<PathBuf>,
}

impl Spawn {
    /// A command without arguments, in our directory and environment.
    pub fn new(program: impl Into<OsString>) -> Self {
        Spawn { program: program.into(), ..Spawn::default() }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Sets one environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }
}

/// Starts child processes and answers for their end. Dropping it kills every child that is left.
pub struct Guard {
    jobs: mpsc::Sender<Job>,
    registry: Arc<Registry>,
}

impl Guard {
    /// Starts the guard process and the thread that starts children.
    pub fn start() -> io::Result<Guard> {
        // The link rather than the path it names: it still works after the file was replaced by an upgrade.
        let link = Path::new("/proc/self/exe");
        if link.exists() { Guard::start_as(link) } else { Guard::start_as(&std::env::current_exe()?) }
    }

    /// Like [`Guard::start`], with another executable that calls [`intercept`] to play shim and guard.
    pub fn start_as(executable: &Path) -> io::Result<Guard> {
        let registry = Arc::new(Registry::start(executable)?);
        let (jobs, queue) = mpsc::channel::<Job>();
        let executable = executable.to_owned();
        let for_thread = Arc::clone(&registry);
        // One thread starts all children and lives as long as this guard: the kernel's parent-death signal
        // fires when the *thread* that forked ends, and threads of an async runtime come and go.
        thread::Builder::new().name("pl-spawn".into()).spawn(move || {
            for Job { command, reply } in queue {
                // The task that asked may have gone: then the child is dropped here, which kills it.
                let _ = reply.send(start_child(&executable, &command, &for_thread));
            }
        })?;
        Ok(Guard { jobs, registry })
    }

    /// Starts a command in a process group of its own.
    ///
    /// Returns once the kernel has made the process; a program that cannot be executed shows as a child that
    /// exits with 127 (not found) or 126 (not executable), like in a shell, and says why on its standard error.
    pub async fn spawn(&self, command: Spawn) -> io::Result<Child> {
        let (reply, started) = oneshot::channel();
        self.jobs.send(Job { command, reply }).map_err(|_| spawner_gone())?;
        let Started { process, stdout, stderr } = started.await.map_err(|_| spawner_gone())??;
        Ok(Child {
            process,
            stdout: Some(pipe::Receiver::from_owned_fd(stdout)?),
            stderr: Some(pipe::Receiver::from_owned_fd(stderr)?),
        })
    }

    /// The process number of the guard process.
    pub fn pid(&self) -> Option<u32> {
        self.registry.guard.lock().as_ref().map(|guard| guard.process.id())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.registry.close();
    }
}

/// A running command. Dropping it kills its whole process group.
#[derive(Debug)]
pub struct Child {
    process: Process,
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
}

impl Child {
    /// The process number, which is also the number of its process group.
    pub fn pid(&self) -> u32 {
        self.process.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// The command's standard output; `None` once taken.
    pub fn take_stdout(&mut self) -> Option<pipe::Receiver> {
        self.stdout.take()
    }

    /// The command's standard error; `None` once taken.
    pub fn take_stderr(&mut self) -> Option<pipe::Receiver> {
        self.stderr.take()
    }

    /// Waits until the command has exited. May be dropped and called again; every call gives the same answer.
    pub async fn wait(&self) -> ExitStatus {
        self.waiter().await
    }

    /// Like [`Child::wait`], as a future of its own that does not borrow the child.
    pub fn waiter(&self) -> impl Future<Output = ExitStatus> + Send + use<> {
        let mut exited = self.process.exited.clone();
        async move {
            match exited.wait_for(Option::is_some).await {
                Ok(status) => status.expect("wait_for saw a value"),
                // The waiting thread sends before it ends, whatever happens.
                Err(_) => unreachable!("the waiting thread ended without an exit status"),
            }
        }
    }

    /// How the command exited, if it has.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        *self.process.exited.borrow()
    }

    /// Asks the whole group to stop (SIGTERM). No effect after the exit.
    pub fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Kills the whole group (SIGKILL). No effect after the exit.
    pub fn kill(&self) {
        self.process.signal(Signal::KILL);
    }
}

/// Plays shim or guard if this process was started as one. To be called first thing in `main`, before
/// any runtime, thread or log exists; `Some` is the code to exit with.
pub fn intercept() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    match args.next()?.to_str()? {
        SHIM => Some(shim_main(args)),
        GUARD => Some(guard_main()),
        _ => None,
    }
}

/// The shim: arranges to die with its parent, waits for the word to go, and becomes the command in `args`
/// (the parent's process number, the program, its arguments). Returns only if it could not.
pub fn shim_main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let parent = args.next().and_then(|pid| pid.to_str()?.parse().ok()).and_then(Pid::from_raw);
    let (Some(parent), Some(program)) = (parent, args.next()) else {
        eprintln!("pilotlight: {SHIM} is internal; it wants a parent and a command");
        return ExitCode::from(EXIT_CANNOT_EXECUTE);
    };
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        eprintln!("pilotlight: cannot tie this process to its parent: {error}");
        return ExitCode::from(EXIT_CANNOT_EXECUTE);
    }
    // The parent may have died before the line above; its death is then not signalled any more.
    if rustix::process::getppid() != Some(parent) {
        return ExitCode::FAILURE;
    }
    // Nothing but the one byte may be taken from standard input, so no buffered reader.
    let mut word = [0; GO.len()];
    match rustix::io::retry_on_intr(|| rustix::io::read(io::stdin(), &mut word)) {
        Ok(1) => {}
        _ => return ExitCode::FAILURE,
    }
    let error = Command::new(&program).args(args).exec();
    eprintln!("pilotlight: cannot start {}: {error}", program.display());
    ExitCode::from(match error.kind() {
        io::ErrorKind::NotFound => EXIT_NOT_FOUND,
        _ => EXIT_CANNOT_EXECUTE,
    })
}

/// The guard process: reads `+GROUP` and `-GROUP` lines until its standard input closes, then kills what is left.
pub fn guard_main() -> ExitCode {
    // A name of its own, so that `pkill pilotlight` ends the run and not the process that cleans up after it.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::set_name(c"pl-guard");
    // The root directory is never unmounted: another would be pinned for as long as this process lives.
    let _ = std::env::set_current_dir("/");
    let _handlers = ignore_polite_signals();

    let mut groups = BTreeSet::new();
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        match (line.get(..1), line.get(1..).and_then(|group| group.parse::<i32>().ok())) {
            (Some("+"), Some(group)) => groups.insert(group),
            (Some("-"), Some(group)) => groups.remove(&group),
            _ => false,
        };
    }
    for group in groups.into_iter().filter_map(Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
    ExitCode::SUCCESS
}

/// Makes Ctrl-C, SIGTERM and SIGHUP harmless for this process for as long as it lives. A handler that nobody
/// listens to does that, and tokio's are the ones that can be had without unsafe code; no task ever runs.
fn ignore_polite_signals() -> io::Result<impl Sized> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let signals = {
        let _context = runtime.enter();
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?]
    };
    Ok((runtime, signals))
}

struct Job {
    command: Spawn,
    reply: oneshot::Sender<io::Result<Started>>,
}

struct Started {
    process: Process,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

/// Starts the shim, makes its group known to the guard, and only then lets it become the command. In this order
/// there is no moment at which our death would leave a process behind.
fn start_child(executable: &Path, command: &Spawn, registry: &Arc<Registry>) -> io::Result<Started> {
    let mut shim = Command::new(executable);
    shim.arg0("pilotlight").arg(SHIM).arg(std::process::id().to_string());
    shim.arg(&command.program).args(&command.args);
    shim.envs(command.env.iter().map(|(name, value)| (name, value)));
    if let Some(cwd) = &command.cwd {
        shim.current_dir(cwd);
    }
    shim.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = shim.spawn().map_err(|error| explain_spawn_error(error, command.cwd.as_deref()))?;

    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
        unreachable!("all three streams were asked for as pipes");
    };
    let pid = pid_of(&child);
    let child = Arc::new(Mutex::new(child));
    let (exit, exited) = watch::channel(None);
    let supervised = registry.add(pid).and_then(|()| {
        let (child, registry) = (Arc::clone(&child), Arc::clone(registry));
        thread::Builder::new()
            .name("pl-wait".into())
            .stack_size(WAITER_STACK_BYTES)
            .spawn(move || wait_and_clean(pid, &child, &exit, &registry))
    });
    if let Err(error) = supervised {
        // Without the word to go the shim ends by itself.
        drop(stdin);
        let _ = child.lock().wait();
        registry.remove(pid);
        return Err(error);
    }
    // The write fails only if the shim was killed meanwhile, which its exit status will tell.
    let _ = stdin.write_all(GO);
    let process = Process { pid, child, exited };
    Ok(Started { process, stdout: stdout.into(), stderr: stderr.into() })
}

/// One started process, as its [`Child`] and its waiting thread see it.
#[derive(Debug)]
struct Process {
    pid: Pid,
    /// Locked while the process is signalled or reaped, so that neither happens in the middle of the other.
    child: Arc<Mutex<std::process::Child>>,
    exited: watch::Receiver<Option<ExitStatus>>,
}

impl Process {
    fn signal(&self, signal: Signal) {
        let _not_reaped_meanwhile = self.child.lock();
        if self.exited.borrow().is_none() {
            // The group exists until its leader is reaped; an error means that nobody in it is left to signal.
            let _ = rustix::process::kill_process_group(self.pid, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Waits for the leader of a group, kills what remains of the group, and only then lets go of its number.
fn wait_and_clean(
    pid: Pid,
    child: &Mutex<std::process::Child>,
    exit: &watch::Sender<Option<ExitStatus>>,
    registry: &Registry,
) {
    // Without reaping: until then the kernel gives the number to nobody else, so no signal can go astray.
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let _ = rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::Pid(pid), options));
    let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    registry.remove(pid);

    let mut child = child.lock();
    // An error means that something else reaped our child: it is gone, and its exit status with it.
    let status = child.wait().unwrap_or_else(|_| ExitStatus::from_raw(i32::from(EXIT_CANNOT_EXECUTE) << 8));
    exit.send_replace(Some(status));
}

/// Our line to the guard process, and what we told it.
struct Registry {
    executable: PathBuf,
    /// `None` after [`Registry::close`].
    guard: Mutex<Option<GuardProcess>>,
}

struct GuardProcess {
    process: std::process::Child,
    groups: BTreeSet<i32>,
}

impl Registry {
    fn start(executable: &Path) -> io::Result<Registry> {
        let guard = GuardProcess { process: start_guard(executable)?, groups: BTreeSet::new() };
        Ok(Registry { executable: executable.to_owned(), guard: Mutex::new(Some(guard)) })
    }

    /// Tells the guard about a group. Fails if nobody would clean up after us.
    fn add(&self, group: Pid) -> io::Result<()> {
        let mut slot = self.guard.lock();
        let guard = slot.as_mut().ok_or_else(spawner_gone)?;
        guard.groups.insert(group.as_raw_pid());
        if guard.tell('+', group.as_raw_pid()).is_ok() {
            return Ok(());
        }
        // The guard process was killed. A new one takes over, with every group that is alive.
        let _ = guard.process.kill();
        let _ = guard.process.wait();
        guard.process = start_guard(&self.executable)?;
        let groups = guard.groups.clone();
        groups.into_iter().try_for_each(|group| guard.tell('+', group))
    }

    fn remove(&self, group: Pid) {
        if let Some(guard) = self.guard.lock().as_mut() {
            guard.groups.remove(&group.as_raw_pid());
            // If the guard process is gone, the next `add` starts another.
            let _ = guard.tell('-', group.as_raw_pid());
        }
    }

    /// Kills whatever is left and ends the guard process.
    fn close(&self) {
        let mut slot = self.guard.lock();
        let Some(mut guard) = slot.take() else { return };
        // We kill the groups ourselves: the guard process may have been killed. While the lock is held no group in the
        // list can be reaped, so each number still means the same group.
        for group in guard.groups.into_iter().filter_map(Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
        // Waiting closes its standard input first, and with that it ends.
        let _ = guard.process.wait();
    }
}

impl GuardProcess {
    fn tell(&mut self, sign: char, group: i32) -> io::Result<()> {
        let stdin = self.process.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        // One write: shorter than PIPE_BUF, so the line arrives whole or not at all.
        stdin.write_all(format!("{sign}{group}\n").as_bytes())
    }
}

fn start_guard(executable: &Path) -> io::Result<std::process::Child> {
    let mut guard = Command::new(executable);
    // A group of its own: Ctrl-C in the terminal is for us. No output: it must not hold our pipes open.
    guard.arg0("pl-guard").arg(GUARD).process_group(0);
    guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

fn pid_of(child: &std::process::Child) -> Pid {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("the kernel numbers processes from 1")
}

/// Says which directory is meant: the bare error of a missing one reads as if the program were missing.
fn explain_spawn_error(error: io::Error, cwd: Option<&Path>) -> io::Error {
    match cwd {
        Some(cwd) if !cwd.is_dir() => {
            io::Error::new(error.kind(), format!("cannot start in {}: {error}", cwd.display()))
        }
        _ => error,
    }
}

fn spawner_gone() -> io::Error {
    io::Error::other("no process can be started: the guard has been closed")
}

const SHIM: &str = "__shim";
const GUARD: &str = "__guard";
const GO: &[u8] = b"!";
const EXIT_CANNOT_EXECUTE: u8 = 126;
const EXIT_NOT_FOUND: u8 = 127;
/// A waiter makes four system calls; the default of 2 MiB would be address space for nothing.
const WAITER_STACK_BYTES: usize = 64 * 1024;
