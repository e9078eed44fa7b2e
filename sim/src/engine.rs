//! One run: a scenario, settings, and a seed go in, an [`Outcome`] comes out.
//!
//! A loop over what happens next: an arrival, a planned event, or one of the times in each second at which proxies
//! report, the autoscaler scrapes, and decides. Everything that decides is the code that decides in production:
//! [`Revision`](pilotlight_core::Revision), [`Gate`](pilotlight_core::balance::Gate),
//! [`Breaker`](pilotlight_core::Breaker), [`Reporter`](pilotlight_core::Reporter),
//! [`RequestStats`](pilotlight_core::RequestStats), and the times come from [`pilotlight_core::cadence`].
//!
//! | file | what it does |
//! |---|---|
//! | `engine.rs` | the loop, and jumping over idle time |
//! | `traffic.rs` | a request's way from its client to its answer |
//! | `control.rs` | reports, scrapes, ticks, plans, and what they do to pods |
//! | `fleet.rs`, `pod.rs`, `processor.rs` | pods |
//! | `meter.rs`, `oracle.rs`, `timeline.rs` | what is measured |

use std::time::Duration;

use pilotlight_core::cadence::{REPORT, SCRAPE, TICK};
use pilotlight_core::{Rng, Time};

use crate::hpa;
use crate::outcome::Outcome;
use crate::scenario::{Load, Scenario, Settings};
use crate::traffic::{Arrival, Arrivals};
use control::Control;
use fleet::Fleet;
use meter::Meter;
use oracle::Oracle;
use pod::PodId;
use queue::EventQueue;
use requests::{RequestId, Requests};
use traffic::Front;

mod control;
mod fleet;
mod meter;
mod oracle;
mod pod;
mod processor;
pub(crate) mod queue;
mod requests;
mod timeline;
mod traffic;

/// How to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The seed of all randomness.
    pub seed: u64,
    /// Whether the outcome has a timeline.
    pub timeline: bool,
}

/// Simulates `settings` in `scenario`.
///
/// Deterministic: the same arguments give the same outcome, byte for byte. In an open loop, different settings
/// under the same seed meet the same requests with the same work, so that their outcomes can be compared pairwise.
///
/// ```
/// # use std::time::Duration;
/// # use pilotlight_sim::scenario::{Load, Scaler, Scenario, Settings, Users, UserStep};
/// # use pilotlight_sim::{Run, simulate};
/// # use pilotlight_core::{RevisionSpec, Time};
/// // 25 requests at a time, of 100 ms each, for half a minute; the target is 10 at 70 %.
/// let users = Users {
///     steps: vec![UserStep { at: Time::EPOCH, users: 25, spawn_rate: None }],
///     think: Duration::ZERO.into(),
/// };
/// let scenario = Scenario::new(Load::Closed(users), Duration::from_secs(30), Duration::from_millis(100));
/// let spec = RevisionSpec { target: 7.0, total: 10.0, ..RevisionSpec::default() };
/// let settings = Settings::requests("defaults", spec, 0);
/// let outcome = simulate(&scenario, &settings, Run { seed: 1, timeline: false });
/// assert_eq!(outcome.pods.peak, 4); // 25 / 7
/// ```
pub fn simulate(scenario: &Scenario, settings: &Settings, run: Run) -> Outcome {
    let mut engine = Engine::new(scenario, settings, run);
    engine.begin();
    engine.run();
    engine.end()
}

/// The state of a run.
struct Engine<'a> {
    scenario: &'a Scenario,
    settings: &'a Settings,
    now: Time,
    /// Until when requests are sent and costs are counted.
    end: Time,
    events: EventQueue<Event>,
    arrivals: Option<Arrivals>,
    next_arrival: Option<Arrival>,
    beat: Beat,
    requests: Requests,
    fleet: Fleet,
    front: Front,
    control: Control,
    users: UserCount,
    meter: Meter,
    random: Random,
    /// Since when nothing has happened but the regular beat.
    calm_since: Time,
    /// For how long it must be calm before time may be skipped: longer than any memory.
    memory: Duration,
    events_seen: u64,
}

