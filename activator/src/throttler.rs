//! The FIFO queue of a revision's requests that wait for a pod: the async side of [`Gate`].
//!
//! The gate makes all decisions; this file lets tasks wait for them. Guards return what was acquired: a dropped waiter
//! its place in the queue, a dropped [`Slot`] its place at the pod.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use metrics::Gauge;
use parking_lot::Mutex;
use pilotlight_core::balance::{Gate, GateTicket, Policy};
use pilotlight_core::{ConcurrencyLimit, Time, Trouble};
use pilotlight_net::Clock;
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::pods::{Pod, PortName, Supply};

/// The reason to answer a request without sending it to a pod.
#[derive(Clone, Debug)]
pub(crate) enum Refusal {
    /// Too many requests wait already.
    QueueFull,
    /// Pods do not come up, and no further start is tried for now.
    Trouble(Arc<Trouble>),
    /// The revision was deleted.
    Deleted,
}

/// The obstacle between a waiting request and a pod.
#[derive(Clone, Debug)]
pub(crate) enum Obstacle {
    /// No pod is ready. `starting` pods are on their way up; `trouble` is why earlier ones failed.
    NoPods { starting: u32, trouble: Option<Arc<Trouble>> },
    /// All ready pods are at their limit or refuse connections.
    PodsBusy { pods: usize },
}

/// The queue in front of one revision's pods.
#[derive(Debug)]
pub(crate) struct Throttler {
    state: Mutex<ThrottlerState>,
    clock: Clock,
    /// The count of waiting requests of all revisions together.
    backlog: Arc<Backlog>,
    queued: Gauge,
    active: Gauge,
}

#[derive(Debug)]
struct ThrottlerState {
    gate: Gate<Arc<Pod>, Caller, PortName>,
    starting: u32,
    trouble: Option<Arc<Trouble>>,
    is_deleted: bool,
    /// Pods came up while requests waited, and the request that waited longest has not been sent yet: its sending ends
    /// the cold start.
    is_waking: bool,
}

/// The channel over which a waiting task gets its slot.
type Caller = oneshot::Sender<Result<Slot, Refusal>>;

impl ThrottlerState {
    /// The reason not to let the holder of `ticket` wait.
    fn refusal(&self, now: Time, ticket: GateTicket) -> Option<Refusal> {
        if self.is_deleted {
            return Some(Refusal::Deleted);
        }
        self.refusing_trouble(now).filter(|_| self.gate.is_unserved(ticket)).map(Refusal::Trouble)
    }

    /// The trouble that requests are answered with if there is no pod for them.
    fn refusing_trouble(&self, now: Time) -> Option<Arc<Trouble>> {
        self.trouble.as_ref().filter(|trouble| trouble.refuses(now)).map(Arc::clone)
    }
}

impl Throttler {
    /// An empty queue without pods; [`update`](Throttler::update) brings them.
    pub(crate) fn new(
        clock: Clock,
        queue_depth: usize,
        backlog: Arc<Backlog>,
        queued: Gauge,
        active: Gauge,
    ) -> Arc<Self> {
        let state = ThrottlerState {
            gate: Gate::with_lanes(queue_depth, |pod, port| pod.serves(port)),
            starting: 0,
            trouble: None,
            is_deleted: false,
            is_waking: false,
        };
        Arc::new(Throttler { state: Mutex::new(state), clock, backlog, queued, active })
    }

