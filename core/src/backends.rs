//! Destinations of a revision's requests: some of its pods, or its ClusterIP.
//!
//! The cluster says which pods are ready, and says it late; under a service mesh, pods may not be reachable one by
//! one at all. So the activator asks the pods itself. What to ask and what to conclude is decided here; who asks is
//! the driver. Time comes in as an argument, and nothing is asked while there is nothing to find out: with
//! [`MeshMode::Disabled`] and every pod ready, that is never. Knative's name is `revisionWatcher`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use crate::{MeshMode, RevisionEndpoints, Time};

/// The cluster's word about a revision's pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Pods said to be ready.
    pub ready: BTreeSet<SocketAddr>,
    /// Pods not said to be ready.
    pub not_ready: BTreeSet<SocketAddr>,
    /// The address of all ready pods together.
    pub cluster_ip: Option<SocketAddr>,
    /// Whether pods can be reached one by one.
    pub mesh: MeshMode,
    /// Whether a pod that passes its probe may be used before it is said to be ready.
    pub trust_probes: bool,
}

/// A pod's answer to a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The pod is there, and takes requests.
    Passed,
    /// No requests are taken; but this answer comes from a pod, so pods can be reached.
    Refused,
    /// No answer, or one that a mesh gives in a pod's place: 502 or 503.
    Silent,
}

/// A fact about the backends, or an occasion to think again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The cluster says something new. The default listing, no pods, says that there is nothing to do any more.
    Listed(Listing),
    /// Pods have answered, or their time is over.
    Answered(Vec<(SocketAddr, Answer)>),
    /// The ClusterIP has answered as a pod does; or it has not, or its time is over.
    ClusterIpAnswered {
        /// The address that was probed.
        address: SocketAddr,
        /// Whether the answer was that of a pod that takes requests.
        passed: bool,
    },
    /// Time has passed: what [`Backends::wake_at`] asked for.
    Tick,
}

/// An order to the shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Probe these pods, all at the same time. Each must be answered for.
    Probe(Vec<SocketAddr>),
    /// Probe the ClusterIP. It must be answered for.
    ProbeClusterIp(SocketAddr),
    /// From now on, send here.
    Use(Destinations),
}

/// Destinations of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destinations {
    /// To each of these pods; if there are none, nowhere.
    Pods(BTreeSet<SocketAddr>),
    /// To the ClusterIP.
    ClusterIp {
        /// The ClusterIP, with its port.
        address: SocketAddr,
        /// How many ready pods stand behind it.
        ready: usize,
    },
}

impl Default for Destinations {
    fn default() -> Self {
        Destinations::Pods(BTreeSet::new())
    }
}

/// Finds out where requests can go.
///
/// ```
/// use pilotlight_core::backends::{Answer, Backends, Destinations, Effect, Fact, Listing};
/// use pilotlight_core::Time;
/// use std::time::Duration;
///
/// let pod = "10.0.0.1:8012".parse().unwrap();
/// let mut backends = Backends::new(Duration::from_millis(200));
/// let listing = Listing { not_ready: [pod].into(), trust_probes: true, ..Listing::default() };
/// let effects = backends.step(Time::EPOCH, Fact::Listed(listing));
/// assert_eq!(effects, [Effect::Probe(vec![pod])]);
///
/// // It answers before the cluster says that it is ready.
/// let effects = backends.step(Time::from_millis(5), Fact::Answered(vec![(pod, Answer::Passed)]));
/// assert_eq!(effects, [Effect::Use(Destinations::Pods([pod].into()))]);
/// assert_eq!(backends.wake_at(), None);
/// ```
#[derive(Debug)]
pub struct Backends {
    probe_interval: Duration,
    listing: Listing,
    /// Not ready any more since the last listing: in use, but asked again in every round.
    demoted: BTreeSet<SocketAddr>,
    /// Pods that may be used. Each is listed.
    healthy: BTreeSet<SocketAddr>,
    reach: Reach,
    using: Destinations,
    /// When pods, or the ClusterIP, were last asked.
    checked_at: Time,
    /// Pods that have not answered yet.
    asked: BTreeSet<SocketAddr>,
    round: Round,
    /// The ClusterIP, if it has not answered yet.
    asked_cluster_ip: Option<SocketAddr>,
}

