//! Faults on demand: late answers, refusals, broken watches, outages, expired versions.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};

use super::call::{Call, Verb};
use super::definition::Definition;
use super::failure::Failure;
use super::store::Store;

/// The faults of a server. Clones are of the same server.
#[derive(Clone)]
pub struct Faults {
    rules: Arc<Mutex<Vec<Rule>>>,
    watches: broadcast::Sender<WatchFault>,
    outage: watch::Sender<Option<Outage>>,
    store: Arc<Mutex<Store>>,
}

/// Requests that a fault is for. What is not said is all.
///
/// ```
/// use pilotlight_tests::cluster::api::{Requests, Verb};
/// let scalings = Requests::all().verb(Verb::Patch).resource("deployments.apps").subresource("scale");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Requests {
    verbs: Vec<Verb>,
    resource: Option<String>,
    subresource: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    user_agent: Option<String>,
}

/// How the server is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// Connections are refused, those that are there are reset.
    Refused,
    /// Connections are taken and reset at once, those that are there are reset.
    Reset,
    /// Connections are taken, and nothing ever comes back; those that are there fall silent.
    Silent,
}

/// What happens to an answer.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    Delay { shortest: Duration, longest: Duration, seed: u64 },
    Fail(Failure),
    LoseAnswer,
}

/// What happens to watches that are open.
#[derive(Clone, Debug)]
pub(crate) struct WatchFault {
    pub(crate) requests: Requests,
    pub(crate) end: WatchEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WatchEnd {
    /// The connection breaks in the middle.
    Broken,
    /// The answer ends as after its timeout.
    Ended,
    /// An ERROR event says that the version has expired.
    Expired,
    /// The watch goes on, with a bookmark.
    Bookmark,
}

/// The faults that one request meets.
#[derive(Debug, Default)]
pub(crate) struct Met {
    pub(crate) delay: Duration,
    pub(crate) failure: Option<Failure>,
    pub(crate) loses_answer: bool,
}

struct Rule {
    requests: Requests,
    effect: Effect,
    /// Requests that are still to be hit; nothing: all.
    left: Option<u32>,
}

impl Faults {
    pub(crate) fn new(store: Arc<Mutex<Store>>) -> Self {
        let (watches, _) = broadcast::channel(64);
        Self { rules: Arc::default(), watches, outage: watch::Sender::new(None), store }
    }

    /// Answers come so much later.
    pub fn delay(&self, requests: Requests, delay: Duration) {
        self.delay_between(requests, delay, delay, 0);
    }

    /// Answers come later by a time between two, evenly distributed, the same each time for one seed.
    pub fn delay_between(&self, requests: Requests, shortest: Duration, longest: Duration, seed: u64) {
        self.add(requests, Effect::Delay { shortest, longest, seed }, None);
    }

    /// Requests are refused with this status, and `Retry-After` in seconds if it is not 0. `times`: the next so many;
    /// nothing: all until [`clear`](Self::clear).
    pub fn fail(&self, requests: Requests, status: u16, retry_after: u32, times: Option<u32>) {
        let reason = match status {
            403 => "Forbidden",
            404 => "NotFound",
            409 => "Conflict",
            410 => "Expired",
            429 => "TooManyRequests",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "InternalError",
        };
        let failure = Failure::new(status, reason, format!("a fault that a test asked for: {status}"));
        let failure = if retry_after == 0 { failure } else { failure.with_retry_after(retry_after) };
        self.add(requests, Effect::Fail(failure), times);
    }

    /// Requests are carried out, but the connection ends instead of an answer. `times` as for [`fail`](Self::fail).
    pub fn lose_answers(&self, requests: Requests, times: Option<u32>) {
        self.add(requests, Effect::LoseAnswer, times);
    }

    /// Delays, refusals and lost answers end.
    pub fn clear(&self) {
        self.rules.lock().clear();
    }

    /// Connections of open watches break in the middle of their answer.
    pub fn break_watches(&self, requests: Requests) {
        self.tell(requests, WatchEnd::Broken);
    }

    /// Open watches end, as they do when their time is over.
    pub fn end_watches(&self, requests: Requests) {
        self.tell(requests, WatchEnd::Ended);
    }

    /// Open watches are told at once how far they are, if they take bookmarks.
    pub fn send_bookmarks(&self, requests: Requests) {
        self.tell(requests, WatchEnd::Bookmark);
    }

