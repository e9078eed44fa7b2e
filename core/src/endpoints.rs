//! What the data plane needs to know about each revision: its limits, and where its pods are.
//!
//! Whoever runs pods (the local driver, later the Kubernetes watches) publishes a whole [`EndpointTable`] on
//! every change; the activator compares and converges. Plain data, so that it can cross a process boundary.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{RevisionId, Time};

/// Every revision the data plane may forward to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EndpointTable {
    /// One entry a revision.
    pub revisions: BTreeMap<RevisionId, RevisionEndpoints>,
}

/// One revision, as the activator sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RevisionEndpoints {
    /// Host names (lower case, no port) that lead here, besides `name.namespace.svc.<cluster domain>`.
    pub hosts: Vec<String>,
    /// The most requests one pod may run at once; 0: unlimited.
    pub container_concurrency: u32,
    /// From a request's arrival to the end of its response.
    pub timeout: Duration,
    /// From a request's arrival to the first byte of its response; `None`: no limit of its own.
    pub response_start_timeout: Option<Duration>,
    /// The longest silence of a response under way; `None`: no limit of its own.
    pub idle_timeout: Option<Duration>,
    /// Pods that are ready for requests. Starting and leaving pods are not listed.
    pub ready: Vec<PodEndpoint>,
    /// How many pods are on their way up.
    pub starting: u32,
    /// Set while pods fail to come up.
    pub trouble: Option<Trouble>,
}

/// One ready pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PodEndpoint {
    /// The pod's name.
    pub name: String,
    /// Where its queue-proxy takes requests.
    pub address: SocketAddr,
    /// Where it takes them over TLS as well, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_address: Option<SocketAddr>,
    /// How it came up.
    pub timeline: PodTimeline,
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
    /// A machine-readable word: `exited`, `never-ready`, `cannot-start`.
    pub reason: String,
    /// One sentence for people.
    pub message: String,
    /// The exit code, if a process exited.
    pub exit_code: Option<i32>,
    /// The last lines the process wrote to its standard error.
    pub log_tail: Vec<String>,
    /// Starts that failed in a row.
    pub failures: u32,
    /// When the next start will be tried.
    pub retry_at: Option<Time>,
    /// Whether waiting requests should be answered now rather than held for the next try.
    pub give_up: bool,
}