/// How pods are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// One by one. // Pods => Pods | ClusterIp
    Pods,
    /// By the ClusterIP, if it has answered. There is no way back, but another mesh mode. // ClusterIp => ClusterIp
    ClusterIp(Option<SocketAddr>),
}

/// Answers seen since all pods had answered the last time.
#[derive(Debug, Default)]
struct Round {
    /// Pods became usable or unusable.
    has_changes: bool,
    /// A pod answered as no mesh does.
    has_answers: bool,
}

impl Backends {
    /// Knows of no pods yet. Whoever does not answer is asked again after `probe_interval`.
    pub fn new(probe_interval: Duration) -> Self {
        Backends {
            probe_interval,
            listing: Listing::default(),
            demoted: BTreeSet::new(),
            healthy: BTreeSet::new(),
            reach: Reach::at_first(MeshMode::default()),
            using: Destinations::default(),
            checked_at: Time::EPOCH,
            asked: BTreeSet::new(),
            round: Round::default(),
            asked_cluster_ip: None,
        }
    }

    /// Takes note of what happened and says what is to be done.
    pub fn step(&mut self, now: Time, fact: Fact) -> Vec<Effect> {
        let mut effects = Vec::new();
        match fact {
            Fact::Listed(listing) => {
                self.list(listing);
                effects.extend(self.check(now));
            }
            Fact::Tick => {
                if self.wake_at().is_some_and(|at| at <= now) {
                    effects.extend(self.check(now));
                }
            }
            Fact::Answered(answers) => {
                let is_round = !self.asked.is_empty();
                answers.into_iter().for_each(|(pod, answer)| self.note(pod, answer));
                if is_round && self.asked.is_empty() {
                    effects.extend(self.end_round());
                }
            }
            Fact::ClusterIpAnswered { address, passed } => self.note_cluster_ip(address, passed),
        }
        let destinations = self.destinations();
        if self.using != destinations {
            self.using = destinations.clone();
            effects.push(Effect::Use(destinations));
        }
        effects
    }

    /// The destinations at this moment.
    pub fn using(&self) -> &Destinations {
        &self.using
    }

    /// When to [`Tick`](Fact::Tick); `None` while answers are awaited, or if there is nothing to find out.
    pub fn wake_at(&self) -> Option<Time> {
        if self.listing.is_empty() || !self.asked.is_empty() || self.asked_cluster_ip.is_some() {
            return None;
        }
        let is_curious = match self.reach {
            Reach::Pods => self.listing.pods().any(|pod| !self.healthy.contains(pod) && self.is_askable(pod)),
            Reach::ClusterIp(found) => found.is_none() && self.listing.cluster_ip.is_some(),
        };
        is_curious.then(|| self.checked_at + self.probe_interval)
    }

    fn list(&mut self, listing: Listing) {
        if self.listing.mesh != listing.mesh {
            self.reach = Reach::at_first(listing.mesh);
        }
        let before = std::mem::replace(&mut self.listing, listing);
        self.demoted = before.ready.intersection(&self.listing.not_ready).copied().collect();
        let healthy = self.healthy.len();
        // At once: to whatever may have left or broken, nothing more is sent.
        self.healthy.retain(|pod| self.listing.is_eligible(pod));
        self.round.has_changes |= self.healthy.len() < healthy;
    }

    /// Starts finding out what is not known.
    fn check(&mut self, now: Time) -> Option<Effect> {
        self.checked_at = now;
        if self.listing.is_empty() {
            self.asked_cluster_ip = None;
            self.round = Round::default();
            if let Reach::ClusterIp(found) = &mut self.reach {
                *found = None;
            }
            return None;
        }
        match self.reach {
            Reach::Pods => self.check_pods(),
            Reach::ClusterIp(_) => self.check_cluster_ip(),
        }
    }

    fn check_pods(&mut self) -> Option<Effect> {
        let healthy = self.healthy.len();
        self.healthy.extend(self.listing.ready.iter().filter(|pod| self.listing.is_trusted(pod)));
        self.round.has_changes |= self.healthy.len() > healthy;
        let is_unknown = |pod: &SocketAddr| !self.healthy.contains(pod) || self.demoted.contains(pod);
        let unknown: Vec<SocketAddr> = self
            .listing
            .pods()
            .copied()
            .filter(|pod| is_unknown(pod) && self.is_askable(pod) && !self.asked.contains(pod))
            .collect();
        // Those listed while others have not answered yet join their round.
        self.asked.extend(&unknown);
        if self.asked.is_empty() {
            self.round = Round::default();
        }
        (!unknown.is_empty()).then_some(Effect::Probe(unknown))
    }

