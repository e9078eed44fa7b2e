//! Asks pods whether they take requests: the async side of [`Backends`].
//!
//! All decisions are made there; this file sends the probes, waits, and hands the result to the throttler. Where the
//! table leaves nothing open, as on one machine, it only passes the table on: no task, no timer, no connection.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use pilotlight_core::backends::{Answer, Backends, Destinations, Effect, Input, Listing};
use pilotlight_core::{Place, RevisionEndpoints, RevisionId, Time};
use pilotlight_net::once::{BodyError, Get};
use pilotlight_net::{Clock, Upstreams, headers};
use tokio::task::AbortHandle;
use tokio::time::sleep_until;
use tracing::info;

use crate::activator::ActivatorParams;
use crate::revision::Revision;
use crate::throttler::{Supply, Throttler};

/// How pods are probed. Knative's names are `PROBE_TIMEOUT` and `PROBE_FREQUENCY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeParams {
    /// How long a pod may take to answer.
    pub timeout: Duration,
    /// How long after one round of probes the next begins, for those who did not pass.
    pub interval: Duration,
}

impl Default for ProbeParams {
    fn default() -> Self {
        ProbeParams { timeout: Duration::from_millis(300), interval: Duration::from_millis(200) }
    }
}

/// Knows where one revision's requests can go, and keeps its throttler up to date.
#[derive(Debug)]
pub(crate) struct Prober {
    id: RevisionId,
    throttler: Arc<Throttler>,
    upstreams: Upstreams,
    clock: Clock,
    pod_ip: Option<IpAddr>,
    probe_timeout: Duration,
    state: Mutex<State>,
    /// Tasks hold no more than this: when the activator goes, they end.
    me: Weak<Prober>,
}

#[derive(Debug)]
struct State {
    backends: Backends,
    /// `None` once the revision has been deleted.
    endpoints: Option<Arc<RevisionEndpoints>>,
    /// The last known: while requests do not pass through activators, nobody knows better.
    place: Place,
    timer: Option<Timer>,
}

#[derive(Debug)]
struct Timer {
    at: Time,
    task: AbortHandle,
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Prober {
    /// Knows nothing yet.
    pub(crate) fn new(params: &ActivatorParams, upstreams: Upstreams, revision: &Revision) -> Arc<Prober> {
        let state = State {
            backends: Backends::new(params.probing.interval),
            endpoints: None,
            place: Place::default(),
            timer: None,
        };
        Arc::new_cyclic(|me| Prober {
            id: revision.id().clone(),
            throttler: Arc::clone(revision.throttler()),
            upstreams,
            clock: params.clock,
            pod_ip: params.pod_ip,
            probe_timeout: params.probing.timeout,
            state: Mutex::new(state),
            me: Weak::clone(me),
        })
    }

    /// Takes over what the feed says now; `None`: the revision was deleted. What the feed settles by itself is in force
    /// when this returns.
    pub(crate) fn update(&self, endpoints: Option<&Arc<RevisionEndpoints>>) {
        let mut state = self.state.lock();
        if let (Some(own), Some(endpoints)) = (self.pod_ip, endpoints) {
            state.place = Place::among(own, &endpoints.activators).unwrap_or(state.place);
        }
        state.endpoints = endpoints.cloned();
        let listing = endpoints.map_or_else(Listing::default, |endpoints| Listing::from(&**endpoints));
        let effects = state.backends.step(self.clock.now(), Input::Listed(listing));
        self.supply(&state);
        self.follow(&mut state, effects);
    }

    fn tell(&self, input: Input) {
        let mut state = self.state.lock();
        let effects = state.backends.step(self.clock.now(), input);
        if effects.iter().any(|effect| matches!(effect, Effect::Use(_))) {
            self.supply(&state);
        }
        self.follow(&mut state, effects);
    }

    // Under the lock, so that the throttler hears of changes in their order.
    fn supply(&self, state: &State) {
        let supply = state.endpoints.as_ref().map(|endpoints| Supply {
            endpoints,
            destinations: state.backends.using(),
            place: state.place,
        });
        self.throttler.update(supply);
    }

    /// Does what has been decided.
    fn follow(&self, state: &mut State, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Probe(pods) => self.probe(pods),
                Effect::ProbeClusterIp(address) => self.probe_cluster_ip(address),
                Effect::Use(Destinations::Pods(_)) => {}
                Effect::Use(Destinations::ClusterIp { address, ready }) => {
                    info!(revision = %self.id, %address, ready, "Sending to the ClusterIP");
                }
            }
        }
        let wake_at = state.backends.wake_at();
        if state.timer.as_ref().map(|timer| timer.at) != wake_at {
            state.timer = wake_at.map(|at| self.wake(at));
        }
    }

    fn wake(&self, at: Time) -> Timer {
        let (me, instant) = (Weak::clone(&self.me), self.clock.instant_at(at));
        let task = tokio::spawn(async move {
            sleep_until(instant).await;
            if let Some(prober) = me.upgrade() {
                prober.tell(Input::Tick);
            }
        });
        Timer { at, task: task.abort_handle() }
    }

    fn probe(&self, pods: Vec<SocketAddr>) {
        let (me, upstreams, limit) = (Weak::clone(&self.me), self.upstreams.clone(), self.probe_timeout);
        tokio::spawn(async move {
            let (count, upstreams) = (pods.len(), &upstreams);
            let ask = |pod| async move { (pod, probe(upstreams, pod, limit).await) };
            let probes: FuturesUnordered<_> = pods.into_iter().map(ask).collect();
            // Who passes is not kept waiting for who is silent; but answers that come together are told together.
            let mut answers = probes.ready_chunks(count);
            while let Some(answers) = answers.next().await {
                let Some(prober) = me.upgrade() else { return };
                prober.tell(Input::Answered(answers));
            }
        });
    }

    fn probe_cluster_ip(&self, address: SocketAddr) {
        let (me, upstreams, limit) = (Weak::clone(&self.me), self.upstreams.clone(), self.probe_timeout);
        tokio::spawn(async move {
            let passed = probe(&upstreams, address, limit).await == Answer::Passed;
            if let Some(prober) = me.upgrade() {
                prober.tell(Input::ClusterIpAnswered { address, passed });
            }
        });
    }
}

/// Asks once. Over the connections requests go over, so that the first request finds one made.
async fn probe(upstreams: &Upstreams, to: SocketAddr, limit: Duration) -> Answer {
    let get = Get::new(headers::HEALTH_PATH)
        .header(headers::NETWORK_PROBE, HeaderValue::from_static(headers::QUEUE))
        .header(header::USER_AGENT, HeaderValue::from_static(headers::ACTIVATOR_USER_AGENT))
        .within(limit)
        .at_most(headers::QUEUE.len());
    let Ok(answer) = upstreams.get(to, &get).await else { return Answer::Silent };
    match (answer.status, answer.body) {
        // A mesh says so in a pod's place.
        (StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE, _) => Answer::Silent,
        (StatusCode::OK, Ok(body)) if body == headers::QUEUE => Answer::Passed,
        (StatusCode::OK, Err(BodyError::TimedOut(_))) => Answer::Silent,
        _ => Answer::Refused,
    }
}
