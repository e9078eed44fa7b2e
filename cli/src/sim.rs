//! `pilotlight sim`: what will happen, before it does. Glue between flags, the simulator, and what it prints.
//!
//! | file | what it does |
//! |---|---|
//! | `world.rs` | what is simulated: a scenario, flags, or both |
//! | `show.rs` | what comes out, as text, JSON, CSV and HTML |
//! | `patience.rs` | how far it is, for who waits at a terminal |
//! | `run.rs`, `compare.rs`, `import.rs`, `replay.rs` | a verb each |

mod compare;
mod import;
mod patience;
mod replay;
mod run;
mod show;
mod world;

use std::process::ExitCode;

use clap::{Args, Subcommand};

/// Say what will happen under a load, with the decisions that production makes
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SimArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(Box<run::RunArgs>),
    Compare(Box<compare::CompareArgs>),
    Import(import::ImportArgs),
    Replay(replay::ReplayArgs),
}

/// Does what the verb says. Exits with 1 where an assertion failed or something that was written is wrong, and with 2
/// where the command line is.
pub fn run(args: SimArgs) -> anyhow::Result<ExitCode> {
    patience::stop_on_interrupt();
    match args.verb {
        Verb::Run(args) => run::run(&args),
        Verb::Compare(args) => compare::run(&args),
        Verb::Import(args) => import::run(&args),
        Verb::Replay(args) => replay::run(&args),
    }
}

const EXAMPLES: &str = "\
Examples:
  pilotlight sim run --rate 100 --for 5m --service-time lognormal:p50=80ms,p99=900ms --startup 3s
  pilotlight sim run sim/scenarios/slow-model.yaml --report out.html
  pilotlight sim compare sim/scenarios/locust-steps-full-cluster.yaml --runs 10
  pilotlight sim import access.log --out plain.csv

A scenario is a YAML file; docs/simulation.md has its fields. The same seed gives the same bytes.";
