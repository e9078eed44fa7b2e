//! The loads of a search: one to learn from, one to judge on, and one that must not suffer.

use std::time::Duration;

use pilotlight_core::{Rng, Time};

use crate::compare::{Noise, Trials, World};
use crate::scenario::{Load, Scenario, UserStep, Users};
use crate::traffic::{Arrival, Traffic};

/// A scenario in three parts.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    pub(super) training: Scenario,
    pub(super) held_out: Scenario,
    /// The requests, spread evenly: whatever is gained from bursts must not be lost on a load that has none.
    pub(super) smooth: Vec<World>,
}

impl Parts {
    /// The first part of the load, in time, is learned from; the rest is held out. Users of a closed loop come back
    /// as they were: there, other seeds are held out.
    pub(super) fn of(scenario: &Scenario, training_fraction: f64, seed: u64) -> Self {
        let split = scenario.duration.mul_f64(training_fraction);
        let part = |from: Duration, to: Duration| match &scenario.load {
            Load::Open(traffic) => {
                Scenario { load: Load::Open(traffic.cut(from, to)), duration: to - from, ..scenario.clone() }
            }
            Load::Closed(_) => scenario.clone(),
        };
        Parts {
            training: part(Duration::ZERO, split),
            held_out: part(split, scenario.duration),
            smooth: (0..SMOOTH_WORLDS)
                .map(|more| seed.wrapping_add(more))
                .map(|seed| World { scenario: smoothed(scenario, seed), seed })
                .collect(),
        }
    }
}

/// The scenario under a load that is as great on average and has neither bursts nor silences.
fn smoothed(scenario: &Scenario, seed: u64) -> Scenario {
    let load = match &scenario.load {
        Load::Open(traffic) => Load::Open(spread_out(traffic, scenario.duration, seed)),
        Load::Closed(users) => {
            let step =
                UserStep { at: Time::EPOCH, users: mean_users(users, scenario.duration), spawn_rate: None };
            Load::Closed(Users { steps: vec![step], think: users.think.clone() })
        }
    };
    Scenario { load, ..scenario.clone() }
}

/// The requests in another order and at independent times: a Poisson process, given how many there are.
fn spread_out(traffic: &Traffic, duration: Duration, seed: u64) -> Traffic {
    let end = Time::EPOCH + duration;
    let mut work: Vec<Option<Duration>> = traffic
        .arrivals(seed)
        .take_while(|arrival| arrival.at < end)
        .map(|arrival| arrival.service)
        .collect();
    let mut rng = Rng::new(seed ^ SMOOTH);
    rng.shuffle(&mut work);
    let mut times: Vec<Time> = work.iter().map(|_| Time::EPOCH + duration.mul_f64(rng.unit())).collect();
    times.sort_unstable();
    let arrivals = times.into_iter().zip(work).map(|(at, service)| Arrival { at, service }).collect();
    Traffic::recorded(arrivals, duration)
}

fn mean_users(users: &Users, duration: Duration) -> u32 {
    let end = Time::EPOCH + duration;
    let ends = users.steps.iter().skip(1).map(|step| step.at.min(end)).chain([end]);
    let spans = users.steps.iter().zip(ends);
    let sum: f64 = spans.map(|(step, until)| f64::from(step.users) * (until - step.at).as_secs_f64()).sum();
    (sum / duration.as_secs_f64()).round().max(1.0) as u32
}

/// `count` worlds to learn from: the load as it is, and others like it.
pub(super) fn worlds(scenario: &Scenario, first_seed: u64, count: u32) -> Vec<World> {
    let blocks = blocks(scenario, first_seed);
    let mut worlds = Trials { first_seed, count, blocks }.worlds(scenario);
    if let (Some(first), true) = (worlds.first_mut(), blocks.is_some()) {
        first.scenario = scenario.clone();
    }
    worlds
}

