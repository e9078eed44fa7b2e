//! Metrics of what is read from and written to an API server.
#![expect(clippy::disallowed_macros, reason = "this is the file of the metrics")]

use metrics::{counter, describe_counter};

/// Events that the API server has taken.
pub(crate) const EVENTS_WRITTEN: &str = "pilotlight_events_written_total";
/// Events that nobody will see: too many at once, or refused.
pub(crate) const EVENTS_DROPPED: &str = "pilotlight_events_dropped_total";
/// Watches that broke, by kind.
const WATCH_ERRORS: &str = "pilotlight_watch_errors_total";

/// Describes every metric to the recorder. Once a process.
pub fn describe() {
    describe_counter!(EVENTS_WRITTEN, "Events written to the API server");
    describe_counter!(EVENTS_DROPPED, "Events dropped: too many at once, or refused by the API server");
    describe_counter!(WATCH_ERRORS, "Failures of watches, by kind of object");
}

/// One more of what has no labels.
pub(crate) fn count(name: &'static str) {
    counter!(name).increment(1);
}

/// A watch of this kind broke.
pub(crate) fn count_watch_error(kind: &str) {
    counter!(WATCH_ERRORS, "kind" => kind.to_owned()).increment(1);
}