/// An event that is planned.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The work of a request is done, unless it is not under way any more.
    Done(RequestId),
    /// The first request of a pod on which requests slow each other down is done, if nothing has changed since.
    FirstDone {
        pod: PodId,
        version: u32,
        request: RequestId,
    },
    /// The cluster has news.
    Cluster,
    /// The news that a pod is ready reaches everybody.
    Listed(PodId),
    /// The news that a pod is not to be used any more reaches everybody.
    Unlisted(PodId),
    /// A leaving pod may have been quiet for long enough.
    Quiet(PodId),
    /// A leaving pod has run out of time.
    Killed(PodId),
    Crash(PodId),
    /// A pod may be started again after failures.
    StartDue,
    /// Everybody learns whether pods come up.
    Trouble,
    /// An activator sends to a pod again that refused a connection, if it has had no new list since.
    TakeBack {
        activator: u32,
        pod: u32,
        list: u32,
    },
    /// The request path follows the plan.
    Mode {
        version: u32,
    },
    /// The time a plan asked to be woken at.
    Wake {
        version: u32,
    },
    UserSends {
        user: u32,
    },
    UserStep {
        step: u32,
    },
    Retry(RequestId),
    OutageBegins {
        until: Time,
    },
    OutageEnds,
}

/// The next times of what happens regularly.
#[derive(Clone, Copy, Debug)]
struct Beat {
    report: Time,
    scrape: Time,
    tick: Time,
    hpa: Time,
}

/// Generators for everything random, apart from each other: one more pod does not change the requests.
struct Random {
    work: Rng,
    errors: Rng,
    think: Rng,
    start: Rng,
    crash: Rng,
    route: Rng,
    scrape: Rng,
    fail: Rng,
}

/// Users of a closed loop.
#[derive(Clone, Copy, Debug, Default)]
struct UserCount {
    there: u32,
    wanted: u32,
    next: u32,
}

impl<'a> Engine<'a> {
    fn new(scenario: &'a Scenario, settings: &'a Settings, run: Run) -> Self {
        let start = Time::EPOCH;
        let control = Control::new(start, scenario, settings);
        Engine {
            scenario,
            settings,
            now: start,
            end: start + scenario.duration,
            events: EventQueue::default(),
            arrivals: match &scenario.load {
                Load::Open(traffic) => Some(traffic.arrivals(run.seed)),
                Load::Closed(_) => None,
            },
            next_arrival: None,
            beat: Beat {
                report: REPORT.next(start),
                scrape: SCRAPE.next(start),
                tick: TICK.next(start),
                hpa: if control.is_hpa() { start + hpa::SYNC_PERIOD } else { NEVER },
            },
            requests: Requests::default(),
            fleet: Fleet::new(start, scenario, control.minimum()),
            front: Front::new(scenario, settings),
            memory: control.memory(),
            control,
            users: UserCount::default(),
            meter: Meter::new(
                run.seed,
                scenario.objective,
                run.timeline,
                Oracle::new(settings.oracle_capacity(scenario), start + scenario.duration),
            ),
            random: Random::new(run.seed),
            calm_since: start,
            events_seen: 0,
        }
    }

    /// The state at the start, and the events that are planned from the start.
    fn begin(&mut self) {
        self.begin_control();
        if let Load::Closed(users) = &self.scenario.load {
            for (step, at) in (0..).zip(users.steps.iter().map(|step| step.at)) {
                self.events.push(at, Event::UserStep { step });
            }
        }
        for outage in &self.scenario.platform.autoscaler_outages {
            self.events.push(outage.at, Event::OutageBegins { until: outage.at + outage.lasts });
        }
        self.fetch_arrival();
    }

    fn run(&mut self) {
        let mut costs_counted = false;
        loop {
            let arrival = self.next_arrival.map_or(NEVER, |arrival| arrival.at);
            let event = self.events.next_at().unwrap_or(NEVER);
            let deadline = self.next_deadline();
            let beat = self.beat.next();
            let next = arrival.min(event).min(deadline).min(beat);
            if next > self.end && !costs_counted {
                self.pass_to(self.end);
                self.meter.count_costs(self.end);
                costs_counted = true;
            }
            if costs_counted && self.requests.len() == 0 {
                return;
            }
            self.events_seen += 1;
            self.pass_to(next);
            if next == beat && beat < event && beat < deadline && beat <= arrival {
                self.beat(arrival.min(event).min(self.end));
                self.settle();
                continue;
            }
            self.calm_since = next;
            if next == event {
                let (_, event) = self.events.pop().expect("it was the next one");
                self.happen(event);
            } else if next == deadline {
                self.give_up();
            } else {
                self.arrive();
            }
            self.settle();
        }
    }

