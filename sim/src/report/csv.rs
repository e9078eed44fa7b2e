//! Tables for spreadsheets and scripts: one row per run, or one per step of a timeline.
//!
//! Columns are named as in assertions and in [`Point`]; `sim/schema/README.md` lists them. There may be more of
//! them one day, in any place. Times are in seconds; what was not measured is empty. Fields are quoted as RFC 4180
//! has it.

use csv::{Terminator, WriterBuilder};

use crate::outcome::{Metric, Point};
use crate::report::ReportedRun;

/// One row per run: its name, its seed, for how long there was load, and every metric there is.
pub fn outcomes(runs: &[ReportedRun]) -> String {
    let metrics: Vec<String> = Metric::names().collect();
    let mut table = CsvTable::new();
    table.row(["name", "seed", "duration_s"].into_iter().chain(metrics.iter().map(String::as_str)));
    for run in runs {
        let lead = [run.name.clone(), run.outcome.seed.to_string(), run.outcome.duration_s.to_string()];
        let values =
            metrics.iter().map(|name| run.outcome.metric(name).map_or_else(String::new, |v| v.to_string()));
        table.row(lead.into_iter().chain(values));
    }
    table.text()
}

/// One row per step of each run's timeline; nothing but the header if no run has one.
pub fn timelines(runs: &[ReportedRun]) -> String {
    let mut table = CsvTable::new();
    table.row(["name"].into_iter().chain(POINT_COLUMNS.iter().map(|column| column.name)));
    for run in runs {
        for point in run.outcome.timeline.iter().flat_map(|timeline| &timeline.points) {
            let values = POINT_COLUMNS.iter().map(|column| (column.value)(point).to_string());
            table.row([run.name.clone()].into_iter().chain(values));
        }
    }
    table.text()
}

/// A column of a timeline.
#[derive(Clone, Copy, Debug)]
pub struct PointColumn {
    /// The field's name in [`Point`].
    pub name: &'static str,
    /// The value in a point.
    pub value: fn(&Point) -> f64,
}

const fn column(name: &'static str, value: fn(&Point) -> f64) -> PointColumn {
    PointColumn { name, value }
}

/// The columns of a timeline, in their order.
pub const POINT_COLUMNS: &[PointColumn] = &[
    column("at_s", |p| p.at_s),
    column("arrivals_per_s", |p| p.arrivals_per_s),
    column("completions_per_s", |p| p.completions_per_s),
    column("failures_per_s", |p| p.failures_per_s),
    column("in_flight", |p| p.in_flight),
    column("queued", |p| p.queued),
    column("target", |p| p.target),
    column("wanted", |p| p.wanted),
    column("ready", |p| p.ready),
    column("starting", |p| p.starting),
    column("pending", |p| p.pending),
    column("terminating", |p| p.terminating),
    column("nodes", |p| p.nodes),
    column("panic_fraction", |p| p.panic_fraction),
    column("latency_p50_s", |p| p.latency_p50_s),
    column("latency_p95_s", |p| p.latency_p95_s),
    column("latency_max_s", |p| p.latency_max_s),
];

struct CsvTable(csv::Writer<Vec<u8>>);

impl CsvTable {
    fn new() -> Self {
        CsvTable(WriterBuilder::new().terminator(Terminator::CRLF).from_writer(Vec::new()))
    }

    fn row(&mut self, fields: impl Iterator<Item = impl AsRef<str>>) {
        for field in fields {
            // Writing to memory cannot fail, and rows may differ in length until they end.
            let _ = self.0.write_field(field.as_ref());
        }
        let _ = self.0.write_record(None::<&[u8]>);
    }

    fn text(self) -> String {
        String::from_utf8(self.0.into_inner().unwrap_or_default()).unwrap_or_default()
    }
}
