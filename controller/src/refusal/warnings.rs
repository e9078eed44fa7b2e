//! Settings and surroundings that work, and may not be meant.

use super::rules::Case;
use super::{Surroundings, Warning};
use crate::Workload;
use crate::crd::Interception;

/// Warnings about a workload.
pub(super) fn of(workload: &Workload, around: &Surroundings) -> Vec<Warning> {
    let case = Case { workload, around };
    let mut warnings = Vec::new();
    of_services(&case, &mut warnings);
    of_namespace(&case, &mut warnings);
    of_target(&case, &mut warnings);
    warnings
}

fn of_services(case: &Case<'_>, warnings: &mut Vec<Warning>) {
    for (name, service) in &case.workload.services {
        if service.has_session_affinity {
            warn(
                warnings,
                "SessionAffinity",
                format!(
                    "Service {name} keeps a client at one endpoint (sessionAffinity), which is an activator: it spreads \
                     requests over all pods."
                ),
            );
        }
        let spec = &case.workload.autoscaler.spec;
        let is_back = spec.interception == Interception::Always || service.kept_selector.is_some();
        if is_back && !service.selector.is_empty() {
            let managers = match service.selector_managers.as_slice() {
                [] => "somebody".to_owned(),
                managers => managers.join(" and "),
            };
            warn(
                warnings,
                "SelectorPresent",
                format!(
                    "Service {name} has a selector, set by {managers}, so only a part of its requests is seen; until it is \
                     gone the rules of AtZero hold. Remove it where the Service is written down{}",
                    remedy(&service.selector_managers, "/spec/selector")
                ),
            );
        }
        let Some(around) = case.around.namespace.services.get(name) else { continue };
        let cluster = &case.around.cluster;
        for (ingress, around) in &around.ingresses {
            let class = around.class.as_ref().or(cluster.default_ingress_class.as_ref());
            let controller = class.and_then(|class| cluster.ingress_classes.get(class));
            if !controller.is_some_and(|controller| KNOWN_INGRESS_CONTROLLERS.contains(&controller.as_str()))
            {
                let class = class.map_or("no class".to_owned(), |class| format!("class {class}"));
                warn(
                    warnings,
                    "UnknownIngress",
                    format!(
                        "Ingress {ingress} has {class}, of which it is not known whether it follows EndpointSlices with \
                         ports of their own. Try it before it is relied upon."
                    ),
                );
            }
        }
    }
}

fn of_namespace(case: &Case<'_>, warnings: &mut Vec<Warning>) {
    let (namespace, spec) = (&case.around.namespace, &case.workload.autoscaler.spec);
    if spec.min_replicas.is_none_or(|min| min <= 1) {
        for (name, budget) in &namespace.budgets {
            if !budget.allows_one_of_one && case.is_about(budget.pods.as_ref()) {
                warn(
                    warnings,
                    "BudgetBlocksDrain",
                    format!(
                        "PodDisruptionBudget {name} lets nobody evict the only pod, so a node that has it cannot be \
                         drained. Allow one (maxUnavailable: 1), or set minReplicas to 2."
                    ),
                );
            }
        }
    }
    let max = spec.max_replicas.filter(|max| *max > 0);
    for (name, quota) in &namespace.quotas {
        let pods = ["pods", "count/pods"].iter().filter_map(|resource| quota.hard.get(*resource)).min();
        if let (Some(hard), Some(max)) = (pods, max)
            && *hard < u64::from(max)
        {
            warn(
                warnings,
                "QuotaBelowMax",
                format!(
                    "ResourceQuota {name} allows {hard} pods, fewer than the maxReplicas of {max}. Raise the one or lower \
                     the other."
                ),
            );
        }
    }
    let is_restricted = || namespace.policies.iter().find(|(_, policy)| case.is_about(policy.pods.as_ref()));
    if spec.trust_activators
        && let Some((policy, _)) = is_restricted()
    {
        warn(
            warnings,
            "PolicyMustAdmit",
            format!(
                "NetworkPolicy {policy} must admit the activators: pods with the label app.kubernetes.io/component: activator \
                 of the namespace {}.",
                case.around.cluster.system_namespace
            ),
        );
    }
    if !namespace.unreadable.is_empty() {
        let resources: Vec<&str> = namespace.unreadable.iter().map(String::as_str).collect();
        warn(
            warnings,
            "MissingRights",
            format!(
                "Nothing is known of {}: reading them is forbidden here. Grant get and list on them.",
                resources.join(", ")
            ),
        );
    }
    if case.around.cluster.has_windows_nodes {
        warn(
            warnings,
            "WindowsNodes",
            "The cluster has Windows nodes. Clients on them do not follow slices with ports of their own, and must not use \
             this Service."
                .to_owned(),
        );
    }
}

fn of_target(case: &Case<'_>, warnings: &mut Vec<Warning>) {
    let Some(target) = &case.around.target else { return };
    if target.replicas_managers.is_empty() {
        return;
    }
    let of = &case.workload.autoscaler.spec.scale_target_ref;
    warn(
        warnings,
        "ReplicasInGit",
        format!(
            "{} {}: {} writes spec.replicas whenever it applies the object, and undoes what is scaled. Remove replicas \
             where the object is written down{}",
            of.kind,
            of.name,
            target.replicas_managers.join(" and "),
            remedy(&target.replicas_managers, "/spec/replicas")
        ),
    );
}

/// The line that has a tool leave a field alone, after `Remove it where it is written down`.
fn remedy(managers: &[String], path: &str) -> String {
    let is = |part: &str| managers.iter().any(|manager| manager.contains(part));
    if is("argocd") {
        format!(
            ", or have Argo CD leave it alone (ignoreDifferences: [{{jsonPointers: [{path}]}}] with the sync option \
             RespectIgnoreDifferences=true)."
        )
    } else if is("kustomize-controller") || is("helm-controller") || is("flux") {
        format!(", or have Flux leave it alone (spec.ignore rule for {path}).")
    } else if is("helm") {
        ", in the chart's template or values.".to_owned()
    } else {
        ".".to_owned()
    }
}

fn warn(warnings: &mut Vec<Warning>, reason: &'static str, message: String) {
    warnings.push(Warning { reason, message });
}

/// Controllers of IngressClasses that follow EndpointSlices, ports and conditions, or send to the Service's address.
const KNOWN_INGRESS_CONTROLLERS: [&str; 8] = [
    "gateway.envoyproxy.io/gatewayclass-controller",
    "ingress.k8s.aws/alb",
    "istio.io/ingress-controller",
    "k8s.io/ingress-gce",
    "k8s.io/ingress-nginx",
    "nginx.org/ingress-controller",
    "openshift.io/ingress-to-route",
    "traefik.io/ingress-controller",
];
