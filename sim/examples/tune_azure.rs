//! Tunes for the Azure trace, as `docs/tuning.md` reports it.
//!
//! `cargo run --release -p pilotlight-sim --example tune_azure -- fast|slow CONTAINER_CONCURRENCY [SEED [SLO]]` looks
//! for the trace in `$PILOTLIGHT_WORKLOADS`, or in `shared/workloads` beside the workspace. `fast`: pods are up in
//! 2.5 s; `slow`: it takes as long as a production service took to load its models.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a program has a clock and arguments"
)]

#[path = "../tests/azure/mod.rs"]
mod azure;

use std::env;
use std::error::Error;
use std::time::{Duration, Instant};

use pilotlight_sim::assert::Expression;
use pilotlight_sim::parallel::Workers;
use pilotlight_sim::report::text;
use pilotlight_sim::scenario::Platform;
use pilotlight_sim::sweep::Written;
use pilotlight_sim::tune::{Goal, Plan, Space, tune};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let argument = |at: usize| arguments.get(at).map(String::as_str);
    let Some(mut scenario) = azure::scenario() else { return Ok(()) };
    scenario.platform = Platform::knative();
    scenario.pods.init = match argument(0) {
        Some("slow") => azure::model_loads().ok_or("there are no load times")?,
        _ => Duration::from_millis(2_500).into(),
    };
    let container_concurrency = argument(1).unwrap_or("4").parse::<u32>()?.into();
    let seed = argument(2).unwrap_or("1").parse()?;
    let slo = argument(3).map(Expression::parse).transpose()?;
    let space = Space::annotations(Written { container_concurrency, ..Written::default() }, &scenario)?;
    let plan = Plan { seed, goal: Goal { slo, ..Goal::default() }, ..Plan::default() };
    let began = Instant::now();
    let tuned = tune(&scenario, &space, &plan, &mut Workers::all())?;
    let style = text::Style { color: false, width: 100, charts: true };
    println!("{}", text::tuning(&tuned.report, style));
    println!("{:#?}", tuned.judgement);
    eprintln!("{} runs in {:.1} s", tuned.runs, began.elapsed().as_secs_f64());
    Ok(())
}
