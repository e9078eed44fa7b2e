//! Floods of HTTP/2 frames from one client on one connection: `cargo bench -p pilotlight-tests --bench floods`, about two
//! minutes.
//!
//! Each flood has a process of its own, the real binary. It goes on until the proxy ends the connection, but for no longer
//! than [`LONGEST`]. The processor time is the proxy's, less what the calls of others take without a flood. Others send one
//! request after the other on a connection of their own, over HTTP/1.1 and over HTTP/2: all must be answered. With
//! arguments, only the floods whose names contain one of them run.

#[path = "../memory/app.rs"]
mod app;
mod flood;
mod others;

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use pilotlight_tests::proxies::{HOST, Proxy};

use crate::flood::{FLOODS, Flood};
use crate::others::Others;

fn main() -> ExitCode {
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut missed = false;
    println!(
        "{:<48} {:<11} {:>9} {:>9} {:>8} {:>8} {:>7}   others: calls, slowest",
        "flood", "proxy", "frames", "KiB", "ends ms", "cpu ms", "us each"
    );
    let is_asked = |name: &str| asked.is_empty() || asked.iter().any(|word| name.contains(word.as_str()));
    for flood in FLOODS.iter().filter(|flood| is_asked(flood.name)) {
        for proxy in ["queue-proxy", "activator"] {
            missed |= runtime.block_on(measure(flood, proxy)).expect(flood.name);
        }
    }
    println!("goal: each call of others is answered");
    if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Whether a call of others failed.
async fn measure(flood: &Flood, kind: &str) -> anyhow::Result<bool> {
    let app = app::start().await?;
    let proxy = match kind {
        "activator" => Proxy::activator(&[("app", &[HOST], &[app])]).await,
        _ => Proxy::queue_proxy(app, &[]).await,
    };
    let others = Others::start(proxy.address);
    let (at_rest, calls_before) = (cpu(proxy.pid()), others.answered());
    tokio::time::sleep(CALM).await;
    let (before, calls, began) = (cpu(proxy.pid()), others.answered(), Instant::now());
    let each_call = (before - at_rest).div_f64((calls - calls_before).max(1) as f64);
    let sent = flood.send(proxy.address, LONGEST).await?;
    let took = began.elapsed();
    let spent = cpu(proxy.pid()) - before;
    let spent = spent.saturating_sub(each_call.mul_f64((others.answered() - calls) as f64));
    let calls = others.finish().await;
    let ends = if sent.has_ended { format!("{:.0}", took.as_secs_f64() * 1e3) } else { "never".to_owned() };
    println!(
        "{:<48} {:<11} {:>9} {:>9} {:>8} {:>8.0} {:>7.2}   {} answered, {} failed, {:.0} ms",
        flood.name,
        kind,
        sent.frames,
        sent.bytes / 1024,
        ends,
        spent.as_secs_f64() * 1e3,
        spent.as_secs_f64() * 1e6 / sent.frames.max(1) as f64,
        calls.answered,
        calls.failed,
        calls.slowest.as_secs_f64() * 1e3,
    );
    Ok(calls.failed > 0)
}

/// Processor time that a process has used, in user and in kernel mode, to the nanosecond: `utime` counts in ticks of 10 ms.
fn cpu(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a running proxy");
    let nanos = tasks.flatten().filter_map(|task| {
        let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// Time in which others are alone.
const CALM: Duration = Duration::from_secs(1);

/// The longest that a flood goes on.
const LONGEST: Duration = Duration::from_secs(3);
