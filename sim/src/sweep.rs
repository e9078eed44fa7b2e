//! A grid of settings, each tried under the same load.
//!
//! The settings are varied as they are written, and every combination goes through the parsers that production uses:
//! what they refuse alone is refused before anything runs, and what they refuse only together (a `min-scale` above
//! the `max-scale`) is a row that says so.

mod knob;
mod written;

use pilotlight_config::{Fault, Faults};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::compare::{Interval, Trials, World};
use crate::engine::{Run, simulate};
use crate::outcome::Outcome;
use crate::parallel::Workers;
use crate::scenario::Scenario;

pub use knob::{Knob, KnobError};
pub(crate) use knob::{KnobPlace, shown};
pub use written::Written;

/// Every combination of the values of some settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    base: Written,
    knobs: Vec<Knob>,
}

/// Why there is no grid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GridError {
    /// A setting is varied twice.
    #[error("{0} is varied twice")]
    Twice(&'static str),
    /// More combinations than anybody waits for.
    #[error("{0} combinations are more than 1,000,000: vary fewer settings, or fewer values")]
    TooLarge(u128),
    /// Values, or the settings they are varied from, that the parsers refuse.
    #[error(transparent)]
    Settings(#[from] Faults),
}

/// One combination, and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The place in the grid, from 0.
    pub index: usize,
    /// The settings that are varied, with the values they had.
    pub settings: Vec<(&'static str, String)>,
    /// The outcome of each trial; or why the parsers refuse the combination.
    pub outcomes: Result<Vec<Outcome>, Faults>,
}

impl Grid {
    /// All combinations of what `knobs` say, everything else as in `base`. The last knob varies fastest. Without
    /// knobs, it is `base` alone.
    pub fn new(base: Written, knobs: Vec<Knob>) -> Result<Self, GridError> {
        base.resolve("")?;
        let mut faults = Vec::new();
        for (at, knob) in knobs.iter().enumerate() {
            if knobs[..at].iter().any(|other| other.place() == knob.place()) {
                return Err(GridError::Twice(knob.name()));
            }
            faults.extend(refused(&base, knob));
        }
        if let Some(faults) = Faults::all(faults) {
            return Err(faults.into());
        }
        let size = knobs.iter().fold(1_u128, |size, knob| size.saturating_mul(knob.values().len() as u128));
        if size > MOST {
            return Err(GridError::TooLarge(size));
        }
        Ok(Grid { base, knobs })
    }

    /// How many combinations there are.
    pub fn size(&self) -> usize {
        self.knobs.iter().map(|knob| knob.values().len()).product()
    }

    /// The settings that are varied.
    pub fn knobs(&self) -> &[Knob] {
        &self.knobs
    }

    /// The combination with this number: its values, and the settings as they are written.
    pub fn combination(&self, index: usize) -> (Vec<(&'static str, String)>, Written) {
        let mut rest = index;
        let mut values: Vec<_> = self
            .knobs
            .iter()
            .rev()
            .map(|knob| {
                let value = &knob.values()[rest % knob.values().len()];
                rest /= knob.values().len();
                (knob, value)
            })
            .collect();
        values.reverse();
        let written = values.iter().fold(self.base.clone(), |written, (knob, value)| match value {
            Some(value) => written.with(knob.place(), value),
            None => written,
        });
        (values.into_iter().map(|(knob, value)| (knob.name(), shown(value).to_owned())).collect(), written)
    }
}

/// Values that are refused by themselves, whatever they are combined with.
fn refused(base: &Written, knob: &Knob) -> Vec<Fault> {
    let alone = Written { annotations: Default::default(), ..base.clone() };
    let values = knob.values().iter().flatten();
    values
        .filter_map(|value| alone.clone().with(knob.place(), value).resolve(value).err())
        .flat_map(Faults::into_vec)
        .collect()
}

/// Simulates every combination of `grid` in each of `trials`, and hands on the rows in their order while it goes on.
///
/// ```
/// use std::time::Duration;
/// use pilotlight_sim::compare::Trials;
/// use pilotlight_sim::parallel::Workers;
/// use pilotlight_sim::scenario::{Load, Scenario};
/// use pilotlight_sim::sweep::{Grid, Row, Written, sweep};
/// use pilotlight_sim::traffic::{Process, Traffic};
///
/// let minute = Duration::from_secs(60);
/// let load = Load::Open(Traffic::constant(20.0, minute, Process::Poisson)?);
/// let scenario = Scenario::new(load, minute, Duration::from_millis(100));
/// let knobs = vec!["target=1..3:1".parse()?, "window=10s,1m".parse()?];
/// let grid = Grid::new(Written::default(), knobs)?;
/// print!("{}", Row::csv_header(&grid, &["wait-p95", "pod-seconds"]));
/// let mut rows = 0;
/// sweep(&scenario, &grid, Trials::seeds(1, 2), &mut Workers::all(), |row| {
///     print!("{}", row.csv(&["wait-p95", "pod-seconds"]));
///     rows += 1;
/// });
/// assert_eq!(rows, 6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn sweep(
    scenario: &Scenario,
    grid: &Grid,
    trials: Trials,
    workers: &mut Workers<'_>,
    mut each: impl FnMut(Row),
) {
    let worlds = trials.worlds(scenario);
    let row = |index| {
        let (settings, written) = grid.combination(index);
        let outcomes = written.resolve("").map(|settings| {
            let run = |world: &World| {
                simulate(&world.scenario, &settings, Run { seed: world.seed, timeline: false })
            };
            worlds.iter().map(run).collect()
        });
        Row { index, settings, outcomes }
    };
    workers.for_each("sweeping", grid.size(), row, |_, row| each(row));
}

impl Row {
    /// The mean of a metric over the trials; `None` if it was not measured.
    pub fn mean(&self, metric: &str) -> Option<f64> {
        let outcomes = self.outcomes.as_ref().ok()?;
        let values: Option<Vec<f64>> = outcomes.iter().map(|outcome| outcome.metric(metric)).collect();
        values.filter(|values| !values.is_empty()).map(|values| Interval::of_mean(&values).mean)
    }

    /// The header that goes with [`Row::csv`]: a column for each setting, one for each metric, and `error`.
    pub fn csv_header(grid: &Grid, metrics: &[&str]) -> String {
        let settings: Vec<&str> = grid.knobs().iter().map(Knob::name).collect();
        record([&settings, metrics, &["error"]].concat())
    }

    /// The row as CSV: means over the trials. What was not measured, or not run, is empty.
    pub fn csv(&self, metrics: &[&str]) -> String {
        let settings = self.settings.iter().map(|(_, value)| value.clone());
        let means =
            metrics.iter().map(|metric| self.mean(metric).map_or_else(String::new, |mean| mean.to_string()));
        let error = self.outcomes.as_ref().err().map(|faults| faults.to_string().replace('\n', "; "));
        record(settings.chain(means).chain([error.unwrap_or_default()]))
    }

    /// The row for JSON: `{"settings": {...}, "metrics": {...}}`, or `"error"` in the place of metrics.
    pub fn json<'a>(&'a self, metrics: &'a [&'a str]) -> impl Serialize + 'a {
        JsonRow { row: self, metrics }
    }
}

struct JsonRow<'a> {
    row: &'a Row,
    metrics: &'a [&'a str],
}

impl Serialize for JsonRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let settings = self.row.settings.iter().map(|(name, value)| (*name, value.as_str()));
        map.serialize_entry("settings", &Ordered(settings.collect()))?;
        match &self.row.outcomes {
            Ok(_) => {
                let metrics = self.metrics.iter().map(|metric| (*metric, self.row.mean(metric)));
                map.serialize_entry("metrics", &Ordered(metrics.collect()))?;
            }
            Err(faults) => map.serialize_entry("error", &faults.to_string())?,
        }
        map.end()
    }
}

/// A JSON object whose members stay in their order.
struct Ordered<'a, T>(Vec<(&'a str, T)>);

impl<T: Serialize> Serialize for Ordered<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (*name, value)))
    }
}

/// A line of CSV.
fn record(fields: impl IntoIterator<Item = impl AsRef<[u8]>>) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    // Writing to memory cannot fail.
    let _ = writer.write_record(fields);
    String::from_utf8(writer.into_inner().unwrap_or_default()).unwrap_or_default()
}

/// The most combinations a grid may have.
const MOST: u128 = 1_000_000;
