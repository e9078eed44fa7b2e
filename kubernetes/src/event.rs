//! Events of core/v1: what happened to an object, told where `kubectl describe` shows it.
//!
//! [`Recorder::record`] never waits. A task writes the events one after the other; what repeats is counted in the event
//! that is there already, and what differs too often is combined into one, as client-go does it.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time as ObjectTime};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use pilotlight_core::Time;
use pilotlight_net::Clock;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::debug;

use crate::metrics::EventMetrics;

/// One thing that happened to an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// The object. The event is created in its namespace.
    pub object: ObjectReference,
    /// Whether somebody should look at it.
    pub is_warning: bool,
    /// The reason, in one word, such as `Woken`.
    pub reason: &'static str,
    /// The same in a sentence. What is longer than Kubernetes takes is cut.
    pub message: String,
}

/// Writes events. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Recorder {
    notes: mpsc::Sender<Note>,
    metrics: EventMetrics,
}

impl Recorder {
    /// Starts writing, on the current runtime, in the name of `component`. Ends with its last clone.
    pub fn start(client: Client, component: &'static str, clock: Clock) -> Recorder {
        let (notes, inbox) = mpsc::channel(NOTES_IN_LINE);
        let metrics = EventMetrics::new();
        tokio::spawn(write_all(client, Ledger::new(component), clock, metrics.clone(), inbox));
        Recorder { notes, metrics }
    }

    /// Has an event written, some time soon. If too many are in line already it is dropped, and counted.
    pub fn record(&self, note: Note) {
        if self.notes.try_send(note).is_err() {
            self.metrics.dropped.increment(1);
        }
    }
}

async fn write_all(
    client: Client,
    mut ledger: Ledger,
    clock: Clock,
    metrics: EventMetrics,
    mut inbox: mpsc::Receiver<Note>,
) {
    while let Some(note) = inbox.recv().await {
        let mut entry = ledger.enter(clock.now(), &note);
        if let Entry::Repeated { namespace, name, change } = &entry {
            let events = Api::<Event>::namespaced(client.clone(), namespace);
            let (patch, params) = (Patch::Merge(change), PatchParams::default());
            match timeout(WRITE_LIMIT, events.patch(name, &params, &patch)).await {
                Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
                    // Kubernetes keeps events for an hour, as a rule.
                    ledger.forget(&note);
                    entry = ledger.enter(clock.now(), &note);
                }
                outcome => {
                    told(&metrics, &note, outcome.map(|done| done.map(drop)));
                    continue;
                }
            }
        }
        if let Entry::New(event) = entry {
            let namespace = event.metadata.namespace.as_deref().unwrap_or("default");
            let events = Api::<Event>::namespaced(client.clone(), namespace);
            let outcome = timeout(WRITE_LIMIT, events.create(&PostParams::default(), &event)).await;
            if !matches!(outcome, Ok(Ok(_))) {
                ledger.forget(&note);
            }
            told(&metrics, &note, outcome.map(|done| done.map(drop)));
        }
    }
}

fn told(metrics: &EventMetrics, note: &Note, outcome: Result<kube::Result<()>, tokio::time::error::Elapsed>) {
    let error = match outcome {
        Ok(Ok(())) => return metrics.written.increment(1),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer from the API server".to_owned(),
    };
    metrics.dropped.increment(1);
    debug!(reason = note.reason, object = note.object.name, %error, "Event was not written");
}

/// Events that were written lately, so that a repeated one is counted rather than written anew.
#[derive(Debug)]
struct Ledger {
    component: &'static str,
    written: BTreeMap<Key, Told>,
    /// How many different messages there were of each reason, and since when.
    kinds: BTreeMap<Key, Kind>,
}

/// Object, reason, and message; the latter is empty where many different ones are combined.
type Key = (String, &'static str, String);

#[derive(Debug)]
struct Told {
    name: String,
    count: i32,
    last: Time,
}

#[derive(Debug)]
struct Kind {
    since: Time,
    messages: u32,
}

/// The way an event is written.
#[derive(Debug)]
enum Entry {
    New(Box<Event>),
    Repeated { namespace: String, name: String, change: serde_json::Value },
}

impl Ledger {
    fn new(component: &'static str) -> Self {
        Ledger { component, written: BTreeMap::new(), kinds: BTreeMap::new() }
    }

    fn enter(&mut self, now: Time, note: &Note) -> Entry {
        if self.written.len() >= EVENTS_KNOWN {
            self.written.retain(|_, written| now - written.last < COMBINED_FOR);
            self.kinds.retain(|_, kind| now - kind.since < COMBINED_FOR);
        }
        if self.written.len() >= EVENTS_KNOWN {
            self.written.clear();
            self.kinds.clear();
        }
        let (key, is_combined) = self.key(now, note);
        let message = match is_combined {
            true => cut(format!("(combined from similar events) {}", note.message)),
            false => cut(note.message.clone()),
        };
        let namespace = note.object.namespace.clone().unwrap_or_default();
        if let Some(written) = self.written.get_mut(&key) {
            written.count += 1;
            written.last = now;
            let change =
                json!({ "count": written.count, "lastTimestamp": object_time(now), "message": message });
            return Entry::Repeated { namespace, name: written.name.clone(), change };
        }
        let object = note.object.name.as_deref().unwrap_or_default();
        let name = format!("{object}.{:x}", now.as_nanos() + self.written.len() as u64);
        self.written.insert(key, Told { name: name.clone(), count: 1, last: now });
        Entry::New(Box::new(Event {
            metadata: ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() },
            involved_object: note.object.clone(),
            type_: Some(if note.is_warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(note.reason.to_owned()),
            message: Some(message),
            count: Some(1),
            first_timestamp: Some(object_time(now)),
            last_timestamp: Some(object_time(now)),
            source: Some(EventSource { component: Some(self.component.to_owned()), host: None }),
            reporting_component: Some(self.component.to_owned()),
            ..Event::default()
        }))
    }

    /// The event that a note belongs to, and whether that stands for notes that differ.
    fn key(&mut self, now: Time, note: &Note) -> (Key, bool) {
        let object = note.object.uid.clone().unwrap_or_default();
        let own = (object.clone(), note.reason, note.message.clone());
        let combined = (object, note.reason, String::new());
        if self.written.contains_key(&own) {
            return (own, false);
        }
        let kind = self.kinds.entry(combined.clone()).or_insert(Kind { since: now, messages: 0 });
        if now - kind.since >= COMBINED_FOR {
            *kind = Kind { since: now, messages: 0 };
        }
        kind.messages += 1;
        if kind.messages > MESSAGES_APART { (combined, true) } else { (own, false) }
    }

    /// Forgets what was written of a note: the next one is written anew.
    fn forget(&mut self, note: &Note) {
        let object = note.object.uid.clone().unwrap_or_default();
        if self.written.remove(&(object.clone(), note.reason, note.message.clone())).is_none() {
            self.written.remove(&(object, note.reason, String::new()));
        }
    }
}

fn object_time(now: Time) -> ObjectTime {
    let seconds = i64::try_from(now.whole_seconds()).unwrap_or(i64::MAX);
    ObjectTime(Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX))
}

