//! The one command people type.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Parser, Subcommand};
use pilotlight_cli::{demo, explain, lint, run, sample, sim};
use pilotlight_local::guard::intercept;

/// A pilot light for services that are switched off: request-driven autoscaling, down to none and back
#[derive(Debug, Parser)]
#[command(name = "pilotlight", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<run::RunArgs>),
    Demo(demo::DemoArgs),
    Lint(lint::LintArgs),
    Explain(explain::ExplainArgs),
    Sim(sim::SimArgs),
    Sample(sample::SampleArgs),
    /// The queue-proxy as a process of its own; its settings are environment variables
    QueueProxy,
    /// The activator as a process of its own
    #[command(disable_help_flag = true)]
    Activator {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// The autoscaler as a process of its own
    #[command(disable_help_flag = true)]
    Autoscaler {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    if let Some(code) = intercept() {
        return code;
    }
    // There is one in every pod, so it starts without the parser of all the others' arguments: what that touches of
    // this file would stay in its memory.
    if std::env::args_os().skip(1).eq(["queue-proxy"]) {
        return pilotlight_queue_proxy::main();
    }
    let cli = Cli::try_parse().unwrap_or_else(|error| with_tip(error).exit());
    let result = match cli.command {
        Command::QueueProxy => return pilotlight_queue_proxy::main(),
        Command::Activator { args } => {
            return pilotlight_activator::main_with_args(with_name("activator", args));
        }
        Command::Autoscaler { args } => {
            return pilotlight_local::process::main_with_args(with_name("autoscaler", args));
        }
        Command::Run(args) => block_on(run::run(*args)),
        Command::Demo(args) => block_on(demo::run(args)),
        Command::Lint(args) => lint::run(&args),
        Command::Explain(args) => block_on(explain::run(args)),
        Command::Sample(args) => block_on(sample::run(args)).map(|()| ExitCode::SUCCESS),
        Command::Sim(args) => sim::run(args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// The one slip that everybody makes: `pilotlight run ./app`, without the two dashes.
fn with_tip(mut error: clap::Error) -> clap::Error {
    let is_run = std::env::args_os().nth(1).is_some_and(|word| word == "run");
    if is_run
        && error.kind() == ErrorKind::UnknownArgument
        && let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg)
        && !word.starts_with('-')
    {
        let tip = format!("the command comes after two dashes: 'pilotlight run [OPTIONS] -- {word} ...'");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

fn with_name(component: &str, args: Vec<OsString>) -> impl Iterator<Item = OsString> {
    std::iter::once(OsString::from(format!("pilotlight {component}"))).chain(args)
}

/// Two threads: one for what comes in, one for what it sets off. More would cost memory and win little here.
fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(future)
}
