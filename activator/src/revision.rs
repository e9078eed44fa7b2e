//! The traffic of one revision: its queue of requests, its reports, its books. And [`Exchange`], one request's way
//! through them, or [`Passage`], that of a connection that is not HTTP.

mod passage;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::{Method, StatusCode};
use parking_lot::Mutex;
use pilotlight_core::{Reporter, RevisionId, Stat, Time};
use pilotlight_net::{ByteBudget, Clock, Ending};
use pilotlight_telemetry::RevisionNames;
use serde::Serialize;

use crate::ledger::{ColdStart, RevisionLedger};
use crate::metrics::RevisionMetrics;
use crate::pods::Pod;
pub(crate) use crate::revision::passage::Passage;
use crate::throttler::{Backlog, Throttler};

/// Activity of a revision: its requests at this moment, and their results so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RevisionActivity {
    /// Requests that wait for a pod.
    pub queued: usize,
    /// Requests at pods.
    pub active: u32,
    /// Requests at each pod, by its name; pods that are leaving are listed until they are done.
    pub pods: BTreeMap<String, u32>,
    /// Arrived requests so far.
    pub requests: u64,
    /// Responses so far, by status code.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests that a pod took and did not answer.
    pub lost: u64,
    /// The last failure of a pod to answer.
    pub last_error: Option<String>,
}

/// The traffic of one revision, kept as long as the revision exists or has requests.
#[derive(Debug)]
pub(crate) struct RevisionTraffic {
    id: RevisionId,
    names: Arc<RevisionNames>,
    throttler: Arc<Throttler>,
    /// Bytes of its waiting requests.
    waiting_bytes: ByteBudget,
    /// Bytes of its waiting connections that are passed through: up to half of the former, so that requests have room.
    passing_bytes: ByteBudget,
    books: Mutex<Books>,
    /// Whether it is in the list of `Reporting`.
    is_reporting: AtomicBool,
    /// The clock's second of its last regular stat, or of the one that a new connection carried first.
    told_in: AtomicU64,
}

#[derive(Debug)]
struct Books {
    reporter: Reporter,
    ledger: RevisionLedger,
    metrics: RevisionMetrics,
    last_error: Option<String>,
}

impl RevisionTraffic {
    /// `times_answers`: telemetry records no durations, so the metrics of this crate do.
    pub(crate) fn new(
        id: RevisionId,
        clock: Clock,
        queue_depth: usize,
        waiting_bytes: ByteBudget,
        backlog: Arc<Backlog>,
        times_answers: bool,
    ) -> Self {
        let metrics = RevisionMetrics::new(&id, times_answers);
        let (queued, active) = (metrics.queued.clone(), metrics.active.clone());
        let throttler = Throttler::new(clock, queue_depth, backlog, queued, active);
        let books = Books {
            reporter: Reporter::default(),
            ledger: RevisionLedger::default(),
            metrics,
            last_error: None,
        };
        let (name, namespace) = (id.name.clone(), id.namespace.clone());
        let names = Arc::new(RevisionNames { name, namespace, ..RevisionNames::default() });
        RevisionTraffic {
            id,
            names,
            throttler,
            passing_bytes: waiting_bytes.share(waiting_bytes.limit() / 2),
            waiting_bytes,
            books: Mutex::new(books),
            is_reporting: AtomicBool::new(false),
            told_in: AtomicU64::new(0),
        }
    }

    /// The id as metrics and spans carry it.
    pub(crate) fn names(&self) -> &Arc<RevisionNames> {
        &self.names
    }

    pub(crate) fn id(&self) -> &RevisionId {
        &self.id
    }

    pub(crate) fn throttler(&self) -> &Arc<Throttler> {
        &self.throttler
    }

    /// Counts a request that has arrived. The stat, if there is one, must be sent at once.
    pub(crate) fn begin(self: &Arc<Self>, clock: Clock, method: Method) -> (Exchange, Option<Stat>) {
        let arrived = clock.now();
        let announcement = self.arrive(arrived);
        (self.exchange(clock, method, arrived, Demand::Counted), announcement)
    }

    /// Counts a connection whose bytes are passed through, as a request that has arrived.
    pub(crate) fn begin_passage(self: &Arc<Self>, clock: Clock, demand: Demand) -> (Passage, Option<Stat>) {
        let (arrived, is_counted) = (clock.now(), demand == Demand::Counted);
        let announcement = if is_counted { self.arrive(arrived) } else { None };
        (Passage::new(Arc::clone(self), clock, arrived, is_counted), announcement)
    }

    fn arrive(&self, now: Time) -> Option<Stat> {
        let mut books = self.books.lock();
        books.ledger.requests += 1;
        books.reporter.request_started(now)
    }

    /// An exchange that enters no books, since this is no demand or somebody else's.
    pub(crate) fn begin_uncounted(
        self: &Arc<Self>,
        clock: Clock,
        method: Method,
        demand: Demand,
    ) -> Exchange {
        self.exchange(clock, method, clock.now(), demand)
    }

    fn exchange(self: &Arc<Self>, clock: Clock, method: Method, arrived: Time, demand: Demand) -> Exchange {
        let revision = Arc::clone(self);
        Exchange { revision, clock, method, arrived, demand, status: None, ending: None }
    }

