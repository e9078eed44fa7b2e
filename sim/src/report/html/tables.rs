//! The numbers below the charts.

use super::markup::escaped;
use crate::report::number::{self, seconds};
use crate::report::{GROUPS, ReportedRun, about, is_worth_a_row};

/// The few metrics that tell runs apart: what to read first.
pub(super) fn glance(runs: &[ReportedRun]) -> String {
    let Some((first, others)) = runs.split_first() else {
        return String::new();
    };
    let rows: String = GLANCE
        .iter()
        .filter(|metric| is_worth_a_row(metric, runs))
        .map(|metric| row(metric, first, others))
        .collect();
    format!(
        "<section class=\"kept\"><h2>At a glance</h2>\n<div class=\"scroll\" tabindex=\"0\"><table>\n{}<tbody>{rows}\
         </tbody></table></div>\n{}</section>\n",
        head(first, others),
        margin_note(runs)
    )
}

/// The metrics of every run: with one, what each means (times have a table of their own); with several, how they
/// differ from the first.
pub(super) fn metrics(runs: &[ReportedRun]) -> String {
    let Some((first, others)) = runs.split_first() else {
        return String::new();
    };
    let mut text =
        String::from("<section><h2>The numbers</h2>\n<div class=\"scroll\" tabindex=\"0\"><table>\n");
    if !others.is_empty() {
        text += &head(first, others);
    }
    for group in GROUPS.iter().filter(|group| !(others.is_empty() && group.is_of_times)) {
        let columns = if others.is_empty() { 3 } else { 2 + 2 * others.len() };
        text += &format!(
            "<tbody><tr class=\"group\"><th colspan=\"{columns}\" scope=\"rowgroup\">{}</th></tr>\n",
            group.title
        );
        for metric in group.metrics.iter().filter(|metric| is_worth_a_row(metric, runs)) {
            text += &row(metric, first, others);
        }
        text += "</tbody>\n";
    }
    text + "</table></div>\n" + margin_note(runs) + "</section>\n"
}

fn head(first: &ReportedRun, others: &[ReportedRun]) -> String {
    let mut text = String::from("<thead><tr><th scope=\"col\">Metric</th>");
    text += &format!("<th scope=\"col\" class=\"number\">{}</th>", escaped(&first.name));
    for run in others {
        text += &format!("<th scope=\"col\" class=\"number\">{}</th><td></td>", escaped(&run.name));
    }
    text + "</tr></thead>\n"
}

fn row(metric: &str, first: &ReportedRun, others: &[ReportedRun]) -> String {
    let mut text = format!(
        "<tr><th scope=\"row\" title=\"{}\">{metric}</th><td class=\"number\">{}</td>",
        escaped(&meaning(metric)),
        escaped(&first.shown(metric))
    );
    for run in others {
        text += &format!(
            "<td class=\"number\">{}</td>{}",
            escaped(&run.shown(metric)),
            change(metric, first, run)
        );
    }
    if others.is_empty() {
        text += &format!("<td class=\"about\">{}</td>", escaped(&meaning(metric)));
    }
    text + "</tr>\n"
}

fn margin_note(runs: &[ReportedRun]) -> &'static str {
    match runs.iter().any(|run| !run.margins.is_empty()) {
        true => {
            "<p class=\"note\">± is half the 95 % interval over the seeds; a change within it has no colour.</p>\n"
        }
        false => "",
    }
}

/// The parts of the time of requests.
pub(super) fn latency(run: &ReportedRun) -> String {
    let outcome = &run.outcome;
    let mut text = format!(
        "<section class=\"kept\"><h2>Where the time went{}</h2>\n<div class=\"scroll\" tabindex=\"0\"><table>\n<thead><tr>\
         <th scope=\"col\">Part</th>",
        if run.name.is_empty() { String::new() } else { format!(" <small>{}</small>", escaped(&run.name)) }
    );
    for quantile in crate::outcome::QUANTILES {
        text += &format!("<th scope=\"col\" class=\"number\">{quantile}</th>");
    }
    text += "</tr></thead>\n<tbody>";
    let parts = [
        ("", "Latency", &outcome.latency),
        ("in", "Wait", &outcome.wait),
        ("in in2", "in queues", &outcome.queue),
        ("in in2", "for a cold start", &outcome.cold_start),
        ("in", "Service", &outcome.service),
    ];
    for (class, name, times) in parts {
        text += &format!("<tr><th scope=\"row\" class=\"{class}\">{name}</th>");
        for quantile in crate::outcome::QUANTILES {
            let value = times.named(quantile).unwrap_or_default();
            text += &format!("<td class=\"number\">{}</td>", seconds(value));
        }
        text += "</tr>\n";
    }
    text + "</tbody></table></div></section>\n"
}

fn change(metric: &str, first: &ReportedRun, run: &ReportedRun) -> String {
    let (Some(base), Some(value)) = (first.outcome.metric(metric), run.outcome.metric(metric)) else {
        return "<td></td>".to_owned();
    };
    let class = match run.improves_on(first, metric) {
        Some(true) => "change good",
        Some(false) => "change bad",
        None => "change",
    };
    format!("<td class=\"{class}\">{}</td>", number::change(base, value).unwrap_or_default())
}

/// The meaning of a name, where the table's entry stands for all of its family.
fn meaning(metric: &str) -> String {
    match metric.parse::<u16>() {
        Ok(status) => format!("requests that ended with status {status}"),
        Err(_) => about(metric).trim_end_matches(", in seconds").to_owned(),
    }
}

const GLANCE: [&str; 9] =
    ["p50", "p95", "p99", "wait-p95", "success", "slo", "cold-starts", "pod-seconds", "peak"];
