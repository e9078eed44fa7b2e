//! Times at which workloads are to be looked at again, the first in front.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use pilotlight_core::{RevisionId, Time};
use pilotlight_net::Clock;
use tokio::sync::Notify;
use tokio::time::sleep_until;

/// One time for each workload that has one.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    set: Mutex<Set>,
    /// The first time has changed.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Set {
    times: BTreeSet<(Time, Arc<RevisionId>)>,
    of: BTreeMap<Arc<RevisionId>, Time>,
}

impl Alarms {
    /// Sets a workload's time in the place of the one before; `None`: it has none.
    pub(crate) fn set(&self, id: &Arc<RevisionId>, at: Option<Time>) {
        let mut set = self.set.lock();
        let before = match at {
            Some(at) => set.of.insert(Arc::clone(id), at),
            None => set.of.remove(id),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            set.times.remove(&(before, Arc::clone(id)));
        }
        if let Some(at) = at {
            set.times.insert((at, Arc::clone(id)));
        }
        drop(set);
        self.changed.notify_one();
    }

    /// The next workload whose time has come. Its time is over then.
    pub(crate) async fn next(&self, clock: Clock) -> Arc<RevisionId> {
        loop {
            let first = self.set.lock().times.first().cloned();
            match first {
                Some((at, id)) if at <= clock.now() => {
                    let mut set = self.set.lock();
                    set.times.remove(&(at, Arc::clone(&id)));
                    if set.of.get(&id) == Some(&at) {
                        set.of.remove(&id);
                    }
                    return id;
                }
                Some((at, _)) => tokio::select! {
                    () = sleep_until(clock.instant_at(at)) => {}
                    () = self.changed.notified() => {}
                },
                None => self.changed.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn id(name: &str) -> Arc<RevisionId> {
        Arc::new(RevisionId::new("shop", name))
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_time_comes_first_and_a_later_one_replaces_it() {
        let (alarms, clock) = (Alarms::default(), Clock::start());
        let in_seconds = |seconds| Some(clock.now() + Duration::from_secs(seconds));
        alarms.set(&id("a"), in_seconds(5));
        alarms.set(&id("b"), in_seconds(3));
        alarms.set(&id("c"), in_seconds(1));
        alarms.set(&id("c"), None);
        alarms.set(&id("a"), in_seconds(2));
        let began = clock.now();
        assert_eq!(alarms.next(clock).await, id("a"));
        assert_eq!(alarms.next(clock).await, id("b"));
        assert!(clock.now() - began >= Duration::from_secs(3));
        assert!(alarms.set.lock().of.is_empty());
    }
}
