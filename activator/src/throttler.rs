//! Holds a revision's requests until there is a pod for them: the async side of [`Gate`].
//!
//! All decisions are the gate's; this file lets tasks wait for them. A waiter that is dropped gives its place
//! back, a [`Slot`] that is dropped gives its pod back, and nothing else needs to be remembered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use http::HeaderValue;
use metrics::Gauge;
use parking_lot::Mutex;
use pilotlight_core::balance::{Gate, Policy, Ticket};
use pilotlight_core::{PodEndpoint, PodTimeline, RevisionEndpoints, Trouble};
use tokio::sync::oneshot;
use tokio::time::sleep;

/// One pod, as the request path needs it.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) tls_address: Option<SocketAddr>,
    /// The address again, as a `Host` header.
    pub(crate) host: HeaderValue,
    pub(crate) timeline: PodTimeline,
    /// Connections refused in a row.
    refusals: AtomicU32,
}

impl From<&PodEndpoint> for Pod {
    fn from(pod: &PodEndpoint) -> Self {
        let PodEndpoint { name, address, tls_address, timeline } = pod.clone();
        // An address is always a legal header value.
        let host = HeaderValue::try_from(address.to_string()).unwrap_or(HeaderValue::from_static("pod"));
        Pod { name, address, tls_address, host, timeline, refusals: AtomicU32::new(0) }
    }
}

impl PartialEq for Pod {
    fn eq(&self, other: &Pod) -> bool {
        self.address == other.address && self.tls_address == other.tls_address && self.name == other.name
    }
}

/// Why a request is answered without having been sent to a pod.
#[derive(Clone, Debug)]
pub(crate) enum Refusal {
    /// Too many wait already.
    QueueFull,
    /// Pods do not come up, and whoever starts them has given up for now.
    Trouble(Arc<Trouble>),
    /// The revision was deleted.
    Deleted,
}

/// What a request that is still waiting waits for.
#[derive(Clone, Debug)]
pub(crate) enum Obstacle {
    /// No pod is ready; so many are starting, and maybe they have trouble.
    NoPods { starting: u32, trouble: Option<Arc<Trouble>> },
    /// Pods are ready, but all are busy or refuse connections.
    PodsBusy { pods: usize },
}

/// The line in front of one revision's pods.
#[derive(Debug)]
pub(crate) struct Throttler {
    state: Mutex<State>,
    /// Waiting requests of all revisions together.
    backlog: Arc<Backlog>,
    queued: Gauge,
    active: Gauge,
}

#[derive(Debug)]
struct State {
    gate: Gate<Arc<Pod>, Caller>,
    starting: u32,
    trouble: Option<Arc<Trouble>>,
    is_deleted: bool,
    /// Pods came up while requests waited, and the one that waited longest has not been called yet.
    is_waking: bool,
}

/// How a waiter is called.
type Caller = oneshot::Sender<Result<Slot, Refusal>>;

impl State {
    fn refusal(&self) -> Option<Refusal> {
        if self.is_deleted {
            return Some(Refusal::Deleted);
        }
        let trouble = self.trouble.as_ref().filter(|trouble| trouble.give_up && self.gate.has_no_pods())?;
        Some(Refusal::Trouble(Arc::clone(trouble)))
    }
}

impl Throttler {
    /// A line that nobody is served from until [`update`](Throttler::update) brings pods.
    pub(crate) fn new(queue_depth: usize, backlog: Arc<Backlog>, queued: Gauge, active: Gauge) -> Arc<Self> {
        let state = State {
            gate: Gate::new(queue_depth),
            starting: 0,
            trouble: None,
            is_deleted: false,
            is_waking: false,
        };
        Arc::new(Throttler { state: Mutex::new(state), backlog, queued, active })
    }

