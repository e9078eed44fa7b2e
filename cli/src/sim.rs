//! `pilotlight sim`: simulations of a load. Glue between flags, the simulator, and its output.
//!
//! | file | what it does |
//! |---|---|
//! | `world.rs` | the input: a scenario, flags, or both |
//! | `show.rs` | the output, as text, JSON, CSV and HTML |
//! | `patience.rs` | progress, on a terminal |
//! | `run.rs`, `compare.rs`, `sweep.rs`, `tune.rs`, `capacity.rs`, `import.rs`, `replay.rs` | a verb each |

mod capacity;
mod compare;
mod import;
mod patience;
mod replay;
mod run;
mod show;
mod sweep;
mod tune;
mod world;

use std::fmt::Display;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use pilotlight_process::WrongSettings;
use pilotlight_sim::assert::{Expression, ExpressionError, Slo};

/// Simulate a load with the real autoscaler's code
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SimArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(Box<run::SimRunArgs>),
    Compare(Box<compare::CompareArgs>),
    Sweep(Box<sweep::SweepArgs>),
    Tune(Box<tune::TuneArgs>),
    Capacity(Box<capacity::CapacityArgs>),
    Import(import::ImportArgs),
    Replay(replay::ReplayArgs),
}

/// Does what the verb says. Exits with 1 where an assertion failed, and with 2 where the command line or a file is wrong.
pub fn run(args: SimArgs) -> anyhow::Result<ExitCode> {
    patience::stop_on_interrupt();
    match args.verb {
        Verb::Run(args) => run::run(&args),
        Verb::Compare(args) => compare::run(&args),
        Verb::Sweep(args) => sweep::run(&args),
        Verb::Tune(args) => tune::run(&args),
        Verb::Capacity(args) => capacity::run(&args),
        Verb::Import(args) => import::run(&args),
        Verb::Replay(args) => replay::run(&args),
    }
}

/// Refuses input with all its faults.
fn refuse(faults: &dyn Display) -> anyhow::Result<ExitCode> {
    Err(WrongSettings::new(faults.to_string()).into())
}

/// The objective as a requirement of a search: in words where its quantile is measured, else by the share of requests
/// within it.
fn requirement(slo: Slo) -> Result<Expression, ExpressionError> {
    let by_share = format!("slo >= {}", slo.quantile);
    Expression::parse(&slo.to_string()).or_else(|_| Expression::parse(&by_share))
}

const EXAMPLES: &str = "\
Examples:
  pilotlight sim run --rate 100 --for 5m --service-time lognormal:p50=80ms,p99=900ms --startup 3s
  pilotlight sim run sim/scenarios/slow-model.yaml --report out.html
  pilotlight sim compare sim/scenarios/locust-steps-full-cluster.yaml --runs 10
  pilotlight sim tune sim/scenarios/slow-model.yaml
  pilotlight sim capacity sim/scenarios/twelve-cores.yaml --slo 'p95<1s'
  pilotlight sim import access.log --out plain.csv

A scenario is a YAML file; docs/simulation.md has its fields. The same seed gives the same bytes.";
