//! `pilotlight sim tune`: which settings it should have.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use pilotlight_sim::compare::Contender;
use pilotlight_sim::sweep::{Grid, Knob};
use pilotlight_sim::tune::{Effort, Goal, Plan, Space, tune};
use pilotlight_sim::{Run, simulate};

use super::patience::Patience;
use super::show::ShowArgs;
use super::sweep::metric;
use super::world::WorldArgs;
use crate::run::INTERRUPTED;

/// Search for better settings, and judge them on load the search has not seen
///
/// Ends with what to write into the cluster, or with the advice to keep what is there. Ctrl-C ends the search, and the
/// best so far is told; once more, and the program ends.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TuneArgs {
    #[command(flatten)]
    world: WorldArgs,
    /// Metric of the cost, to be made small
    #[arg(long, value_name = "METRIC", value_parser = metric, default_value = "pod-seconds")]
    minimize: String,
    /// Metric that the cost buys, to be made small as well
    #[arg(long, value_name = "METRIC", value_parser = metric, default_value = "wait-p95")]
    latency: String,
    /// Only these settings, with these values; otherwise all annotations that make a difference
    #[arg(long, value_name = "SETTING=VALUES")]
    vary: Vec<Knob>,
    /// The share of the load, from its beginning, that settings are chosen on
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    training: f64,
    /// How hard to search
    #[arg(long, value_name = "HOW", default_value = "usual")]
    effort: HowHard,
    /// Seed of all randomness
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum HowHard {
    /// A quick look: about a tenth of the usual.
    Little,
    /// Enough for most loads.
    Usual,
}

impl HowHard {
    fn effort(self) -> Effort {
        match self {
            HowHard::Little => Effort { points: 80, finalists: 6, rounds: 3, worlds: 4, trials: 20 },
            HowHard::Usual => Effort::default(),
        }
    }
}

pub(super) fn run(args: &TuneArgs) -> anyhow::Result<ExitCode> {
    let mut world = match args.world.load() {
        Ok(world) => world,
        Err(faults) => return super::refuse(&faults),
    };
    let Some(written) = world.file.written.clone() else {
        return super::refuse(
            &"there are no settings that go by requests; write `annotations` or a manifest",
        );
    };
    let scenario = &world.file.scenario;
    let space = if args.vary.is_empty() {
        Space::annotations(written.clone(), scenario)
    } else {
        Space::new(written.clone(), args.vary.clone())
    };
    let space = match space {
        Ok(space) => space,
        Err(error) => return super::refuse(&error),
    };
    let slo = world.file.slo.map(super::requirement).transpose()?;
    let goal = Goal { cost: args.minimize.clone(), latency: args.latency.clone(), slo };
    let plan = Plan { goal, training_fraction: args.training, effort: args.effort.effort(), seed: args.seed };
    let patience = Patience::with("searching");
    let mut workers = patience.workers_until_interrupted();
    let tuned = match tune(scenario, &space, &plan, &mut workers) {
        Ok(tuned) => tuned,
        Err(error) => {
            drop(patience);
            return super::refuse(&error);
        }
    };
    // Their outcome under the whole load, for the tables and charts.
    let mut trials = vec![("as they are".to_owned(), written.resolve("as they are")?)];
    if !tuned.settings.is_empty() {
        let values = |(name, value): &(String, String)| Knob::new(name, vec![Some(value.clone())]);
        let knobs = tuned.settings.iter().map(values).collect::<Result<Vec<Knob>, _>>()?;
        let (_, chosen) = Grid::new(written, knobs)?.combination(0);
        let name = if tuned.is_recommended { "recommended" } else { "best found" };
        trials.push((name.to_owned(), chosen.resolve(name)?));
    }
    let run = Run { seed: args.seed, timeline: args.show.wants_timeline() };
    let contenders: Vec<Contender> = trials
        .into_iter()
        .map(|(name, settings)| Contender { name, outcomes: vec![simulate(scenario, &settings, run)] })
        .collect();
    drop(patience);
    world.tuning = Some(tuned.report);
    let shown = args.show.show(&world, args.seed, &contenders, "")?;
    Ok(if workers.is_stopped() { ExitCode::from(INTERRUPTED) } else { shown })
}

const EXAMPLES: &str = "\
Examples:
  pilotlight sim tune scenario.yaml --report out.html
  pilotlight sim tune scenario.yaml --slo 'p95<500ms' --minimize pod-seconds
  pilotlight sim tune scenario.yaml --vary window=6s,30s,60s,5m --vary min-scale=0..3:1
  pilotlight sim tune --trace access.log --settings service.yaml --startup empirical:loads.csv:seconds";