/// The length of the pieces that loads like this one are made of, if seeds do not vary its arrivals.
pub(super) fn blocks(scenario: &Scenario, seed: u64) -> Option<Duration> {
    let noise = Trials::seeds(seed, 2).noise(scenario);
    // Six pieces: long enough for the silences and the windows of most, and enough of them to vary.
    (noise == Noise::AllButArrivals).then(|| scenario.duration / 6)
}

/// How often a load falls silent, and how busy it gets.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Silences {
    pub(super) longest: Duration,
    /// Silences longer than asked for.
    pub(super) long: u32,
}

/// The silences of an open load; `None` for a closed loop, whose silences depend on its answers.
pub(super) fn silences(scenario: &Scenario, seed: u64, longer_than: Duration) -> Option<Silences> {
    let Load::Open(traffic) = &scenario.load else { return None };
    let mut silences = Silences::default();
    let mut last = Time::EPOCH;
    let end = Time::EPOCH + scenario.duration;
    for arrival in traffic.arrivals(seed).map(|arrival| arrival.at).take_while(|&at| at < end) {
        let silence = arrival - last;
        last = arrival;
        silences.longest = silences.longest.max(silence);
        silences.long += u32::from(silence > longer_than);
    }
    Some(silences)
}

/// Smooth loads: one alone may lie at the edge of one pod more.
const SMOOTH_WORLDS: u64 = 4;

/// Salt, so that times are not drawn with the numbers that the load itself was.
const SMOOTH: u64 = 0x736d_6f6f_7468;

#[cfg(test)]
mod tests {
    use super::*;

    fn bursts() -> Scenario {
        // Ten at once every minute, for ten minutes; each has its own work.
        let arrival = |index: u64| Arrival {
            at: Time::from_secs(index / 10 * 60),
            service: Some(Duration::from_millis(index)),
        };
        let length = Duration::from_secs(600);
        let load = Load::Open(Traffic::recorded((0..100).map(arrival).collect(), length));
        Scenario::new(load, length, Duration::from_secs(1))
    }

    fn arrivals(scenario: &Scenario) -> Vec<Arrival> {
        let Load::Open(traffic) = &scenario.load else { unreachable!() };
        traffic.arrivals(0).collect()
    }

    #[test]
    fn the_training_part_comes_first_and_shares_nothing_with_the_rest() {
        let parts = Parts::of(&bursts(), 0.3, 1);
        assert_eq!(parts.training.duration, Duration::from_secs(180));
        assert_eq!(parts.held_out.duration, Duration::from_secs(420));
        let (training, held_out) = (arrivals(&parts.training), arrivals(&parts.held_out));
        assert_eq!((training.len(), held_out.len()), (30, 70));
        assert_eq!(held_out[0], Arrival { at: Time::EPOCH, service: Some(Duration::from_millis(30)) });
    }

    #[test]
    fn the_smooth_load_is_the_same_work_without_bursts_or_silences() {
        let smooth = arrivals(&Parts::of(&bursts(), 0.5, 1).smooth[0].scenario);
        let mut work: Vec<Duration> = smooth.iter().map(|arrival| arrival.service.unwrap()).collect();
        work.sort_unstable();
        assert_eq!(work, (0..100).map(Duration::from_millis).collect::<Vec<_>>());
        assert!(smooth.is_sorted_by_key(|arrival| arrival.at));
        assert!(smooth.windows(2).all(|pair| pair[1].at - pair[0].at < Duration::from_secs(50)));
    }

    #[test]
    fn users_are_averaged_over_time() {
        let step = |at, users| UserStep { at: Time::from_secs(at), users, spawn_rate: None };
        let users =
            Users { steps: vec![step(0, 10), step(30, 20), step(60, 0)], think: Duration::ZERO.into() };
        assert_eq!(mean_users(&users, Duration::from_secs(120)), 8, "7.5, rounded");
    }

    #[test]
    fn silences_are_those_between_requests() {
        let found = silences(&bursts(), 0, Duration::from_secs(59)).unwrap();
        assert_eq!(found, Silences { longest: Duration::from_secs(60), long: 9 });
    }
}
