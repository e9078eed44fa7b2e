//! Many runs on all cores, with the results of one.
//!
//! Runs share nothing, so each takes whole the next piece of work there is; results are handed on in the order of
//! the work, never in that in which they are done. What comes out is therefore the same on any number of cores.
#![expect(
    clippy::disallowed_methods,
    reason = "threads run whole simulations, whose results are handed on in order"
)]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

/// On how many cores to work, and who wants to know how far it is.
///
/// ```
/// use pilotlight_sim::parallel::Workers;
/// let mut done = 0;
/// let mut workers = Workers::all().on_progress(|progress| done = progress.done);
/// let squares = workers.map("squares", &[1, 2, 3], |_, n| n * n);
/// drop(workers);
/// assert_eq!((squares, done), (vec![1, 4, 9], 3));
/// ```
pub struct Workers<'a> {
    threads: NonZeroUsize,
    stop: Arc<AtomicBool>,
    on_progress: Option<Box<dyn FnMut(Progress) + 'a>>,
}

/// How far some work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The stage of the work, in a word or two.
    pub stage: &'static str,
    /// Pieces that are done.
    pub done: usize,
    /// Pieces there are.
    pub total: usize,
}

impl<'a> Workers<'a> {
    /// All cores there are.
    pub fn all() -> Self {
        Workers::threads(thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))
    }

    /// As many threads as said.
    pub fn threads(threads: NonZeroUsize) -> Self {
        Workers { threads, stop: Arc::default(), on_progress: None }
    }

    /// Work that can be left half done is left once `stop` is true.
    #[must_use]
    pub fn stopped_by(self, stop: Arc<AtomicBool>) -> Self {
        Workers { stop, ..self }
    }

    /// Whether to come to an end.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Calls `tell`, on the caller's thread, whenever a result is handed on.
    #[must_use]
    pub fn on_progress(self, tell: impl FnMut(Progress) + 'a) -> Self {
        Workers { on_progress: Some(Box::new(tell)), ..self }
    }

    /// `run` for each of `items`; the results in their order.
    pub fn map<T: Sync, R: Send>(
        &mut self,
        stage: &'static str,
        items: &[T],
        run: impl Fn(usize, &T) -> R + Sync,
    ) -> Vec<R> {
        let mut results = Vec::with_capacity(items.len());
        self.for_each(
            stage,
            items.len(),
            |index| run(index, &items[index]),
            |_, result| results.push(result),
        );
        results
    }

    /// `run` for each of `items` until somebody stops it: the results of the first of them, in their order.
    pub fn map_until_stopped<T: Sync, R: Send>(
        &mut self,
        stage: &'static str,
        items: &[T],
        run: impl Fn(usize, &T) -> R + Sync,
    ) -> Vec<R> {
        let (stop, mut results) = (self.stop.clone(), Vec::with_capacity(items.len()));
        let run = |index: usize| (!stop.load(Ordering::Relaxed)).then(|| run(index, &items[index]));
        self.for_each(stage, items.len(), run, |index, result| {
            // One that is missing ends the series.
            if let Some(result) = result.filter(|_| results.len() == index) {
                results.push(result);
            }
        });
        results
    }

    /// `run` for each of `0..count`, and `take` with each result, in order and as soon as all before it are there.
    pub fn for_each<R: Send>(
        &mut self,
        stage: &'static str,
        count: usize,
        run: impl Fn(usize) -> R + Sync,
        mut take: impl FnMut(usize, R),
    ) {
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            let (sender, results) = mpsc::sync_channel(QUEUE);
            for _ in 0..self.threads.get().min(count) {
                let (sender, next, run) = (sender.clone(), &next, &run);
                scope.spawn(move || {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        // The receiver is gone if `take` panicked.
                        if index >= count || sender.send((index, run(index))).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            let mut early = BTreeMap::new();
            let mut done = 0;
            for (index, result) in results {
                early.insert(index, result);
                while let Some(result) = early.remove(&done) {
                    take(done, result);
                    done += 1;
                    if let Some(tell) = &mut self.on_progress {
                        tell(Progress { stage, done, total: count });
                    }
                }
            }
        });
    }
}

/// Results that may wait for the caller's thread before workers do.
const QUEUE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn workers(threads: usize) -> Workers<'static> {
        Workers::threads(NonZeroUsize::new(threads).unwrap())
    }

    /// Work that takes the longer the earlier it is.
    fn slow_at_first(index: usize) -> u64 {
        (0..(200 - index as u64) * 2_000).fold(index as u64, |hash, n| (hash ^ n).wrapping_mul(0x9e37_79b9))
    }

    #[test]
    fn results_come_in_the_order_of_the_work_on_any_number_of_threads() {
        let expected: Vec<u64> = (0..200).map(slow_at_first).collect();
        for threads in [1, 2, 7] {
            let mut seen = Vec::new();
            workers(threads).for_each("", 200, slow_at_first, |index, result| seen.push((index, result)));
            assert_eq!(seen, expected.iter().copied().enumerate().collect::<Vec<_>>(), "{threads} threads");
        }
    }

    #[test]
    fn progress_is_told_once_for_each_result() {
        let mut told = Vec::new();
        let mut watched = workers(3).on_progress(|progress| told.push((progress.done, progress.total)));
        watched.map("", &[(); 20], |index, ()| slow_at_first(index));
        drop(watched);
        assert_eq!(told, (1..=20).map(|done| (done, 20)).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_stopped_has_the_first_results_only() {
        let stop = Arc::new(AtomicBool::new(false));
        let mut workers = workers(3).stopped_by(stop.clone());
        let items: Vec<usize> = (0..1_000).collect();
        let results = workers.map_until_stopped("", &items, |index, &item| {
            if index == 10 {
                stop.store(true, Ordering::Relaxed);
            }
            item
        });
        assert!(results.len() < 1_000 && results.len() > 5, "{}", results.len());
        assert!(results.iter().enumerate().all(|(index, result)| index == *result));
        assert!(workers.is_stopped());
        assert_eq!(workers.map("", &[1, 2], |_, n| *n), [1, 2], "what cannot be left half done is done");
    }

    #[test]
    fn nothing_to_do_is_done_at_once() {
        assert_eq!(workers(4).map("", &[] as &[u8], |_, n| *n), Vec::<u8>::new());
    }
}