    /// Takes over the pods and limits of this moment; `None`: the revision was deleted. Requests that are at pods which
    /// left the list end there undisturbed.
    pub(crate) fn update(self: &Arc<Self>, supply: Option<Supply<'_>>) {
        let endpoints = supply.map(|supply| supply.endpoints);
        let (limit, pods) = supply.map_or((None, Vec::new()), |supply| supply.pods());
        let policy = Policy::pilotlight(
            endpoints.map_or(ConcurrencyLimit::UNLIMITED, |endpoints| endpoints.container_concurrency),
        );
        let mut state = self.state.lock();
        let had_no_pods = state.gate.has_no_pods();
        let waiting = state.gate.waiting();
        state.is_deleted = endpoints.is_none();
        state.starting = endpoints.map_or(0, |endpoints| endpoints.starting);
        state.trouble = endpoints.and_then(|endpoints| endpoints.trouble.clone()).map(Arc::new);
        let called = state.gate.set_pods(policy, limit, pods);
        let (refusal, refused) = match state.refusing_trouble(self.clock.now()) {
            _ if state.is_deleted => (Some(Refusal::Deleted), state.gate.leave_all()),
            Some(trouble) => (Some(Refusal::Trouble(trouble)), state.gate.leave_unserved()),
            None => (None, Vec::new()),
        };
        if state.gate.has_no_pods() {
            state.is_waking = false;
        } else if had_no_pods {
            state.is_waking = waiting > 0;
        }
        drop(state);
        self.call(called);
        for caller in refused {
            if let Some(refusal) = &refusal {
                // Err: the waiting task was dropped.
                let _ = caller.send(Err(refusal.clone()));
            }
        }
    }

    /// A place at the end of the queue, for a request that arrives now at this port.
    pub(crate) fn arrive(self: &Arc<Self>, port: &PortName) -> PlaceInLine {
        let mut state = self.state.lock();
        let ticket = state.gate.ticket(port);
        PlaceInLine { throttler: Arc::clone(self), ticket, found_no_pods: state.gate.is_unserved(ticket) }
    }

    /// Whether there is no pod to send requests to.
    pub(crate) fn has_no_pods(&self) -> bool {
        self.state.lock().gate.has_no_pods()
    }

    /// Requests that wait, and requests at pods.
    pub(crate) fn queued_and_active(&self) -> (usize, u32) {
        let state = self.state.lock();
        (state.gate.waiting(), state.gate.in_flight())
    }

    /// Every pod's name and the requests it carries.
    pub(crate) fn in_flight_by_pod(&self) -> Vec<(String, u32)> {
        let state = self.state.lock();
        state.gate.pods().map(|(pod, in_flight)| (pod.name.clone(), in_flight)).collect()
    }

    /// Hands waiting tasks their slots. Never under the lock: the slot of a task that was dropped returns right here,
    /// and takes the lock.
    fn call(self: &Arc<Self>, called: impl IntoIterator<Item = (Caller, Arc<Pod>)>) {
        for (caller, pod) in called {
            let wakes = std::mem::take(&mut self.state.lock().is_waking);
            let _ = caller.send(Ok(self.slot(pod, wakes)));
        }
    }

    fn slot(self: &Arc<Self>, pod: Arc<Pod>, wakes: bool) -> Slot {
        self.active.increment(1.0);
        Slot { throttler: Arc::clone(self), pod, wakes }
    }
}

/// A request's place in the queue, kept through every attempt to reach a pod.
#[derive(Debug)]
pub(crate) struct PlaceInLine {
    throttler: Arc<Throttler>,
    ticket: GateTicket,
    found_no_pods: bool,
}

impl PlaceInLine {
    /// A slot at a pod without waiting; `None` if this request must wait.
    pub(crate) fn try_slot(&self) -> Option<Result<Slot, Refusal>> {
        let mut state = self.throttler.state.lock();
        if let Some(refusal) = state.refusal(self.throttler.clock.now(), self.ticket) {
            return Some(Err(refusal));
        }
        let pod = state.gate.enter(self.ticket)?;
        drop(state);
        Some(Ok(self.throttler.slot(pod, false)))
    }

