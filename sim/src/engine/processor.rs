//! How a pod works on several requests at once.
//!
//! A request needs some work, in seconds alone on the pod. With `n` requests at work each gets on at a speed that
//! depends on `n`; how far everybody has come is one number, so a change of `n` costs nothing per request.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

use pilotlight_core::Time;

use super::requests::RequestId;
use crate::scenario::Slowdown;

/// The requests a pod works on, where their number slows them down.
#[derive(Clone, Debug)]
pub(super) struct Processor {
    slowdown: Slowdown,
    /// Seconds of work that a request present from the beginning would have got done.
    progress: f64,
    updated: Time,
    running: u32,
    /// Requests by the progress at which they are done; those that left early stay in until they would have been done.
    ends: BinaryHeap<Reverse<End>>,
    arrivals: u64,
}

#[derive(Clone, Copy, Debug)]
struct End {
    progress: f64,
    arrival: u64,
    request: RequestId,
}

impl Processor {
    pub(super) fn new(now: Time, slowdown: Slowdown) -> Self {
        Processor { slowdown, progress: 0.0, updated: now, running: 0, ends: BinaryHeap::new(), arrivals: 0 }
    }

    pub(super) fn start(&mut self, now: Time, request: RequestId, work: Duration) {
        self.advance(now);
        self.running += 1;
        self.arrivals += 1;
        let progress = self.progress + work.as_secs_f64();
        self.ends.push(Reverse(End { progress, arrival: self.arrivals, request }));
    }

    /// A request left, finished or not.
    pub(super) fn leave(&mut self, now: Time) {
        self.advance(now);
        self.running -= 1;
    }

    /// The request that is done first, and when, if nobody comes or goes. `is_there` tells who still is.
    pub(super) fn next(&mut self, is_there: impl Fn(RequestId) -> bool) -> Option<(Time, RequestId)> {
        while let Some(Reverse(end)) = self.ends.peek() {
            if !is_there(end.request) {
                self.ends.pop();
                continue;
            }
            let left = (end.progress - self.progress).max(0.0) / self.speed();
            return Some((self.updated + Duration::from_secs_f64(left), end.request));
        }
        None
    }

    fn advance(&mut self, now: Time) {
        if self.running > 0 {
            self.progress += (now - self.updated).as_secs_f64() * self.speed();
        } else {
            // An idle processor starts over: small numbers are exact ones.
            self.progress = 0.0;
            self.ends.clear();
        }
        self.updated = now;
    }

    fn speed(&self) -> f64 {
        self.slowdown.speed(self.running)
    }
}

impl Ord for End {
    fn cmp(&self, other: &Self) -> Ordering {
        self.progress.total_cmp(&other.progress).then(self.arrival.cmp(&other.arrival))
    }
}

impl PartialOrd for End {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for End {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for End {}
