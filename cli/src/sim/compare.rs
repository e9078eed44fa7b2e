//! `pilotlight sim compare`: several settings under the same load, and which differences are more than chance.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use pilotlight_sim::compare::{self, Comparison, Noise, Trials, Verdict};
use pilotlight_sim::{Metric, Unit};

use super::patience::Patience;
use super::show::ShowArgs;
use super::world::WorldArgs;

/// Try several settings on the same requests, and tell differences from chance
///
/// Each is tried with several seeds; what is judged is the difference to the first under the same seed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CompareArgs {
    #[command(flatten)]
    world: WorldArgs,
    /// The first of the seeds
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// How many seeds
    #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    runs: u32,
    #[command(flatten)]
    show: ShowArgs,
}

pub(super) fn run(args: &CompareArgs) -> anyhow::Result<ExitCode> {
    let world = match args.world.load() {
        Ok(world) => world,
        Err(faults) => return super::refuse(&faults),
    };
    let patience = Patience::with("comparing");
    let trials = Trials::seeds(args.seed, args.runs);
    let comparison =
        compare::compare(&world.file.scenario, &world.file.settings, trials, &mut patience.workers());
    drop(patience);
    args.show.show(&world, args.seed, &comparison.contenders, &differences(&comparison))
}

/// Differences to the first that are beyond chance.
fn differences(comparison: &Comparison) -> String {
    let mut text = String::new();
    let first = &comparison.contenders[0].name;
    for (index, contender) in comparison.contenders.iter().enumerate().skip(1) {
        let _ = writeln!(text, "\n{} against {first}:", contender.name);
        for metric in JUDGED {
            let Some(difference) = comparison.difference(index, metric) else { continue };
            let word = match difference.verdict {
                Verdict::Better => "better",
                Verdict::Worse => "worse",
                Verdict::Different => "different",
                Verdict::Noise => "no difference beyond chance",
            };
            let unit = Metric::named(metric).map_or(Unit::Ratio, |metric| metric.unit);
            let change = difference.change;
            let (low, high) = change.range.unwrap_or((change.mean, change.mean));
            let [mean, low, high] = [change.mean, low, high].map(|value| signed(unit, value));
            let _ = writeln!(text, "  {metric:<12} {mean:>12}  ({low} to {high})  {word}");
        }
    }
    let noise = match comparison.noise {
        Noise::None => return text,
        Noise::Everything => "arrivals, work and start-up times",
        Noise::AllButArrivals => "work and start-up times; the arrivals are those of the trace",
        Noise::Blocks => "everything; arrivals are pieces of the trace put together anew",
    };
    let _ = writeln!(text, "\n95 % intervals over {} seeds, which vary {noise}.", comparison.trials.count);
    text
}

fn signed(unit: Unit, value: f64) -> String {
    let sign = if value < 0.0 { "\u{2212}" } else { "+" };
    format!("{sign}{}", unit.show(value.abs()))
}

/// Differences that are told of.
const JUDGED: &[&str] = &[
    "p50",
    "p95",
    "p99",
    "wait-p95",
    "success",
    "slo",
    "cold-requests",
    "pod-seconds",
    "node-seconds",
    "starts",
];

const EXAMPLES: &str = "\
Examples:
  pilotlight sim compare scenario.yaml
  pilotlight sim compare scenario.yaml --runs 30 --seed 7 --report out.html
  pilotlight sim compare --rate 50 --for 10m --service-time 80ms --startup 3s --settings a.yaml --settings hpa.yaml";
