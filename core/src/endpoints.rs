//! Revisions as the data plane knows them: the limits of each, and the addresses of its pods.
//!
//! The publisher, which runs pods (the local driver, later the Kubernetes watches), publishes each revision by itself, through a feed
//! of changes; [`EndpointLine`] carries the same changes over a process boundary. Plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ConcurrencyLimit, RevisionId, Time, Timeouts};

/// One line of a stream of endpoints (`/v1/endpoints`): JSON, ended by a line feed.
///
/// The first line is a snapshot, and each line after it one revision that changed. An empty line says only that the
/// publisher is still there. Whoever loses the stream begins anew, with a snapshot: so no change is ever lost for good.
///
/// ```
/// # use pilotlight_core::{EndpointLine, RevisionId};
/// let line: EndpointLine = serde_json::from_str(r#"{"gone": "default/hello"}"#).unwrap();
/// assert_eq!(line, EndpointLine::Gone(RevisionId::new("default", "hello")));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointLine {
    /// Every revision there is. One that is not listed does not exist.
    Snapshot(BTreeMap<RevisionId, RevisionEndpoints>),
    /// A revision is new, or has changed.
    Set {
        /// The name.
        revision: RevisionId,
        /// The state now.
        endpoints: Box<RevisionEndpoints>,
    },
    /// A revision was deleted.
    Gone(RevisionId),
}

impl EndpointLine {
    /// The longest pause between two lines, empty ones included. After three times this long in silence the follower
    /// takes the publisher for gone.
    pub const HEARTBEAT: Duration = Duration::from_secs(15);
}

/// One revision, as the activator sees it.
///
/// What only a cluster knows may be left out in JSON. On one machine pods are listed once they are ready, and
/// taken at their word.
///
/// ```
/// # use pilotlight_core::RevisionEndpoints;
/// let revision = RevisionEndpoints { container_concurrency: 10.into(), ..RevisionEndpoints::default() };
/// assert_eq!((revision.timeouts.total.as_secs(), revision.pods().count()), (300, 0));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RevisionEndpoints {
    /// Host names (lower case, no port) that lead here, besides `name.namespace.svc.<cluster domain>`.
    pub hosts: Vec<String>,
    /// The most requests one pod may run at once.
    pub container_concurrency: ConcurrencyLimit,
    /// The time limits of a request.
    pub timeouts: Timeouts,
    /// Pods that are ready for requests. Leaving pods are not listed.
    pub ready: Vec<PodEndpoint>,
    /// Pods that have an address but are not said to be ready, not yet or not any more. The activator asks them
    /// itself, and may know before the cluster does.
    #[serde(default)]
    pub not_ready: Vec<PodEndpoint>,
    /// How many pods are on their way up.
    pub starting: u32,
    /// Set while pods fail to come up.
    pub trouble: Option<Trouble>,
    /// The one address behind which the cluster spreads requests over ready pods by itself, with its port.
    #[serde(default)]
    pub cluster_ip: Option<SocketAddr>,
    /// Whether pods can be reached one by one.
    #[serde(default)]
    pub mesh: MeshMode,
    /// The host by which a service mesh knows the pods, where it lets them be reached one by one by their addresses;
    /// `None`: the address is the host. Knative's name is `enable-mesh-pod-addressability`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_host: Option<String>,
    /// Whether a pod that answers the activator's own probe may be used before it is said to be ready. Not so if
    /// its readiness means more than the queue-proxy can find out: exec probes, start-up probes, sidecars.
    #[serde(default = "trusts_probes")]
    pub trust_probes: bool,
    /// What the activator asks a pod in order to find out whether it can be used.
    #[serde(default)]
    pub probe: PodProbe,
    /// The activators that share this revision's pods; empty while nobody knows.
    #[serde(default)]
    pub activators: BTreeSet<IpAddr>,
    /// How those activators share pods whose concurrency is limited.
    #[serde(default)]
    pub sharing: PodSharing,
}

/// Whether the activator sends to pods one by one, or to the ClusterIP. A service mesh may allow only the latter.
/// Knative's name is `mesh-compatibility-mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MeshMode {
    /// Finds out: pods are probed, ready or not, and if none answers as only a pod does, the ClusterIP is tried.
    Auto,
    /// Always the ClusterIP.
    Enabled,
    /// Always the pods. Those that are said to be ready are used unasked.
    #[default]
    Disabled,
}