    fn check_cluster_ip(&mut self) -> Option<Effect> {
        let address = self.listing.cluster_ip?;
        if let Reach::ClusterIp(Some(found)) = &mut self.reach {
            *found = address;
            return None;
        }
        let is_new = self.asked_cluster_ip.replace(address) != Some(address);
        is_new.then_some(Effect::ProbeClusterIp(address))
    }

    fn note(&mut self, pod: SocketAddr, answer: Answer) {
        if !self.asked.remove(&pod) || self.reach != Reach::Pods {
            return;
        }
        self.round.has_answers |= answer != Answer::Silent;
        let passed = answer == Answer::Passed && self.listing.is_eligible(&pod);
        let has_changed = if passed || self.listing.is_trusted(&pod) {
            self.healthy.insert(pod)
        } else {
            self.healthy.remove(&pod)
        };
        self.round.has_changes |= has_changed;
    }

    /// Every pod has answered. If none can be used, nothing is about to change, and no answer came from a pod,
    /// there may be a mesh in the way.
    fn end_round(&mut self) -> Option<Effect> {
        let round = std::mem::take(&mut self.round);
        let is_hopeless = self.healthy.is_empty()
            && self.demoted.is_empty()
            && !round.has_changes
            && !round.has_answers
            && !self.listing.is_empty();
        let may_fall_back = self.reach == Reach::Pods && self.listing.mesh == MeshMode::Auto;
        if is_hopeless && may_fall_back { self.check_cluster_ip() } else { None }
    }

    fn note_cluster_ip(&mut self, address: SocketAddr, passed: bool) {
        if self.asked_cluster_ip != Some(address) {
            return;
        }
        self.asked_cluster_ip = None;
        let is_wanted = match self.reach {
            // A pod that has answered meanwhile is better.
            Reach::Pods => self.listing.mesh == MeshMode::Auto && self.healthy.is_empty(),
            Reach::ClusterIp(found) => found.is_none(),
        };
        if passed && is_wanted && self.listing.cluster_ip == Some(address) {
            self.reach = Reach::ClusterIp(Some(address));
            self.healthy.clear();
        }
    }

    fn destinations(&self) -> Destinations {
        match self.reach {
            Reach::ClusterIp(Some(address)) => {
                Destinations::ClusterIp { address, ready: self.listing.ready.len() }
            }
            _ => Destinations::Pods(self.healthy.clone()),
        }
    }

    /// Whether the pod's answer can make a difference. If it may not be used before it is ready, it can only tell
    /// whether there is a mesh, and so can any pod that has passed.
    fn is_askable(&self, pod: &SocketAddr) -> bool {
        let tells_of_mesh = self.listing.mesh == MeshMode::Auto && self.healthy.is_empty();
        self.listing.is_eligible(pod) || tells_of_mesh
    }
}

impl Listing {
    fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.not_ready.is_empty()
    }

    fn pods(&self) -> impl Iterator<Item = &SocketAddr> {
        self.ready.union(&self.not_ready)
    }

    /// Whether the pod may be used if it passes its probe.
    fn is_eligible(&self, pod: &SocketAddr) -> bool {
        self.ready.contains(pod) || (self.trust_probes && self.not_ready.contains(pod))
    }

    /// Whether the pod is used without being asked.
    fn is_trusted(&self, pod: &SocketAddr) -> bool {
        self.mesh != MeshMode::Auto && self.ready.contains(pod)
    }
}

impl From<&RevisionEndpoints> for Listing {
    fn from(revision: &RevisionEndpoints) -> Self {
        let ready: BTreeSet<SocketAddr> = revision.ready.iter().map(|pod| pod.address).collect();
        let not_ready = revision.not_ready.iter().map(|pod| pod.address);
        Listing {
            not_ready: not_ready.filter(|pod| !ready.contains(pod)).collect(),
            ready,
            cluster_ip: revision.cluster_ip,
            mesh: revision.mesh,
            trust_probes: revision.trust_probes,
        }
    }
}

impl Reach {
    fn at_first(mesh: MeshMode) -> Reach {
        match mesh {
            MeshMode::Auto | MeshMode::Disabled => Reach::Pods,
            MeshMode::Enabled => Reach::ClusterIp(None),
        }
    }
}
