//! Work on revisions, each by one worker at a time: what is asked for meanwhile is done afterwards, what fails is done
//! again, later each time, and what is urgent waits for nobody.
//!
//! Knative's name: the workqueue of a controller.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pilotlight_core::RevisionId;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::time::sleep;

/// One kind of work.
#[derive(Debug)]
pub struct Lane {
    runtime: Handle,
    under_way: Mutex<BTreeMap<Arc<RevisionId>, Job>>,
    permits: Semaphore,
    ended: Notify,
}

#[derive(Debug, Default)]
struct Job {
    again: bool,
    /// The number of failures in a row.
    failures: u32,
    /// Ends a wait: for a permit, or for the time to try again.
    hurry: Arc<Notify>,
}

/// The outcome of one round of work. The work itself has told what was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// Nothing is left to do.
    Done,
    /// The work is to be tried again.
    Failed,
}

impl Lane {
    /// A lane on the current runtime, in which so many work at a time.
    pub fn new(width: usize) -> Arc<Self> {
        let permits = Semaphore::new(width);
        Arc::new(Lane {
            runtime: Handle::current(),
            under_way: Mutex::default(),
            permits,
            ended: Notify::new(),
        })
    }

    /// Has `work` done for a revision. It is told how often it has failed before.
    ///
    /// Urgent work begins now, even if too many others are at work or it was to be tried again later. While a round is
    /// under way, another one follows it, of the work that began: `false` is returned then.
    pub fn add<F, R>(self: &Arc<Self>, id: &Arc<RevisionId>, is_urgent: bool, work: F) -> bool
    where
        F: Fn(u32) -> R + Send + 'static,
        R: Future<Output = Round> + Send + 'static,
    {
        let mut under_way = self.under_way.lock();
        if let Some(job) = under_way.get_mut(id) {
            job.again = true;
            if is_urgent {
                job.failures = 0;
                job.hurry.notify_one();
            }
            return false;
        }
        let job = Job::default();
        let hurry = Arc::clone(&job.hurry);
        if is_urgent {
            hurry.notify_one();
        }
        under_way.insert(Arc::clone(id), job);
        drop(under_way);
        let (lane, id) = (Arc::clone(self), Arc::clone(id));
        self.runtime.spawn(async move { lane.run(id, &hurry, work).await });
        true
    }

    /// Returns when nothing is under way, or waits to be tried again.
    pub async fn idle(&self) {
        loop {
            let ended = self.ended.notified();
            if self.under_way.lock().is_empty() {
                return;
            }
            ended.await;
        }
    }

    async fn run<F, R>(&self, id: Arc<RevisionId>, hurry: &Notify, work: F)
    where
        F: Fn(u32) -> R,
        R: Future<Output = Round>,
    {
        loop {
            let permit = tokio::select! {
                biased;
                () = hurry.notified() => None,
                permit = self.permits.acquire() => permit.ok(),
            };
            let failures = self.begin(&id);
            // On the heap: thousands may wait for their turn, and what they will do is large.
            let round = Box::pin(work(failures)).await;
            drop(permit);
            let Some(delay) = self.end(&id, round) else { return };
            if !delay.is_zero() {
                tokio::select! {
                    () = hurry.notified() => hurry.notify_one(),
                    () = sleep(delay) => {}
                }
            }
        }
    }

    /// From here on, what is added asks for another round.
    fn begin(&self, id: &RevisionId) -> u32 {
        let mut under_way = self.under_way.lock();
        under_way.get_mut(id).map_or(0, |job| {
            job.again = false;
            job.failures
        })
    }

    /// How long until the next round; `None`: there is none.
    fn end(&self, id: &RevisionId, round: Round) -> Option<Duration> {
        let mut under_way = self.under_way.lock();
        let job = under_way.get_mut(id)?;
        match round {
            Round::Failed => {
                job.failures += 1;
                Some(delay(job.failures))
            }
            Round::Done if job.again => {
                job.failures = 0;
                Some(Duration::ZERO)
            }
            Round::Done => {
                under_way.remove(id);
                self.ended.notify_waiters();
                None
            }
        }
    }
}

/// 5 ms after the first failure, twice as long after each one more, and never longer than half a minute.
fn delay(failures: u32) -> Duration {
    const FIRST: Duration = Duration::from_millis(5);
    const LONGEST: Duration = Duration::from_secs(30);
    FIRST.saturating_mul(1 << (failures - 1).min(20)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::*;

    fn id(name: &str) -> Arc<RevisionId> {
        Arc::new(RevisionId::new("ns", name))
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_added_during_a_round_is_done_in_one_more() {
        let lane = Lane::new(2);
        let (began, mut rounds) = mpsc::unbounded_channel();
        let gate = Arc::new(Notify::new());
        let add = || {
            let (began, gate) = (began.clone(), Arc::clone(&gate));
            lane.add(&id("a"), false, move |_| {
                let (began, gate) = (began.clone(), Arc::clone(&gate));
                async move {
                    let _ = began.send(());
                    gate.notified().await;
                    Round::Done
                }
            });
        };
        add();
        rounds.recv().await.unwrap();
        add();
        add();
        gate.notify_one();
        rounds.recv().await.unwrap();
        gate.notify_one();
        lane.idle().await;
        assert!(rounds.try_recv().is_err(), "two rounds were enough for three");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_tried_again_later_each_time_and_at_once_when_it_is_urgent() {
        let lane = Lane::new(1);
        let (told, mut rounds) = mpsc::unbounded_channel();
        let work = {
            let told = told.clone();
            move |failures| {
                let told = told.clone();
                async move {
                    let _ = told.send((failures, Instant::now()));
                    Round::Failed
                }
            }
        };
        let started = Instant::now();
        lane.add(&id("a"), false, work.clone());
        let mut millis = Vec::new();
        for expected in 0..14 {
            let (failures, at) = rounds.recv().await.unwrap();
            assert_eq!(failures, expected);
            millis.push((at - started).as_millis());
        }
        // 5, 10, 20, ... 10,240 and 20,480 ms, and 30 s from then on.
        assert_eq!(millis[..5], [0, 5, 15, 35, 75]);
        assert_eq!(millis[13] - millis[12], 20_480);
        lane.add(&id("a"), true, work);
        let (failures, at) = rounds.recv().await.unwrap();
        assert_eq!((failures, (at - started).as_millis()), (0, millis[13]));
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_work_at_a_time_but_for_what_is_urgent() {
        let lane = Lane::new(2);
        let at_work = Arc::new(AtomicU32::new(0));
        let add = |name: &str, is_urgent| {
            let at_work = Arc::clone(&at_work);
            lane.add(&id(name), is_urgent, move |_| {
                at_work.fetch_add(1, Ordering::Relaxed);
                std::future::pending()
            });
        };
        for name in ["a", "b", "c", "d"] {
            add(name, false);
        }
        let settled = || async {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            at_work.load(Ordering::Relaxed)
        };
        assert_eq!(settled().await, 2);
        add("e", true);
        assert_eq!(settled().await, 3, "a new one that is urgent");
        add("d", true);
        assert_eq!(settled().await, 4, "one that waits and becomes urgent");
    }
}
