//! From a tree of traffic to arrivals, one by one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::Arc;

use pilotlight_core::{Rng, Time};

use super::counts::Placing;
use super::curve::Walk;
use super::markov::Wandering;
use super::scaled::ScaledStream;
use super::trace::Services;
use super::{Arrival, Leaf, Origin, Traffic, Tree, scaled_duration};

/// The arrivals of a [`Traffic`], in order of time. Holds what the next one needs, never all of them.
#[derive(Clone, Debug)]
pub struct Arrivals {
    stream: Stream,
}

#[derive(Clone, Debug)]
enum Stream {
    Leaf(Box<LeafStream>),
    Sequence(Box<SequenceStream>),
    Merge(MergeStream),
}

impl Arrivals {
    pub(super) fn new(traffic: &Traffic, seed: u64) -> Self {
        Arrivals { stream: Stream::new(traffic, seed) }
    }
}

impl Iterator for Arrivals {
    type Item = Arrival;

    #[inline]
    fn next(&mut self) -> Option<Arrival> {
        self.stream.next()
    }
}

impl Stream {
    fn new(traffic: &Traffic, seed: u64) -> Self {
        match &*traffic.tree {
            Tree::Leaf(leaf) => Stream::Leaf(Box::new(LeafStream::new(leaf, seed))),
            Tree::Sequence(_) => Stream::Sequence(Box::new(SequenceStream {
                traffic: traffic.clone(),
                seeds: Rng::new(seed),
                next_part: 0,
                begin: Time::EPOCH,
                end: Time::EPOCH,
                current: None,
            })),
            Tree::Merge(parts) => Stream::Merge(MergeStream::new(parts, seed)),
        }
    }

    #[inline]
    fn next(&mut self) -> Option<Arrival> {
        match self {
            Stream::Leaf(leaf) => leaf.next(),
            Stream::Sequence(sequence) => sequence.next(),
            Stream::Merge(merge) => merge.next(),
        }
    }
}

/// One origin's arrivals in its window, in outer time.
#[derive(Clone, Debug)]
struct LeafStream {
    arrivals: OriginStream,
    scaling: Option<Box<ScaledStream>>,
    from: Time,
    to: Time,
    speed: f64,
    rng: Rng,
    is_over: bool,
}

/// In the origin's own time.
#[derive(Clone, Debug)]
enum OriginStream {
    Silence,
    Walk { walk: Walk, services: Option<Services> },
    Placing { placing: Placing, services: Option<Services> },
    Wandering { origin: Arc<Origin>, wandering: Wandering },
    Together { at: Time, left: u32, requests: u32, every: std::time::Duration },
    Recorded { origin: Arc<Origin>, next: usize },
}

impl LeafStream {
    fn new(leaf: &Leaf, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let origin = Arc::clone(&leaf.origin);
        let arrivals = match &*leaf.origin {
            _ if leaf.scale == 0.0 => OriginStream::Silence,
            Origin::Silence => OriginStream::Silence,
            Origin::Curve { arrivals, services, .. } => {
                let (gaps, first) = arrivals.gaps(&mut rng);
                let walk = Walk::new(origin, leaf.from, leaf.scale, gaps, first);
                OriginStream::Walk { walk, services: services.clone() }
            }
            Origin::Counts { services, .. } => {
                OriginStream::Placing { placing: Placing::new(origin, leaf.from), services: services.clone() }
            }
            Origin::Markov(markov) => {
                let wandering = markov.start(leaf.from, leaf.scale, &mut rng);
                OriginStream::Wandering { origin, wandering }
            }
            Origin::Together { requests, every } => {
                // The first time in the window.
                let times = leaf.from.as_nanos().div_ceil((every.as_nanos() as u64).max(1));
                let at = Time::from_nanos(times.saturating_mul(every.as_nanos() as u64));
                OriginStream::Together { at, left: *requests, requests: *requests, every: *every }
            }
            Origin::Recorded(all) => {
                let next = all.partition_point(|arrival| arrival.at < leaf.from);
                OriginStream::Recorded { origin, next }
            }
        };
        // A curve and its states follow another rate; what has happened can only be thinned or repeated.
        let is_recorded = !matches!(
            arrivals,
            OriginStream::Silence | OriginStream::Walk { .. } | OriginStream::Wandering { .. }
        );
        let scaling = (is_recorded && leaf.scale != 1.0).then(|| Box::new(ScaledStream::new(leaf.scale)));
        LeafStream { arrivals, scaling, from: leaf.from, to: leaf.to, speed: leaf.speed, rng, is_over: false }
    }

