//! Watches: changes of the objects that a client selects, from a version on, for as long as it likes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, timeout_at};

use super::call::Call;
use super::definition::Definition;
use super::failure::{Failure, Result};
use super::faults::{WatchEnd, WatchFault};
use super::list;
use super::selector::Selection;
use super::shape::{Shape, write};
use super::store::{Change, Object, Store};

/// An open watch. Events are made when the client takes them, many at a time.
pub(crate) struct Watch {
    store: Arc<Mutex<Store>>,
    call: Call,
    definition: Arc<Definition>,
    selection: Selection,
    shape: Shape,
    takes_bookmarks: bool,
    /// Objects to be told first.
    initial: std::vec::IntoIter<Arc<Object>>,
    /// A bookmark has to say when these have been told.
    marks_initial_end: bool,
    /// Where the changes go on.
    position: u64,
    /// The version up to which everything has been told.
    revision: u64,
    ends_at: Option<Instant>,
    next_bookmark: Instant,
    changed: watch::Receiver<u64>,
    faults: broadcast::Receiver<WatchFault>,
    has_ended: bool,
}

enum Woken {
    Changed { is_served: bool },
    Fault(Option<WatchFault>),
}

impl Watch {
    pub(crate) fn open(
        store: &Arc<Mutex<Store>>,
        call: Call,
        faults: broadcast::Receiver<WatchFault>,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>> {
        let first = Self::start(store, call, faults)?;
        Ok(stream::unfold(first, |watch| async {
            match watch {
                Ok(mut watch) => watch.next().await.map(|chunk| (chunk, Ok(watch))),
                Err(Some(failure)) => Some((Ok(event("ERROR", &write(&failure.to_value()))), Err(None))),
                Err(None) => None,
            }
        }))
    }

    /// The watch; a version that is not there is told in its first event.
    fn start(
        store: &Arc<Mutex<Store>>,
        call: Call,
        faults: broadcast::Receiver<WatchFault>,
    ) -> Result<std::result::Result<Self, Option<Failure>>> {
        let shape = Shape::read(&call.accept)?;
        let guard = store.lock();
        let mut selection = list::selection(&guard, &call)?;
        if !call.target.name.is_empty() {
            selection = selection.with_name(&call.target.name);
        }
        let table = guard.table(&call.id())?;
        let takes_bookmarks = call.params.is_set("allowWatchBookmarks");
        let asks_initial =
            call.params.get("sendInitialEvents").map(|_| call.params.is_set("sendInitialEvents"));
        check_initial(&call, asks_initial)?;
        let version = list::version(&call)?;
        let revision = guard.revision();
        if let Some(version) = version.filter(|version| *version > revision) {
            return Ok(Err(Some(Failure::too_large(version, revision))));
        }
        let tells_initial = asks_initial.unwrap_or(version.is_none());
        let (mut initial, mut position) = (Vec::new(), Some(table.end()));
        if tells_initial {
            let all = table.objects(&call.target.namespace, None).map(|(_, object)| object);
            initial = all.filter(|object| selection.matches(&object.value)).cloned().collect();
        } else if let Some(version) = version {
            position = table.position_after(version);
        }
        let Some(position) = position else { return Ok(Err(Some(expired()))) };
        let timeout =
            call.params.get("timeoutSeconds").and_then(|seconds| seconds.parse().ok()).filter(|it| *it > 0);
        let now = Instant::now();
        let watch = Self {
            definition: Arc::clone(&table.definition),
            selection,
            shape,
            takes_bookmarks,
            initial: initial.into_iter(),
            marks_initial_end: takes_bookmarks && tells_initial,
            position,
            revision: if tells_initial { revision } else { version.unwrap_or(revision) },
            ends_at: timeout.map(|seconds| now + Duration::from_secs(seconds)),
            next_bookmark: first_bookmark(now, timeout),
            changed: table.changed(),
            faults,
            has_ended: false,
            store: Arc::clone(store),
            call,
        };
        drop(guard);
        Ok(Ok(watch))
    }

    /// The next events; nothing at the end.
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        if self.has_ended {
            return None;
        }
        if self.initial.len() > 0 {
            let some: Vec<_> = self.initial.by_ref().take(BATCH).collect();
            let events =
                some.iter().map(|object| event("ADDED", &self.shape.object(&self.definition, object)));
            return Some(Ok(events.collect::<Vec<_>>().concat().into()));
        }
        if std::mem::take(&mut self.marks_initial_end) {
            return Some(Ok(self.bookmark(true)));
        }
        loop {
            self.changed.borrow_and_update();
            let changes = {
                let store = self.store.lock();
                // The kind is served no longer.
                let Ok(table) = store.table(&self.call.id()) else { return None };
                let changes = table.changes_from(self.position, BATCH);
                if changes.as_ref().is_some_and(|changes| changes.len() < BATCH) {
                    self.revision = store.revision();
                }
                changes
            };
            let Some(changes) = changes else { return Some(Ok(self.end_expired())) };
            self.position += changes.len() as u64;
            let mut events = Vec::new();
            for change in &changes {
                if let Some(event) = self.event_of(change) {
                    events.extend_from_slice(&event);
                }
            }
            if changes.len() == BATCH {
                self.revision = changes.last().map_or(self.revision, |change| change.revision);
            }
            if !events.is_empty() {
                return Some(Ok(events.into()));
            }
            if changes.is_empty()
                && let Some(chunk) = self.wait().await
            {
                return chunk;
            }
        }
    }

