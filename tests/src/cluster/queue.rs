//! Keys that wait to be reconciled, each once, and the loop that takes them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::log::Log;

/// Keys with the times from which they are due. A key that is added twice is taken once, at the earlier time.
pub(crate) struct Queue<T> {
    due: Mutex<BTreeMap<T, Instant>>,
    added: Notify,
}

impl<T: Ord + Clone> Queue<T> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Queue { due: Mutex::default(), added: Notify::new() })
    }

    /// Adds a key, due at once.
    pub(crate) fn add(&self, key: T) {
        self.add_after(key, Duration::ZERO);
    }

    /// Adds a key, due after this time.
    pub(crate) fn add_after(&self, key: T, time: Duration) {
        let at = Instant::now() + time;
        let mut due = self.due.lock();
        let entry = due.entry(key).or_insert(at);
        *entry = at.min(*entry);
        self.added.notify_one();
    }

    /// Takes the key that is due first, when it is.
    pub(crate) async fn next(&self) -> T {
        loop {
            let first = self.due.lock().iter().min_by_key(|(_, at)| **at).map(|(key, at)| (key.clone(), *at));
            match first {
                Some((key, at)) if at <= Instant::now() => {
                    self.due.lock().remove(&key);
                    return key;
                }
                Some((_, at)) => drop(timeout_at(at, self.added.notified()).await),
                None => self.added.notified().await,
            }
        }
    }
}

/// Reconciles one key after the other, again and later each time while that fails, until `tasks` are aborted.
pub(crate) fn work<T, F>(
    tasks: &mut JoinSet<()>,
    log: &Log,
    who: &'static str,
    queue: &Arc<Queue<T>>,
    reconcile: impl Fn(T) -> F + Send + 'static,
) where
    T: Ord + Clone + Debug + Send + 'static,
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let (queue, log) = (Arc::clone(queue), log.clone());
    tasks.spawn(async move {
        let mut failures: BTreeMap<T, u32> = BTreeMap::new();
        loop {
            let key = queue.next().await;
            match reconcile(key.clone()).await {
                Ok(()) => drop(failures.remove(&key)),
                Err(error) => {
                    let count = failures.entry(key.clone()).or_default();
                    *count += 1;
                    log.say(who, format!("{key:?}, failure {count}: {error:#}"));
                    queue.add_after(key, (FIRST_PAUSE * 2_u32.pow(*count.min(&mut 8))).min(LONGEST_PAUSE));
                }
            }
        }
    });
}

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
