//! The live view: services, their pods and requests, the latest decisions and their reasons. Drawn below the log.

use std::time::Duration;

use pilotlight_autoscaler::RevisionStatus;
use pilotlight_core::{PodCounts, ScalingMetric};

use crate::latency::for_people;
use crate::screen::Screen;
use crate::stack::Stack;

/// Draws the view again and again, until it is dropped. Call [`Screen::clear`] afterwards.
pub async fn run(stack: &Stack, screen: &Screen) {
    loop {
        screen.show(render(stack));
        tokio::time::sleep(FRAME).await;
    }
}

/// The rows of the view.
pub fn render(stack: &Stack) -> Vec<String> {
    let up = stack.clock.now() - stack.started;
    let up = Duration::from_secs(up.as_secs());
    let activity = stack.activator.activity();
    let mut rows = vec![
        String::new(),
        format!(
            "pilotlight   http://{}   admin http://{}   up {}   Ctrl-C stops",
            stack.address,
            stack.admin_address,
            humantime::format_duration(up)
        ),
        format!(
            "{:<24} {:>5} {:>8} {:>6}  {:<14} {:<6} {:>5} {:>8} {:>9}",
            "SERVICE", "READY", "STARTING", "WANTED", "LOAD / TARGET", "MODE", "QUEUE", "ACTIVE", "REQUESTS"
        ),
    ];
    for status in stack.autoscaler.board().snapshot() {
        let doing = activity.get(&status.revision);
        let PodCounts { ready, starting, .. } = status.evaluation.pods;
        rows.push(format!(
            "{:<24} {ready:>5} {starting:>8} {:>6}  {:<14} {:<6} {:>5} {:>8} {:>9}",
            status.revision.to_string(),
            status.scale.map_or("-".to_owned(), |scale| scale.to_string()),
            load(&status),
            mode(&status),
            doing.map_or(0, |doing| doing.queued),
            doing.map_or(0, |doing| doing.active),
            doing.map_or(0, |doing| doing.requests),
        ));
        rows.push(format!("  now: {}", status.why));
        if let Some(change) = status.changes.last() {
            let ago = for_people(stack.clock.now() - change.at);
            rows.push(format!("  {ago} ago: {}: {}", step(change.from, change.to), change.why));
        }
    }
    rows
}

/// A change of scale: `1 -> 3`, or `start at 1` for the first decision.
pub fn step(from: Option<u32>, to: u32) -> String {
    from.map_or_else(|| format!("start at {to}"), |from| format!("{from} -> {to}"))
}

fn load(status: &RevisionStatus) -> String {
    let unit = match status.metric {
        ScalingMetric::Concurrency => "",
        ScalingMetric::Rps => " rps",
    };
    match &status.evaluation.decision {
        Some(decision) => {
            let load = if decision.is_panicking() { decision.panic } else { decision.stable };
            format!("{load:.1} / {}{unit}", status.target)
        }
        None => format!("- / {}{unit}", status.target),
    }
}

fn mode(status: &RevisionStatus) -> &'static str {
    match &status.evaluation.decision {
        Some(decision) if decision.is_panicking() => "panic",
        _ => "stable",
    }
}

/// Time between two drawings.
const FRAME: Duration = Duration::from_millis(250);