    /// Waits for a change; anything else is returned: a chunk, or the end.
    async fn wait(&mut self) -> Option<Option<io::Result<Bytes>>> {
        let wakes_at = self.ends_at.map_or(self.next_bookmark, |end| end.min(self.next_bookmark));
        let woken = async {
            tokio::select! {
                changed = self.changed.changed() => Woken::Changed { is_served: changed.is_ok() },
                fault = self.faults.recv() => Woken::Fault(fault.ok()),
            }
        };
        match timeout_at(wakes_at, woken).await {
            Ok(Woken::Changed { is_served }) => (!is_served).then_some(None),
            Ok(Woken::Fault(fault)) => self.fault(&fault?),
            Err(_) => self.look_at_clock(),
        }
    }

    fn look_at_clock(&mut self) -> Option<Option<io::Result<Bytes>>> {
        let now = Instant::now();
        if now >= self.next_bookmark {
            self.next_bookmark = now + BOOKMARK_EVERY;
        }
        self.has_ended = self.ends_at.is_some_and(|end| now >= end);
        if self.has_ended {
            return Some(None);
        }
        self.takes_bookmarks.then(|| Some(Ok(self.bookmark(false))))
    }

    fn fault(&mut self, fault: &WatchFault) -> Option<Option<io::Result<Bytes>>> {
        if !fault.requests.matches(&self.call) {
            return None;
        }
        match fault.end {
            WatchEnd::Broken => {
                self.has_ended = true;
                Some(Some(Err(io::Error::new(io::ErrorKind::ConnectionReset, "a test broke this watch"))))
            }
            WatchEnd::Ended => Some(None),
            WatchEnd::Expired => Some(Some(Ok(self.end_expired()))),
            WatchEnd::Bookmark => self.takes_bookmarks.then(|| Some(Ok(self.bookmark(false)))),
        }
    }

    fn end_expired(&mut self) -> Bytes {
        self.has_ended = true;
        event("ERROR", &write(&expired().to_value()))
    }

    /// What a change is to this client: objects come and go with its selection.
    fn event_of(&self, change: &Change) -> Option<Bytes> {
        let was = change.before.as_ref().filter(|before| self.selection.matches(&before.value));
        let is = !change.is_deletion && self.selection.matches(&change.object.value);
        let shown = |object: &Object| self.shape.object(&self.definition, object);
        Some(match (was, is) {
            (None, true) => event("ADDED", &shown(&change.object)),
            (Some(_), true) => event("MODIFIED", &shown(&change.object)),
            (Some(_), false) if change.is_deletion => event("DELETED", &shown(&change.object)),
            // The client is shown the object as it knew it, under the version at which it left.
            (Some(before), false) => event("DELETED", &shown(&before.at(change.revision))),
            (None, false) => return None,
        })
    }

    fn bookmark(&self, is_initial_end: bool) -> Bytes {
        let (kind, api_version) = self.shape.kind(&self.definition);
        let mut object: Value = json!({
            "kind": kind,
            "apiVersion": api_version,
            "metadata": {"resourceVersion": self.revision.to_string()},
        });
        if is_initial_end {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        event("BOOKMARK", &write(&object))
    }
}

/// Refuses combinations of parameters that streaming lists do not have.
fn check_initial(call: &Call, asks_initial: Option<bool>) -> Result<()> {
    let matching = call.params.get("resourceVersionMatch");
    let wrong = |message: &str| {
        Err(Failure::new(422, "Invalid", format!("ListOptions.meta.k8s.io \"\" is invalid: {message}")))
    };
    match (asks_initial, matching) {
        (None, None) | (Some(_), Some("NotOlderThan")) => Ok(()),
        (None, Some(_)) => wrong(
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
        (Some(_), _) => wrong(
            "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
    }
}

/// A bookmark comes every now and then, and a little before the end.
fn first_bookmark(now: Instant, timeout: Option<u64>) -> Instant {
    let before_end = timeout.and_then(|seconds| seconds.checked_sub(2)).filter(|seconds| *seconds > 0);
    now + before_end.map_or(BOOKMARK_EVERY, |seconds| Duration::from_secs(seconds).min(BOOKMARK_EVERY))
}

fn expired() -> Failure {
    Failure::expired("too old resource version")
}

fn event(kind: &str, object: &[u8]) -> Bytes {
    [br#"{"type":""#, kind.as_bytes(), br#"","object":"#, object, b"}\n"].concat().into()
}

/// Events that are sent at once, at most.
const BATCH: usize = 256;

/// How often a client is told how far it is, although nothing has changed for it.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
