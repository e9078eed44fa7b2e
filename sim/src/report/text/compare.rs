//! Several runs side by side: a column each, as many as fit, the first in every block because the others are
//! compared with it.

use super::{Paint, Style, clipped, printable};
use crate::report::{GROUPS, ReportedRun, is_worth_a_row, number};

/// The metrics of several runs, and by how much each differs from the first.
pub fn table(runs: &[ReportedRun], style: Style) -> String {
    // `412 ms ±12 ms`, or without what varies from seed to seed.
    let wide = if runs.iter().all(|run| run.margins.is_empty()) { 12 } else { 20 };
    let per_block = ((style.columns() - NAME_WIDTH - wide) / (wide + CHANGE_WIDTH)).max(1);
    let (mut text, heads) = heads(runs, wide - 1, style);
    if runs.len() == 1 {
        text += &block(runs, &heads, &[0], wide, style);
    }
    let others: Vec<usize> = (1..runs.len()).collect();
    for others in others.chunks(per_block) {
        text += &block(runs, &heads, &[&[0], others].concat(), wide, style);
    }
    text
}

/// The header above the columns: the names if they are short, otherwise numbers, and before them which is whose.
fn heads(runs: &[ReportedRun], wide: usize, style: Style) -> (String, Vec<String>) {
    if runs.iter().all(|run| run.name.chars().count() <= wide) {
        return (String::new(), runs.iter().map(|run| printable(&run.name)).collect());
    }
    let heads: Vec<String> = (1..=runs.len()).map(|number| format!("#{number}")).collect();
    let key = |(run, head): (&ReportedRun, &String)| {
        format!("{}\n", clipped(&format!("{head:>4}  {}", run.name), style.columns()))
    };
    ("\n".to_owned() + &runs.iter().zip(&heads).map(key).collect::<String>(), heads)
}

/// The columns of some of the runs; the first of them is what the others are compared with.
fn block(all: &[ReportedRun], heads: &[String], columns: &[usize], wide: usize, style: Style) -> String {
    let first = &all[columns[0]];
    let mut text = format!("\n{:NAME_WIDTH$}{:>wide$}", "", heads[columns[0]]);
    for &column in &columns[1..] {
        // Above the value, not above the change.
        text += &format!("{:>wide$}{:CHANGE_WIDTH$}", heads[column], "");
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    for group in &GROUPS {
        text += &format!("{}\n", style.paint(group.title, Paint::Dim));
        for metric in group.metrics.iter().filter(|metric| is_worth_a_row(metric, all)) {
            text += &format!("  {:<1$}{2:>wide$}", metric, NAME_WIDTH - 2, first.shown(metric));
            for run in columns[1..].iter().map(|&column| &all[column]) {
                text += &format!("{:>wide$}", run.shown(metric));
                text += &change(metric, first, run, style);
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
    }
    text
}

/// By how much `run` differs from `first`, painted if it is for better or for worse by more than chance.
fn change(metric: &str, first: &ReportedRun, run: &ReportedRun, style: Style) -> String {
    let (Some(base), Some(value)) = (first.outcome.metric(metric), run.outcome.metric(metric)) else {
        return " ".repeat(CHANGE_WIDTH);
    };
    let shown = format!("{:>CHANGE_WIDTH$}", number::change(base, value).unwrap_or_default());
    match run.improves_on(first, metric) {
        Some(true) => style.paint(&shown, Paint::Good),
        Some(false) => style.paint(&shown, Paint::Bad),
        None => shown,
    }
}

const NAME_WIDTH: usize = 17;
const CHANGE_WIDTH: usize = 9;