    /// Waits for a slot at a pod. Dropping the future leaves the queue at once.
    pub(crate) async fn slot(&self) -> Result<Slot, Refusal> {
        let (caller, called) = oneshot::channel();
        let _waiting = {
            let mut state = self.throttler.state.lock();
            if let Some(refusal) = state.refusal(self.throttler.clock.now(), self.ticket) {
                return Err(refusal);
            }
            if let Some(pod) = state.gate.enter(self.ticket) {
                drop(state);
                return Ok(self.throttler.slot(pod, false));
            }
            let held = self.throttler.backlog.add().ok_or(Refusal::QueueFull)?;
            state.gate.wait(self.ticket, caller).map_err(|_| Refusal::QueueFull)?;
            self.throttler.queued.increment(1.0);
            Waiting { place: self, _held: held }
        };
        // Err: the channel was closed unused, which happens only when the throttler is dropped.
        called.await.unwrap_or(Err(Refusal::Deleted))
    }

    /// The obstacle between the request and a pod at this moment.
    pub(crate) fn obstacle(&self) -> Obstacle {
        let state = self.throttler.state.lock();
        if state.gate.is_unserved(self.ticket) {
            Obstacle::NoPods { starting: state.starting, trouble: state.trouble.clone() }
        } else {
            Obstacle::PodsBusy { pods: state.gate.pods().count() }
        }
    }

    /// Whether no pod was ready when the request arrived.
    pub(crate) fn found_no_pods(&self) -> bool {
        self.found_no_pods
    }
}

/// A guard of a request in the queue: dropping it leaves the queue.
struct Waiting<'a> {
    place: &'a PlaceInLine,
    _held: Held,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let throttler = &self.place.throttler;
        // None: the request has been given a slot. A slot that was not received returns by itself.
        let left = throttler.state.lock().gate.leave(self.place.ticket);
        drop(left);
        throttler.queued.decrement(1.0);
    }
}

/// The permit for one request at a pod. Dropped when the response's body has ended, not with its head.
#[derive(Debug)]
pub(crate) struct Slot {
    throttler: Arc<Throttler>,
    pub(crate) pod: Arc<Pod>,
    /// Whether this is the first slot since pods came up for waiting requests: its request waited longest.
    wakes: bool,
}

impl Slot {
    /// Whether the request, just sent, had waited longest when pods came up. True once a cold start.
    pub(crate) fn take_wake(&mut self) -> bool {
        std::mem::take(&mut self.wakes)
    }

    /// Notes that the pod answered: its next refusal is the first in a row.
    pub(crate) fn pod_answered(&self) {
        self.pod.refusals.lock().answered();
    }

    /// Notes that the pod did not accept the connection. It gets no requests for as long as [`Refusals`] says.
    pub(crate) fn pod_refused(self) {
        let Some(pause) = self.pod.refusals.lock().refused() else { return };
        self.throttler.state.lock().gate.suspend(&self.pod);
        let (throttler, pod) = (Arc::clone(&self.throttler), Arc::clone(&self.pod));
        tokio::spawn(async move {
            sleep(pause).await;
            pod.refusals.lock().taken_back();
            let called = throttler.state.lock().gate.resume(&pod);
            throttler.call(called);
        });
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let called = {
            let mut state = self.throttler.state.lock();
            // `wakes` is still set: no request was sent, so the next one ends the cold start.
            state.is_waking |= self.wakes;
            state.gate.finish(&self.pod)
        };
        self.throttler.active.decrement(1.0);
        self.throttler.call(called);
    }
}

/// The count of waiting requests of all revisions together, up to a limit.
#[derive(Debug)]
pub(crate) struct Backlog {
    waiting: AtomicUsize,
    limit: usize,
}

impl Backlog {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Backlog { waiting: AtomicUsize::new(0), limit })
    }

    /// How many wait.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn add(self: &Arc<Self>) -> Option<Held> {
        let below_limit = |waiting| (waiting < self.limit).then_some(waiting + 1);
        self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below_limit).ok()?;
        Some(Held(Arc::clone(self)))
    }
}

/// A guard of one request in a [`Backlog`].
#[derive(Debug)]
struct Held(Arc<Backlog>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
