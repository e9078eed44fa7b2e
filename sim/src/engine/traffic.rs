//! A request's way: from its client to an activator or straight to a pod, through the queue-proxy to the app, and
//! back, or not.

use std::collections::BTreeMap;
use std::time::Duration;

use pilotlight_core::balance::{Gate, Policy, Refusals, share_of_pods};
use pilotlight_core::pods::BackOff;
use pilotlight_core::{Place as ActivatorPlace, Reporter, RequestKind, Time};

use super::meter::Served;
use super::pod::{Phase, PodEntry, PodId};
use super::requests::{LinePlace, Place, Request, RequestId};
use super::{Engine, Event, NEVER};
use crate::scenario::{Balancing, Load, Path, Scenario, Settings};

/// The activators in front of the pods.
pub(super) struct Front {
    activators: Vec<Activator>,
    /// How many of them the service may use.
    in_use: u32,
    next_activator: u32,
    /// Requests go through them now.
    pub(super) proxied: bool,
    policy: Policy,
    /// The limit of each pod; `None`: no limit.
    limit: Option<u32>,
    /// How many lists of pods there have been.
    lists: u32,
    /// How long an attempt may take, before somebody gives up.
    patience: Duration,
    /// Set while pods do not come up, and whoever waits for one is answered.
    given_up: Option<BackOff>,
    /// Whether it is the client who gives up.
    client_gives_up: bool,
    /// How long there was no pod to send to, altogether, and since when there has been none.
    cold_time: Duration,
    cold_since: Option<Time>,
}

struct Activator {
    gate: Gate<u32, RequestId>,
    /// The pods of the present list that have refused a connection.
    refusals: BTreeMap<u32, Refusals>,
    reporter: Reporter,
}

impl Front {
    pub(super) fn new(scenario: &Scenario, settings: &Settings) -> Self {
        let platform = &scenario.platform;
        let limit = settings.container_concurrency;
        let has_activators = settings.path(platform) != Path::Never;
        let number = if has_activators { platform.activators.max(1) } else { 0 };
        let client = scenario.clients.timeout.unwrap_or(Duration::MAX);
        Front {
            activators: (0..number).map(|_| Activator::new(platform.activator_queue)).collect(),
            in_use: number,
            next_activator: 0,
            proxied: has_activators,
            policy: match platform.balancing {
                Balancing::Pilotlight => Policy::pilotlight(limit),
                Balancing::Knative => Policy::knative(limit),
            },
            limit: limit.get(),
            lists: 0,
            patience: client.min(platform.request_timeout),
            given_up: None,
            client_gives_up: client < platform.request_timeout,
            cold_time: Duration::ZERO,
            cold_since: Some(Time::EPOCH),
        }
    }

    /// How long there has been no pod to send to, altogether.
    fn cold_time(&self, now: Time) -> Duration {
        self.cold_time + self.cold_since.map_or(Duration::ZERO, |since| now - since)
    }

    fn next_activator(&mut self) -> u32 {
        self.next_activator = if self.next_activator + 1 < self.in_use { self.next_activator + 1 } else { 0 };
        self.next_activator
    }
}

impl Activator {
    fn new(queue: u32) -> Self {
        let gate = Gate::new(queue as usize);
        Activator { gate, refusals: BTreeMap::new(), reporter: Reporter::default() }
    }
}

