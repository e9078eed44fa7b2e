//! `pilotlight sim run`: what will happen under a load.

use std::process::ExitCode;

use clap::Args;
use pilotlight_sim::compare::Contender;
use pilotlight_sim::{Run, simulate};

use super::patience::Patience;
use super::show::ShowArgs;
use super::world::WorldArgs;

/// Simulate a load and say what will happen: latencies, pods, cold starts
///
/// All settings of the scenario are tried, side by side, on the same requests.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SimRunArgs {
    #[command(flatten)]
    world: WorldArgs,
    /// Seed of all randomness
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// How many times, each with the next seed; numbers are then means, with the 95 % interval
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    runs: u32,
    #[command(flatten)]
    show: ShowArgs,
}

pub(super) fn run(args: &SimRunArgs) -> anyhow::Result<ExitCode> {
    let world = match args.world.load() {
        Ok(world) => world,
        Err(faults) => return super::refuse(&faults),
    };
    let (scenario, settings) = (&world.file.scenario, &world.file.settings);
    let runs = args.runs as usize;
    let mut contenders: Vec<Contender> = settings
        .iter()
        .map(|settings| Contender { name: settings.name.clone(), outcomes: Vec::with_capacity(runs) })
        .collect();
    let patience = Patience::with("simulating");
    patience.workers().for_each(
        "simulating",
        settings.len() * runs,
        |index| {
            let (setting, trial) = (index / runs, index % runs);
            let timeline = trial == 0 && args.show.wants_timeline();
            simulate(
                scenario,
                &settings[setting],
                Run { seed: args.seed.wrapping_add(trial as u64), timeline },
            )
        },
        |index, outcome| contenders[index / runs].outcomes.push(outcome),
    );
    drop(patience);
    args.show.show(&world, args.seed, &contenders, "")
}

const EXAMPLES: &str = "\
Examples:
  pilotlight sim run --rate 100 --for 5m --service-time 80ms --startup 3s
  pilotlight sim run --users 25 --for 30s --service-time 100ms --startup 500ms --target 10
  pilotlight sim run --trace access.log --settings service.yaml --startup 4s --report out.html
  pilotlight sim run scenario.yaml --set app.service-time=200ms --assert 'p99<300ms && lost==0'
  pilotlight sim run scenario.yaml --runs 10 --format json";