    /// Takes over what the table says now; `None`: the revision is not in it any more.
    pub(crate) fn update(self: &Arc<Self>, endpoints: Option<&RevisionEndpoints>) {
        let mut state = self.state.lock();
        let had_no_pods = state.gate.has_no_pods();
        let waiting = state.gate.waiting();
        state.is_deleted = endpoints.is_none();
        state.starting = endpoints.map_or(0, |endpoints| endpoints.starting);
        state.trouble = endpoints.and_then(|endpoints| endpoints.trouble.clone()).map(Arc::new);
        let limit = endpoints.map_or(0, |endpoints| endpoints.container_concurrency);
        let mut pods: Vec<(String, Arc<Pod>)> = endpoints
            .into_iter()
            .flat_map(|endpoints| &endpoints.ready)
            .map(|pod| (pod.address.to_string(), Arc::new(Pod::from(pod))))
            .collect();
        // Sorted as text, as Knative does, so that all activators pack the same pods first.
        pods.sort_by(|(one, _), (other, _)| one.cmp(other));
        let pods = pods.into_iter().map(|(_, pod)| pod);
        let called = state.gate.set_pods(Policy::pilotlight(limit), (limit > 0).then_some(limit), pods);
        let refusal = state.refusal();
        let refused = if refusal.is_some() { state.gate.leave_all() } else { Vec::new() };
        if state.gate.has_no_pods() {
            state.is_waking = false;
        } else if had_no_pods {
            state.is_waking = waiting > 0;
        }
        drop(state);
        self.call(called);
        for caller in refused {
            if let Some(refusal) = &refusal {
                // Err: the waiter has left.
                let _ = caller.send(Err(refusal.clone()));
            }
        }
    }

    /// A place in the line, for a request that arrives now.
    pub(crate) fn arrive(self: &Arc<Self>) -> Place {
        let mut state = self.state.lock();
        let found_no_pods = state.gate.has_no_pods();
        Place { throttler: Arc::clone(self), ticket: state.gate.ticket(), found_no_pods }
    }

    /// What stands between a waiting request and a pod.
    pub(crate) fn obstacle(&self) -> Obstacle {
        let state = self.state.lock();
        if state.gate.has_no_pods() {
            Obstacle::NoPods { starting: state.starting, trouble: state.trouble.clone() }
        } else {
            Obstacle::PodsBusy { pods: state.gate.pods().count() }
        }
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

    /// Hands waiters their pods. Not under the lock: a waiter that has left returns its slot right here.
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

/// A request's place in the line. It stays the same through every attempt.
#[derive(Debug)]
pub(crate) struct Place {
    throttler: Arc<Throttler>,
    ticket: Ticket,
    found_no_pods: bool,
}

impl Place {
    /// A pod, at once; `None` if this request must wait.
    pub(crate) fn try_slot(&self) -> Option<Result<Slot, Refusal>> {
        let mut state = self.throttler.state.lock();
        if let Some(refusal) = state.refusal() {
            return Some(Err(refusal));
        }
        let pod = state.gate.enter(self.ticket)?;
        drop(state);
        Some(Ok(self.throttler.slot(pod, false)))
    }

    /// Waits for a pod. Dropping the future leaves the line at once.
    pub(crate) async fn slot(&self) -> Result<Slot, Refusal> {
        let (caller, called) = oneshot::channel();
        let _waiting = {
            let mut state = self.throttler.state.lock();
            if let Some(refusal) = state.refusal() {
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
        // Err: the throttler dropped the caller without a word, which it does only when it goes itself.
        called.await.unwrap_or(Err(Refusal::Deleted))
    }

    /// Whether no pod was ready when the request arrived.
    pub(crate) fn found_no_pods(&self) -> bool {
        self.found_no_pods
    }
}

/// In the line; leaves it when dropped.
struct Waiting<'a> {
    place: &'a Place,
    _held: Held,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let throttler = &self.place.throttler;
        // None: the request was called. A slot it did not take returns by itself.
        let left = throttler.state.lock().gate.leave(self.place.ticket);
        drop(left);
        throttler.queued.decrement(1.0);
    }
}

/// The right to have one request at a pod. Dropped when the response's body has ended.
#[derive(Debug)]
pub(crate) struct Slot {
    throttler: Arc<Throttler>,
    pub(crate) pod: Arc<Pod>,
    /// Whether this is the first slot since pods came up for waiting requests: its owner waited longest.
    wakes: bool,
}

impl Slot {
    /// Whether the request, just sent, had waited longest when pods came up. True once a wake.
    pub(crate) fn take_wake(&mut self) -> bool {
        std::mem::take(&mut self.wakes)
    }

    /// The pod answered.
    pub(crate) fn pod_answered(&self) {
        self.pod.refusals.store(0, Ordering::Relaxed);
    }

    /// The pod did not take the connection. It gets no requests for a moment, longer each time in a row, up to a
    /// second: it may have died a moment ago, with the table not yet saying so.
    pub(crate) fn pod_refused(self) {
        let refusals = self.pod.refusals.fetch_add(1, Ordering::Relaxed);
        let pause = FIRST_PAUSE.saturating_mul(1 << refusals.min(10)).min(LONGEST_PAUSE);
        self.throttler.state.lock().gate.suspend(&self.pod);
        let (throttler, pod) = (Arc::clone(&self.throttler), Arc::clone(&self.pod));
        tokio::spawn(async move {
            sleep(pause).await;
            let called = throttler.state.lock().gate.resume(&pod);
            throttler.call(called);
        });
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let called = {
            let mut state = self.throttler.state.lock();
            // Nothing was sent: the next in line is the one that waited longest.
            state.is_waking |= self.wakes;
            state.gate.finish(&self.pod)
        };
        self.throttler.active.decrement(1.0);
        self.throttler.call(called);
    }
}

/// Counts waiting requests of all revisions together, up to a limit.
#[derive(Debug)]
pub(crate) struct Backlog {
    waiting: AtomicUsize,
    limit: usize,
}

impl Backlog {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Backlog { waiting: AtomicUsize::new(0), limit })
    }