impl Engine<'_> {
    /// The next request of the load arrives.
    pub(super) fn arrive(&mut self) {
        let Some(arrival) = self.next_arrival else { return };
        self.fetch_arrival();
        self.send_new(arrival.service, None);
    }

    pub(super) fn user_sends(&mut self, user: u32) {
        if self.users.there > self.users.wanted || self.now >= self.end {
            self.users.there -= 1;
            return;
        }
        self.send_new(None, Some(user));
    }

    pub(super) fn user_step(&mut self, step: u32) {
        let Load::Closed(users) = &self.scenario.load else { return };
        let step = users.steps[step as usize];
        let coming = step.users.saturating_sub(self.users.there);
        self.users.wanted = step.users;
        for i in 0..coming {
            let after = step.spawn_rate.map_or(0.0, |per_second| f64::from(i) / per_second);
            let user = self.users.next;
            self.users.next += 1;
            self.events.push(self.now + Duration::from_secs_f64(after), Event::UserSends { user });
        }
        self.users.there += coming;
    }

    pub(super) fn retry(&mut self, id: RequestId) {
        if !self.requests.contains(id) {
            return;
        }
        self.meter.outcome.retries += 1;
        self.send(id);
    }

    fn send_new(&mut self, work: Option<Duration>, user: Option<u32>) {
        let now = self.now;
        let work = work.unwrap_or_else(|| self.scenario.app.service_time.sample(&mut self.random.work));
        self.meter.oracle.add(now, work);
        let is_cold = self.front.cold_since.is_some();
        self.meter.arrived(now, is_cold);
        let request = Request {
            sent: now,
            attempt_sent: now,
            started: None,
            waited_cold: Duration::ZERO,
            cold_before: Duration::ZERO,
            work,
            user,
            retries: 0,
            place: Place::Client,
            line: None,
        };
        let id = self.requests.insert(request);
        self.send(id);
    }

    fn send(&mut self, id: RequestId) {
        let (now, cold_before) = (self.now, self.front.cold_time(self.now));
        let activator = self.front.proxied.then(|| self.front.next_activator());
        let request = self.requests.at(id);
        (request.attempt_sent, request.cold_before) = (now, cold_before);
        (request.started, request.line) = (None, None);
        if self.front.patience < Duration::MAX {
            self.requests.set_deadline(id);
        }
        match activator {
            Some(activator) => self.enter_activator(id, activator),
            None => self.send_directly(id),
        }
    }

    fn enter_activator(&mut self, id: RequestId, activator: u32) {
        let now = self.now;
        let Activator { gate, reporter, .. } = &mut self.front.activators[activator as usize];
        let announcement = reporter.request_started(now);
        let ticket = gate.ticket(&());
        self.requests.at(id).line = Some(LinePlace { activator, ticket });
        let refuses = gate.has_no_pods() && self.front.given_up.is_some_and(|it| it.refuses(now));
        let entered = match gate.enter(ticket) {
            Some(pod) => Ok(Some(pod)),
            None if refuses => Err(()),
            None => gate.wait(ticket, id).map(|()| None).map_err(|_| ()),
        };
        match entered {
            Ok(Some(pod)) => self.send_to_pod(id, pod),
            Ok(None) => self.requests.at(id).place = Place::Line,
            Err(()) => self.finish_attempt(id, Ending::Status(503)),
        }
        if let Some(stat) = announcement {
            self.push(stat);
        }
    }

    fn send_directly(&mut self, id: RequestId) {
        match self.fleet.any_listed(&mut self.random.route) {
            Some(pod) => self.send_to_pod(id, pod),
            None => self.finish_attempt(id, Ending::Status(503)),
        }
    }

    /// A request reaches the queue-proxy, if there still is one.
    fn send_to_pod(&mut self, id: RequestId, index: u32) {
        let now = self.now;
        let request = self.requests.at(id);
        let kind = kind(request.line);
        let pod = &mut self.fleet.pods[index as usize];
        if pod.phase == Phase::Gone {
            self.refused(id, index);
            return;
        }
        pod.in_flight += 1;
        pod.last_arrival = now;
        pod.stats.request_started(now, kind);
        match pod.enter(id) {
            PodEntry::Work => {
                request.place = Place::App { pod: index };
                self.begin_work(id, index);
            }
            PodEntry::Queue(ticket) => request.place = Place::Queue { pod: index, ticket },
            PodEntry::Full => {
                // Turned away at the door.
                request.place = Place::Door { pod: index };
                self.finish_attempt(id, Ending::Status(503));
            }
        }
    }

    /// The pod does not take the connection: an activator tries another, which no client does.
    fn refused(&mut self, id: RequestId, pod: u32) {
        let Some(LinePlace { activator, ticket }) = self.requests.at(id).line else {
            self.finish_attempt(id, Ending::Status(502));
            return;
        };
        let Activator { gate, refusals, .. } = &mut self.front.activators[activator as usize];
        if let Some(pause) = refusals.entry(pod).or_default().refused() {
            gate.suspend(&pod);
            let list = self.front.lists;
            self.events.push(self.now + pause, Event::TakeBack { activator, pod, list });
        }
        let called = gate.finish(&pod);
        let next = gate.enter(ticket);
        if next.is_none() {
            match gate.wait(ticket, id) {
                Ok(()) => self.requests.at(id).place = Place::Line,
                Err(_) => self.finish_attempt(id, Ending::Status(503)),
            }
        }
        if let Some((other, pod)) = called {
            self.send_to_pod(other, pod);
        }
        if let Some(pod) = next {
            self.send_to_pod(id, pod);
        }
    }

    /// The pause of a pod that refused a connection is over.
    pub(super) fn take_back(&mut self, activator: u32, pod: u32, list: u32) {
        if list != self.front.lists {
            return;
        }
        let Activator { gate, refusals, .. } = &mut self.front.activators[activator as usize];
        refusals.entry(pod).or_default().taken_back();
        for (request, pod) in gate.resume(&pod) {
            self.send_to_pod(request, pod);
        }
    }

    fn begin_work(&mut self, id: RequestId, index: u32) {
        let now = self.now;
        let waited_cold = self.front.cold_time(now);
        let request = self.requests.at(id);
        request.started = Some(now);
        request.waited_cold += waited_cold - request.cold_before;
        self.meter.levels.at_work.add(now, 1.0);
        let pod = &mut self.fleet.pods[index as usize];
        pod.at_work += 1;
        let work = request.work;
        match &mut pod.processor {
            None => self.events.push(now + work, Event::Done(id)),
            Some(processor) => {
                processor.start(now, id, work);
                self.plan_first_done(index);
            }
        }
        self.meter_cores(index);
    }

    pub(super) fn first_done(&mut self, pod: PodId, version: u32, request: RequestId) {
        let found = self.fleet.find(pod).is_some_and(|pod| pod.version == version);
        if found {
            self.work_done(request);
        }
    }

    pub(super) fn work_done(&mut self, id: RequestId) {
        let fails = self.scenario.app.error_fraction;
        let failed = fails > 0.0 && self.random.errors.unit() < fails;
        // Work after the end of the load is not counted; neither is the time in which it is done.
        if self.now <= self.end {
            self.fleet.work_done += self.requests.at(id).work.as_secs_f64();
        }
        self.finish_attempt(id, Ending::Status(if failed { 500 } else { 200 }));
    }

    /// The next deadline of a request.
    pub(super) fn next_deadline(&self) -> Time {
        let first = self.requests.first_with_deadline();
        first.map_or(NEVER, |(_, sent)| sent + self.front.patience)
    }

    pub(super) fn give_up(&mut self) {
        let Some((id, _)) = self.requests.first_with_deadline() else { return };
        let ending = if self.front.client_gives_up { Ending::ClientLeft } else { Ending::Status(504) };
        self.finish_attempt(id, ending);
    }

    /// Ends all requests of a pod that is gone: they are lost with it.
    pub(super) fn lose_requests_of(&mut self, index: u32) {
        for id in self.requests.of_pod(index) {
            debug_assert!(self.requests.contains(id));
            self.meter.outcome.lost += 1;
            self.finish_attempt(id, Ending::Status(502));
        }
    }

    /// An attempt is over: whoever held something for it lets go, and its client sees what to do.
    fn finish_attempt(&mut self, id: RequestId, ending: Ending) {
        let now = self.now;
        let Request { place, line, .. } = *self.requests.at(id);
        // From here on nothing that was planned for this attempt will find it.
        let id = self.requests.rename(id);
        self.requests.at(id).place = Place::Client;
        let next_in_queue = self.leave_pod(now, place, line);
        let next_in_line = line.and_then(|line| self.leave_activator(now, place, line));
        self.answer(id, ending);
        // The pods' next requests come after this one's answer, as they do on a wire.
        if let Some((next, pod)) = next_in_queue {
            self.requests.at(next).place = Place::App { pod };
            self.begin_work(next, pod);
        }
        if let Some((next, pod)) = next_in_line {
            self.send_to_pod(next, pod);
        }
    }

    /// Returns the request that takes the place of one that leaves its pod.
    fn leave_pod(&mut self, now: Time, place: Place, line: Option<LinePlace>) -> Option<(RequestId, u32)> {
        let index = place.pod()?;
        let pod = &mut self.fleet.pods[index as usize];
        let mut next = None;
        match place {
            Place::App { .. } => {
                self.meter.levels.at_work.add(now, -1.0);
                pod.at_work -= 1;
                if let Some(processor) = &mut pod.processor {
                    processor.leave(now);
                }
                // A pod that is gone works on no queued request.
                if pod.phase != Phase::Gone {
                    next = pod.release();
                }
            }
            Place::Queue { ticket, .. } => pod.cancel(ticket),
            _ => {}
        }
        pod.in_flight -= 1;
        pod.stats.request_finished(now, kind(line));
        let id = PodId { index, generation: pod.generation };
        if pod.phase == Phase::Leaving && pod.in_flight == 0 {
            self.plan_quiet(id);
        }
        if next.is_none() && matches!(place, Place::App { .. }) {
            self.plan_first_done(index);
            self.meter_cores(index);
        }
        Some((next?, index))
    }

    /// Returns the request that may go next, and where.
    fn leave_activator(&mut self, now: Time, place: Place, line: LinePlace) -> Option<(RequestId, u32)> {
        let Activator { gate, reporter, .. } = &mut self.front.activators[line.activator as usize];
        reporter.request_finished(now);
        match place {
            Place::Line => {
                gate.leave(line.ticket);
                None
            }
            _ => gate.finish(&place.pod()?),
        }
    }

    fn answer(&mut self, id: RequestId, ending: Ending) {
        let now = self.now;
        let clients = self.scenario.clients;
        let waited_cold = self.front.cold_time(now);
        let request = self.requests.at(id);
        let may_help = match ending {
            Ending::Status(status) => matches!(status, 502..=504),
            Ending::ClientLeft => true,
        };
        if may_help && request.retries < clients.retries {
            if request.started.is_none() {
                request.waited_cold += waited_cold - request.cold_before;
            }
            let pause = clients.backoff * (1 << request.retries.min(20));
            request.retries += 1;
            self.events.push(now + pause, Event::Retry(id));
            return;
        }
        let latency = now - request.sent;
        match ending {
            Ending::Status(status) => {
                let service = request.started.map_or(Duration::ZERO, |started| now - started);
                let cold = request.waited_cold;
                self.meter.answered(now, Served { status, latency, service, cold });
            }
            Ending::ClientLeft => self.meter.abandoned(now, latency),
        }
        let user = request.user;
        self.requests.remove(id);
        if let (Some(user), Load::Closed(users)) = (user, &self.scenario.load) {
            let pause = users.think.sample(&mut self.random.think);
            self.events.push(now + pause, Event::UserSends { user });
        }
    }

    fn meter_cores(&mut self, index: u32) {
        let slowdown = self.scenario.app.slowdown;
        if slowdown.cores_per_request > 0.0 {
            let pod = &mut self.fleet.pods[index as usize];
            pod.busy_cores.set(self.now, slowdown.busy_cores(pod.at_work));
        }
    }

    /// Plans the end of the work that is done first at a pod where requests slow each other down.
    fn plan_first_done(&mut self, index: u32) {
        let pod = &mut self.fleet.pods[index as usize];
        let Some(processor) = &mut pod.processor else { return };
        pod.version = pod.version.wrapping_add(1);
        let id = PodId { index, generation: pod.generation };
        if let Some((at, request)) = processor.next(|request| self.requests.contains(request)) {
            self.events.push(at, Event::FirstDone { pod: id, version: pod.version, request });
        }
    }

    /// Tells everybody which pods there are to send to.
    pub(super) fn publish_pods(&mut self) {
        let now = self.now;
        let listed = self.fleet.list();
        let was_cold = self.front.cold_since;
        match (was_cold, listed.is_empty()) {
            (Some(since), false) => {
                self.front.cold_time += now - since;
                self.front.cold_since = None;
                let waiting = self.meter.levels.in_flight.value() > self.meter.levels.at_work.value();
                self.meter.outcome.cold_starts += u64::from(waiting);
            }
            (None, true) => self.front.cold_since = Some(now),
            _ => {}
        }
        self.front.given_up = self.fleet.given_up(now);
        self.front.lists += 1;
        let (policy, limit, in_use) = (self.front.policy, self.front.limit, self.front.in_use as usize);
        for i in 0..self.front.activators.len() {
            let place = ActivatorPlace { index: (i < in_use).then_some(i), activators: in_use };
            let mine = share_of_pods(listed.len(), limit, place).into_iter().map(|pod| listed[pod]);
            let activator = &mut self.front.activators[i];
            activator.refusals.clear();
            let called = activator.gate.set_pods(policy, limit, mine);
            for (request, pod) in called {
                self.send_to_pod(request, pod);
            }
            let gate = &mut self.front.activators[i].gate;
            if gate.has_no_pods() && self.front.given_up.is_some_and(|it| it.refuses(now)) {
                for request in gate.leave_all() {
                    self.finish_attempt(request, Ending::Status(503));
                }
            }
        }
    }

    /// Lets the service use so many activators.
    pub(super) fn use_activators(&mut self, number: u32) {
        let number = number.min(self.front.activators.len() as u32);
        if number != self.front.in_use && number > 0 {
            self.front.in_use = number;
            self.publish_pods();
        }
    }

    /// Pushes each activator's report of the last second; after an outage of the autoscaler, anew.
    pub(super) fn report_of_activators(&mut self, anew: bool) {
        let now = self.now;
        for activator in 0..self.front.activators.len() {
            let reporter = &mut self.front.activators[activator].reporter;
            let stat = if anew { reporter.resync(now) } else { reporter.report(now) };
            if let Some(stat) = stat {
                self.push(stat);
            }
        }
    }
}

/// How an attempt ends.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Status(u16),
    ClientLeft,
}

fn kind(line: Option<LinePlace>) -> RequestKind {
    if line.is_some() { RequestKind::Proxied } else { RequestKind::Direct }
}
