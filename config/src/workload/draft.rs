//! The one shape [`Draft`] that the content of each kind of object is brought to, and the parts that all kinds have in
//! common.

use std::time::Duration;

use pilotlight_core::{ConcurrencyLimit, Reachability, RevisionId, Timeouts};
use serde_json::Value;

use super::manifest::Node;
use super::requests::Requests;
use super::written::Written;
use super::{Container, Kind, pod, unused};
use crate::fault::Findings;

/// The content of an object, before its annotations are read.
pub(super) struct Draft {
    /// `None` where its name is a fault.
    pub(super) id: Option<RevisionId>,
    pub(super) kind: Kind,
    pub(super) written: Written,
    pub(super) container_concurrency: ConcurrencyLimit,
    pub(super) timeouts: Timeouts,
    pub(super) container: Container,
    pub(super) readiness_probe: Value,
    /// What the containers of a pod request.
    pub(super) requests: Requests,
    /// Whether a route leads to it.
    pub(super) reachability: Reachability,
    /// The autoscaler it has in a cluster, explained, where requests do not scale it.
    pub(super) elsewhere: Option<Vec<String>>,
}

/// Knative's limits where its ConfigMap `config-defaults` does not say otherwise.
const DEFAULT_TIMEOUT_SECONDS: u32 = 300;
const MAX_TIMEOUT_SECONDS: u32 = 600;
const DEFAULT_RESPONSE_START_TIMEOUT_SECONDS: u32 = 300;
const MAX_CONTAINER_CONCURRENCY: u32 = 1_000;

pub(super) fn id(node: &Node<'_>, findings: &mut Findings) -> Option<RevisionId> {
    let metadata = node.child("metadata");
    let namespace = metadata.child("namespace").text(findings).unwrap_or_else(|| "default".to_owned());
    let name = metadata.child("name");
    if !name.is_present() {
        name.fault("is missing", findings);
    }
    name.text(findings).map(|name| RevisionId::new(namespace, name))
}

/// The part that all kinds have in common.
pub(super) fn common(
    node: &Node<'_>,
    kind: Kind,
    annotations: &Node<'_>,
    serving: Option<Node<'_>>,
    findings: &mut Findings,
) -> Draft {
    // Without a container, which is a fault already, the rest is still read: all faults come at once.
    let nowhere = Node { value: None, path: node.path.clone() };
    let serving = serving.unwrap_or(nowhere);
    unused::container(&serving, findings);
    let is_strict = matches!(kind, Kind::Service | Kind::Configuration | Kind::Revision);
    let container = pod::container(&serving, is_strict, findings);
    Draft {
        id: id(node, findings),
        kind,
        written: Written::at(annotations, findings),
        container_concurrency: ConcurrencyLimit::UNLIMITED,
        timeouts: Timeouts::total(seconds(DEFAULT_TIMEOUT_SECONDS)),
        readiness_probe: pod::readiness_probe(&serving, container.port, findings),
        container,
        requests: Requests::default(),
        reachability: Reachability::Reachable,
        elsewhere: None,
    }
}

pub(super) fn container_concurrency(field: &Node<'_>, findings: &mut Findings) -> ConcurrencyLimit {
    let limit = field.whole(i32::MAX as u32, findings).unwrap_or(0);
    if limit > MAX_CONTAINER_CONCURRENCY {
        let advice =
            format!("Knative allows {MAX_CONTAINER_CONCURRENCY} unless config-defaults says otherwise");
        findings.warn(&field.path, advice);
    }
    limit.into()
}

pub(super) fn timeouts(
    total: &Node<'_>,
    start: &Node<'_>,
    idle: &Node<'_>,
    findings: &mut Findings,
) -> Timeouts {
    let unless_zero = |node: &Node<'_>, findings: &mut Findings| {
        node.whole(i32::MAX as u32, findings).filter(|&seconds| seconds > 0)
    };
    let total_seconds = unless_zero(total, findings).unwrap_or(DEFAULT_TIMEOUT_SECONDS);
    if total_seconds > MAX_TIMEOUT_SECONDS {
        let advice = format!("Knative allows {MAX_TIMEOUT_SECONDS} s unless config-defaults says otherwise");
        findings.warn(&total.path, advice);
    }
    let mut within_total = |node: &Node<'_>| {
        let limit = unless_zero(node, findings);
        if let Some(limit) = limit.filter(|&limit| limit > total_seconds) {
            findings.fault(
                &node.path,
                &limit.to_string(),
                format!("is above the timeout of {total_seconds} s"),
            );
        }
        limit
    };
    // Knative's webhook fills in this one only where it is shorter than the whole.
    let default_start = Some(DEFAULT_RESPONSE_START_TIMEOUT_SECONDS).filter(|&limit| limit < total_seconds);
    let start_seconds = if start.is_present() { within_total(start) } else { default_start };
    Timeouts {
        total: seconds(total_seconds),
        response_start: start_seconds.map(seconds),
        idle: within_total(idle).map(seconds),
    }
}

fn seconds(number: u32) -> Duration {
    Duration::from_secs(u64::from(number))
}
