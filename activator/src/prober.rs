//! Probes of a revision's pods: the async side of [`Backends`].
//!
//! `Backends` makes all decisions; this file sends the probes, waits, and hands the result to the throttler. Where the
//! endpoints leave nothing open, as on one machine, they are only passed on: no task, no timer, no connection.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use pilotlight_core::backends::{Answer, Backends, Destinations, Effect, Fact, Listing};
use pilotlight_core::{Place, PodProbe, RevisionEndpoints, RevisionId, Time};
use pilotlight_net::once::{BodyError, Get};
use pilotlight_net::{Clock, Upstreams, headers};
use tokio::task::AbortHandle;
use tokio::time::{sleep_until, timeout};
use tracing::info;

use crate::pods::Supply;
use crate::revision::RevisionTraffic;
use crate::throttler::Throttler;

/// Times of probes. Knative's names are `PROBE_TIMEOUT` and `PROBE_FREQUENCY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeParams {
    /// The time a pod may take to answer.
    pub timeout: Duration,
    /// The time from one round of probes to the next, for pods that did not pass.
    pub interval: Duration,
}

impl Default for ProbeParams {
    fn default() -> Self {
        ProbeParams { timeout: Duration::from_millis(300), interval: Duration::from_millis(200) }
    }
}

/// The parameters that all probers of an activator have in common.
#[derive(Clone, Debug)]
pub(crate) struct ProbeContext {
    pub(crate) clock: Clock,
    /// The activator's own address; `None`: it uses every pod.
    pub(crate) pod_ip: Option<IpAddr>,
    pub(crate) probing: ProbeParams,
    pub(crate) upstreams: Upstreams,
}

/// The prober of one revision: finds out which destinations its requests can use, and keeps its throttler up to date.
#[derive(Debug)]
pub(crate) struct Prober {
    id: RevisionId,
    throttler: Arc<Throttler>,
    context: ProbeContext,
    state: Mutex<ProberState>,
    /// Tasks hold only this: they end when the activator is dropped.
    me: Weak<Prober>,
}

#[derive(Debug)]
struct ProberState {
    backends: Backends,
    /// `None` once the revision has been deleted.
    endpoints: Option<Arc<RevisionEndpoints>>,
    /// The last known place, kept while the list of activators leaves this one out.
    place: Place,
    timer: Option<ProbeTimer>,
}

#[derive(Debug)]
struct ProbeTimer {
    at: Time,
    task: AbortHandle,
}

impl Drop for ProbeTimer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Prober {
    /// A prober without endpoints.
    pub(crate) fn new(context: ProbeContext, revision: &RevisionTraffic) -> Arc<Prober> {
        let state = ProberState {
            backends: Backends::new(context.probing.interval),
            endpoints: None,
            place: Place::default(),
            timer: None,
        };
        Arc::new_cyclic(|me| Prober {
            id: revision.id().clone(),
            throttler: Arc::clone(revision.throttler()),
            context,
            state: Mutex::new(state),
            me: Weak::clone(me),
        })
    }

    /// Takes over a revision's endpoints; `None`: the revision was deleted. Pods that need no probe are in use when this
    /// returns.
    pub(crate) fn update(&self, endpoints: Option<&Arc<RevisionEndpoints>>) {
        let mut state = self.state.lock();
        if let (Some(own), Some(endpoints)) = (self.context.pod_ip, endpoints) {
            state.place = Place::among(own, &endpoints.activators).unwrap_or(state.place);
        }
        state.endpoints = endpoints.cloned();
        let listing = endpoints.map_or_else(Listing::default, |endpoints| Listing::from(&**endpoints));
        let effects = state.backends.step(self.context.clock.now(), Fact::Listed(listing));
        self.supply(&state);
        self.follow(&mut state, effects);
    }

    fn tell(&self, input: Fact) {
        let mut state = self.state.lock();
        let effects = state.backends.step(self.context.clock.now(), input);
        if effects.iter().any(|effect| matches!(effect, Effect::Use(_))) {
            self.supply(&state);
        }
        self.follow(&mut state, effects);
    }

    // Called under the lock, so that the throttler gets changes in their order.
    fn supply(&self, state: &ProberState) {
        let supply = state.endpoints.as_ref().map(|endpoints| Supply {
            endpoints,
            destinations: state.backends.using(),
            place: state.place,
            own: self.context.pod_ip,
        });
        self.throttler.update(supply);
    }

