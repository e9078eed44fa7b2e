//! `pilotlight run`: everything on this machine, from nothing running to a served request and back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use pilotlight_config::process::variables;
use pilotlight_config::{Warning, duration};
use pilotlight_local::manifests;
use pilotlight_local::{AppLogs, LocalWorkload};
pub use pilotlight_process::INTERRUPTED;
use pilotlight_process::flags::{AdminArgs, CheckArgs, LogArgs, address};
use pilotlight_process::{StopSignals, WrongSettings, end, print_valid};
use serde_json::json;
use tracing::{info, warn};

use crate::block_on;
use crate::live;
use crate::logging::{self, Format};
use crate::output::print;
use crate::screen::Screen;
pub use crate::service::ServiceArgs;
use crate::stack::{Stack, StackParams, USUAL_ADMIN_ADDRESS};
use crate::summary::Summary;

/// Run apps on this machine, scaled by the requests in flight, down to none
///
/// Each pod, a copy of the app, is a child process with a queue-proxy in front. No app runs until a request comes;
/// the request waits until a pod is up.
#[derive(Debug, Args)]
#[command(
    after_help = EXAMPLES,
    after_long_help = format!("{EXAMPLES}\n\n{}", variables::help(&[variables::LOGS])),
    mut_arg("admin", |flag| flag.help(ADMIN)),
    mut_arg("log_format", |flag| flag.help("Form of log lines and of the summary")),
)]
pub struct RunArgs {
    /// App and its arguments; {port} is replaced by the port it has to listen on, which PORT names, too
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
    /// Run the built-in sample app: ?sleep=MS, ?prime=N, ?bloat=MB
    #[arg(long, conflicts_with = "command")]
    sample: bool,
    /// Workloads to run: YAML or JSON files, or folders of them; - is standard input
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Defaults: a config-autoscaler ConfigMap in YAML
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to take requests at
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = address)]
    listen: SocketAddr,
    #[command(flatten)]
    admin: AdminArgs,
    /// File to write every decision to, one JSON line each
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    #[command(flatten)]
    logs: LogArgs,
    #[command(flatten)]
    check: CheckArgs,
    /// Where the lines of apps go: screen (the log, behind the pod's name), off, or a folder, for a file of each pod
    #[arg(long, value_name = "WHERE", default_value = "screen")]
    app_logs: AppLogs,
    /// Do not draw the live view, even on a terminal
    #[arg(long)]
    no_live: bool,
    /// Time limit for a pod to become ready
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration::parse)]
    startup_timeout: Duration,
    #[command(flatten)]
    service: ServiceArgs,
}

/// Runs until a signal says to stop. A second signal stops at once.
pub fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    block_on(run_and_end(args))
}

async fn run_and_end(args: RunArgs) -> anyhow::Result<ExitCode> {
    let screen = Screen::stderr().context("cannot start the thread that writes the log")?;
    logging::start(&args.logs.settings(), &screen);
    let format = args.logs.format();
    let result = run_on(&screen, args).await;
    // The error comes behind the log, and may be a line of it.
    screen.flush();
    let code = end(result, format);
    screen.flush();
    Ok(code)
}

async fn run_on(screen: &Screen, args: RunArgs) -> anyhow::Result<ExitCode> {
    let (workloads, warnings) = workloads(&args)?;
    for warning in warnings {
        // No constant message: a warning names file, key and advice, and comes once.
        warn!("{warning}");
    }
    if args.check.check_config {
        return Ok(print_valid(&in_force(&args, &workloads)));
    }
    let format = args.logs.format();
    let mut signals = StopSignals::new().context("cannot listen for signals")?;
    let mut stack = Stack::start(StackParams {
        workloads: workloads.clone(),
        listen: args.listen,
        admin: args.admin.admin,
        journal: args.journal,
        app_logs: args.app_logs,
    })
    .await?;
    print(&announcement(&stack, &workloads, format, (args.sample, args.admin.admin.is_some())))?;
    for workload in workloads.iter().filter(|workload| !workload.passes_port()) {
        info!(service = %workload.id, "{PORT_HINT}");
    }

    if format == Format::Text && !args.no_live && Screen::is_terminal() {
        tokio::select! {
            () = live::run(&stack, screen) => {}
            _ = signals.next() => {}
        }
        screen.clear();
    } else {
        signals.next().await;
    }
    info!("Stopping: requests in flight are finished, a second signal stops at once");
    let finished = tokio::select! {
        () = stack.drain() => true,
        _ = signals.next() => false,
    };
    if !finished {
        stack.cut().await;
    }
    let summary = Summary::of(&stack);
    // On a terminal the summary comes last.
    screen.flush();
    let summary = match format {
        Format::Text => format!("\n{summary}\n"),
        Format::Json => {
            let mut line = json!({ "event": "summary" });
            if let (Some(line), Ok(serde_json::Value::Object(summary))) =
                (line.as_object_mut(), serde_json::to_value(&summary))
            {
                line.extend(summary);
            }
            format!("{line}\n")
        }
    };
    print(&summary)?;
    Ok(if finished { ExitCode::SUCCESS } else { ExitCode::from(INTERRUPTED) })
}

/// The settings in force, for `--check-config`.
fn in_force(args: &RunArgs, workloads: &[LocalWorkload]) -> Vec<String> {
    let services: Vec<String> = workloads.iter().map(|it| it.id.to_string()).collect();
    let admin = args
        .admin
        .admin
        .map_or(format!("{USUAL_ADMIN_ADDRESS}, or any free port"), |admin| admin.to_string());
    vec![
        format!("services: {}", services.join(", ")),
        format!("requests: {}, admin port: {admin}", args.listen),
    ]
}

