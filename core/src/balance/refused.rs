//! Pods that refuse connections: for how long nothing more is sent to one of them.
//!
//! A pod may have died a moment ago, with the list of pods not yet saying so. A request that it refused was not sent:
//! the request keeps its [`GateTicket`](super::GateTicket), hence its place in the line, and goes to the next pod that has
//! room. The pod is taken back after [`FIRST_PAUSE`]; if it refuses again, after twice as long, up to
//! [`LONGEST_PAUSE`]. A new list ends every pause, and an answered request makes the next pause the first again.

use std::time::Duration;

/// The connections that one pod has refused in a row.
///
/// ```
/// use pilotlight_core::balance::Refusals;
/// use std::time::Duration;
/// let mut pod = Refusals::default();
/// assert_eq!(pod.refused(), Some(Duration::from_millis(10)));
/// assert_eq!(pod.refused(), None); // sent before the first refusal was known: the same event
/// pod.taken_back();
/// assert_eq!(pod.refused(), Some(Duration::from_millis(20)));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// How often the pod was left out since it last answered.
    pauses: u32,
    is_out: bool,
}

impl Refusals {
    /// The pod refused a connection. Returns for how long to leave it out; `None` while it is left out already.
    pub fn refused(&mut self) -> Option<Duration> {
        if std::mem::replace(&mut self.is_out, true) {
            return None;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.pauses.min(MOST_DOUBLINGS)).min(LONGEST_PAUSE);
        self.pauses += 1;
        Some(pause)
    }

    /// The pause is over: requests go to the pod again.
    pub fn taken_back(&mut self) {
        self.is_out = false;
    }

    /// The pod answered a request.
    pub fn answered(&mut self) {
        self.pauses = 0;
    }
}

/// How long a pod is left out after its first refusal.
pub const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The longest a pod is left out at a time.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Enough to get from the first pause to beyond the longest.
const MOST_DOUBLINGS: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// The pause, in milliseconds, after each refusal of a pod that was taken back in between.
    fn pauses(pod: &mut Refusals, times: usize) -> Vec<u128> {
        let pause = |_| {
            let pause = pod.refused().map_or(0, |pause| pause.as_millis());
            pod.taken_back();
            pause
        };
        (0..times).map(pause).collect()
    }

    #[test]
    fn a_pause_is_twice_as_long_as_the_one_before_up_to_a_second() {
        let mut pod = Refusals::default();
        assert_eq!(pauses(&mut pod, 9), [10, 20, 40, 80, 160, 320, 640, 1_000, 1_000]);
        assert_eq!(pauses(&mut pod, 100).pop(), Some(1_000));
    }

    #[test]
    fn an_answer_makes_the_next_pause_the_first_again() {
        let mut pod = Refusals::default();
        assert_eq!(pauses(&mut pod, 3), [10, 20, 40]);
        pod.answered();
        assert_eq!(pauses(&mut pod, 2), [10, 20]);
    }

    #[test]
    fn requests_that_are_refused_together_are_one_refusal() {
        let mut pod = Refusals::default();
        let refused = |pod: &mut Refusals| pod.refused().map(|pause| pause.as_millis());
        // Fifty requests were on their way when the pod died.
        assert_eq!(refused(&mut pod), Some(10));
        assert!((1..50).all(|_| refused(&mut pod).is_none()));
        pod.taken_back();
        assert_eq!(refused(&mut pod), Some(20));
    }
}