    /// Carries out the decisions of `Backends`.
    fn follow(&self, state: &mut ProberState, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Probe(pods) => self.probe(pods, Question::of(state.endpoints.as_deref())),
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

    fn wake(&self, at: Time) -> ProbeTimer {
        let (me, instant) = (Weak::clone(&self.me), self.context.clock.instant_at(at));
        let task = tokio::spawn(async move {
            sleep_until(instant).await;
            if let Some(prober) = me.upgrade() {
                prober.tell(Fact::Tick);
            }
        });
        ProbeTimer { at, task: task.abort_handle() }
    }

    fn probe(&self, pods: Vec<SocketAddr>, question: Question) {
        let (me, upstreams, limit) =
            (Weak::clone(&self.me), self.context.upstreams.clone(), self.context.probing.timeout);
        tokio::spawn(async move {
            let (count, upstreams) = (pods.len(), &upstreams);
            let question = &question;
            let ask = |pod| async move { (pod, question.put(upstreams, pod, limit).await) };
            let probes: FuturesUnordered<_> = pods.into_iter().map(ask).collect();
            // Pods that pass are used without waiting for those that are silent. Answers that are ready at the same time
            // are one step.
            let mut answers = probes.ready_chunks(count);
            while let Some(answers) = answers.next().await {
                let Some(prober) = me.upgrade() else { return };
                prober.tell(Fact::Answered(answers));
            }
        });
    }

    fn probe_cluster_ip(&self, address: SocketAddr) {
        let (me, upstreams, limit) =
            (Weak::clone(&self.me), self.context.upstreams.clone(), self.context.probing.timeout);
        tokio::spawn(async move {
            let answer = probe(&upstreams, address, limit, None).await;
            let passed = answer == Answer::Passed;
            if let Some(prober) = me.upgrade() {
                prober.tell(Fact::ClusterIpAnswered { address, passed });
            }
        });
    }
}

/// The question that pods are asked.
enum Question {
    /// Whether the queue-proxy takes requests. A mesh knows the pods by this host.
    Queue { mesh_host: Option<HeaderValue> },
    /// Whether somebody listens.
    Connect,
}

impl Question {
    fn of(endpoints: Option<&RevisionEndpoints>) -> Question {
        let mesh_host =
            |endpoints: &RevisionEndpoints| HeaderValue::try_from(endpoints.mesh_host.as_deref()?).ok();
        match endpoints.map(|endpoints| endpoints.probe) {
            Some(PodProbe::Connect) => Question::Connect,
            Some(PodProbe::Queue) | None => Question::Queue { mesh_host: endpoints.and_then(mesh_host) },
        }
    }

    async fn put(&self, upstreams: &Upstreams, to: SocketAddr, limit: Duration) -> Answer {
        match self {
            Question::Queue { mesh_host } => probe(upstreams, to, limit, mesh_host.as_ref()).await,
            Question::Connect => match timeout(limit, upstreams.connect(to)).await {
                Ok(Ok(_)) => Answer::Passed,
                Ok(Err(error)) if error.is_refused() => Answer::Refused,
                Ok(Err(_)) | Err(_) => Answer::Silent,
            },
        }
    }
}

/// Sends one probe, over the pool that requests use: the first request finds an open connection.
async fn probe(
    upstreams: &Upstreams,
    to: SocketAddr,
    limit: Duration,
    mesh_host: Option<&HeaderValue>,
) -> Answer {
    let mut get = Get::new(headers::HEALTH_PATH)
        .header(headers::NETWORK_PROBE, HeaderValue::from_static(headers::QUEUE))
        .header(header::USER_AGENT, HeaderValue::from_static(headers::ACTIVATOR_USER_AGENT))
        .within(limit)
        .at_most(headers::QUEUE.len());
    if let Some(host) = mesh_host {
        get = get
            .header(header::HOST, host.clone())
            .header(headers::PASSTHROUGH_LB, HeaderValue::from_static("true"));
    }
    let Ok(answer) = upstreams.get(to, &get).await else { return Answer::Silent };
    match (answer.status, answer.body) {
        // A mesh says so in a pod's place.
        (StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE, _) => Answer::Silent,
        (StatusCode::OK, Ok(body)) if body == headers::QUEUE => Answer::Passed,
        (StatusCode::OK, Err(BodyError::TimedOut(_))) => Answer::Silent,
        _ => Answer::Refused,
    }
}