    fn add(self: &Arc<Self>) -> Option<Held> {
        let below_limit = |waiting| (waiting < self.limit).then_some(waiting + 1);
        self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below_limit).ok()?;
        Some(Held(Arc::clone(self)))
    }
}

/// One of those counted by a [`Backlog`].
#[derive(Debug)]
struct Held(Arc<Backlog>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    fn throttler(queue_depth: usize, total: usize) -> Arc<Throttler> {
        Throttler::new(queue_depth, Backlog::new(total), Gauge::noop(), Gauge::noop())
    }

    fn endpoints(container_concurrency: u32, ports: &[u16]) -> RevisionEndpoints {
        let pod = |port: &u16| PodEndpoint {
            name: format!("pod-{port}"),
            address: SocketAddr::from(([127, 0, 0, 1], *port)),
            tls_address: None,
            timeline: PodTimeline::default(),
        };
        RevisionEndpoints {
            hosts: vec![],
            container_concurrency,
            timeout: Duration::from_secs(300),
            response_start_timeout: None,
            idle_timeout: None,
            ready: ports.iter().map(pod).collect(),
            starting: 0,
            trouble: None,
        }
    }

    fn gives_up() -> Trouble {
        Trouble {
            reason: "exited".to_owned(),
            message: "the process exited".to_owned(),
            exit_code: Some(1),
            log_tail: vec![],
            failures: 3,
            retry_at: None,
            give_up: true,
        }
    }

    #[tokio::test]
    async fn requests_wait_until_pods_come_and_go_in_order() {
        let throttler = throttler(10, 10);
        let places = [throttler.arrive(), throttler.arrive(), throttler.arrive()];
        let mut first = pin!(places[0].slot());
        let mut second = pin!(places[1].slot());
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        throttler.update(Some(&endpoints(1, &[1])));
        let slot = first.await.unwrap();
        assert!(second.as_mut().now_or_never().is_none());
        assert!(places[2].try_slot().is_none(), "a newcomer must not overtake");
        drop(slot);
        assert_eq!(second.await.unwrap().pod.name, "pod-1");
    }

    #[tokio::test]
    async fn a_waiter_that_leaves_frees_its_place_in_both_counts() {
        let throttler = throttler(1, 1);
        let place = throttler.arrive();
        let mut waiter = Box::pin(place.slot());
        assert!(waiter.as_mut().now_or_never().is_none());
        let late = throttler.arrive();
        assert!(matches!(late.slot().now_or_never(), Some(Err(Refusal::QueueFull))));
        drop(waiter);
        assert_eq!(throttler.queued_and_active(), (0, 0));
        assert!(late.slot().now_or_never().is_none(), "there is room again");
    }

    #[tokio::test]
    async fn the_total_is_shared_between_revisions() {
        let backlog = Backlog::new(1);
        let one = Throttler::new(10, Arc::clone(&backlog), Gauge::noop(), Gauge::noop());
        let other = Throttler::new(10, backlog, Gauge::noop(), Gauge::noop());
        let place = one.arrive();
        let mut waiter = Box::pin(place.slot());
        assert!(waiter.as_mut().now_or_never().is_none());
        let place = other.arrive();
        assert!(matches!(place.slot().now_or_never(), Some(Err(Refusal::QueueFull))));
    }

    #[tokio::test]
    async fn a_waiter_that_leaves_after_it_was_called_passes_its_pod_on() {
        let throttler = throttler(10, 10);
        let places = [throttler.arrive(), throttler.arrive()];
        let mut first = Box::pin(places[0].slot());
        let mut second = pin!(places[1].slot());
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        throttler.update(Some(&endpoints(1, &[1])));
        drop(first);
        assert!(second.now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_refuses_connections_is_left_alone_for_a_moment() {
        let throttler = throttler(10, 10);
        throttler.update(Some(&endpoints(0, &[1])));
        let place = throttler.arrive();
        place.slot().await.unwrap().pod_refused();
        assert!(place.try_slot().is_none());
        let before = tokio::time::Instant::now();
        let slot = place.slot().await.unwrap();
        assert!(before.elapsed() >= FIRST_PAUSE);
        slot.pod_refused();
        let before = tokio::time::Instant::now();
        assert!(place.slot().await.is_ok());
        assert!(before.elapsed() >= FIRST_PAUSE * 2);
    }

    #[tokio::test]
    async fn giving_up_and_deletion_answer_everybody_at_once() {
        let throttler = throttler(10, 10);
        let place = throttler.arrive();
        let mut waiter = pin!(place.slot());
        assert!(waiter.as_mut().now_or_never().is_none());
        throttler.update(Some(&RevisionEndpoints { trouble: Some(gives_up()), ..endpoints(0, &[]) }));
        assert!(matches!(waiter.await, Err(Refusal::Trouble(trouble)) if trouble.exit_code == Some(1)));
        assert!(matches!(throttler.arrive().slot().await, Err(Refusal::Trouble(_))));
        // A pod that is ready makes up for one that is not.
        throttler.update(Some(&RevisionEndpoints { trouble: Some(gives_up()), ..endpoints(0, &[1]) }));
        assert!(throttler.arrive().slot().await.is_ok());
        throttler.update(None);
        assert!(matches!(throttler.arrive().slot().await, Err(Refusal::Deleted)));
    }

    #[tokio::test]
    async fn whoever_waited_longest_wakes() {
        let throttler = throttler(10, 10);
        let places = [throttler.arrive(), throttler.arrive(), throttler.arrive()];
        let mut first = Box::pin(places[0].slot());
        let mut second = Box::pin(places[1].slot());
        let mut third = Box::pin(places[2].slot());
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        throttler.update(Some(&endpoints(0, &[1])));
        // Whatever the order in which the waiters get to run.
        assert!(!third.await.unwrap().take_wake());
        let mut slot = first.await.unwrap();
        assert!(slot.take_wake());
        assert!(!slot.take_wake(), "once");
        assert!(!second.await.unwrap().take_wake());
    }

    #[tokio::test]
    async fn a_waker_that_sends_nothing_hands_the_part_on() {
        let throttler = throttler(10, 10);
        let places = [throttler.arrive(), throttler.arrive()];
        let mut first = Box::pin(places[0].slot());
        let mut second = Box::pin(places[1].slot());
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        throttler.update(Some(&endpoints(1, &[1])));
        drop(first);
        assert!(second.await.unwrap().take_wake());
    }

    #[tokio::test]
    async fn pods_that_come_up_with_nobody_waiting_wake_nobody() {
        let throttler = throttler(10, 10);
        let early = throttler.arrive();
        throttler.update(Some(&endpoints(0, &[2])));
        assert!(early.found_no_pods());
        assert!(!early.slot().await.unwrap().take_wake());
        assert!(!throttler.arrive().found_no_pods());
    }
}
