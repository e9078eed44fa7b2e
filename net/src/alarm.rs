//! One timer for all the time limits of a task.
//!
//! A request has half a dozen time limits, and hardly any is ever reached. Setting and clearing a timer for each costs
//! more than reading the request. So a task has one timer, which is never set later than the limits waited for, and is set
//! anew when it goes off and turns out to be early: no more than once per time limit, however many requests pass.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, sleep_until};

/// The timer of one task. Clones are the same timer.
///
/// A future that waits for it must poll it again whenever the task is woken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alarm {
    sleep: Arc<Mutex<Option<Pin<Box<Sleep>>>>>,
}

impl Alarm {
    /// Ready once `at` has come.
    pub(crate) fn poll(&self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let mut sleep = self.sleep.lock();
        let sleep = sleep.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if at <= Instant::now() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_goes_off_at_each_time_in_turn_whatever_was_asked_before() {
        let (alarm, start) = (Alarm::default(), Instant::now());
        let at = |secs| start + Duration::from_secs(secs);
        // A limit that is not waited for any more, earlier than the next one and later than the one after that.
        assert!(poll_fn(|cx| Poll::Ready(alarm.poll(at(5), cx))).await.is_pending());
        for secs in [7, 3, 9] {
            let asked = Instant::now();
            poll_fn(|cx| alarm.poll(at(secs), cx)).await;
            assert_eq!(Instant::now(), at(secs).max(asked));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_that_wait_the_earlier_is_first() {
        let (alarm, start) = (Alarm::default(), Instant::now());
        let at = |secs| start + Duration::from_secs(secs);
        for (one, other) in [(2, 1), (3, 4)] {
            let wait = poll_fn(|cx| {
                let (one, other) = (alarm.poll(at(one), cx), alarm.poll(at(other), cx));
                if one.is_ready() || other.is_ready() { Poll::Ready(()) } else { Poll::Pending }
            });
            wait.await;
            assert_eq!(Instant::now(), at(one.min(other)));
        }
    }
}
