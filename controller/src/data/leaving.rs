//! The way out: an activator that was told to stop serves on until traffic goes elsewhere. Pure.
//!
//! The controller takes it out of the slices in two steps: as terminating first, since some data planes cut connections to
//! an endpoint that vanishes, then altogether.

use std::time::Duration;

use pilotlight_core::Time;

use super::named::Standing;

/// Times of an activator's way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaveTimes {
    /// How long nodes may take to hear that a slice has changed.
    pub propagation: Duration,
    /// The longest time to wait for the second step once the first one was made.
    pub second_step: Duration,
    /// The longest time in all before connections are drained, whatever slices say: the API server may be away.
    pub longest: Duration,
    /// The longest time that connections may take over their end.
    pub drain: Duration,
    /// The time from the signal to the kill.
    pub grace: Duration,
}

impl Default for LeaveTimes {
    fn default() -> Self {
        LeaveTimes {
            propagation: Duration::from_secs(5),
            second_step: Duration::from_secs(30),
            longest: Duration::from_secs(540),
            drain: Duration::from_secs(600),
            grace: Duration::from_secs(600),
        }
    }
}

impl LeaveTimes {
    /// How long connections may take over their end if the drain begins so long after the signal: some seconds are left
    /// for the last words to the controller.
    pub(super) fn drain_after(&self, waited: Duration) -> Duration {
        self.drain.min(self.grace.saturating_sub(waited).saturating_sub(LAST_WORDS))
    }
}

/// An activator on its way out.
#[derive(Debug)]
pub(super) struct Leaving {
    times: LeaveTimes,
    since: Time,
    /// Since when no slice calls it ready.
    off_since: Option<Time>,
    /// Since when no slice names it.
    out_since: Option<Time>,
}

impl Leaving {
    /// The activator was told to stop at this moment.
    pub(super) fn new(now: Time, times: LeaveTimes) -> Self {
        Leaving { times, since: now, off_since: None, out_since: None }
    }

    /// When the drain may begin, as slices are now.
    pub(super) fn step(&mut self, now: Time, standing: Standing) -> Time {
        let LeaveTimes { propagation, second_step, longest, .. } = self.times;
        let is_off = standing < Standing::Ready;
        let is_out = standing < Standing::Leaving;
        self.off_since = is_off.then(|| self.off_since.unwrap_or(now));
        self.out_since = is_out.then(|| self.out_since.unwrap_or(now));
        let off = self.off_since.map(|since| since + second_step + propagation);
        let out = self.out_since.map(|since| since + propagation);
        let latest = self.since + longest;
        [off, out].into_iter().flatten().fold(latest, Time::min)
    }
}

/// Time for the last report, the close frame and the last spans.
const LAST_WORDS: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_secs(seconds)
    }

    #[test]
    fn the_drain_begins_once_nodes_have_heard_that_no_slice_names_it() {
        let mut leaving = Leaving::new(at(100), LeaveTimes::default());
        let script = [
            (100, Standing::Ready, 640),
            (102, Standing::Leaving, 137),
            (104, Standing::Absent, 109),
            (106, Standing::Absent, 109),
        ];
        for (now, standing, expected) in script {
            assert_eq!(leaving.step(at(now), standing), at(expected), "at {now}");
        }
    }

    #[test]
    fn a_slice_that_names_it_again_has_it_wait_again() {
        let mut leaving = Leaving::new(at(0), LeaveTimes::default());
        assert_eq!(leaving.step(at(0), Standing::Absent), at(5));
        assert_eq!(leaving.step(at(3), Standing::Ready), at(540));
        assert_eq!(leaving.step(at(7), Standing::Absent), at(12));
    }

    #[test]
    fn a_second_step_that_never_comes_and_an_api_server_that_is_away_cost_only_time() {
        let mut leaving = Leaving::new(at(0), LeaveTimes::default());
        assert_eq!(leaving.step(at(2), Standing::Leaving), at(37));
        assert_eq!(leaving.step(at(30), Standing::Leaving), at(37));
        let mut away = Leaving::new(at(0), LeaveTimes::default());
        assert_eq!(away.step(at(539), Standing::Ready), at(540));
    }

    #[test]
    fn the_drain_ends_before_the_grace_period_does() {
        let times = LeaveTimes::default();
        let drain = |waited| times.drain_after(Duration::from_secs(waited)).as_secs();
        assert_eq!([drain(0), drain(9), drain(540), drain(700)], [585, 576, 45, 0]);
    }
}
