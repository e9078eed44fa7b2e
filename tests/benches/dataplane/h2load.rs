//! One run of h2load: wrk for HTTP/2.

use std::fs;
use std::process::Command;

use anyhow::{Context, bail};

use crate::candidates::Candidate;
use crate::wrk::{Sample, Shape, is_there, watch};

/// Whether there is an h2load to run.
pub(crate) fn is_installed() -> bool {
    is_there("h2load")
}

/// Loads a candidate for so many seconds. A response that is no 200 fails the run.
pub(crate) fn run(candidate: &Candidate, shape: Shape, seconds: u32) -> anyhow::Result<Sample> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("requests");
    let mut command = Command::new("h2load");
    command.arg("-t1");
    command.args([
        format!("-c{}", shape.connections),
        format!("-m{}", shape.streams),
        format!("-D{seconds}"),
    ]);
    command.arg("--log-file").arg(&log);
    command.arg(format!("--connect-to=127.0.0.1:{}", candidate.port));
    command.arg(format!("http://{}/{}", candidate.host, shape.kilobytes));
    let watched = watch(candidate, &mut command)?;
    let report = Report::parse(&watched.said, &fs::read_to_string(log)?);
    let report = report.with_context(|| format!("{}: h2load said:\n{}", candidate.name, watched.said))?;
    Ok(Sample {
        requests_per_second: report.requests_per_second,
        cpu_micros: watched.cpu.as_secs_f64() * 1e6 / report.requests,
        p50_micros: report.p50_micros,
        p99_micros: report.p99_micros,
        resident_mib: watched.resident_mib,
    })
}

struct Report {
    requests: f64,
    requests_per_second: f64,
    p50_micros: f64,
    p99_micros: f64,
}

impl Report {
    /// From what it says at the end, and its line for each request: when it began, its status, how long it took.
    fn parse(said: &str, log: &str) -> anyhow::Result<Report> {
        let mut micros = Vec::new();
        for line in log.lines() {
            let mut columns = line.split('\t').skip(1);
            match (columns.next(), columns.next().and_then(|column| column.parse::<u32>().ok())) {
                (Some("200"), Some(took)) => micros.push(took),
                _ => bail!("some requests failed: {line}"),
            }
        }
        if !said.contains(" 0 failed, 0 errored, 0 timeout") {
            bail!("some requests failed");
        }
        micros.sort_unstable();
        let share = |percent: usize| micros.get(micros.len() * percent / 100).copied().map(f64::from);
        let rate = said.lines().find(|line| line.starts_with("finished in ")).context("no end")?;
        let rate = rate.split(", ").find_map(|part| part.strip_suffix(" req/s")).context("no rate")?;
        Ok(Report {
            requests: micros.len() as f64,
            requests_per_second: rate.parse()?,
            p50_micros: share(50).context("no requests")?,
            p99_micros: share(99).context("no requests")?,
        })
    }
}
