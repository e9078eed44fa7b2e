//! Metrics of what is read from and written to an API server.
#![expect(clippy::disallowed_macros, reason = "this is the file of the metrics")]

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::{Counter, counter, describe_counter};
use parking_lot::Mutex;

/// Events that the API server has taken.
const EVENTS_WRITTEN: &str = "pilotlight_events_written_total";
/// Events that nobody will see: too many at once, or refused.
const EVENTS_DROPPED: &str = "pilotlight_events_dropped_total";
/// Watches that broke, by kind.
const WATCH_ERRORS: &str = "pilotlight_watch_errors_total";

/// Describes every metric to the recorder. Once a process.
pub fn describe() {
    describe_counter!(EVENTS_WRITTEN, "Events written to the API server");
    describe_counter!(EVENTS_DROPPED, "Events dropped: too many at once, or refused by the API server");
    describe_counter!(WATCH_ERRORS, "Failures of watches, by kind of object");
}

/// The handles of what writes events. A series is there as long as its handle.
#[derive(Clone, Debug)]
pub(crate) struct EventMetrics {
    pub(crate) written: Counter,
    pub(crate) dropped: Counter,
}

impl EventMetrics {
    pub(crate) fn new() -> Self {
        EventMetrics { written: counter!(EVENTS_WRITTEN), dropped: counter!(EVENTS_DROPPED) }
    }
}

/// The handle of a watch of this kind. The series is there as long as it.
pub(crate) fn watch_errors(kind: &str) -> Counter {
    counter!(WATCH_ERRORS, "kind" => kind.to_owned())
}

/// Counters of one metric that differ in one label, of few values. Clones are the same ones.
#[derive(Clone, Debug)]
pub struct Labelled {
    metric: &'static str,
    label: &'static str,
    counters: Arc<Mutex<BTreeMap<String, Counter>>>,
}

impl Labelled {
    /// Counters of `metric`, which differ in `label`.
    pub fn new(metric: &'static str, label: &'static str) -> Self {
        Labelled { metric, label, counters: Arc::default() }
    }

    /// Counts one more for this value of the label.
    pub fn count(&self, value: &str) {
        let mut counters = self.counters.lock();
        let new = || counter!(self.metric, self.label => value.to_owned());
        counters.entry(value.to_owned()).or_insert_with(new).increment(1);
    }
}
