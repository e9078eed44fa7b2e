//! An autoscaler and an activator in Knative's place on a cluster of 5,000 revisions, of which 50 have traffic:
//! `cargo bench -p pilotlight-tests --bench cluster`, about two minutes.
//!
//! The API server is this project's, in the benchmark's own process; autoscaler and activator are processes of their own, as
//! shipped, and only theirs is counted. CPU time is the kernel's, user and system; memory is what is resident. A wake is
//! measured from just before an activator's first report is written to the websocket to the moment at which the API server
//! has read the patch of the scale: the way over the network and the server's own work with a hundred patches at once are
//! in it. Goals are checked; the exit code says whether all were met.

mod population;
#[path = "../dataplane/process.rs"]
#[allow(dead_code, reason = "the other benchmark's module does more than this one needs")]
mod process;
mod traffic;

use std::env;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use pilotlight_tests::cluster::api::{ApiServer, Request};
use pilotlight_tests::eventually;
use pilotlight_tests::http::get;
use population::{add_config_maps, add_revisions};
use process::Process;
use tokio::time::sleep;
use traffic::{Activator, Pods};

fn main() -> ExitCode {
    match env::var(PART).as_deref() {
        Ok("autoscaler") => pilotlight_knative::autoscaler::program::main(),
        Ok("activator") => pilotlight_knative::activator::main(),
        _ => {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
            match runtime.block_on(measure()) {
                Ok(code) => code,
                Err(error) => {
                    eprintln!("cluster: {error:#}");
                    ExitCode::FAILURE
                }
            }
        }
    }
}

async fn measure() -> anyhow::Result<ExitCode> {
    let server = ApiServer::start().await;
    add_config_maps(&server);
    add_revisions(&server, REVISIONS, BUSY);
    let _pods = Pods::start(BUSY).await?;
    let mut goals = Goals::default();

    let kubeconfig = server.kubeconfig();
    let autoscaler = start("autoscaler", AUTOSCALER, &kubeconfig)?;
    wait_until_ready("autoscaler", AUTOSCALER).await;
    let mut activator = Activator::connect(SocketAddr::new(AUTOSCALER.into(), 8080), BUSY).await?;
    eventually("the autoscaler knows every revision", MINUTE, async || {
        (decisions().await.ok()? == REVISIONS).then_some(())
    })
    .await;
    activator.report_for(WARM_UP).await?;

    let writes = server.log().writes().len();
    let (meter, started) = (autoscaler.meter(), Instant::now());
    let before = meter.cpu();
    activator.report_for(PERIOD).await?;
    let cores = (meter.cpu() - before).as_secs_f64() / started.elapsed().as_secs_f64();
    goals.check("autoscaler: cores with 50 busy revisions of 5,000", cores, 0.25);
    goals.check("autoscaler: MiB", meter.resident_mib(), 300.0);
    let renewals = |line: &str| line.contains("leases");
    let idle: Vec<String> =
        server.log().writes()[writes..].iter().map(Request::line).filter(|line| !renewals(line)).collect();
    goals.check("autoscaler: writes while nothing changed, without leases", idle.len() as f64, 0.0);
    if let Some(first) = idle.first() {
        println!("the first of these writes: {first}");
    }
    let late = slowest_tick().await?;
    goals.check("autoscaler: slowest tick, ms after it was due (a bucket's bound)", late, 100.0);

    let mut next = BUSY;
    let mut lone = Vec::new();
    for _ in 0..LONE_WAKES {
        lone.extend(activator.wake(&server, next..next + 1).await?);
        next += 1;
        activator.report_once().await?;
    }
    goals.check("wake alone, p99 ms", p99(&mut lone), 20.0);
    let mut together = Vec::new();
    for _ in 0..ROUNDS {
        together.extend(activator.wake(&server, next..next + AT_ONCE).await?);
        next += AT_ONCE;
        activator.report_once().await?;
    }
    goals.check("100 wakes at once, p99 ms", p99(&mut together), 20.0);
    println!("wakes: alone {}, at once {}", spread(&lone), spread(&together));
    drop((activator, autoscaler));

    let activator = start("activator", ACTIVATOR, &kubeconfig)?;
    wait_until_served("activator", ACTIVATOR).await;
    sleep(SETTLE).await;
    goals.check("activator: MiB with 5,000 revisions known", activator.meter().resident_mib(), 150.0);
    Ok(goals.print())
}

