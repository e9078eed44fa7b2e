//! Sweeping settings: every combination once, in order, through the parsers that production uses.

use std::num::NonZeroUsize;
use std::time::Duration;

use pilotlight_sim::compare::Trials;
use pilotlight_sim::parallel::Workers;
use pilotlight_sim::scenario::{Load, Scenario};
use pilotlight_sim::sweep::{Grid, GridError, Knob, Row, Written, sweep};
use pilotlight_sim::traffic::{Process, Traffic};

const METRICS: [&str; 2] = ["requests", "pod-seconds"];

fn scenario() -> Scenario {
    let minute = Duration::from_secs(60);
    let load = Load::Open(Traffic::constant(20.0, minute, Process::Uniform).unwrap());
    Scenario::new(load, minute, Duration::from_millis(500))
}

fn grid(base: Written, knobs: &[&str]) -> Result<Grid, GridError> {
    let knobs: Vec<Knob> = knobs.iter().map(|knob| knob.parse().unwrap()).collect();
    Grid::new(base, knobs)
}

fn rows(grid: &Grid, threads: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut workers = Workers::threads(NonZeroUsize::new(threads).unwrap());
    sweep(&scenario(), grid, Trials::seeds(1, 2), &mut workers, |row| rows.push(row));
    rows
}

#[test]
fn every_combination_comes_once_and_the_last_knob_varies_fastest() {
    let grid = grid(Written::default(), &["target=5,10", "window=10s,default,30s"]).unwrap();
    let rows = rows(&grid, 3);
    let settings: Vec<String> = rows
        .iter()
        .map(|row| row.settings.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(settings, ["5 10s", "5 default", "5 30s", "10 10s", "10 default", "10 30s"]);
    assert_eq!(rows.iter().map(|row| row.index).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn the_rows_are_the_same_on_any_number_of_threads() {
    let grid = grid(Written::default(), &["target=2..10:2", "min-scale=0,3"]).unwrap();
    assert_eq!(rows(&grid, 1), rows(&grid, 4));
}

#[test]
fn a_setting_does_what_it_does_in_production() {
    // Ten in flight: five pods of two each, at 70 % of a target of 3 (2.1).
    let rows = rows(&grid(Written::default(), &["target=3,100", "min-scale=default,8"]).unwrap(), 2);
    let peak = |row: &Row| row.mean("peak").unwrap();
    assert_eq!(rows.iter().map(peak).collect::<Vec<_>>(), [5.0, 8.0, 1.0, 8.0]);
}

#[test]
fn values_that_are_illegal_alone_are_refused_before_anything_runs_all_at_once() {
    let error =
        grid(Written::default(), &["window=5s,10s,2h", "target=5", "max-scale-up-rate=1"]).unwrap_err();
    let lines: Vec<String> = error.to_string().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(
        lines[0].starts_with(r#"autoscaling.knative.dev/window: "5s" is not a duration between 6s and 1h"#),
        "{lines:?}"
    );
    assert!(lines[1].contains(r#""2h""#) && lines[2].contains("max-scale-up-rate"), "{lines:?}");
}

#[test]
fn what_is_illegal_only_together_is_a_row_that_says_so() {
    let grid = grid(Written::default(), &["min-scale=1,5", "max-scale=3"]).unwrap();
    let rows = rows(&grid, 2);
    assert!(rows[0].outcomes.is_ok());
    let csv: String = rows.iter().map(|row| row.csv(&METRICS)).collect();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(Row::csv_header(&grid, &METRICS), "min-scale,max-scale,requests,pod-seconds,error\n");
    assert!(lines[0].starts_with("1,3,1200,") && lines[0].ends_with(','), "{}", lines[0]);
    assert!(
        lines[1].starts_with("5,3,,,") && lines[1].contains("less than the min-scale of 5"),
        "{}",
        lines[1]
    );
    let json = serde_json::to_value(rows[1].json(&METRICS)).unwrap();
    assert!(json["error"].as_str().unwrap().contains("min-scale of 5"));
    let json = serde_json::to_value(rows[0].json(&METRICS)).unwrap();
    assert_eq!((&json["settings"]["max-scale"], &json["metrics"]["requests"]), (&"3".into(), &1200.0.into()));
}

#[test]
fn a_setting_varied_twice_and_too_large_a_grid_are_refused() {
    let twice = grid(Written::default(), &["window=10s", "autoscaling.knative.dev/window=20s"]).unwrap_err();
    assert_eq!(twice, GridError::Twice("window"));
    let large = grid(Written::default(), &["target=1..2000:1", "min-scale=0..999:1"]).unwrap_err();
    assert_eq!(
        large.to_string(),
        "2000000 combinations are more than 1,000,000: vary fewer settings, or fewer values"
    );
}

#[test]
fn no_knobs_are_the_base_alone() {
    let base = Written { container_concurrency: 2.into(), ..Written::default() };
    assert_eq!(rows(&grid(base, &[]).unwrap(), 2).len(), 1);
}
