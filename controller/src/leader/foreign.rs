//! Changes of a target's number of pods that somebody else made: a raise is respected for a while, and whoever changes it
//! again and again is left to have the last word. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use pilotlight_core::Time;

/// The changes by others, as far as they still count.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Foreign {
    /// The times of the last changes, oldest first.
    changes: VecDeque<Time>,
    raise: Option<Raise>,
    contest: Option<Contest>,
}

/// A number that somebody raised the target to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Raise {
    pub(crate) to: u32,
    pub(crate) at: Time,
}

/// Somebody else changes the number of pods again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contest {
    /// The manager that wrote last.
    pub(crate) manager: String,
    /// The last of the changes.
    pub(crate) last: Time,
    /// The generation of the RequestAutoscaler: with another one the contest is over.
    generation: i64,
}

impl Foreign {
    /// Somebody else has changed the number of pods.
    pub(crate) fn changed(&mut self, now: Time, (from, to): (u32, u32), manager: &str, generation: i64) {
        self.raise = if to > from { Some(Raise { to, at: now }) } else { None };
        self.changes.push_back(now);
        while self.changes.front().is_some_and(|first| now - *first > WITHIN) {
            self.changes.pop_front();
        }
        if self.changes.len() >= CHANGES || self.contest(now, generation).is_some() {
            self.contest = Some(Contest { manager: manager.to_owned(), last: now, generation });
        }
    }

    /// A contest that an earlier leader has seen.
    pub(crate) fn resume(manager: String, last: Time, generation: i64) -> Self {
        Foreign { contest: Some(Contest { manager, last, generation }), ..Foreign::default() }
    }

    /// The raise that is still respected, for a stable window.
    pub(crate) fn raise(&self, now: Time, stable_window: Duration) -> Option<Raise> {
        self.raise.filter(|raise| now < raise.at + stable_window)
    }

    /// The contest, unless another spec or a quiet hour has ended it.
    pub(crate) fn contest(&self, now: Time, generation: i64) -> Option<&Contest> {
        let contest = self.contest.as_ref()?;
        Some(contest).filter(|contest| contest.generation == generation && now < contest.last + QUIET)
    }
}

/// So many changes within [`WITHIN`] are a contest.
const CHANGES: usize = 3;
const WITHIN: Duration = Duration::from_secs(600);
/// Without a change for this long a contest is over.
const QUIET: Duration = Duration::from_secs(3_600);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_secs(seconds)
    }

    #[test]
    fn a_raise_is_respected_for_a_stable_window() {
        let mut foreign = Foreign::default();
        foreign.changed(at(100), (2, 5), "kubectl", 1);
        let window = Duration::from_secs(60);
        assert_eq!(foreign.raise(at(159), window), Some(Raise { to: 5, at: at(100) }));
        assert_eq!(foreign.raise(at(160), window), None);
        foreign.changed(at(170), (5, 1), "kubectl", 1);
        assert_eq!(foreign.raise(at(171), window), None, "what is lowered is followed");
    }

    #[test]
    fn three_changes_within_ten_minutes_are_a_contest_until_an_hour_is_quiet() {
        let mut foreign = Foreign::default();
        foreign.changed(at(0), (2, 5), "argocd", 1);
        foreign.changed(at(300), (2, 5), "argocd", 1);
        assert_eq!(foreign.contest(at(300), 1), None);
        foreign.changed(at(600), (2, 5), "argocd", 1);
        assert_eq!(foreign.contest(at(600), 1).map(|it| it.manager.as_str()), Some("argocd"));
        assert!(foreign.contest(at(4_199), 1).is_some());
        assert_eq!(foreign.contest(at(4_200), 1), None);
        assert_eq!(foreign.contest(at(700), 2), None, "the spec has changed");
    }

    #[test]
    fn changes_that_are_far_apart_are_no_contest() {
        let mut foreign = Foreign::default();
        for seconds in [0, 400, 800, 1_200] {
            foreign.changed(at(seconds), (1, 2), "kubectl", 1);
        }
        assert_eq!(foreign.contest(at(1_200), 1), None);
    }
}
