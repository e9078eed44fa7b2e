//! Recorded arrivals, fewer or more of them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use pilotlight_core::{Rng, Time};

use super::Arrival;

/// Thins or repeats arrivals so that their rate is multiplied.
#[derive(Clone, Debug)]
pub(super) struct ScaledStream {
    by: f64,
    /// Copies that are still to come. They lag by up to [`LAG`], so these are never more than come in that time.
    copies: BinaryHeap<Reverse<Pending>>,
    /// The next original.
    next: Option<Arrival>,
    is_started: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pending {
    at: Time,
    service: Option<Duration>,
}

impl ScaledStream {
    pub(super) fn new(by: f64) -> Self {
        ScaledStream { by, copies: BinaryHeap::new(), next: None, is_started: false }
    }

    /// The next arrival before `to`, from the `originals`.
    pub(super) fn next(
        &mut self,
        to: Time,
        rng: &mut Rng,
        mut originals: impl FnMut(&mut Rng) -> Option<Arrival>,
    ) -> Option<Arrival> {
        if !self.is_started {
            self.is_started = true;
            self.next = originals(rng);
        }
        loop {
            let copy_at = self.copies.peek().map(|Reverse(copy)| copy.at);
            let Some(original) = self.next.filter(|next| copy_at.is_none_or(|at| next.at <= at)) else {
                let Reverse(copy) = self.copies.pop()?;
                return Some(Arrival { at: copy.at, service: copy.service });
            };
            self.next = originals(rng);
            let times = self.by.floor() + if rng.unit() < self.by.fract() { 1.0 } else { 0.0 };
            if times == 0.0 {
                continue;
            }
            // Not beyond the end: every copy is to arrive.
            let room = (to - original.at).min(LAG).as_nanos() as f64;
            for _ in 1..times as u64 {
                let at = original.at + Duration::from_nanos((rng.unit() * room) as u64);
                self.copies.push(Reverse(Pending { at, service: original.service }));
            }
            return Some(original);
        }
    }
}

/// Copies of a request come within this time of it: long enough that they are no batch, short enough that silence
/// stays silence.
const LAG: Duration = Duration::from_secs(1);
