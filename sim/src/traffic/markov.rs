//! Arrivals whose rate depends on a hidden state that changes at random: a Markov-modulated Poisson process.

use std::time::Duration;

use pilotlight_core::{Rng, Time};

use crate::dist::exponential;

/// The states: rate per nanosecond, and mean sojourn in nanoseconds.
#[derive(Clone, Debug)]
pub(super) struct Markov {
    states: Box<[(f64, f64)]>,
}

/// The state now, and until when.
#[derive(Clone, Debug)]
pub(super) struct Wandering {
    state: usize,
    now_nanos: f64,
    leaves_nanos: f64,
    scale: f64,
}

impl Markov {
    /// From rates per second and mean sojourns.
    pub(super) fn new(states: impl IntoIterator<Item = (f64, Duration)>) -> Self {
        let state = |(rate, mean): (f64, Duration)| (rate / 1e9, mean.as_nanos() as f64);
        Markov { states: states.into_iter().map(state).collect() }
    }

    /// Begins in the middle of things: in each state with the share of time that is spent in it.
    pub(super) fn start(&self, from: Time, scale: f64, rng: &mut Rng) -> Wandering {
        let total: f64 = self.states.iter().map(|(_, mean)| mean).sum();
        let mut left = rng.unit() * total;
        let mut state = 0;
        while state + 1 < self.states.len() && left >= self.states[state].1 {
            left -= self.states[state].1;
            state += 1;
        }
        let now_nanos = from.as_nanos() as f64;
        let leaves_nanos = now_nanos + exponential(rng) * self.states[state].1;
        Wandering { state, now_nanos, leaves_nanos, scale }
    }
}

impl Wandering {
    /// The next arrival before `to`.
    pub(super) fn next(&mut self, markov: &Markov, to: Time, rng: &mut Rng) -> Option<Time> {
        let end_nanos = to.as_nanos() as f64;
        loop {
            let rate = markov.states[self.state].0 * self.scale;
            // At a rate of zero the gap is endless.
            let next = self.now_nanos + exponential(rng) / rate;
            if next < self.leaves_nanos {
                self.now_nanos = next;
                return (next < end_nanos).then(|| Time::from_nanos((next + 0.5) as u64));
            }
            // Memoryless: what is left of the gap is drawn anew at the new rate.
            self.now_nanos = self.leaves_nanos;
            if self.now_nanos >= end_nanos {
                return None;
            }
            // Any other state, each as likely as another.
            let others = markov.states.len() - 1;
            let jump = rng.below(others) + 1;
            self.state = (self.state + if others == 0 { 0 } else { jump }) % markov.states.len();
            self.leaves_nanos = self.now_nanos + exponential(rng) * markov.states[self.state].1;
        }
    }
}
