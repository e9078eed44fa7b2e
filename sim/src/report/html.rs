//! A page as one HTML file: no network, no font, no script needed to read it. Charts are SVG drawn here; the little
//! script there is shows values under the pointer and copies commands.
//!
//! The markup is also well-formed XML, which is how it is tested.

mod charts;
mod markup;
mod plot;
mod tables;
mod tuning;

use crate::report::number::{amount, percent, seconds, with_commas};
use crate::report::{Page, ReportedRun};
use markup::escaped;

/// The page, whole.
pub fn page(page: &Page) -> String {
    if page.runs.iter().any(|run| run.name.chars().count() > charts::LONGEST_NAME) && page.runs.len() > 1 {
        return whole(&numbered(page));
    }
    whole(page)
}

/// Names with a number before each: long names are cut off beside charts, and may all begin alike.
fn numbered(page: &Page) -> Page {
    let mut page = page.clone();
    for (at, run) in page.runs.iter_mut().enumerate() {
        run.name = format!("#{} {}", at + 1, run.name);
    }
    page
}

fn whole(page: &Page) -> String {
    let mut body = header(page);
    body += "<main>\n";
    if let Some(tuning) = &page.tuning {
        body += &tuning::section(tuning);
    }
    let drawn = charts::Drawn::of(&page.runs);
    match &page.runs[..] {
        [] => {}
        [run] => {
            body += &tiles(run);
            body += &charts::of_one(&drawn);
            body += &tables::latency(run);
            body += &tables::metrics(&page.runs);
        }
        runs => {
            body += &tables::glance(runs);
            body += &charts::of_several(&drawn);
            body += &tables::metrics(runs);
            for run in runs.iter().take(charts::MOST_RUNS) {
                body += &tables::latency(run);
            }
        }
    }
    body += &scenario(page);
    body += "</main>\n<footer>Made by Pilotlight's simulator, which runs the production decisions under virtual time. \
             The same command and seed give the same page, byte for byte.</footer>\n";
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n{body}<script type=\"application/json\" id=\"data\">{}</script>\n<script>\n{SCRIPT}</script>\n\
         </body>\n</html>\n",
        escaped(&page.title),
        drawn.data()
    )
}

fn header(page: &Page) -> String {
    let mut text = format!("<header>\n<p class=\"brand\">{FLAME} Pilotlight <span>simulation</span></p>\n");
    text += &format!("<h1>{}</h1>\n", escaped(&page.title));
    if !page.subtitle.is_empty() {
        text += &format!("<p class=\"lead\">{}</p>\n", escaped(&page.subtitle));
    }
    text += &format!("<dl class=\"facts\"><div><dt>Seed</dt><dd>{}</dd></div>", page.seed);
    if let Some(run) = page.runs.first() {
        text += &format!("<div><dt>Load for</dt><dd>{}</dd></div>", seconds(run.outcome.duration_s));
    }
    if page.runs.len() > 1 {
        let names: Vec<String> = page.runs.iter().map(|run| escaped(&run.name)).collect();
        text += &format!("<div><dt>Runs</dt><dd>{}</dd></div>", names.join(", "));
    }
    text += "</dl>\n";
    if !page.command.is_empty() {
        text += &code("Run it again", &page.command);
    }
    text + "</header>\n"
}

/// Text to copy, with the button that does it.
fn code(label: &str, content: &str) -> String {
    format!(
        "<div class=\"code\"><pre aria-label=\"{label}\" tabindex=\"0\"><code>{}</code></pre>\
         <button type=\"button\" data-copy=\"\" hidden=\"hidden\">Copy</button></div>\n",
        escaped(content.trim_end())
    )
}

/// The verdict at a glance: what was asked of the service, and what that cost.
fn tiles(run: &ReportedRun) -> String {
    let outcome = &run.outcome;
    let metric = |name| outcome.metric(name).unwrap_or_default();
    let errors = metric("errors");
    let failed =
        if errors > 0.0 { format!("{} failed", with_commas(errors, 0)) } else { "none failed".to_owned() };
    let rate = if outcome.duration_s > 0.0 { metric("requests") / outcome.duration_s } else { 0.0 };
    let cold =
        format!("{} waited, {}", with_commas(metric("cold-requests"), 0), percent(metric("cold-share")));
    let oracle = match metric("over-provision") {
        // Pods carry more than they are meant to, or requests wait for others.
        ratio if ratio > 0.0 && ratio < 1.0 => "of what an oracle needs: fuller pods, or a wait",
        _ => "of what an oracle needs",
    };
    let mut peak = format!("{} pods started", with_commas(metric("starts"), 0));
    if metric("pending-seconds") > 0.0 {
        peak += &format!("; {} pod-seconds of waiting for room", amount(metric("pending-seconds")));
    }
    let tiles = [
        ("Requests", with_commas(metric("requests"), 0), format!("{}/s on average", amount(rate)), false),
        ("Success", percent(metric("success")), failed, errors > 0.0),
        ("p50", seconds(metric("p50")), format!("{} of it service", seconds(metric("service-p50"))), false),
        ("p95", seconds(metric("p95")), format!("wait {}", seconds(metric("wait-p95"))), false),
        ("p99", seconds(metric("p99")), format!("longest {}", seconds(metric("max"))), false),
        ("Cold starts", with_commas(metric("cold-starts"), 0), cold, false),
        (
            "Pod-seconds",
            amount(metric("pod-seconds")),
            format!("{} pods on average", amount(metric("mean-pods"))),
            false,
        ),
        ("Peak", with_commas(metric("peak"), 0), peak, false),
        ("Over-provision", format!("{} ×", amount(metric("over-provision"))), oracle.into(), false),
        (
            "Panic",
            with_commas(metric("panics"), 0),
            format!("{} in all", seconds(metric("panic-seconds"))),
            false,
        ),
    ];
    let mut text = String::from("<section aria-label=\"At a glance\"><dl class=\"tiles\">\n");
    for (name, value, note, is_bad) in tiles {
        let class = if is_bad { " class=\"bad\"" } else { "" };
        text += &format!("<div{class}><dt>{name}</dt><dd>{value}<small>{note}</small></dd></div>\n");
    }
    text + "</dl></section>\n"
}

fn scenario(page: &Page) -> String {
    if page.scenario.is_empty() {
        return String::new();
    }
    format!(
        "<section><h2>The scenario</h2>\n<p class=\"note\">As a file, it can be run again with other settings.</p>\n{}\
         </section>\n",
        code("The scenario", &page.scenario)
    )
}

const STYLE: &str = include_str!("html/page.css");
const SCRIPT: &str = include_str!("html/page.js");
const FLAME: &str = "<svg class=\"flame\" viewBox=\"0 0 16 20\" width=\"13\" height=\"16\" aria-hidden=\"true\">\
    <path d=\"M8 0c1 4 6 6 6 12a6 6 0 0 1-12 0c0-3 1.5-4.5 3-6 .3 1.5 1 2.300 1.800 2.600C6.500 5.500 7 2.500 8 0z\"/>\
    </svg>";