/// The addresses of everything, for whoever started it.
fn announcement(
    stack: &Stack,
    workloads: &[LocalWorkload],
    format: Format,
    (is_sample, is_admin_asked): (bool, bool),
) -> String {
    match format {
        Format::Text => {
            let Stack { address, admin_address, .. } = *stack;
            let moved = match admin_address == USUAL_ADMIN_ADDRESS || is_admin_asked {
                true => String::new(),
                false => format!(" ({USUAL_ADMIN_ADDRESS} is in use)"),
            };
            let mut text = format!("listening on http://{address}, admin on http://{admin_address}{moved}\n");
            for workload in workloads.iter().filter(|_| workloads.len() > 1) {
                let (host, port) = (&workload.hosts[0], address.port());
                text.push_str(&format!("  {}: http://{host}:{port}\n", workload.id));
            }
            text.push_str(&match workloads {
                [_] if is_sample => format!("try: curl 'http://{address}/?sleep=100'\n"),
                [first, _, ..] => format!("try: curl http://{}:{}/\n", first.hosts[0], address.port()),
                _ => format!("try: curl http://{address}/\n"),
            });
            text
        }
        Format::Json => {
            let services: BTreeMap<String, &[String]> =
                workloads.iter().map(|it| (it.id.to_string(), it.hosts.as_slice())).collect();
            let line = json!({
                "event": "listening", "address": stack.address, "admin": stack.admin_address, "services": services,
            });
            format!("{line}\n")
        }
    }
}

/// The workloads to run: from files, from the command line, or both. All that is wrong with them at once.
fn workloads(args: &RunArgs) -> anyhow::Result<(Vec<LocalWorkload>, Vec<Warning>)> {
    let command = if args.sample { sample_command()? } else { args.command.clone() };
    if command.is_empty() && args.files.is_empty() {
        return Err(WrongSettings::new(NOTHING_TO_RUN).into());
    }
    let mut wrong = WrongSettings::default();
    let mut workloads = Vec::new();
    let mut warnings = Vec::new();
    if command.is_empty() {
        for without_effect in args.service.without_command() {
            wrong.check(Err::<(), _>(without_effect));
        }
    }
    if !args.files.is_empty()
        && let Some(read) = wrong.check(manifests::read(&args.files, args.config.as_deref()))
    {
        if read.workloads.is_empty() && command.is_empty() {
            wrong.check(Err::<(), _>("the files name no workload to run"));
        }
        workloads.extend(read.workloads);
        warnings.extend(read.warnings);
    }
    if !command.is_empty() {
        let named = args.service.name.clone().or_else(|| args.sample.then(|| "sample".to_owned()));
        let service = ServiceArgs { name: named, ..args.service.clone() };
        if let Some((workload, more)) = wrong.check(service.workload(&command, args.config.as_deref())) {
            if workloads.iter().any(|other| other.id == workload.id) {
                let id = &workload.id;
                wrong.check(Err::<(), _>(format!(
                    "{id} is defined already in a file: name the command differently with --name"
                )));
            }
            workloads.push(workload);
            warnings.extend(more);
        }
    }
    let here = wrong.check(LocalWorkload::all(&workloads, args.startup_timeout));
    Ok(wrong.finish(|| Some((here?, warnings)))?)
}

/// The command of the sample app: a subcommand of this executable.
pub fn sample_command() -> anyhow::Result<Vec<String>> {
    let this = std::env::current_exe().context("cannot find this executable")?;
    Ok([this.to_string_lossy().as_ref(), "sample", "--port", "{port}"].map(str::to_owned).into())
}

const PORT_HINT: &str =
    "PORT is set for the app; add {port} to its command if it takes its port as an argument";
const NOTHING_TO_RUN: &str = "nothing to run: name a command (pilotlight run -- ./app --port {port}), a file (-f service.yaml), or --sample";
const ADMIN: &str = "Address of the admin port: /metrics, /healthz, /readyz, /v1/decisions, /v1/endpoints [default: \
                     127.0.0.1:8081, or any free port]";

const EXAMPLES: &str = "\
Examples:
  pilotlight run --sample
  pilotlight run -- ./app --port {port}
  pilotlight run --target 10 --max 5 --window 20s -- python3 -m http.server {port}
  pilotlight run -f service.yaml -f inferenceservice.yaml --config config-autoscaler.yaml
  pilotlight run --journal decisions.jsonl --log-format json -- ./app --port {port}

Requests find their service by Host: NAME.NAMESPACE.localhost, or the plain name. With one service, any host does,\nunless it is the cluster-local name of another: NAME.NAMESPACE.svc.cluster.local.";

#[cfg(test)]
mod tests {
    use clap::Parser;
    use pilotlight_config::explain::STARTUP_TIMEOUT;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArgs,
    }

    fn parsed(words: &[&str]) -> RunArgs {
        Line::try_parse_from(["run"].iter().chain(words)).unwrap().run
    }

    #[test]
    fn a_pod_has_the_time_to_start_that_lint_tells() {
        assert_eq!(parsed(&["--sample"]).startup_timeout, STARTUP_TIMEOUT);
    }

    #[test]
    fn settings_beside_files_alone_are_refused() {
        let error = workloads(&parsed(&["-f", "/nowhere.yaml", "--target", "5", "--max", "2"])).unwrap_err();
        let lines: Vec<String> = error.to_string().lines().map(str::to_owned).collect();
        assert!(
            lines.iter().any(|line| line.contains("--target is about an app given behind --")),
            "{lines:?}"
        );
        assert!(
            lines.iter().any(|line| line.contains("write the annotation autoscaling.knative.dev/max-scale")),
            "{lines:?}"
        );
    }
}
