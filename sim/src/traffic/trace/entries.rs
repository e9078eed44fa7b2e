//! Lines that say when a request began or ended, and how long it took: turned into requests, and doubted.

use std::time::Duration;

use pilotlight_config::duration;
use pilotlight_core::Rng;

use super::{Reading, SECOND, Stamp, TraceEvent};

/// A line that is a request's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Entry {
    /// The time in it, in nanoseconds since 1970 or since the trace began.
    pub(super) at_nanos: i64,
    /// The event that is the time of, by the format.
    pub(super) stamped: Stamp,
    /// How long the request took, where that is known.
    pub(super) service: Option<Duration>,
}

/// The requests of a log. What can hardly be right about them becomes a warning.
pub(super) fn settle(mut entries: Vec<Entry>, reading: &mut Reading<'_>) -> Vec<TraceEvent> {
    if let Some(stamped) = reading.spec.stamped {
        entries.iter_mut().for_each(|entry| entry.stamped = stamped);
    }
    doubt(&entries, reading);
    // Ends are spread before the duration is taken off: behind it, no time would be a whole second.
    spread_whole_seconds(&mut entries, reading);
    entries.iter().map(event).collect()
}

/// Times in a log are often whole seconds. Requests of the same second are spread over it at random, the same way
/// for the same file: otherwise they would arrive as a batch that never was.
fn spread_whole_seconds(entries: &mut [Entry], reading: &mut Reading<'_>) {
    let are_whole = entries.iter().all(|entry| entry.at_nanos % SECOND == 0);
    if !are_whole || entries.is_empty() {
        return;
    }
    let mut rng = Rng::new(0);
    for entry in entries.iter_mut() {
        entry.at_nanos += rng.below(SECOND as usize) as i64;
    }
    reading.notes.push("times are whole seconds; requests were spread over theirs at random".to_owned());
}

fn event(entry: &Entry) -> TraceEvent {
    let service = entry.service.map_or(0, |service| i64::try_from(service.as_nanos()).unwrap_or(i64::MAX));
    let start_nanos = match entry.stamped {
        Stamp::Start => entry.at_nanos,
        Stamp::End => entry.at_nanos.saturating_sub(service),
    };
    TraceEvent { start_nanos, service: entry.service }
}

/// A wrong unit, or an end that was a start, shows in requests that began long before anything was written, that
/// outlast the log, or that take longer than anybody waits.
fn doubt(entries: &[Entry], reading: &mut Reading<'_>) {
    let Some(first) = entries.iter().map(|entry| entry.at_nanos).min() else { return };
    let last = entries.iter().map(|entry| entry.at_nanos).max().unwrap_or(first);
    let known: Vec<Duration> = entries.iter().filter_map(|entry| entry.service).collect();
    if known.is_empty() {
        return;
    }
    let all = entries.len();
    // Times may be whole seconds: within one, nothing is known.
    let span = Duration::from_nanos(last.saturating_sub(first) as u64) + RESOLUTION;
    let longer = known.iter().filter(|service| **service > span).count();
    if longer > 0 {
        let span = shown(span);
        reading.warnings.push(format!(
            "{longer} of {all} requests last longer than the whole log, {span}: look at the unit of durations"
        ));
    }
    let before = |entry: &Entry| first.saturating_sub(event(entry).start_nanos);
    let early = entries.iter().filter(|entry| before(entry) > RESOLUTION.as_nanos() as i64).count();
    if early > 0 {
        let most = entries.iter().map(before).max().unwrap_or(0);
        let most = shown(Duration::from_nanos(most as u64));
        reading.warnings.push(format!(
            "{early} of {all} requests began before the log's first line, by up to {most}: what else came then is not \
             in it; if that cannot be, look at the unit of durations, and whether times are starts or ends"
        ));
    }
    let mean = known.iter().map(Duration::as_secs_f64).sum::<f64>() / known.len() as f64;
    if mean > LONG.as_secs_f64() {
        let mean = shown(Duration::from_secs_f64(mean));
        reading
            .warnings
            .push(format!("requests take {mean} on average, which is long: look at the unit of durations"));
    }
    let are_whole = known.iter().all(|service| service.subsec_nanos() == 0);
    if are_whole && known.iter().any(Duration::is_zero) {
        reading.warnings.push(
            "durations are whole seconds, and those of less than one are 0s: finer ones would say how long serving takes"
                .to_owned(),
        );
    }
}

/// A time for people: to the second from a minute on, to the millisecond below.
fn shown(time: Duration) -> String {
    let unit = if time >= LONG { 1_000_000_000 } else { 1_000_000 };
    let nanos = (time.as_nanos() + unit / 2) / unit * unit;
    duration::format(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
}

const RESOLUTION: Duration = Duration::from_secs(1);

/// A mean from which on a request is more likely misread than slow.
const LONG: Duration = Duration::from_secs(60);
