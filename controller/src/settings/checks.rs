//! Rules of fields that Knative does not have.

use std::collections::BTreeSet;

use pilotlight_config::spelling::hint;

use crate::Workload;
use crate::crd::{IgnoreRule, RequestAutoscalerSpec};

/// Faults of what the spec refers to.
pub(super) fn references(spec: &RequestAutoscalerSpec) -> Vec<String> {
    let mut faults = Vec::new();
    let target = &spec.scale_target_ref;
    for (field, value) in
        [("apiVersion", &target.api_version), ("kind", &target.kind), ("name", &target.name)]
    {
        if value.is_empty() {
            faults.push(format!("scaleTargetRef.{field}: is empty"));
        }
    }
    let mut seen = BTreeSet::new();
    for (at, service) in spec.services.iter().enumerate() {
        if service.name.is_empty() {
            faults.push(format!("services[{at}].name: is empty"));
        } else if !seen.insert(&service.name) {
            faults.push(format!("services[{at}].name: {:?} is there twice", service.name));
        }
    }
    faults
}

/// Faults of rules that say which requests are no demand.
pub(super) fn ignore_rules(rules: &[IgnoreRule]) -> Vec<String> {
    let mut faults = Vec::new();
    for (at, IgnoreRule { path, user_agent }) in rules.iter().enumerate() {
        match (path.as_deref(), user_agent.as_deref()) {
            (None, None) => faults.push(format!("ignore[{at}]: has neither a path nor a userAgent")),
            (_, Some("")) => {
                faults.push(format!("ignore[{at}].userAgent: is empty, and so part of every one"));
            }
            _ => {}
        }
        if let Some(path) = path.as_deref().filter(|path| !path.starts_with('/')) {
            faults.push(format!("ignore[{at}].path: {path:?} does not begin with /"));
        }
    }
    faults
}

/// Names of ports that no Service has. Without any Service nothing is known.
pub(super) fn proxy_protocol(workload: &Workload) -> Vec<String> {
    let known: BTreeSet<String> = workload.ports().map(|port| port.port.name).collect();
    if workload.services.is_empty() {
        return Vec::new();
    }
    let unknown = workload.autoscaler.spec.proxy_protocol.iter().filter(|name| !known.contains(*name));
    unknown
        .map(|name| {
            let hint = hint(name, known.iter().map(String::as_str));
            format!("proxyProtocol: {name:?} is the name of no TCP port of its Services{hint}")
        })
        .collect()
}
