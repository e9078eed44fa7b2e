//! One run of wrk: started, watched, and its words turned into numbers. What is asked, by whatever means.

use std::process::{Command, Stdio};
use std::time::Duration;
use std::{fmt, io, thread};

use anyhow::{Context, bail};

use crate::candidates::Candidate;

/// The load on a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) connections: u32,
    /// Requests at a time on each connection. One is HTTP/1.1, more are HTTP/2.
    pub(crate) streams: u32,
    /// The length of each response's body.
    pub(crate) kilobytes: u32,
}

impl Shape {
    /// Over HTTP/1.1.
    pub(crate) const fn http1(connections: u32, kilobytes: u32) -> Self {
        Shape { connections, streams: 1, kilobytes }
    }

    pub(crate) fn is_http2(self) -> bool {
        self.streams > 1
    }

    /// Requests at a time.
    pub(crate) fn requests(self) -> u32 {
        self.connections * self.streams
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { connections, streams, kilobytes } = self;
        if self.is_http2() {
            return write!(f, "HTTP/2, {connections} x {streams}, {kilobytes} KB");
        }
        write!(f, "{connections} connection{}, {kilobytes} KB", if *connections == 1 { "" } else { "s" })
    }
}

/// The result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) requests_per_second: f64,
    /// Processor time of the candidate's process, in microseconds per request.
    pub(crate) cpu_micros: f64,
    pub(crate) p50_micros: f64,
    pub(crate) p99_micros: f64,
    /// The most resident memory seen.
    pub(crate) resident_mib: f64,
}

/// Whether there is a wrk to run.
pub(crate) fn is_installed() -> bool {
    is_there("wrk")
}

/// Whether there is such a program.
pub(crate) fn is_there(program: &str) -> bool {
    let mut command = Command::new(program);
    let started = command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    !matches!(started, Err(error) if error.kind() == io::ErrorKind::NotFound)
}

/// Loads a candidate for so many seconds. A response that is no 200 fails the run: refusing is always cheap.
pub(crate) fn run(candidate: &Candidate, shape: Shape, seconds: u32) -> anyhow::Result<Sample> {
    let mut command = Command::new("wrk");
    command.args(["--latency", "-t1"]);
    command.args([format!("-c{}", shape.connections), format!("-d{seconds}s")]);
    command.args(["-H", &format!("Host: {}", candidate.host)]);
    command.arg(format!("http://127.0.0.1:{}/{}", candidate.port, shape.kilobytes));
    let Watched { said, cpu, resident_mib } = watch(candidate, &mut command)?;
    let report = Report::parse(&said).with_context(|| format!("{}: wrk said:\n{said}", candidate.name))?;
    Ok(Sample {
        requests_per_second: report.requests_per_second,
        cpu_micros: cpu.as_secs_f64() * 1e6 / report.requests,
        p50_micros: report.p50_micros,
        p99_micros: report.p99_micros,
        resident_mib,
    })
}

/// The view of a candidate while something loaded it.
pub(crate) struct Watched {
    /// By the one that loaded it.
    pub(crate) said: String,
    pub(crate) cpu: Duration,
    pub(crate) resident_mib: f64,
}

/// Runs what loads a candidate, to its end.
pub(crate) fn watch(candidate: &Candidate, command: &mut Command) -> anyhow::Result<Watched> {
    let meter = candidate.meter;
    let before = meter.cpu();
    let started = command.stdout(Stdio::piped()).spawn();
    let mut load = started.with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let mut resident_mib = 0f64;
    while load.try_wait()?.is_none() {
        resident_mib = resident_mib.max(meter.resident_mib());
        thread::sleep(LOOK_EVERY);
    }
    let cpu = meter.cpu() - before;
    let said = String::from_utf8_lossy(&load.wait_with_output()?.stdout).into_owned();
    Ok(Watched { said, cpu, resident_mib })
}

struct Report {
    requests: f64,
    requests_per_second: f64,
    p50_micros: f64,
    p99_micros: f64,
}

impl Report {
    fn parse(said: &str) -> anyhow::Result<Report> {
        if said.contains("Non-2xx") || said.contains("Socket errors") {
            bail!("some requests failed");
        }
        let find = |wanted: &str, value: fn(&str, &str) -> Option<f64>| {
            said.lines().find_map(|line| value(line.trim(), wanted)).with_context(|| format!("no {wanted}"))
        };
        Ok(Report {
            requests: find(" requests in ", |line, mark| line.split_once(mark)?.0.parse().ok())?,
            requests_per_second: find("Requests/sec:", |line, mark| {
                line.strip_prefix(mark)?.trim().parse().ok()
            })?,
            p50_micros: find("50%", |line, mark| micros(line.strip_prefix(mark)?.trim()))?,
            p99_micros: find("99%", |line, mark| micros(line.strip_prefix(mark)?.trim()))?,
        })
    }
}

/// wrk's durations: `85.00us`, `1.20ms`, `2.00s`, `1.00m`.
fn micros(text: &str) -> Option<f64> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 6e7)];
    units.iter().find_map(|(unit, micros)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * micros))
}

const LOOK_EVERY: Duration = Duration::from_millis(100);
