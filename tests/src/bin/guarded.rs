//! Starts commands the way `pilotlight run` starts pods, for tests that kill the starter.
//!
//! `guarded hold COMMAND...` starts the command once for each line of its standard input, and answers with a line:
//! the numbers of the guard process and of the command, and the command's first line of output.
//! `guarded measure TIMES` prints how long it takes to start a process.

use std::ffi::OsString;
use std::io::{Write, stdin, stdout};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};
use pilotlight_cli::latency::{Latencies, LatencySummary};
use pilotlight_local::guard::{Guard, Spawn, intercept};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::runtime;

fn main() -> ExitCode {
    if let Some(code) = intercept() {
        return code;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guarded: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let mut args = std::env::args_os().skip(1);
    match args.next().as_deref().and_then(|mode| mode.to_str()) {
        Some("hold") => runtime.block_on(hold(args.collect())),
        Some("measure") => {
            let times = args.next().and_then(|times| times.to_str()?.parse().ok());
            runtime.block_on(measure(times.context("measure how many times?")?))
        }
        _ => bail!("hold COMMAND... or measure TIMES?"),
    }
}

async fn hold(command: Vec<OsString>) -> anyhow::Result<()> {
    let (program, args) = command.split_first().context("hold what?")?;
    let command = Spawn { program: program.clone(), args: args.to_vec(), ..Spawn::default() };
    let guard = Guard::start()?;
    let mut children = Vec::new();
    for line in stdin().lines() {
        line?;
        let mut child = guard.spawn(command.clone()).await?;
        let mut said = BufReader::new(child.take_stdout().context("output")?).lines();
        let first = said.next_line().await?.unwrap_or_default();
        writeln!(stdout(), "{} {} {first}", guard.pid().context("a guard process")?, child.pid())?;
        children.push((child, said));
    }
    Ok(())
}

async fn measure(times: u32) -> anyhow::Result<()> {
    let guard = Guard::start()?;
    let (mut spawned, mut ended) = (Latencies::default(), Latencies::default());
    for _ in 0..times {
        let start = Instant::now();
        let child = guard.spawn(Spawn::new("true")).await?;
        spawned.record(start.elapsed());
        child.wait().await;
        ended.record(start.elapsed());
    }
    println!("[min, mean, 50, 90, 95, 99, max]");
    println!("spawn                {}", LatencySummary::from(&spawned));
    println!("spawn, run and wait  {}", LatencySummary::from(&ended));
    Ok(())
}
