//! Several runs side by side: a column each, as many as fit, the first in every block because the others are
//! compared with it.

use super::{Paint, Style, run_name};
use crate::report::{GROUPS, Run, is_worth_a_row, number};

/// The metrics of several runs, and by how much each differs from the first.
pub fn table(runs: &[Run], style: Style) -> String {
    let Some((first, others)) = runs.split_first() else {
        return String::new();
    };
    // `412 ms ±12 ms`, or without what varies from seed to seed.
    let wide = if runs.iter().all(|run| run.margins.is_empty()) { 12 } else { 20 };
    let per_block = ((style.columns() - NAME_WIDTH - wide) / (wide + CHANGE_WIDTH)).max(1);
    if others.is_empty() {
        return block(runs, first, &[], wide, style);
    }
    others.chunks(per_block).map(|others| block(runs, first, others, wide, style)).collect()
}

fn block(all: &[Run], first: &Run, others: &[Run], wide: usize, style: Style) -> String {
    let mut text = format!("\n{:NAME_WIDTH$}{:>wide$}", "", run_name(first, wide - 1));
    for run in others {
        let wide = wide + CHANGE_WIDTH;
        text += &format!("{:>wide$}", run_name(run, wide - 2));
    }
    text.push('\n');
    for group in &GROUPS {
        text += &format!("{}\n", style.paint(group.title, Paint::Dim));
        for metric in group.metrics.iter().filter(|metric| is_worth_a_row(metric, all)) {
            text += &format!("  {:<1$}{2:>wide$}", metric, NAME_WIDTH - 2, first.shown(metric));
            for run in others {
                text += &format!("{:>wide$}", run.shown(metric));
                text += &change(metric, first, run, style);
            }
            text.push('\n');
        }
    }
    text
}

/// By how much `run` differs from `first`, painted if it is for better or for worse by more than chance.
fn change(metric: &str, first: &Run, run: &Run, style: Style) -> String {
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