    fn end(self) -> Outcome {
        let target = self.control.target_per_pod();
        let mut outcome = self.meter.finish(self.now, target, self.scenario.duration);
        let capacity = self.settings.capacity_per_pod(self.scenario);
        let possible = outcome.pods.ready_seconds * capacity;
        if possible > 0.0 {
            outcome.pods.utilization = self.fleet.work_done / possible;
        }
        outcome.events = self.events_seen;
        outcome
    }

    fn pass_to(&mut self, next: Time) {
        debug_assert!(next >= self.now, "{next:?} is before {:?}", self.now);
        self.now = next;
        self.meter.advance(next, self.control.target_per_pod());
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Done(request) if self.requests.contains(request) => self.work_done(request),
            Event::Done(_) => {}
            Event::FirstDone { pod, version, request } => self.first_done(pod, version, request),
            Event::Cluster => self.follow_cluster(),
            Event::Listed(pod) => self.list(pod),
            Event::Unlisted(pod) => self.unlist(pod),
            Event::Quiet(pod) => self.check_quiet(pod),
            Event::Killed(pod) | Event::Crash(pod) => self.break_down(pod, matches!(event, Event::Crash(_))),
            Event::StartDue => self.start_due(),
            Event::Trouble => self.publish_pods(),
            Event::TakeBack { activator, pod, list } => self.take_back(activator, pod, list),
            Event::Mode { version } => self.follow_mode(version),
            Event::Wake { version } => self.wake(version),
            Event::UserSends { user } => self.user_sends(user),
            Event::UserStep { step } => self.user_step(step),
            Event::Retry(request) => self.retry(request),
            Event::OutageBegins { until } => self.begin_outage(until),
            Event::OutageEnds => self.end_outage(),
        }
    }

    /// The regular part of a second that is due now. `busy_at`: nothing else happens before.
    fn beat(&mut self, busy_at: Time) {
        let now = self.now;
        if self.beat.report == now {
            self.beat.report += REPORT.period;
            self.report();
        } else if self.beat.scrape == now {
            self.beat.scrape += SCRAPE.period;
            self.scrape();
        } else if self.beat.tick == now {
            self.beat.tick += TICK.period;
            self.tick();
            self.skip_idle_time(busy_at);
        } else {
            self.beat.hpa += hpa::SYNC_PERIOD;
            self.sync_hpa();
        }
    }

    /// Skips idle time: where nothing happens for longer than anything is remembered, the middle is left out. Whatever
    /// the last decisions before it, and the first after it, are made of, takes place.
    fn skip_idle_time(&mut self, busy_at: Time) {
        if self.requests.len() > 0 || self.now - self.calm_since < self.memory || busy_at == NEVER {
            return;
        }
        // The last decision may have planned something.
        let busy_at = self.events.next_at().map_or(busy_at, |at| at.min(busy_at));
        let idle = (busy_at - self.memory) - self.now;
        let periods = idle.as_nanos() / TICK.period.as_nanos();
        if periods == 0 {
            return;
        }
        let skipped = Duration::from_nanos((TICK.period.as_nanos() * periods) as u64);
        self.beat.report += skipped;
        self.beat.scrape += skipped;
        self.beat.tick += skipped;
    }

    fn fetch_arrival(&mut self) {
        let arrival = self.arrivals.as_mut().and_then(Iterator::next);
        self.next_arrival = arrival.filter(|arrival| arrival.at < self.end);
    }
}

impl Beat {
    fn next(&self) -> Time {
        self.report.min(self.scrape).min(self.tick).min(self.hpa)
    }
}

impl Random {
    fn new(seed: u64) -> Self {
        // One generator gives each of the others its seed.
        let mut seeds = Rng::new(seed);
        let mut rng = || Rng::new(seeds.next_u64());
        Random {
            work: rng(),
            errors: rng(),
            think: rng(),
            start: rng(),
            crash: rng(),
            route: rng(),
            scrape: rng(),
            fail: rng(),
        }
    }
}

const NEVER: Time = Time::from_nanos(u64::MAX);
