//! The numbers of all rounds, and how they are shown: medians, and the median of the ratios to the bare relay within
//! the same round. A noisy machine moves the first; the second stays.

use crate::candidates::{Candidate, RELAY};
use crate::wrk::{Sample, Shape};

/// One shape of load: for each round, for each candidate, what was measured (`None`: it was not asked).
pub(crate) struct Series {
    pub(crate) shape: Shape,
    pub(crate) rounds: Vec<Vec<Option<Sample>>>,
}

/// One column.
pub(crate) type Column = fn(&Sample) -> f64;

impl Series {
    pub(crate) fn new(shape: Shape) -> Self {
        Series { shape, rounds: Vec::new() }
    }

    /// Over all rounds.
    pub(crate) fn median(&self, candidate: usize, column: Column) -> Option<f64> {
        median(self.rounds.iter().filter_map(|round| round[candidate].as_ref().map(column)))
    }

    /// To the relay.
    pub(crate) fn ratio(&self, candidate: usize, column: Column) -> Option<f64> {
        self.ratio_of(|round| Some((column(round[candidate].as_ref()?), column(round[RELAY].as_ref()?))))
    }

    /// The same of what is left of both when that of the app by itself is taken away.
    pub(crate) fn ratio_added(&self, candidate: usize, column: Column) -> Option<f64> {
        self.ratio_of(|round| {
            let app = column(round[APP].as_ref()?);
            Some((column(round[candidate].as_ref()?) - app, column(round[RELAY].as_ref()?) - app))
        })
    }

    fn ratio_of(&self, pair: impl Fn(&[Option<Sample>]) -> Option<(f64, f64)>) -> Option<f64> {
        median(self.rounds.iter().filter_map(|round| pair(round)).map(|(ours, relay)| ours / relay))
    }

    pub(crate) fn print(&self, candidates: &[Candidate]) {
        println!(
            "\n{:<26} {:>15} {:>15} {:>15} {:>15} {:>10}",
            self.shape.to_string(),
            "requests/s",
            "CPU us/request",
            "p50 us",
            "p99 us",
            "loaded MiB"
        );
        for (at, candidate) in candidates.iter().enumerate() {
            let shown =
                COLUMNS.map(|(column, digits)| match (self.median(at, column), self.ratio(at, column)) {
                    (Some(value), Some(ratio)) => format!("{value:.digits$} {ratio:5.2}x"),
                    _ => "-".to_owned(),
                });
            let memory = self.median(at, |sample| sample.resident_mib);
            let memory = memory.map_or("-".to_owned(), |mib| format!("{mib:.1}"));
            let [rate, cpu, p50, p99] = shown;
            println!("{:<26} {rate:>15} {cpu:>15} {p50:>15} {p99:>15} {memory:>10}", candidate.name);
        }
    }
}

/// The middle value; of an even number, the mean of the two in the middle.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

/// A promise, and whether it is kept.
pub(crate) struct Goal {
    pub(crate) what: String,
    pub(crate) measured: f64,
    pub(crate) at_most: f64,
    pub(crate) unit: &'static str,
}

impl Goal {
    pub(crate) fn is_met(&self) -> bool {
        self.measured <= self.at_most
    }

    pub(crate) fn print(&self) {
        let Goal { what, measured, at_most, unit } = self;
        let verdict = if self.is_met() { "met" } else { "MISSED" };
        println!("{what:<62} {measured:>8.2} {unit:<3} goal <= {at_most:>6.2} {unit:<3} {verdict}");
    }
}

pub(crate) const CPU: Column = |sample| sample.cpu_micros;
pub(crate) const P50: Column = |sample| sample.p50_micros;

const COLUMNS: [(Column, usize); 4] =
    [(|sample| sample.requests_per_second, 0), (CPU, 1), (P50, 0), (|sample| sample.p99_micros, 0)];

/// The app by itself comes first.
const APP: usize = 0;
