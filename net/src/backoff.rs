//! Delays between attempts to reconnect: how long a caller waits before it tries again.

use std::time::Duration;

/// The delay before the next attempt: the first one, then twice as long after each failure, up to the longest; the
/// first one again after a connection that [lasted](Backoff::STABLE).
///
/// A pure value: it reads no clock and rolls no dice. The caller says how long the connection lasted, and how much
/// jitter the delay gets, so that clients that lost the same server at the same moment do not return in step.
///
/// ```
/// use std::time::Duration;
/// use pilotlight_net::Backoff;
///
/// let millis = Duration::from_millis;
/// let mut backoff = Backoff::new(millis(100), millis(300));
/// assert_eq!(backoff.next(Duration::ZERO, 0.0), millis(100));
/// assert_eq!(backoff.next(Duration::ZERO, 0.5), millis(200 + 50));
/// assert_eq!(backoff.next(Duration::ZERO, 1.0), millis(300 + 150));
/// assert_eq!(backoff.next(Backoff::STABLE, 0.0), millis(100));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    delay: Duration,
}

impl Backoff {
    /// A connection that lasted this long was a success. A shorter one was not: a server that accepts and closes at
    /// once would otherwise be asked again without end at the first delay.
    pub const STABLE: Duration = Duration::from_secs(1);

    /// Begins with `first`; no delay is longer than `longest`, jitter aside.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Backoff { first, longest, delay: first.min(longest) }
    }

    /// The delay before the next attempt. `lasted` is how long the last connection served, zero if none came about;
    /// `jitter`, a random number from 0 to 1, adds up to half of the delay.
    pub fn next(&mut self, lasted: Duration, jitter: f64) -> Duration {
        if lasted >= Backoff::STABLE {
            self.delay = self.first.min(self.longest);
        }
        let delay = self.delay;
        self.delay = delay.saturating_mul(2).min(self.longest);
        delay + delay.mul_f64(0.5 * jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER_CONNECTED: Duration = Duration::ZERO;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn delays(backoff: &mut Backoff, lasted: Duration, attempts: usize) -> Vec<Duration> {
        (0..attempts).map(|_| backoff.next(lasted, 0.0)).collect()
    }

    #[test]
    fn delays_double_up_to_the_longest() {
        let mut backoff = Backoff::new(millis(50), millis(300));
        let delays = delays(&mut backoff, NEVER_CONNECTED, 5);
        assert_eq!(delays, [50, 100, 200, 300, 300].map(millis));
    }

    #[test]
    fn a_stable_connection_resets_the_delay_and_a_short_one_does_not() {
        let mut backoff = Backoff::new(millis(100), millis(1600));
        delays(&mut backoff, NEVER_CONNECTED, 2);
        assert_eq!(backoff.next(millis(999), 0.0), millis(400));
        assert_eq!(backoff.next(millis(1000), 0.0), millis(100));
        assert_eq!(backoff.next(NEVER_CONNECTED, 0.0), millis(200));
    }

    #[test]
    fn jitter_adds_up_to_half_and_does_not_accumulate() {
        let mut backoff = Backoff::new(millis(100), millis(400));
        assert_eq!(backoff.next(NEVER_CONNECTED, 1.0), millis(150));
        assert_eq!(backoff.next(NEVER_CONNECTED, 1.0), millis(300));
        assert_eq!(backoff.next(NEVER_CONNECTED, 1.0), millis(600));
        assert_eq!(backoff.next(NEVER_CONNECTED, 1.0), millis(600));
    }

    #[test]
    fn a_first_delay_longer_than_the_longest_is_cut() {
        let mut backoff = Backoff::new(millis(500), millis(200));
        assert_eq!(delays(&mut backoff, NEVER_CONNECTED, 2), [200, 200].map(millis));
    }

    #[test]
    fn no_delay_overflows() {
        let mut backoff = Backoff::new(Duration::from_secs(u64::MAX / 4), Duration::from_secs(u64::MAX / 4));
        assert_eq!(delays(&mut backoff, NEVER_CONNECTED, 3)[2], Duration::from_secs(u64::MAX / 4));
    }
}
