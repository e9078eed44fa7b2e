//! The command `pilotlight`.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use pilotlight_activator::ActivatorArgs;
use pilotlight_cli::logging::Format;
use pilotlight_cli::{demo, explain, knative, kube, lint, pages, run, sample, sim};
use pilotlight_local::guard::intercept;
use pilotlight_local::process::AutoscalerArgs;
use pilotlight_process::{end, flags};

/// Run HTTP services on demand: scale from zero by requests, as Knative does
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
    Kube(kube::KubeArgs),
    Knative(knative::KnativeArgs),
    /// Print the completions for a shell, to be sourced or put where it looks for them
    Completions {
        shell: Shell,
    },
    /// Print the manual page, of one command if it is named: pilotlight man run | man -l -
    Man {
        command: Option<String>,
    },
    /// Print the version
    Version,
    Activator(Box<ActivatorArgs>),
    Autoscaler(Box<AutoscalerArgs>),
    /// Stand in front of one app in its pod: count and limit its requests, probe it, drain it
    #[command(disable_help_flag = true)]
    QueueProxy {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    if let Some(code) = intercept() {
        return code;
    }
    // Each pod has a queue-proxy, so it starts without clap, whose pages would stay in its memory.
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == "queue-proxy") {
        return queue_proxy(words);
    }
    let cli = match flags::try_parse::<Cli>(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return flags::refuse(&with_tip(error)),
    };
    let result = match cli.command {
        Command::QueueProxy { args } => return queue_proxy(args),
        Command::Activator(args) => return pilotlight_activator::run(&args),
        Command::Autoscaler(args) => return pilotlight_local::process::run(&args),
        Command::Kube(args) => return kube::run(args),
        Command::Knative(args) => return knative::run(args),
        Command::Run(args) => run::run(*args),
        Command::Demo(args) => demo::run(args),
        Command::Lint(args) => lint::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Sample(args) => sample::run(args),
        Command::Sim(args) => sim::run(args),
        Command::Completions { shell } => pages::completions(shell, Cli::command()),
        Command::Man { command } => pages::man(command.as_deref(), Cli::command()),
        Command::Version => pages::version(&Cli::command()),
    };
    end(result, Format::Text)
}

fn queue_proxy(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    pilotlight_queue_proxy::main_with_args("pilotlight queue-proxy", args)
}

/// Adds a tip to slips that everybody makes: `pilotlight run ./app`, without the two dashes, and `rnu`, which clap does
/// not see to be close to `run`.
fn with_tip(mut error: clap::Error) -> clap::Error {
    if error.kind() == ErrorKind::InvalidSubcommand
        && let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand)
        && error.get(ContextKind::SuggestedSubcommand).is_none()
    {
        let command = Cli::command();
        let mut names = command.get_subcommands().map(clap::Command::get_name);
        let meant = names.find(|name| pages::is_swapped(word, name)).map(str::to_owned);
        if let Some(meant) = meant {
            error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(vec![meant]));
        }
        return error;
    }
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
