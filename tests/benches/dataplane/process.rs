//! Processes: starting them, ending them, and what the kernel says they use.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs, io, process, thread};

use anyhow::Context;

/// A process we started. Dropping it kills it.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts a command. What it says goes nowhere, but for its complaints with `PILOTLIGHT_BENCH_VERBOSE`.
    pub(crate) fn start(mut command: Command) -> anyhow::Result<Process> {
        if env::var_os("PILOTLIGHT_BENCH_VERBOSE").is_none() {
            command.stderr(Stdio::null());
        }
        let started = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let child = started.with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Process { child })
    }

    /// Starts this very program in another role, and returns the ports it chose.
    pub(crate) fn start_role(role: &str, argument: &str) -> anyhow::Result<(Process, Vec<u16>)> {
        let mut command = Command::new(env::current_exe()?);
        // The child watches its input: when we go, however we go, it goes.
        command.args([role, argument]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().context("no output")?;
        let process = Process { child };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let ports = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        Ok((process, ports))
    }

    /// The resources it uses.
    pub(crate) fn meter(&self) -> Meter {
        Meter { pid: self.child.id() }
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        for worker in workers(self.child.id()) {
            pilotlight_tests::process::send(worker, rustix::process::Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The resources that a process and its children (nginx has its work done by them) use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meter {
    pid: u32,
}

impl Meter {
    /// Any process of this machine.
    pub(crate) fn of(pid: u32) -> Self {
        Meter { pid }
    }

    /// Processor time used so far, in user and in kernel mode.
    pub(crate) fn cpu(self) -> Duration {
        let ticks: u64 = self.all().filter_map(ticks).sum();
        Duration::from_millis(ticks * TICK_MILLIS)
    }

    /// Resident memory now.
    pub(crate) fn resident_mib(self) -> f64 {
        self.all().filter_map(resident_kib).sum::<f64>() / 1024.0
    }

    fn all(self) -> impl Iterator<Item = u32> {
        std::iter::once(self.pid).chain(workers(self.pid))
    }
}

fn workers(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

fn ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name stands in parentheses and may contain anything; after it come the fields from the third on.
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

fn resident_kib(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let row = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    row.trim().trim_end_matches(" kB").parse().ok()
}

/// Tells the parent where a role serves, and ends the process when the parent has gone.
pub(crate) fn tell_ports(ports: &[u16]) -> io::Result<()> {
    let words: Vec<String> = ports.iter().map(u16::to_string).collect();
    let mut stdout = io::stdout();
    writeln!(stdout, "{}", words.join(" "))?;
    stdout.flush()?;
    thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        process::exit(0);
    });
    Ok(())
}

/// Ports that nobody listens on now.
pub(crate) fn free_ports<const COUNT: usize>() -> io::Result<[u16; COUNT]> {
    let mut ports = [0; COUNT];
    // All are taken before the first is let go, or one would be found twice.
    let mut taken = Vec::new();
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *port = listener.local_addr()?.port();
        taken.push(listener);
    }
    Ok(ports)
}

/// `USER_HZ`, which Linux shows to user space as 100 whatever the kernel's own clock does.
const TICK_MILLIS: u64 = 10;