    #[inline]
    fn next(&mut self) -> Option<Arrival> {
        if self.is_over {
            return None;
        }
        let next = match &mut self.scaling {
            None => self.arrivals.next(self.from, self.to, &mut self.rng),
            Some(scaling) => {
                let (from, to) = (self.from, self.to);
                scaling.next(to, &mut self.rng, |rng| self.arrivals.next(from, to, rng))
            }
        };
        let Some(arrival) = next else {
            self.is_over = true;
            return None;
        };
        let mut at = Time::from_nanos(arrival.at.as_nanos() - self.from.as_nanos());
        if self.speed != 1.0 {
            at = Time::EPOCH + scaled_duration(at - Time::EPOCH, self.speed.recip());
        }
        Some(Arrival { at, ..arrival })
    }
}

impl OriginStream {
    /// The next arrival from `from` up to `to`.
    #[inline]
    fn next(&mut self, from: Time, to: Time, rng: &mut Rng) -> Option<Arrival> {
        let arrival = match self {
            OriginStream::Walk { walk, services } => loop {
                let at = walk.next(rng)?;
                if at >= from {
                    break timed(at, services.as_ref(), rng);
                }
            },
            OriginStream::Placing { placing, services } => loop {
                let at = placing.next(rng)?;
                if at >= from {
                    break timed(at, services.as_ref(), rng);
                }
            },
            OriginStream::Wandering { origin, wandering } => {
                let Origin::Markov(markov) = &**origin else { return None };
                Arrival { at: wandering.next(markov, to, rng)?, service: None }
            }
            OriginStream::Together { at, left, requests, every } => {
                if *left == 0 {
                    *at += *every;
                    *left = *requests;
                }
                *left -= 1;
                Arrival { at: *at, service: None }
            }
            OriginStream::Recorded { origin, next } => {
                let Origin::Recorded(all) = &**origin else { return None };
                *next += 1;
                *all.get(*next - 1)?
            }
            OriginStream::Silence => return None,
        };
        (arrival.at < to).then_some(arrival)
    }
}

#[inline]
fn timed(at: Time, services: Option<&Services>, rng: &mut Rng) -> Arrival {
    Arrival { at, service: services.map(|services| services.sample(rng)) }
}

/// One part after the other, each with a seed of its own.
#[derive(Clone, Debug)]
struct SequenceStream {
    traffic: Traffic,
    seeds: Rng,
    next_part: usize,
    begin: Time,
    end: Time,
    current: Option<Stream>,
}

impl SequenceStream {
    fn next(&mut self) -> Option<Arrival> {
        loop {
            if let Some(arrival) = self.current.as_mut().and_then(Stream::next) {
                let at = self.begin + (arrival.at - Time::EPOCH);
                return Some(Arrival { at, ..arrival });
            }
            let Tree::Sequence(parts) = &*self.traffic.tree else { return None };
            let part = parts.get(self.next_part)?;
            self.current = Some(Stream::new(part, self.seeds.next_u64()));
            self.begin = self.end;
            self.end += part.duration;
            self.next_part += 1;
        }
    }
}

/// All parts at once: the earliest arrival first, of the earlier part where two are at the same time.
#[derive(Clone, Debug)]
struct MergeStream {
    parts: Vec<Stream>,
    heads: BinaryHeap<Reverse<Head>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    at: Time,
    part: usize,
    service: Option<std::time::Duration>,
}

impl MergeStream {
    fn new(parts: &[Traffic], seed: u64) -> Self {
        let mut seeds = Rng::new(seed);
        let mut parts: Vec<Stream> = parts.iter().map(|part| Stream::new(part, seeds.next_u64())).collect();
        let first =
            |(part, stream): (usize, &mut Stream)| stream.next().map(|arrival| Reverse(head(part, arrival)));
        let heads = parts.iter_mut().enumerate().filter_map(first).collect();
        MergeStream { parts, heads }
    }

    fn next(&mut self) -> Option<Arrival> {
        let mut top = self.heads.peek_mut()?;
        let Reverse(Head { at, part, service }) = *top;
        match self.parts[part].next() {
            // Changed in place: it sinks to where it belongs when `top` is let go.
            Some(arrival) => *top = Reverse(head(part, arrival)),
            None => {
                PeekMut::pop(top);
            }
        }
        Some(Arrival { at, service })
    }
}

fn head(part: usize, arrival: Arrival) -> Head {
    Head { at: arrival.at, part, service: arrival.service }
}
