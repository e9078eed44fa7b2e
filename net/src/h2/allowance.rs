//! Events that may come in a burst, and for ever at a rate: a bucket of tokens that fills again.

use std::time::Duration;

use tokio::time::Instant;

/// What is left of a burst. Each event costs a token; time brings them back.
#[derive(Debug)]
pub(super) struct Allowance {
    /// Time in which one token comes back.
    each: Duration,
    /// Time in which an empty bucket fills.
    whole: Duration,
    /// When the bucket will be full again.
    full_at: Instant,
}

impl Allowance {
    /// A full bucket of `burst` tokens, of which so many come back a second.
    pub(super) fn new(now: Instant, burst: u32, per_second: u32) -> Self {
        let each = Duration::from_secs(1) / per_second;
        Allowance { each, whole: each * burst, full_at: now }
    }

    /// Takes a token; false if there is none.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + self.each;
        let is_there = full_at - now <= self.whole;
        if is_there {
            self.full_at = full_at;
        }
        is_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_spent_at_once_and_comes_back_at_its_rate() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start, 3, 2);
        let taken = |allowance: &mut Allowance, millis| {
            let now = start + Duration::from_millis(millis);
            (0..10).take_while(|_| allowance.take(now)).count()
        };
        assert_eq!(taken(&mut allowance, 0), 3);
        assert_eq!(taken(&mut allowance, 499), 0);
        assert_eq!(taken(&mut allowance, 500), 1);
        assert_eq!(taken(&mut allowance, 1500), 2);
        // Longer than it takes to fill: it is full, and no more than that.
        assert_eq!(taken(&mut allowance, 60_000), 3);
    }
}
