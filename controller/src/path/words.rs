//! The condition `Intercepting` in words.

use super::service::{Obstacle, ServiceStep};
use super::{Intercepting, PathSeen, PathWay, Restoring};

/// The first obstacle of any Service, or how traffic goes.
pub(super) fn intercepting(seen: &PathSeen, steps: &[ServiceStep]) -> Intercepting {
    let no =
        |reason: &str, message: String| Intercepting { status: false, reason: reason.to_owned(), message };
    let yes = |reason: &str, message: &str| Intercepting {
        status: true,
        reason: reason.to_owned(),
        message: message.to_owned(),
    };
    if let PathWay::Refused { reason, message } = &seen.way {
        return no(reason, message.clone());
    }
    if seen.restoring != Restoring::No {
        return no("Restoring", "Traffic is led back to the pods, as it was before.".to_owned());
    }
    let first = steps.iter().filter_map(|step| Some((step.obstacle?, step.name.as_str()))).min();
    match first {
        _ if steps.is_empty() => no(
            "NoServices",
            "No Service leads to the target's pods: name one in spec.services, or give one a selector that matches them."
                .to_owned(),
        ),
        Some((obstacle, service)) => no(reason(obstacle), sentence(seen, obstacle, service)),
        None => match (&seen.way, steps.iter().any(|step| step.leads_to_activators)) {
            (PathWay::Always, _) => yes("Always", "All requests pass the activators."),
            (_, true) => yes("AtZero", "Requests pass the activators until pods are ready."),
            (_, false) => yes("Standby", "Requests go to the pods; activators step in when there are none."),
        },
    }
}

fn reason(obstacle: Obstacle) -> &'static str {
    match obstacle {
        Obstacle::Foreign => "ForeignEndpoints",
        Obstacle::SelectorPresent => "SelectorPresent",
        Obstacle::NoActivators => "NoActivators",
        Obstacle::Stale => "StaleEndpoints",
        Obstacle::PortsPending => "PortsPending",
        Obstacle::Pending => "Pending",
        Obstacle::FailedOpen => "FailedOpen",
    }
}

fn sentence(seen: &PathSeen, obstacle: Obstacle, service: &str) -> String {
    match obstacle {
        Obstacle::Foreign => foreign(seen, service),
        Obstacle::SelectorPresent => selector_present(seen, service),
        Obstacle::NoActivators => {
            "No activator is alive: see the Deployment pilotlight-activator. Until one is, requests go \
             to the pods, and the last pod stays."
                .to_owned()
        }
        Obstacle::Stale => format!(
            "Service {service} still has endpoints that its former selector left behind; they are deleted once activators \
             stand in for them."
        ),
        Obstacle::PortsPending => format!("No activator has bound all ports of Service {service} yet."),
        Obstacle::Pending => format!("Activators are being named as endpoints of Service {service}."),
        Obstacle::FailedOpen => format!(
            "Service {service} leads to pods as well, since no activator was alive; they leave it once activators stand."
        ),
    }
}

fn foreign(seen: &PathSeen, service: &str) -> String {
    let slices = seen.services.get(service).into_iter().flat_map(|service| &service.slices);
    let mut foreign = slices.filter(|slice| slice.kind() == crate::slices::SliceKind::Foreign);
    match foreign.next() {
        Some(slice) if slice.managed_by.is_empty() => format!(
            "EndpointSlice {} of Service {service} belongs to somebody else: delete it, or leave the Service out of \
             spec.services.",
            slice.name
        ),
        Some(slice) => format!(
            "EndpointSlice {} of Service {service} belongs to {}: stop that, or leave the Service out of spec.services.",
            slice.name, slice.managed_by
        ),
        None => format!(
            "Endpoints {service} has addresses that are not of the target's pods: delete it, or leave Service {service} out \
             of spec.services."
        ),
    }
}

/// Whoever writes the selector, and what stops them.
fn selector_present(seen: &PathSeen, service: &str) -> String {
    let managers = seen.services.get(service).map(|seen| seen.service.selector_managers.as_slice());
    let managers = managers.unwrap_or_default();
    let named = match managers {
        [] => "somebody".to_owned(),
        managers => managers.join(", "),
    };
    let remedies: Vec<String> = managers.iter().map(|manager| remedy(manager, service)).collect();
    let remedy = match remedies.as_slice() {
        [] => remedy("", service),
        remedies => remedies.join("; "),
    };
    format!(
        "Service {service} has a selector again, written by {named}, so that some requests pass the activators by: {remedy}."
    )
}

fn remedy(manager: &str, service: &str) -> String {
    let is = |name: &str| manager.contains(name);
    if is("argocd") {
        format!(
            "in the Application, add to spec.ignoreDifferences {{kind: Service, name: {service}, jsonPointers: \
             [/spec/selector]}} and to spec.syncPolicy.syncOptions RespectIgnoreDifferences=true, then remove the selector"
        )
    } else if is("kustomize-controller") {
        format!(
            "in the Kustomization, add to spec.ignore {{paths: [/spec/selector], target: {{kind: Service, name: {service}}}}}, \
             then remove the selector"
        )
    } else if is("helm-controller") {
        format!(
            "in the HelmRelease, add to spec.driftDetection.ignore {{paths: [/spec/selector], target: {{kind: Service, name: \
             {service}}}}}, and take the selector out of the chart's Service"
        )
    } else if is("helm") {
        "take spec.selector out of the chart's Service, and upgrade the release".to_owned()
    } else if is("kubectl") {
        "take spec.selector out of the manifest that is applied, and apply it again".to_owned()
    } else {
        format!(
            "take spec.selector out of Service {service} where it is written, or set interception: AtZero"
        )
    }
}
