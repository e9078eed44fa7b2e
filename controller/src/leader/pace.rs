//! The pace of slice writes: so many a second over all workloads, those with traffic first.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

/// Gives turns. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    busy: mpsc::UnboundedSender<oneshot::Sender<()>>,
    calm: mpsc::UnboundedSender<oneshot::Sender<()>>,
}

impl Pace {
    /// Starts giving turns on the current runtime, one each `between`, until the last clone is gone.
    pub(crate) fn start(between: Duration) -> Pace {
        let ((busy, mut first), (calm, mut second)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        tokio::spawn(async move {
            let mut next = Instant::now();
            loop {
                sleep_until(next).await;
                let turn: Option<oneshot::Sender<()>> = tokio::select! {
                    biased;
                    turn = first.recv() => turn,
                    turn = second.recv() => turn,
                };
                let Some(turn) = turn else { return };
                // A turn that nobody waits for any more costs no time.
                if turn.send(()).is_ok() {
                    next = Instant::now() + between;
                }
            }
        });
        Pace { busy, calm }
    }

    /// Waits for a turn. A workload with traffic goes before those without.
    pub(crate) async fn turn(&self, is_busy: bool) {
        let (turn, given) = oneshot::channel();
        let line = if is_busy { &self.busy } else { &self.calm };
        if line.send(turn).is_ok() {
            let _ = given.await;
        }
    }
}

/// 100 slice writes a second.
pub(crate) const BETWEEN_WRITES: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_hundred_turns_take_a_second_and_the_busy_come_first() {
        let pace = Pace::start(BETWEEN_WRITES);
        let began = Instant::now();
        let (told, mut order) = unbounded_channel();
        let wait = |is_busy| {
            let (pace, told) = (pace.clone(), told.clone());
            async move {
                pace.turn(is_busy).await;
                let _ = told.send(is_busy);
            }
        };
        join_all((0..101).map(|number| wait(number >= 90))).await;
        assert_eq!(began.elapsed(), Duration::from_secs(1));
        let order: Vec<bool> = std::iter::from_fn(|| order.try_recv().ok()).collect();
        assert!(order[1..=11].iter().filter(|is_busy| **is_busy).count() >= 10, "{order:?}");
    }
}
