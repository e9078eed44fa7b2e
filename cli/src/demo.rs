//! `pilotlight demo`: the scenario everyone knows from KFServing's page on autoscaling, live.
//!
//! Target 10 at 70 %, 25 requests at a time for 30 seconds, 100 ms each: ceil(25 / 7) = 4 pods, and back to none.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use pilotlight_config::duration;
use pilotlight_local::{AppLogs, LocalWorkload};
use pilotlight_process::flags::address;
use pilotlight_process::{LogSettings, StopSignals};
use tracing::info;

use crate::block_on;
use crate::latency::RequestSummary;
use crate::live;
use crate::load::{End, Load, Mode};
use crate::logging;
use crate::output::print;
use crate::run::{INTERRUPTED, ServiceArgs, sample_command};
use crate::screen::Screen;
use crate::stack::{Stack, StackParams};
use crate::summary::{ColdStartSummary, Summary};

/// Watch a service scale from zero to four pods under load, and back
///
/// The scenario of KFServing's autoscaling page: target 10 at 70 % utilization, and 25 requests at a time for 30
/// seconds against an app that takes 100 ms. Takes a minute and a half, most of it the 60 seconds for which load is
/// remembered.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Requests at a time
    #[arg(long, value_name = "REQUESTS", default_value_t = 25)]
    concurrency: u32,
    /// Duration of the load
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    duration: Duration,
    /// Time the app takes for a request
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = duration::parse)]
    sleep: Duration,
    /// Time over which load is averaged
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    window: String,
    /// Address to take requests at [default: any free port]
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    listen: Option<SocketAddr>,
    /// Do not draw the live view, even on a terminal
    #[arg(long)]
    no_live: bool,
}

/// Runs the scenario and says how it went: success is the expected number of pods, none in the end, nothing lost.
pub fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    block_on(run_and_end(args))
}

async fn run_and_end(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let screen = Screen::stderr().context("cannot start the thread that writes the log")?;
    logging::start(&LogSettings::default(), &screen);
    let result = run_on(&screen, args).await;
    screen.flush();
    result
}

async fn run_on(screen: &Screen, args: DemoArgs) -> anyhow::Result<ExitCode> {
    let mut signals = StopSignals::new().context("cannot listen for signals")?;
    let mut stack = Stack::start(StackParams {
        workloads: vec![args.workload()?],
        listen: args.listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        admin: None,
        journal: None,
        app_logs: AppLogs::Screen,
    })
    .await?;
    let expected = args.expected_pods();
    print(&format!(
        "target 10 x 70 % = 7 in flight per pod; {} at a time for {:?}: ceil({} / 7) = {expected} pods\n",
        args.concurrency, args.duration, args.concurrency
    ))?;
    let played = {
        let live = async {
            if args.no_live || !Screen::is_terminal() {
                std::future::pending::<()>().await;
            }
            live::run(&stack, screen).await;
        };
        tokio::select! {
            played = play(&args, &stack) => Some(played?),
            () = live => None,
            _ = signals.next() => None,
        }
    };
    screen.clear();
    let Some(played) = played else {
        tokio::select! {
            () = stack.drain() => {}
            _ = signals.next() => stack.cut().await,
        }
        return Ok(ExitCode::from(INTERRUPTED));
    };
    stack.drain().await;
    let summary = Summary::of(&stack);
    let verdict = Verdict::of(&played, &summary, expected);
    // On a terminal the verdict comes last.
    screen.flush();
    print(&format!(
        "\nWhat the client saw:\n{}\n\nWhat Pilotlight saw:\n{summary}\n\n{verdict}\n",
        played.client
    ))?;
    Ok(if verdict.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Observations between the first request and the end of the last pod.
struct Played {
    client: RequestSummary,
    /// Most pods that were wanted at once.
    most_wanted: u32,
    /// Time from the end of the load until the last pod was gone; `None`: it was not gone within the time allowed.
    back_at_zero: Option<Duration>,
}

async fn play(args: &DemoArgs, stack: &Stack) -> anyhow::Result<Played> {
    let mut load = Load {
        path: format!("/?sleep={}", args.sleep.as_millis()),
        connections: args.concurrency,
        mode: Mode::Closed,
        end: End::After(args.duration),
        ..Load::new(stack.address)
    }
    .start()?;
    let mut most_wanted = 0;
    let mut wanted = stack.autoscaler.board().version();
    let scale = || stack.autoscaler.board().snapshot().first().and_then(|status| status.scale).unwrap_or(0);
    while !load.is_finished() {
        let _ = tokio::time::timeout(Duration::from_millis(100), wanted.changed()).await;
        most_wanted = most_wanted.max(scale());
    }
    let client = load.finish().await;
    let load_ended = stack.clock.now();
    info!("Load has ended, waiting for the last pod to go");
    let window = duration::parse(&args.window).context("--window")?;
    let deadline = load_ended + window + PATIENCE;
    let back_at_zero = loop {
        if scale() == 0 && pods(stack) == 0 {
            break Some(stack.clock.now() - load_ended);
        }
        if stack.clock.now() > deadline {
            break None;
        }
        let _ = tokio::time::timeout(Duration::from_millis(100), wanted.changed()).await;
        most_wanted = most_wanted.max(scale());
    };
    Ok(Played { client, most_wanted, back_at_zero })
}

fn pods(stack: &Stack) -> usize {
    stack.cluster.revisions().values().map(|revision| revision.pods.len()).sum()
}

impl DemoArgs {
    fn workload(&self) -> anyhow::Result<LocalWorkload> {
        let service = ServiceArgs {
            name: Some("autoscale-go".to_owned()),
            min: Some("0".to_owned()),
            target: Some("10".to_owned()),
            utilization: Some("70".to_owned()),
            window: Some(self.window.clone()),
            ..ServiceArgs::default()
        };
        let (workload, _) = service.workload(&sample_command()?, None)?;
        Ok(LocalWorkload::new(&workload, Duration::from_secs(30))?)
    }

    fn expected_pods(&self) -> u32 {
        self.concurrency.div_ceil(7)
    }
}

struct Verdict {
    checks: Vec<(bool, String)>,
}

impl Verdict {
    fn of(played: &Played, summary: &Summary, expected: u32) -> Verdict {
        let failed = played.client.failed();
        let cold = summary.recent_cold_starts.first().map_or("none".to_owned(), ColdStartSummary::in_words);
        Verdict {
            checks: vec![
                (
                    played.most_wanted == expected,
                    format!("scaled 0 -> {} pods (expected {expected})", played.most_wanted),
                ),
                match played.back_at_zero {
                    Some(after) => {
                        (true, format!("back at 0 pods {:.1} s after the load ended", after.as_secs_f64()))
                    }
                    None => (false, "pods were still there when the time was over".to_owned()),
                },
                (summary.cold_starts == 1, format!("{} cold start: {cold}", summary.cold_starts)),
                (
                    failed == 0 && summary.lost == 0,
                    format!("{} requests, {failed} failed, {} lost", played.client.requests, summary.lost),
                ),
            ],
        }
    }

    fn is_good(&self) -> bool {
        self.checks.iter().all(|(good, _)| *good)
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (good, text) in &self.checks {
            writeln!(f, "{} {text}", if *good { "ok  " } else { "FAIL" })?;
        }
        f.write_str(if self.is_good() { "verdict: as it should be" } else { "verdict: not as it should be" })
    }
}

/// Time allowed beyond the window: two evaluations, and the end of the pods.
const PATIENCE: Duration = Duration::from_secs(20);
