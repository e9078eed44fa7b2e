//! Output: tables and charts, JSON, CSV, a page to look at; and whether it is as expected.

use std::collections::BTreeMap;
use std::fs;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use pilotlight_sim::Outcome;
use pilotlight_sim::assert::{Expression, Slo};
use pilotlight_sim::compare::{Contender, Interval};
use pilotlight_sim::report::text::Style;
use pilotlight_sim::report::{self, Page, csv, html, json, text};

use super::world::World;
use crate::output::print;
use crate::screen::terminal_size;

/// How results look, and what is expected of them.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(super) struct ShowArgs {
    /// Form of results on standard output
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(super) format: Format,
    /// Do not draw charts
    #[arg(long)]
    no_chart: bool,
    /// Write what it was like over time to this file, as CSV
    #[arg(long, value_name = "FILE.csv")]
    timeline: Option<PathBuf>,
    /// Write a page with charts to this file
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Exit with 1 unless this holds in every run, such as 'p99<300ms && lost==0'
    #[arg(long = "assert", value_name = "EXPR", value_parser = Expression::parse)]
    assertions: Vec<Expression>,
}

/// Form of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Tables and charts.
    Text,
    /// One document, by the schema in sim/schema.
    Json,
    /// One row for each run.
    Csv,
}

/// Form of a single result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ResultForm {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

impl ShowArgs {
    /// Whether somebody wants to know what it was like over time.
    pub(super) fn wants_timeline(&self) -> bool {
        let draws = self.format == Format::Text && !self.no_chart;
        draws || self.timeline.is_some() || self.report.is_some()
    }

    /// Prints and writes everything that is asked for, and says how the process should end. `more` stands between
    /// the tables and the seed, where there is text.
    pub(super) fn show(
        &self,
        world: &World,
        seed: u64,
        contenders: &[Contender],
        more: &str,
    ) -> anyhow::Result<ExitCode> {
        let page = page(world, seed, contenders);
        let shown = match self.format {
            Format::Text => {
                let mut shown = text::page(&page, self.style());
                // The seed is the last line.
                let end = shown.rfind("\nseed ").unwrap_or(shown.len());
                shown.insert_str(end, more);
                shown.insert_str(end + more.len(), &slo_lines(world.file.slo, &page.runs));
                shown
            }
            Format::Json => json::page(&page),
            Format::Csv => csv::outcomes(&each(contenders)),
        };
        print(&shown)?;
        if let Some(path) = &self.timeline {
            write(path, &csv::timelines(&page.runs))?;
        }
        if let Some(path) = &self.report {
            write(path, &html::page(&page))?;
        }
        Ok(self.judge(contenders))
    }

    /// Says what is not as expected.
    fn judge(&self, contenders: &[Contender]) -> ExitCode {
        let mut holds = true;
        for expression in &self.assertions {
            for Contender { name, outcomes } in contenders {
                for outcome in outcomes {
                    let verdict = expression.evaluate(outcome);
                    if !verdict.holds {
                        holds = false;
                        let failures = verdict.failures().join("; ");
                        eprintln!(
                            "assertion failed: {expression} ({name}, seed {}): {failures}",
                            outcome.seed
                        );
                    }
                }
            }
        }
        if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    pub(super) fn style(&self) -> Style {
        let is_terminal = std::io::stdout().is_terminal();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let size = terminal_size(std::io::stdout());
        Style {
            color: is_terminal && !no_color,
            width: size.map_or(Style::default().width, |(columns, _)| columns),
            charts: !self.no_chart,
        }
    }
}

/// Everything about some runs of a scenario.
pub(super) fn page(world: &World, seed: u64, contenders: &[Contender]) -> Page {
    Page {
        title: world.file.scenario.name.clone(),
        subtitle: world.file.description.clone(),
        command: command(),
        seed,
        scenario: world.text.clone(),
        runs: contenders.iter().map(run).collect(),
        tuning: world.tuning.clone(),
    }
}

/// The trials of some settings as one: means, and how sure they are.
fn run(contender: &Contender) -> report::ReportedRun {
    let margins: BTreeMap<String, f64> = pilotlight_sim::Metric::names()
        .filter_map(|metric| {
            let margin = Interval::of_mean(&contender.values(&metric)?).margin()?;
            Some((metric, margin))
        })
        .collect();
    report::ReportedRun { name: contender.name.clone(), outcome: Outcome::mean(&contender.outcomes), margins }
}

/// Every trial by itself.
fn each(contenders: &[Contender]) -> Vec<report::ReportedRun> {
    let runs = contenders.iter().flat_map(|Contender { name, outcomes }| {
        outcomes.iter().map(|outcome| report::ReportedRun::new(name.clone(), outcome.clone()))
    });
    runs.collect()
}

/// Whether each run keeps the objective.
fn slo_lines(slo: Option<Slo>, runs: &[report::ReportedRun]) -> String {
    let Some(slo) = slo else { return String::new() };
    let mut text = String::from("\n");
    for report::ReportedRun { name, outcome, .. } in runs {
        let (Some(share), Some(is_kept)) = (outcome.slo_fraction, slo.is_kept(outcome)) else { continue };
        let verdict = if is_kept { "kept" } else { "missed" };
        let shown = pilotlight_sim::Unit::Fraction.show(share);
        let lead = if runs.len() > 1 { format!("{name}: ") } else { String::new() };
        text += &format!("{lead}{slo} is {verdict}: {shown} of requests within it\n");
    }
    text
}

/// The command that was given, as a shell takes it.
fn command() -> String {
    let words = std::env::args().skip(1).map(|word| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
        if !word.is_empty() && word.chars().all(is_plain) {
            word
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    });
    std::iter::once("pilotlight".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

pub(super) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