    /// Open watches end with an ERROR event 410, and versions before now are expired, so that a watch from one is
    /// answered in the same way.
    pub fn expire_watches(&self, requests: Requests) {
        self.compact(&requests);
        self.tell(requests, WatchEnd::Expired);
    }

    /// Versions before now are expired: for watches that begin, and for lists that go on. Open watches go on.
    pub fn compact(&self, requests: &Requests) {
        self.store.lock().compact(|definition: &Definition| {
            requests.resource.as_ref().is_none_or(|resource| *resource == definition.id())
        });
    }

    /// The server goes away until [`heal`](Self::heal).
    pub fn outage(&self, outage: Outage) {
        self.outage.send_replace(Some(outage));
    }

    /// The server comes back.
    pub fn heal(&self) {
        self.outage.send_replace(None);
    }

    pub(crate) fn outages(&self) -> watch::Receiver<Option<Outage>> {
        self.outage.subscribe()
    }

    pub(crate) fn watch_faults(&self) -> broadcast::Receiver<WatchFault> {
        self.watches.subscribe()
    }

    /// What happens to a request.
    pub(crate) fn meet(&self, call: &Call) -> Met {
        let mut met = Met::default();
        self.rules.lock().retain_mut(|rule| {
            if met.failure.is_some() || !rule.requests.matches(call) {
                return true;
            }
            match &mut rule.effect {
                Effect::Delay { shortest, longest, seed } => {
                    met.delay += *shortest + (*longest - *shortest).mul_f64(fraction(seed));
                }
                Effect::Fail(refusal) => met.failure = Some(refusal.clone()),
                Effect::LoseAnswer => met.loses_answer = true,
            }
            if let Some(left) = &mut rule.left {
                *left -= 1;
            }
            rule.left != Some(0)
        });
        met
    }

    fn add(&self, requests: Requests, effect: Effect, left: Option<u32>) {
        self.rules.lock().push(Rule { requests, effect, left });
    }

    fn tell(&self, requests: Requests, end: WatchEnd) {
        // Without watches there is nobody to tell.
        let _ = self.watches.send(WatchFault { requests, end });
    }
}

impl Requests {
    /// All requests.
    pub fn all() -> Self {
        Self::default()
    }

    /// Requests of this verb; more verbs may be added.
    pub fn verb(mut self, verb: Verb) -> Self {
        self.verbs.push(verb);
        self
    }

    /// Requests that are to change objects.
    pub fn writes(mut self) -> Self {
        self.verbs.extend([Verb::Create, Verb::Update, Verb::Patch, Verb::Delete, Verb::DeleteCollection]);
        self
    }

    /// Requests for this kind, such as `deployments.apps`; `pods` for the core group.
    pub fn resource(self, resource: &str) -> Self {
        Self { resource: Some(resource.into()), ..self }
    }

    /// Requests for this subresource; empty: for the main resource.
    pub fn subresource(self, subresource: &str) -> Self {
        Self { subresource: Some(subresource.into()), ..self }
    }

    /// Requests for this namespace.
    pub fn namespace(self, namespace: &str) -> Self {
        Self { namespace: Some(namespace.into()), ..self }
    }

    /// Requests for the object of this name.
    pub fn name(self, name: &str) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    /// Requests of clients whose `User-Agent` begins so.
    pub fn user_agent(self, prefix: &str) -> Self {
        Self { user_agent: Some(prefix.into()), ..self }
    }

    pub(crate) fn matches(&self, call: &Call) -> bool {
        let is = |wanted: &Option<String>, given: &str| wanted.as_ref().is_none_or(|wanted| wanted == given);
        (self.verbs.is_empty() || self.verbs.contains(&call.verb))
            && self.resource.as_ref().is_none_or(|resource| *resource == call.id())
            && is(&self.subresource, &call.target.subresource)
            && is(&self.namespace, &call.target.namespace)
            && is(&self.name, &call.target.name)
            && self.user_agent.as_ref().is_none_or(|prefix| call.user_agent.starts_with(prefix.as_str()))
    }
}

/// The next of a row of even fractions in 0..1: SplitMix64 (Steele, Lea, Flood 2014).
fn fraction(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bits = *state;
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((bits ^ bits >> 31) >> 11) as f64 / (1_u64 << 53) as f64
}