/// What a pod has to do to pass the activator's own probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PodProbe {
    /// To answer as its queue-proxy does: Knative's probe.
    #[default]
    Queue,
    /// To accept a TCP connection.
    Connect,
}

/// How activators share pods whose concurrency is limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PodSharing {
    /// As Knative's do: each sends to its part of the pods; with fewer pods than activators several send to the same.
    #[default]
    Knative,
    /// Each pod belongs to exactly [one activator](crate::balance::pod_owner), and the others send requests there. For
    /// revisions whose requests come in at ports of their own.
    Owned,
}

/// An activator's place among those that share a revision's pods. The default: nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The activator's number, from 0; `None` if it is not known.
    pub index: Option<usize>,
    /// How many activators there are.
    pub activators: usize,
}

/// One pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PodEndpoint {
    /// The pod's name.
    pub name: String,
    /// Address of its queue-proxy for requests.
    pub address: SocketAddr,
    /// The same over TLS, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_address: Option<SocketAddr>,
    /// The pod's own port for each named port of the revision, by `SERVICE/PORTNAME`: requests that come in at such a port
    /// go there. Empty: every request goes to `address`.
    #[serde(default, skip_serializing_if = "has_no_ports")]
    pub ports: Arc<BTreeMap<String, u16>>,
    /// How it came up.
    pub timeline: PodTimeline,
}

impl Default for RevisionEndpoints {
    /// No pods, no hosts, and Knative's own defaults.
    fn default() -> Self {
        RevisionEndpoints {
            hosts: Vec::new(),
            container_concurrency: ConcurrencyLimit::UNLIMITED,
            timeouts: Timeouts::default(),
            ready: Vec::new(),
            not_ready: Vec::new(),
            starting: 0,
            trouble: None,
            cluster_ip: None,
            mesh: MeshMode::default(),
            mesh_host: None,
            trust_probes: trusts_probes(),
            probe: PodProbe::default(),
            activators: BTreeSet::new(),
            sharing: PodSharing::default(),
        }
    }
}

impl RevisionEndpoints {
    /// Every pod, those that are ready first.
    pub fn pods(&self) -> impl Iterator<Item = &PodEndpoint> {
        self.ready.iter().chain(&self.not_ready)
    }
}

impl Place {
    /// The place of the activator at `own` address; `None` if it is not among them, as when requests do not pass
    /// through activators at the moment. All count in the order of the addresses as text, as Knative's do.
    ///
    /// ```
    /// use pilotlight_core::Place;
    /// let activators = ["10.0.0.10", "10.0.0.9"].map(|ip| ip.parse().unwrap()).into();
    /// let place = Place::among("10.0.0.9".parse().unwrap(), &activators);
    /// assert_eq!(place, Some(Place { index: Some(1), activators: 2 }));
    /// ```
    pub fn among(own: IpAddr, activators: &BTreeSet<IpAddr>) -> Option<Place> {
        if !activators.contains(&own) {
            return None;
        }
        let own = own.to_string();
        let earlier = activators.iter().filter(|other| other.to_string() < own).count();
        Some(Place { index: Some(earlier), activators: activators.len() })
    }
}

fn trusts_probes() -> bool {
    true
}

fn has_no_ports(ports: &Arc<BTreeMap<String, u16>>) -> bool {
    ports.is_empty()
}

/// The steps of a pod's start; `None` where nobody measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PodTimeline {
    /// When the plan that asked for this pod was made.
    pub decided: Option<Time>,
    /// When its process had been started.
    pub spawned: Option<Time>,
    /// When it first said it was ready.
    pub ready: Option<Time>,
}

/// Why pods of a revision do not come up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trouble {
    /// The same for machines.
    pub reason: TroubleReason,
    /// One sentence for people.
    pub message: String,
    /// The exit code, if a process exited.
    pub exit_code: Option<i32>,
    /// The last lines the process wrote to its standard error.
    pub log_tail: Vec<String>,
    /// Starts that failed in a row.
    pub failures: u32,
    /// When the next start will be tried; `None`: it is on its way, or waits for a request.
    pub retry_at: Option<Time>,
    /// From when on a request has a start tried at once, and is held for it; `None`: none does.
    #[serde(default)]
    pub on_demand_at: Option<Time>,
    /// Whether waiting requests should be answered now rather than held for the next try.
    pub give_up: bool,
}

