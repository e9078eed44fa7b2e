//! `pilotlight sim sweep`: every combination of some settings under the same load.

use std::process::ExitCode;

use clap::Args;
use pilotlight_sim::assert;
use pilotlight_sim::compare::Trials;
use pilotlight_sim::sweep::{Grid, Knob, Row, sweep};
use pilotlight_sim::{Metric, Unit};

use super::patience::Patience;
use super::show::Format;
use super::world::WorldArgs;
use crate::output::print;

/// Try every combination of some settings
///
/// The rest is as in the scenario's first settings that go by requests.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SweepArgs {
    #[command(flatten)]
    world: WorldArgs,
    /// A setting and its values: window=30s,60s,2m or target=5..50:5 or target=1..64:x2
    #[arg(long, required = true, value_name = "SETTING=VALUES")]
    vary: Vec<Knob>,
    /// Figures to tell of each
    #[arg(
        long,
        value_name = "METRIC,...",
        value_delimiter = ',',
        value_parser = metric,
        default_value = "p95,wait-p95,success,cold-requests,pod-seconds,peak"
    )]
    metrics: Vec<String>,
    /// The first of the seeds
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// How many seeds; numbers are their means
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    runs: u32,
    /// Form of results on standard output
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

pub(super) fn run(args: &SweepArgs) -> anyhow::Result<ExitCode> {
    let world = match args.world.load() {
        Ok(world) => world,
        Err(faults) => return super::refuse(&faults),
    };
    let Some(written) = world.file.written else {
        return super::refuse(
            &"there are no settings that go by requests; write `annotations` or a manifest",
        );
    };
    let grid = match Grid::new(written, args.vary.clone()) {
        Ok(grid) => grid,
        Err(error) => return super::refuse(&error),
    };
    let metrics: Vec<&str> = args.metrics.iter().map(String::as_str).collect();
    let table = Table::new(&grid, &metrics);
    match args.format {
        Format::Text => print(&table.header())?,
        Format::Csv => print(&Row::csv_header(&grid, &metrics))?,
        Format::Json => {}
    }
    let mut result = Ok(());
    let patience = Patience::with("sweeping");
    sweep(&world.file.scenario, &grid, Trials::seeds(args.seed, args.runs), &mut patience.workers(), |row| {
        let line = match args.format {
            Format::Text => table.row(&row),
            Format::Csv => row.csv(&metrics),
            // An object a line: rows come while the sweep goes on.
            Format::Json => {
                serde_json::to_string(&row.json(&metrics)).map_or_else(|_| String::new(), |row| row + "\n")
            }
        };
        if result.is_ok() {
            result = patience.aside(|| print(&line));
        }
    });
    drop(patience);
    result?;
    if args.format == Format::Text {
        print(&format!("\nseed {}\n", args.seed))?;
    } else {
        eprintln!("seed {}", args.seed);
    }
    Ok(ExitCode::SUCCESS)
}

/// Columns for people.
struct Table<'a> {
    metrics: &'a [&'a str],
    settings: Vec<(&'static str, usize)>,
}

impl<'a> Table<'a> {
    fn new(grid: &Grid, metrics: &'a [&'a str]) -> Self {
        let width = |knob: &Knob| {
            let values = knob.values().iter().map(|value| value.as_deref().map_or("default".len(), str::len));
            values.max().unwrap_or_default().max(knob.name().len())
        };
        Table { metrics, settings: grid.knobs().iter().map(|knob| (knob.name(), width(knob))).collect() }
    }

    fn header(&self) -> String {
        let settings = self.settings.iter().map(|(name, width)| format!("{name:<width$}  "));
        let metrics = self.metrics.iter().map(|name| format!("{name:>COLUMN$}"));
        format!("{}\n", settings.chain(metrics).collect::<String>().trim_end())
    }

    fn row(&self, row: &Row) -> String {
        let values = row.settings.iter().zip(&self.settings);
        let mut line: String = values.map(|((_, value), (_, width))| format!("{value:<width$}  ")).collect();
        match &row.outcomes {
            Ok(_) => {
                for metric in self.metrics {
                    let unit = Metric::named(metric).map_or(Unit::Ratio, |metric| metric.unit);
                    let shown = row.mean(metric).map_or_else(|| "–".to_owned(), |mean| unit.show(mean));
                    line += &format!("{shown:>COLUMN$}");
                }
            }
            Err(faults) => line += &format!("refused: {}", faults.to_string().replace('\n', "; ")),
        }
        format!("{}\n", line.trim_end())
    }
}

/// A metric by its name.
pub(super) fn metric(name: &str) -> Result<String, String> {
    assert::metric(name).map(|_| name.to_owned()).map_err(|error| error.reason)
}

const COLUMN: usize = 15;

const EXAMPLES: &str = "\
Examples:
  pilotlight sim sweep scenario.yaml --vary window=30s,60s,2m --vary min-scale=0,1
  pilotlight sim sweep scenario.yaml --vary target=1..64:x2 --metrics wait-p95,pod-seconds --runs 5 --format csv
  pilotlight sim sweep --trace access.log --service-time 200ms --startup 5s --vary scale-down-delay=0s..10m:1m";
