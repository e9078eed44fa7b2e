//! `pilotlight sim capacity`: how much load these pods carry, and how many pods this load needs.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use pilotlight_sim::assert::Expression;
use pilotlight_sim::capacity::{Answer, LoadTrial, LoadUnit, Question, load_carried, pods_needed};
use pilotlight_sim::compare::Trials;
use pilotlight_sim::scenario::Settings;
use pilotlight_sim::{Metric, Unit};
use serde_json::json;

use super::patience::Patience;
use super::show::ResultForm;
use super::world::WorldArgs;
use crate::output::print;

/// Say how many users, or requests per second, the settings carry within the objective
///
/// A closed loop is tried with more and fewer users, an open load with more and fewer requests at every time. With
/// --needed it is the other way round: how few pods carry the load as it is.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CapacityArgs {
    #[command(flatten)]
    world: WorldArgs,
    /// How few pods carry the load as it is
    #[arg(long)]
    needed: bool,
    /// The most that is tried: users, requests per second, or pods
    #[arg(long, value_name = "NUMBER", default_value_t = 100_000.0)]
    most: f64,
    /// The first of the seeds
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// How many seeds; the objective must be kept with all of them
    #[arg(long, value_name = "NUMBER", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    runs: u32,
    /// Form of the answer
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: ResultForm,
}

pub(super) fn run(args: &CapacityArgs) -> anyhow::Result<ExitCode> {
    let world = match args.world.load() {
        Ok(world) => world,
        Err(faults) => return super::refuse(&faults),
    };
    let Some(slo) = world.file.slo else {
        return super::refuse(
            &"within which objective? Say --slo 'p95<1s', or write `slo` into the scenario",
        );
    };
    let slo = super::requirement(slo)?;
    let question =
        Question { trials: Trials::seeds(args.seed, args.runs), ..Question::new(slo.clone(), args.most) };
    let scenario = &world.file.scenario;
    let mut answers = Vec::new();
    for settings in &world.file.settings {
        let patience = Patience::with("loading");
        let workers = &mut patience.workers();
        let answer = if args.needed {
            let limit = settings.container_concurrency;
            pods_needed(scenario, |pods| Settings::fixed("", pods, limit), &question, workers)
        } else {
            load_carried(scenario, settings, &question, workers)
        };
        match answer {
            Ok(answer) => answers.push((settings.name.as_str(), answer)),
            Err(error) => {
                drop(patience);
                return super::refuse(&error);
            }
        }
        if args.needed {
            // The settings say nothing but what a pod takes on.
            break;
        }
    }
    match args.format {
        ResultForm::Text => {
            let shown: String =
                answers.iter().map(|(name, answer)| describe(name, answer, &slo, args)).collect();
            print(&format!("{shown}seed {}\n", args.seed))?;
        }
        ResultForm::Json => {
            let answers: Vec<_> =
                answers.iter().map(|(name, answer)| json!({ "settings": name, "answer": answer })).collect();
            print(&format!(
                "{:#}\n",
                json!({ "slo": slo.to_string(), "seed": args.seed, "answers": answers })
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(name: &str, answer: &Answer, slo: &Expression, args: &CapacityArgs) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = match (answer.value, args.needed) {
        (Some(value), false) => writeln!(text, "{name}: {} within {slo}", amount(value, answer.unit)),
        (Some(value), true) => writeln!(text, "{} needed for {slo}", amount(value, answer.unit)),
        (None, false) => writeln!(text, "{name}: not even the least load is within {slo}"),
        (None, true) => writeln!(text, "{} are not enough for {slo}", amount(args.most, answer.unit)),
    };
    let mut steps: Vec<&LoadTrial> = [&answer.at, &answer.beyond].into_iter().flatten().collect();
    steps.sort_by(|a, b| a.value.total_cmp(&b.value));
    for step in steps {
        let measured = slo.evaluate(&pilotlight_sim::Outcome::mean(&step.outcomes));
        let terms: Vec<String> =
            measured.terms.iter().filter_map(|term| shown(step, &term.comparison.metric)).collect();
        let trials = step.outcomes.len();
        let amount = amount(step.value, answer.unit);
        let _ =
            writeln!(text, "  {amount:>28}: {}, kept with {} of {trials} seeds", terms.join(", "), step.kept);
    }
    if answer.value.is_some() && answer.beyond.is_none() {
        let _ = writeln!(text, "  nothing beyond was tried: say --most to look further");
    }
    if !answer.is_monotonic {
        let _ = writeln!(
            text,
            "  not the whole answer: more load was carried, or less was not; --format json lists all that was tried"
        );
    }
    text.push('\n');
    text
}

fn amount(value: f64, unit: LoadUnit) -> String {
    let is_one = value == 1.0;
    match unit {
        LoadUnit::Users => format!("{value} user{}", if is_one { "" } else { "s" }),
        LoadUnit::RequestsPerSecond => format!("{value:.1} requests/s"),
        LoadUnit::Pods => format!("{value} pod{}", if is_one { "" } else { "s" }),
    }
}

/// `p95 912 ms (880 ms to 944 ms)`.
fn shown(step: &LoadTrial, metric: &str) -> Option<String> {
    let interval = step.metric(metric)?;
    let unit = Metric::named(metric).map_or(Unit::Ratio, |metric| metric.unit);
    let range =
        interval.range.map(|(low, high)| format!(" ({} to {})", unit.show(low.max(0.0)), unit.show(high)));
    Some(format!("{metric} {}{}", unit.show(interval.mean), range.unwrap_or_default()))
}

const EXAMPLES: &str = "\
Examples:
  pilotlight sim capacity scenario.yaml --slo 'p95<1s'
  pilotlight sim capacity --users 10 --think 1s --for 10m --service-time 250ms --cores 1 --pods 12 --slo 'p95<1s'
  pilotlight sim capacity --rate 300 --for 5m --service-time 80ms --concurrency 4 --slo 'p99<300ms' --needed";
