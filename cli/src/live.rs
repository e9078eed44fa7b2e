//! The live view: services, their pods and requests, the latest decisions and their reasons. Drawn below the log.

use std::future::pending;
use std::time::Duration;

use pilotlight_autoscaler::{NotReady, RevisionStatus};
use pilotlight_core::{PodCounts, ScalingMetric, Time};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use crate::latency::for_people;
use crate::screen::Screen;
use crate::stack::Stack;
use crate::view::{ServiceView, View};

/// Draws the view again and again, and at once when the terminal changes its size, until it is dropped. Call
/// [`Screen::clear`] afterwards.
pub async fn run(stack: &Stack, screen: &Screen) {
    let mut resized = signal(SignalKind::window_change()).ok();
    let next_size = async |resized: &mut Option<Signal>| match resized {
        Some(resized) => drop(resized.recv().await),
        None => pending().await,
    };
    loop {
        let (width, height) = Screen::size();
        screen.show(view(stack).rows(width, height));
        // Err: time for the next frame.
        let _ = timeout(FRAME, next_size(&mut resized)).await;
    }
}

/// Everything that is shown of a stack.
fn view(stack: &Stack) -> View {
    let activity = stack.activator.activity();
    let now = stack.clock.now();
    let service = |status: RevisionStatus| {
        let doing = activity.get(&status.revision);
        let PodCounts { ready, starting, .. } = status.evaluation.pods;
        ServiceView {
            name: status.revision.to_string(),
            ready,
            starting,
            wanted: status.scale.map_or("-".to_owned(), |scale| scale.to_string()),
            load: load(&status),
            mode: mode(&status),
            queued: doing.map_or(0, |doing| doing.queued as u64),
            active: doing.map_or(0, |doing| u64::from(doing.active)),
            requests: doing.map_or(0, |doing| doing.requests),
            is_failing: status.trouble.is_some(),
            reasons: reasons(&status, now),
        }
    };
    View {
        address: format!("http://{}", stack.address),
        admin: format!("http://{}", stack.admin_address),
        up: now - stack.started,
        services: stack.autoscaler.board().snapshot().into_iter().map(service).collect(),
    }
}

fn reasons(status: &RevisionStatus, now: Time) -> Vec<String> {
    let trouble = status.trouble.iter().map(|trouble| trouble.in_words(now));
    let waiting = status.not_ready.iter().map(|NotReady { pod, why }| format!("{pod} is not ready: {why}"));
    let change = status.changes.last().map(|change| {
        let ago = for_people(now - change.at);
        format!("{ago} ago: {}: {}", step(change.from, change.to), change.why)
    });
    trouble.chain(waiting).chain([format!("now: {}", status.why)]).chain(change).collect()
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