impl Trouble {
    /// Whether a request without a pod should be answered with this, rather than wait for the next start.
    pub fn refuses(&self, now: Time) -> bool {
        self.give_up && self.on_demand_at.is_none_or(|at| now < at)
    }

    /// The state in a line: how often starts failed, why, and when the next one comes.
    pub fn in_words(&self, now: Time) -> String {
        let state = match self.reason {
            TroubleReason::Exited => "crashing",
            TroubleReason::NeverReady | TroubleReason::CannotStart => "not coming up",
        };
        let starts =
            if self.failures == 1 { "1 start".to_owned() } else { format!("{} starts", self.failures) };
        let last_words = self.log_tail.iter().rev().map(|line| line.trim()).find(|line| !line.is_empty());
        let cause = match (self.exit_code, last_words) {
            (Some(code), Some(line)) => format!("exit code {code}: {line}"),
            (Some(code), None) => format!("exit code {code}"),
            (None, _) => self.message.clone(),
        };
        let next = match (self.retry_at, self.on_demand_at) {
            (Some(at), _) => {
                let seconds = (at - now).as_nanos().div_ceil(1_000_000_000);
                format!("next try in {seconds} s or at the next request")
            }
            (None, Some(_)) => "next try at the next request".to_owned(),
            (None, None) => "being tried again".to_owned(),
        };
        format!("{state} ({starts}, {cause}; {next})")
    }
}

/// Why a pod does not come up. In JSON a word, the same as its `Display`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TroubleReason {
    /// A process of the pod ended by itself.
    Exited,
    /// The pod was not ready when its time was over.
    NeverReady,
    /// There is nothing that could be run.
    CannotStart,
}

impl TroubleReason {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            TroubleReason::Exited => "exited",
            TroubleReason::NeverReady => "never-ready",
            TroubleReason::CannotStart => "cannot-start",
        }
    }

    /// Whether the next start will hardly do better. A process that exits may; one that cannot be run, or took its
    /// whole time, will not.
    pub fn is_lasting(self) -> bool {
        self != TroubleReason::Exited
    }
}