fn start(part: &str, ip: Ipv4Addr, kubeconfig: &Path) -> anyhow::Result<Process> {
    let mut command = Command::new(env::current_exe()?);
    command.env(PART, part).env("KUBECONFIG", kubeconfig).env("PILOTLIGHT_BIND_ADDRESS", ip.to_string());
    command.env("POD_NAME", format!("{part}-1")).env("POD_IP", ip.to_string());
    command.env("SYSTEM_NAMESPACE", "knative-serving").env("CLUSTER_DOMAIN", "cluster.local");
    Process::start(command)
}

async fn wait_until_ready(part: &str, ip: Ipv4Addr) {
    eventually(&format!("the {part} is ready"), MINUTE, async || {
        get(SocketAddr::new(ip.into(), 8008), "local", "/readyz")
            .await
            .ok()
            .filter(|answer| answer.status == 200)
            .map(drop)
    })
    .await;
}

/// An activator without an autoscaler is never ready: its table is there once it says that a revision is unknown, rather
/// than holding the request.
async fn wait_until_served(part: &str, ip: Ipv4Addr) {
    eventually(&format!("the {part} has its table"), MINUTE, async || {
        let answer = get(SocketAddr::new(ip.into(), 8008), "local", "/v1/activity").await.ok()?;
        (answer.body.matches("default/app-").count() == REVISIONS).then_some(())
    })
    .await;
}

/// Revisions that have been decided about.
async fn decisions() -> anyhow::Result<usize> {
    let answer = get(SocketAddr::new(AUTOSCALER.into(), 8008), "local", "/v1/decisions").await?;
    ensure!(answer.status == 200, "/v1/decisions answers {}", answer.status);
    Ok(answer.body.matches("\"evaluation\"").count())
}

/// The upper bound, in milliseconds, of the bucket that the slowest tick so far fell into.
async fn slowest_tick() -> anyhow::Result<f64> {
    let page = get(SocketAddr::new(AUTOSCALER.into(), 8008), "local", "/metrics").await?.body;
    let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
    let named = |name: &str| {
        page.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect::<Vec<_>>()
    };
    let count = named("pilotlight_tick_delay_seconds_count").first().and_then(|line| value(line));
    let count = count.context("no ticks are told")?;
    for line in named("pilotlight_tick_delay_seconds_bucket") {
        if value(&line) == Some(count) {
            let bound =
                line.split("le=\"").nth(1).and_then(|rest| rest.split('"').next()).context("a bound")?;
            return Ok(bound.parse::<f64>().unwrap_or(f64::INFINITY) * 1000.0);
        }
    }
    Ok(f64::INFINITY)
}

fn p99(millis: &mut [f64]) -> f64 {
    millis.sort_by(f64::total_cmp);
    millis[(millis.len() * 99).div_ceil(100) - 1]
}

fn spread(sorted: &[f64]) -> String {
    format!(
        "median {:.1} ms, worst {:.1} ms of {}",
        sorted[sorted.len() / 2],
        sorted[sorted.len() - 1],
        sorted.len()
    )
}

#[derive(Default)]
struct Goals {
    rows: Vec<String>,
    missed: bool,
}

impl Goals {
    fn check(&mut self, what: &str, measured: f64, most: f64) {
        let met = measured <= most;
        self.missed |= !met;
        let verdict = if met { "" } else { "MISSED" };
        println!("{what}: {measured:.2}");
        self.rows.push(format!("{what:<66} {measured:>8.2} <= {most:<6} {verdict}"));
    }

    fn print(self) -> ExitCode {
        println!("\n{}", self.rows.join("\n"));
        if self.missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

const PART: &str = "PILOTLIGHT_BENCH_PART";
const REVISIONS: usize = 5_000;
const BUSY: usize = 50;
const LONE_WAKES: usize = 100;
const ROUNDS: usize = 10;
const AT_ONCE: usize = 100;
const AUTOSCALER: Ipv4Addr = Ipv4Addr::new(127, 90, 0, 1);
const ACTIVATOR: Ipv4Addr = Ipv4Addr::new(127, 90, 0, 2);
const MINUTE: Duration = Duration::from_secs(60);
const WARM_UP: Duration = Duration::from_secs(10);
const PERIOD: Duration = Duration::from_secs(30);
const SETTLE: Duration = Duration::from_secs(5);