/// The API server refuses a message of more than 1,024 bytes.
fn cut(mut message: String) -> String {
    const LONGEST: usize = 1024;
    if message.len() > LONGEST {
        let end = (0..=LONGEST - 4).rev().find(|&at| message.is_char_boundary(at)).unwrap_or(0);
        message.truncate(end);
        message.push_str(" ...");
    }
    message
}

/// Events that may wait to be written.
const NOTES_IN_LINE: usize = 1024;
/// Events that are remembered, so that repeats find them.
const EVENTS_KNOWN: usize = 4096;
/// After so many different messages of one reason about one object they are combined ...
const MESSAGES_APART: u32 = 10;
/// ... for this long.
const COMBINED_FOR: Duration = Duration::from_secs(600);
/// The longest time that one write may take.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn note(message: &str) -> Note {
        let object = ObjectReference {
            namespace: Some("ns".to_owned()),
            name: Some("hello-1".to_owned()),
            uid: Some("u1".to_owned()),
            ..ObjectReference::default()
        };
        Note { object, is_warning: false, reason: "Scaled", message: message.to_owned() }
    }

    /// Name, count and message of what is written.
    fn enter(ledger: &mut Ledger, second: u64, message: &str) -> (String, i64, String) {
        match ledger.enter(Time::from_secs(second), &note(message)) {
            Entry::New(event) => (event.metadata.name.unwrap(), 1, event.message.unwrap()),
            Entry::Repeated { name, change, namespace } => {
                assert_eq!(namespace, "ns");
                assert_eq!(change["lastTimestamp"], json!(object_time(Time::from_secs(second))));
                let message = change["message"].as_str().unwrap().to_owned();
                (name, change["count"].as_i64().unwrap(), message)
            }
        }
    }

    #[test]
    fn what_repeats_is_counted_in_the_event_that_is_there() {
        let mut ledger = Ledger::new("autoscaler");
        let (name, count, message) = enter(&mut ledger, 1, "from 0 to 1");
        assert_eq!((count, message.as_str()), (1, "from 0 to 1"));
        assert_eq!(enter(&mut ledger, 5, "from 0 to 1"), (name.clone(), 2, "from 0 to 1".to_owned()));
        let (other, count, _) = enter(&mut ledger, 6, "from 1 to 2");
        assert!(other != name && count == 1);
        assert_eq!(enter(&mut ledger, 9, "from 0 to 1").1, 3);
    }

    #[test]
    fn the_eleventh_message_of_a_kind_and_all_after_it_become_one_event_for_ten_minutes() {
        let mut ledger = Ledger::new("autoscaler");
        for second in 0..10 {
            assert_eq!(enter(&mut ledger, second, &format!("message {second}")).1, 1);
        }
        let (name, count, message) = enter(&mut ledger, 10, "message 10");
        assert_eq!((count, message.as_str()), (1, "(combined from similar events) message 10"));
        let again = enter(&mut ledger, 11, "message 11");
        assert_eq!(again, (name, 2, "(combined from similar events) message 11".to_owned()));
        assert_eq!(enter(&mut ledger, 601, "message 12").2, "message 12");
    }

    #[test]
    fn an_event_that_kubernetes_has_dropped_is_written_anew() {
        let mut ledger = Ledger::new("autoscaler");
        enter(&mut ledger, 1, "from 0 to 1");
        ledger.forget(&note("from 0 to 1"));
        assert_eq!(enter(&mut ledger, 5000, "from 0 to 1").1, 1);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let short = cut("x".repeat(1024));
        assert_eq!(short.len(), 1024);
        let long = cut("ü".repeat(1000));
        assert!(long.len() <= 1024 && long.ends_with("ü ..."), "{} bytes", long.len());
    }

    #[test]
    fn the_ledger_stays_small() {
        let mut ledger = Ledger::new("autoscaler");
        for number in 0..3 * EVENTS_KNOWN as u64 {
            let mut note = note("x");
            note.object.uid = Some(number.to_string());
            ledger.enter(Time::from_secs(number / 100), &note);
        }
        assert!(ledger.written.len() <= EVENTS_KNOWN && ledger.kinds.len() <= EVENTS_KNOWN);
    }
}