    /// The stat of the last period; `None` if there is nothing to report.
    pub(crate) fn report(&self, now: Time) -> Option<Stat> {
        self.told_in.store(now.whole_seconds(), Ordering::Relaxed);
        let has_no_pods = self.throttler.has_no_pods();
        let mut books = self.books.lock();
        let stat = match has_no_pods {
            true => books.reporter.report(now),
            false => books.reporter.report_beside_pods(now),
        };
        let concurrency = stat.as_ref().map_or(0.0, |stat| stat.average_concurrent_requests);
        books.metrics.concurrency.set(concurrency);
        stat
    }

    /// The stat that a new connection to the autoscaler must carry first; `None` if no request waits for a revision
    /// without pods.
    pub(crate) fn resync(&self, now: Time) -> Option<Stat> {
        if !self.throttler.has_no_pods() {
            return None;
        }
        let stat = self.books.lock().reporter.resync(now)?;
        self.told_in.store(now.whole_seconds(), Ordering::Relaxed);
        Some(stat)
    }

    /// Whether this second has its stat.
    pub(crate) fn was_told_in(&self, now: Time) -> bool {
        self.told_in.load(Ordering::Relaxed) == now.whole_seconds()
    }

    /// Requests between arrival and the end of their response, and open connections that are passed through.
    pub(crate) fn in_flight(&self) -> u32 {
        let books = self.books.lock();
        books.reporter.in_flight() + books.reporter.idle_connections()
    }

    /// Records a cold start: what arrived then was the first to be sent to a pod after the revision had none.
    fn woke(&self, arrived: Time, pod: &Pod, sent: Time) {
        let start = ColdStart::new(arrived, pod.timeline, sent);
        let mut books = self.books.lock();
        books.metrics.cold_start.record(start.total().as_secs_f64());
        books.ledger.cold_starts.record(start);
    }

    /// Notes why a pod could not be reached.
    fn refused(&self, error: &str) {
        self.books.lock().last_error = Some(error.to_owned());
    }

    pub(crate) fn ledger(&self) -> RevisionLedger {
        self.books.lock().ledger.clone()
    }

    /// Sets whether it is in the list of `Reporting`, which alone calls this, under its lock. Returns whether it was.
    pub(crate) fn set_reporting(&self, is_reporting: bool) -> bool {
        self.is_reporting.swap(is_reporting, Ordering::Relaxed)
    }

    pub(crate) fn activity(&self) -> RevisionActivity {
        let (queued, active) = self.throttler.queued_and_active();
        let pods = self.throttler.in_flight_by_pod().into_iter().collect();
        let books = self.books.lock();
        RevisionActivity {
            queued,
            active,
            pods,
            requests: books.ledger.requests,
            statuses: books.ledger.statuses.clone(),
            lost: books.ledger.lost,
            last_error: books.last_error.clone(),
        }
    }
}

/// What a request is to the autoscaler, and whether it waits for a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Demand {
    /// Demand for pods.
    Counted,
    /// Demand that the activator which handed the request on has counted.
    HandedOn,
    /// None: a health check. It does not wait either.
    None,
}

/// One request, from arrival to the end of its response. Dropping it enters the result in the books, however it ended.
#[derive(Debug)]
pub(crate) struct Exchange {
    revision: Arc<RevisionTraffic>,
    clock: Clock,
    method: Method,
    arrived: Time,
    demand: Demand,
    status: Option<StatusCode>,
    ending: Option<Ending>,
}

impl Exchange {
    pub(crate) fn arrived(&self) -> Time {
        self.arrived
    }

    pub(crate) fn demand(&self) -> Demand {
        self.demand
    }

    /// The budget of what waits in memory for the revision's pods.
    pub(crate) fn waiting_bytes(&self) -> &ByteBudget {
        &self.revision.waiting_bytes
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.revision.id.namespace
    }

    /// Records a cold start: this request was the first to be sent to a pod after the revision had none.
    pub(crate) fn woke(&self, pod: &Pod, sent: Time) {
        if self.demand == Demand::Counted {
            self.revision.woke(self.arrived, pod, sent);
        }
    }

    /// Counts a request that a pod took and did not answer.
    pub(crate) fn lost(&self, error: &str) {
        if self.demand != Demand::Counted {
            return;
        }
        let mut books = self.revision.books.lock();
        books.ledger.lost += 1;
        books.metrics.lost.increment(1);
        books.last_error = Some(error.to_owned());
    }

    /// Notes why a pod could not be reached; the request is retried at another.
    pub(crate) fn refused(&self, error: &str) {
        self.revision.refused(error);
    }

    /// Notes the status of the response, whose body is still to come.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// Notes how the response's body ended.
    pub(crate) fn ended(mut self, ending: Ending) {
        self.ending = Some(ending);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.demand != Demand::Counted {
            return;
        }
        let now = self.clock.now();
        let latency = now - self.arrived;
        let mut books = self.revision.books.lock();
        books.reporter.request_finished(now);
        books.ledger.latency.record(latency);
        if let Some(status) = self.status {
            *books.ledger.statuses.entry(status.as_u16()).or_default() += 1;
            books.metrics.answered(&self.method, status.as_u16(), latency);
        }
        match self.ending {
            Some(Ending::Complete) => {}
            Some(Ending::Failed) => books.ledger.broken += 1,
            Some(Ending::Dropped) | None => books.ledger.abandoned += 1,
        }
    }
}
