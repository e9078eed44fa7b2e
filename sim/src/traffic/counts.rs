//! Counts of requests in intervals of equal length, as platforms publish them. Whatever is random about the
//! arrivals, each interval keeps its count.

use std::sync::Arc;
use std::time::Duration;

use pilotlight_core::{Rng, Time};

use super::{Origin, Process};
use crate::dist::exponential;

/// Requests in each interval.
#[derive(Clone, Debug)]
pub(super) struct Counts {
    counts: Box<[u32]>,
    width_nanos: u64,
    arrivals: Process,
}

/// A walk through the intervals.
#[derive(Clone, Debug)]
pub(super) struct Placing {
    origin: Arc<Origin>,
    interval: usize,
    /// Requests of this interval that are still to come, and where in it the last one was, from 0 to 1.
    left: u32,
    place: f64,
}

impl Counts {
    /// `arrivals` places the requests within their interval: evenly, or at random for every other process.
    pub(super) fn new(counts: Vec<u32>, width: Duration, arrivals: Process) -> Self {
        Counts { counts: counts.into(), width_nanos: width.as_nanos() as u64, arrivals }
    }
}

impl Placing {
    /// Starts with the interval that holds `from`; what lies before it is passed over by the caller.
    pub(super) fn new(origin: Arc<Origin>, from: Time) -> Self {
        let Origin::Counts { counts, .. } = &*origin else {
            return Placing { origin, interval: 0, left: 0, place: 0.0 };
        };
        let interval = (from.as_nanos() / counts.width_nanos) as usize;
        let left = counts.counts.get(interval).copied().unwrap_or(0);
        Placing { origin, interval, left, place: 0.0 }
    }

    #[inline]
    pub(super) fn next(&mut self, rng: &mut Rng) -> Option<Time> {
        let Origin::Counts { counts, .. } = &*self.origin else { return None };
        while self.left == 0 {
            self.interval += 1;
            self.left = *counts.counts.get(self.interval)?;
            self.place = 0.0;
        }
        let place = match counts.arrivals {
            Process::Uniform => {
                let count = counts.counts[self.interval];
                (f64::from(count - self.left) + 0.5) / f64::from(count)
            }
            // The lowest of the numbers that are left, all evenly spread over what is left of the interval: a
            // Poisson process whose count is known.
            _ => {
                let gap = -(-exponential(rng) / f64::from(self.left)).exp_m1();
                self.place + (1.0 - self.place) * gap
            }
        };
        self.place = place;
        self.left -= 1;
        let width = counts.width_nanos as f64;
        let within = ((place * width) as u64).min(counts.width_nanos - 1);
        Some(Time::from_nanos(self.interval as u64 * counts.width_nanos + within))
    }
}