impl fmt::Display for TroubleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips<const N: usize>(ips: [&str; N]) -> BTreeSet<IpAddr> {
        ips.map(|ip| ip.parse().unwrap()).into()
    }

    #[test]
    fn a_line_that_knows_nothing_of_clusters_still_parses() {
        let line = r#"{"snapshot": {"default/hello": {"hosts": ["hello"], "container_concurrency": 2,
            "timeouts": {"total": {"secs": 300, "nanos": 0}, "response_start": null, "idle": null},
            "ready": [{"name": "hello-1", "address": "127.0.0.1:8012", "timeline":
                {"decided": 1, "spawned": 2, "ready": 3}}],
            "starting": 1, "trouble": null}}}"#;
        let Ok(EndpointLine::Snapshot(revisions)) = serde_json::from_str(line) else { panic!("a snapshot") };
        let hello = &revisions[&RevisionId::new("default", "hello")];
        let expected = RevisionEndpoints {
            hosts: vec!["hello".to_owned()],
            container_concurrency: 2.into(),
            ready: hello.ready.clone(),
            starting: 1,
            ..RevisionEndpoints::default()
        };
        assert_eq!(*hello, expected);
        assert_eq!(hello.ready[0].name, "hello-1");
    }

    #[test]
    fn every_line_survives_the_wire() {
        let hello = || RevisionId::new("default", "hello");
        let lines = [
            EndpointLine::Snapshot([(hello(), RevisionEndpoints::default())].into()),
            EndpointLine::Set { revision: hello(), endpoints: Box::default() },
            EndpointLine::Gone(hello()),
        ];
        let starts = [
            r#"{"snapshot":{"default/hello":{"hosts":"#,
            r#"{"set":{"revision":"default/hello","endpoints":{"hosts":"#,
            r#"{"gone":"default/hello"}"#,
        ];
        for (line, start) in lines.iter().zip(starts) {
            let json = serde_json::to_string(line).unwrap();
            assert!(json.starts_with(start), "{json}");
            assert_eq!(serde_json::from_str::<EndpointLine>(&json).unwrap(), *line);
        }
    }

    #[test]
    fn what_a_cluster_knows_survives_the_wire() {
        let pod = |port| PodEndpoint {
            name: format!("pod-{port}"),
            address: SocketAddr::from(([10, 0, 0, 1], port)),
            tls_address: None,
            ports: Arc::new([("web/http".to_owned(), port + 1000)].into()),
            timeline: PodTimeline::default(),
        };
        let hello = RevisionEndpoints {
            ready: vec![pod(1)],
            not_ready: vec![pod(2)],
            cluster_ip: Some(SocketAddr::from(([10, 96, 0, 1], 80))),
            mesh: MeshMode::Auto,
            trust_probes: false,
            probe: PodProbe::Connect,
            activators: ips(["10.0.0.1", "fd00::1"]),
            sharing: PodSharing::Owned,
            ..RevisionEndpoints::default()
        };
        let json = serde_json::to_string(&hello).unwrap();
        assert!(json.contains(r#""mesh":"auto""#), "{json}");
        assert!(json.contains(r#""probe":"connect""#), "{json}");
        assert!(json.contains(r#""ports":{"web/http":1001}"#), "{json}");
        assert_eq!(serde_json::from_str::<RevisionEndpoints>(&json).unwrap(), hello);
        let ports: Vec<u16> = hello.pods().map(|pod| pod.address.port()).collect();
        assert_eq!(ports, [1, 2]);
    }

    #[test]
    fn a_reason_is_the_same_word_in_json_and_in_text() {
        for reason in [TroubleReason::Exited, TroubleReason::NeverReady, TroubleReason::CannotStart] {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.to_string());
        }
    }

    #[test]
    fn a_crash_loop_is_told_with_its_cause_and_its_next_try() {
        let second = Time::from_secs;
        let crashing = Trouble {
            reason: TroubleReason::Exited,
            message: "the app exited with code 1".to_owned(),
            exit_code: Some(1),
            log_tail: ["Traceback", "RuntimeError: DATABASE_URL is not set", ""].map(str::to_owned).into(),
            failures: 8,
            retry_at: Some(second(112)),
            on_demand_at: Some(second(101)),
            give_up: true,
        };
        let cause = "crashing (8 starts, exit code 1: RuntimeError: DATABASE_URL is not set";
        let told = |trouble: &Trouble| trouble.in_words(second(100));
        assert_eq!(told(&crashing), format!("{cause}; next try in 12 s or at the next request)"));
        let waiting = Trouble { retry_at: None, ..crashing.clone() };
        assert_eq!(told(&waiting), format!("{cause}; next try at the next request)"));
        let trying = Trouble { on_demand_at: None, ..waiting };
        assert_eq!(told(&trying), format!("{cause}; being tried again)"));
        let killed = Trouble {
            message: "the app was killed by signal 9".to_owned(),
            exit_code: None,
            failures: 1,
            ..trying
        };
        assert_eq!(told(&killed), "crashing (1 start, the app was killed by signal 9; being tried again)");
    }

    #[test]
    fn a_request_is_refused_until_it_would_have_a_start_tried() {
        let trouble = |give_up, on_demand_at| Trouble {
            reason: TroubleReason::Exited,
            message: String::new(),
            exit_code: None,
            log_tail: Vec::new(),
            failures: 3,
            retry_at: None,
            on_demand_at,
            give_up,
        };
        let (now, later) = (Time::from_secs(1), Time::from_secs(2));
        assert!(trouble(true, Some(later)).refuses(now) && !trouble(true, Some(later)).refuses(later));
        assert!(trouble(true, None).refuses(later) && !trouble(false, Some(later)).refuses(now));
    }

    #[test]
    fn an_activators_place_is_its_rank_among_the_addresses_as_text() {
        let place = |index, activators| Some(Place { index: Some(index), activators });
        let own = "10.0.0.2".parse().unwrap();
        assert_eq!(Place::among(own, &ips([])), None);
        assert_eq!(Place::among(own, &ips(["10.0.0.1", "10.0.0.3"])), None);
        assert_eq!(Place::among(own, &ips(["10.0.0.2"])), place(0, 1));
        assert_eq!(Place::among(own, &ips(["10.0.0.1", "10.0.0.2"])), place(1, 2));
        assert_eq!(Place::among(own, &ips(["10.0.0.10", "10.0.0.2", "10.0.0.100"])), place(2, 3));
    }
}
