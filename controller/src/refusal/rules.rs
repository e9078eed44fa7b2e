//! The rules by which a workload is refused, and the way that is left.

use std::collections::BTreeMap;

use super::{AtZeroSignal, DataPlane, HpaFact, Progressive, Refusal, Surroundings, Way};
use crate::Workload;
use crate::crd::Interception;
use crate::facts::{Locality, ServiceFact, TargetPort};
use crate::selector::Selector;

/// The way of a workload, or everything that stands in it.
pub(super) fn judge(workload: &Workload, around: &Surroundings) -> Result<Way, Vec<Refusal>> {
    let case = Case { workload, around };
    let mut refusals = case.rivals();
    refusals.extend(case.services());
    refusals.extend(case.pods());
    refusals.extend(case.autoscalers());
    refusals.extend(case.network());
    refusals.extend(case.quotas());
    let way = match case.way() {
        Ok(way) => {
            refusals.extend(case.of_way(way));
            way
        }
        Err(refusal) => {
            refusals.push(refusal);
            return Err(refusals);
        }
    };
    if refusals.is_empty() { Ok(way) } else { Err(refusals) }
}

/// A workload and its surroundings.
pub(super) struct Case<'a> {
    pub(super) workload: &'a Workload,
    pub(super) around: &'a Surroundings,
}

impl Case<'_> {
    fn way(&self) -> Result<Way, Refusal> {
        let services = || self.workload.services.values();
        let with_selector = services().filter(|service| !service.selector.is_empty()).count();
        if with_selector == 0 {
            return match self.workload.autoscaler.spec.interception {
                Interception::AtZero => Err(refuse(
                    "SelectorMissing",
                    "interception: AtZero needs a Service with a selector, which leads to the pods while there are any. Put \
                     the selector back, or write `interception: Always`.",
                )),
                Interception::Auto | Interception::Always => Ok(Way::Always),
            };
        }
        if with_selector < services().count() {
            let (mut with, mut without): (Vec<_>, Vec<_>) =
                self.workload.services.iter().partition(|(_, service)| !service.selector.is_empty());
            return Err(refuse(
                "MixedServices",
                format!(
                    "Service {} has a selector and Service {} has none: requests would be seen in part. Take the selector \
                     of both away, or put it back on both.",
                    with.remove(0).0,
                    without.remove(0).0
                ),
            ));
        }
        // With interception Always a selector that is there, or back, makes the rules of AtZero hold until it is gone.
        Ok(match () {
            () if !self.autoscalers_of_target().is_empty() => Way::AtZero(AtZeroSignal::Autoscaler),
            () if self.has_queue_proxies() => Way::AtZero(AtZeroSignal::QueueProxy),
            () if self.workload.autoscaler.spec.interception == Interception::AtZero => {
                Way::AtZero(AtZeroSignal::Cpu)
            }
            () => Way::WakeOnly,
        })
    }

    /// Refusals of this way and of no other.
    fn of_way(&self, way: Way) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        let limit = self.workload.autoscaler.spec.container_concurrency.unwrap_or(0);
        if way == Way::Always || self.workload.autoscaler.spec.interception == Interception::Always {
            for (name, service) in &self.workload.services {
                if let Some(owner) = &service.owner {
                    let message = format!(
                        "Service {name} belongs to {} {}, which would put its selector back. Use a Service of your own.",
                        owner.kind, owner.name
                    );
                    refusals.push(refuse("OwnedService", message));
                }
            }
        }
        if way == Way::Always
            && let Some(name) = self.autoscalers_of_target().keys().next()
        {
            let message = format!(
                "HorizontalPodAutoscaler {name} scales the same target, and all requests pass the activators: two would \
                     set the number of pods. Delete it, or give the Service its selector back."
            );
            refusals.push(refuse("TwoAutoscalers", message));
        }
        if way != Way::Always && limit > 0 && !self.has_queue_proxies() {
            let message = format!(
                "containerConcurrency {limit} cannot be held while requests go straight to the pods. Take the Service's \
                 selector away, or add the queue-proxy to every pod (pilotlight kube inject)."
            );
            refusals.push(refuse("LimitNotEnforced", message));
        }
        if way == Way::AtZero(AtZeroSignal::Cpu) && !self.around.cluster.has_pod_metrics() {
            refusals.push(refuse(
                "NoPodMetrics",
                "interception: AtZero needs the pods' CPU, and the cluster has no metrics.k8s.io. Install metrics-server, \
                 take the Service's selector away, or add the queue-proxy (pilotlight kube inject).",
            ));
        }
        if way != Way::Always && self.around.cluster.has(DataPlane::OvnKubernetes) {
            refusals.push(refuse(
                "OvnKubernetes",
                "OVN-Kubernetes knows one target port for each port of a Service, and sends requests to the wrong one while \
                 activators stand beside pods. Take the Service's selector away (pilotlight kube enable --exact).",
            ));
        }
        refusals
    }

    /// Two RequestAutoscalers for one target or one Service: the older wins.
    fn rivals(&self) -> Vec<Refusal> {
        let own = (self.workload.autoscaler.created, &self.workload.id.name);
        let older = self.around.rivals.iter().filter(|rival| (rival.created, &rival.name) < own);
        let refusal = |rival: &super::Rival| {
            let name = &rival.name;
            match rival.services.iter().next() {
                _ if rival.wants_target => {
                    let target = &self.workload.autoscaler.spec.scale_target_ref;
                    let (kind, object) = (&target.kind, &target.name);
                    let message = format!(
                        "RequestAutoscaler {name} is older and scales {kind} {object} already. Delete one of the two."
                    );
                    Some(refuse("TargetTaken", message))
                }
                Some(service) => {
                    let message = format!(
                        "RequestAutoscaler {name} is older and has Service {service} already. Name other Services in \
                         `services`, or delete one of the two."
                    );
                    Some(refuse("ServiceTaken", message))
                }
                None => None,
            }
        };
        older.filter_map(refusal).collect()
    }

    fn services(&self) -> Vec<Refusal> {
        let workload = self.workload;
        let missing = workload.autoscaler.spec.services.iter();
        let missing = missing.filter(|service| !workload.services.contains_key(&service.name));
        let mut refusals: Vec<_> = missing
            .map(|service| {
                let message =
                    format!("Service {} is not there. Create it, or correct `services`.", service.name);
                refuse("NoService", message)
            })
            .collect();
        if workload.services.is_empty() && refusals.is_empty() {
            refusals.push(refuse(
                "NoService",
                "No Service with an address of its own selects the target's pods. Create one, or name it in `services`.",
            ));
        }
        for (name, service) in &workload.services {
            refusals.extend(of_service(name, service));
        }
        refusals
    }

    fn pods(&self) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        for (service, pods) in &self.around.strangers {
            let Some(pod) = pods.first() else { continue };
            let message = format!(
                "Service {service} selects pods that are not the target's as well, such as {pod}: their requests would go \
                 to the target's pods. Make its selector narrower, or give the target a Service of its own."
            );
            refusals.push(refuse("SharedService", message));
        }
        let progressive = self.around.target.as_ref().and_then(|target| target.progressive);
        let target = &self.workload.autoscaler.spec.scale_target_ref;
        let canary = self.around.namespace.canaries.iter().find(|(_, of)| is_same(of, target));
        let shifting = match (progressive, canary) {
            (_, Some((canary, _))) => {
                Some(format!("Flagger's Canary {canary} moves traffic between its versions"))
            }
            (Some(Progressive::Flagger), None) => {
                Some("Flagger moves traffic between its versions".to_owned())
            }
            (Some(Progressive::BlueGreen), None) => {
                Some("the Rollout's strategy blueGreen changes the Service's selector".to_owned())
            }
            (Some(Progressive::TrafficRouting), None) => {
                Some("the Rollout's trafficRouting moves traffic between its versions".to_owned())
            }
            (None, None) => None,
        };
        if let Some(shifting) = shifting {
            let message = format!(
                "{} {}: {shifting}. Let the tool that does it scale the target, or take the target out of it.",
                target.kind, target.name
            );
            refusals.push(refuse("SharedService", message));
        }
        let in_template = self.around.target.as_ref().is_some_and(|target| target.on_host_network);
        if in_template || self.workload.pods.values().any(|pod| pod.on_host_network) {
            refusals.push(refuse(
                "HostNetwork",
                "The target's pods share the network of their nodes (hostNetwork), so that two on one node cannot both \
                 listen. Remove hostNetwork.",
            ));
        }
        refusals
    }

    fn autoscalers(&self) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        let target = &self.workload.autoscaler.spec.scale_target_ref;
        let scaled_objects = &self.around.namespace.scaled_objects;
        for (name, object) in scaled_objects.iter().filter(|(_, object)| is_same(&object.target, target)) {
            if !object.is_paused {
                let message = format!(
                    "ScaledObject {name} scales the same target, and goes to zero by itself. Pause it (annotation \
                     autoscaling.keda.sh/paused: \"true\"), or delete it."
                );
                refusals.push(refuse("ScaledObject", message));
            }
        }
        let own = self.autoscalers_of_target();
        for (name, _) in own.iter().filter(|(_, hpa)| hpa.min_replicas == 0) {
            let message = format!(
                "HorizontalPodAutoscaler {name} has minReplicas 0, and goes to zero by itself. Set its minReplicas to 1 or \
                 more, or delete it."
            );
            refusals.push(refuse("AutoscalerToZero", message));
        }
        let mut names = own.keys();
        if let (Some(one), Some(other)) = (names.next(), names.next()) {
            let message = format!(
                "HorizontalPodAutoscalers {one} and {other} scale the same target. Delete all but one of them."
            );
            refusals.push(refuse("TwoAutoscalers", message));
        }
        refusals
    }

    fn network(&self) -> Vec<Refusal> {
        let (cluster, namespace) = (&self.around.cluster, &self.around.namespace);
        let mut refusals = Vec::new();
        if !self.workload.autoscaler.spec.trust_activators
            && let Some((policy, _)) =
                namespace.policies.iter().find(|(_, policy)| self.is_about(policy.pods.as_ref()))
        {
            let message = format!(
                "NetworkPolicy {policy} says who may reach the target's pods, and whoever reaches the activators would reach \
                 them as well. Write `trustActivators: true` if that is meant."
            );
            refusals.push(refuse("PolicyBypassed", message));
        }
        let strict = || {
            let own = namespace.strict_mtls.iter().find(|(_, pods)| self.is_about(pods.as_ref()));
            let own = own.map(|(name, _)| format!("PeerAuthentication {name}"));
            let mesh = || cluster.strict_mtls.as_ref().map(|name| format!("PeerAuthentication {name}"));
            let linkerd = || {
                namespace.annotations.get(LINKERD_INBOUND).filter(|policy| policy.contains("authenticated"))
            };
            own.or_else(mesh).or_else(|| linkerd().map(|policy| format!("{LINKERD_INBOUND}: {policy}")))
        };
        if !cluster.activators_in_mesh
            && let Some(strict) = strict()
        {
            let message = format!(
                "{strict} lets only members of the mesh reach the pods, and the activators are none. Add the namespace {} \
                 to the mesh and restart Deployment pilotlight-activator, or make it permissive.",
                cluster.system_namespace
            );
            refusals.push(refuse("StrictMtls", message));
        }
        for (name, service) in &self.workload.services {
            refusals.extend(self.data_planes(name, service));
        }
        refusals
    }

    /// Data planes that would lead traffic past the activators, or to a wrong port.
    fn data_planes(&self, name: &str, service: &ServiceFact) -> Vec<Refusal> {
        let (cluster, mut refusals) = (&self.around.cluster, Vec::new());
        let numeric = service.ports.iter().find_map(|port| match &port.target {
            TargetPort::Number(number) if port.transport == "TCP" => Some(*number),
            _ => None,
        });
        if let Some(port) = numeric.filter(|_| cluster.has(DataPlane::Linkerd)) {
            let message = format!(
                "Linkerd's clients dial targetPort {port} of Service {name} at every endpoint, and activators listen on \
                 another. Name the container's port, and write the name as targetPort."
            );
            refusals.push(refuse("Linkerd", message));
        }
        let Some(around) = self.around.namespace.services.get(name) else { return refusals };
        if let Some(port) = numeric.filter(|_| around.has_neg) {
            let message = format!(
                "Google's load balancer takes endpoints of Service {name} by targetPort {port}, and activators listen on \
                 another. Name the container's port, and write the name as targetPort."
            );
            refusals.push(refuse("NetworkEndpointGroup", message));
        }
        if let Some(binding) = around.target_groups.first() {
            let message = format!(
                "TargetGroupBinding {binding} has target type ip, and registers no endpoints but pods. Set the target type \
                 of Service {name} to instance."
            );
            refusals.push(refuse("TargetGroupBinding", message));
        }
        for (ingress, around) in &around.ingresses {
            let class = around.class.as_ref().or(cluster.default_ingress_class.as_ref());
            let controller = class.and_then(|class| cluster.ingress_classes.get(class));
            if controller.is_some_and(|controller| controller == NGINX_INC) && !around.uses_cluster_ip {
                let message = format!(
                    "Ingress {ingress}: NGINX Inc's controller sends to endpoints on the pods' port. Annotate the Ingress \
                     with nginx.org/use-cluster-ip: \"true\"."
                );
                refusals.push(refuse("NginxIngress", message));
            }
        }
        refusals
    }

    fn quotas(&self) -> Vec<Refusal> {
        // Kubernetes' slices and ours, of each family of each Service.
        let families = |service: &ServiceFact| service.cluster_ips.len().max(1) as u64;
        let needed: u64 = self.workload.services.values().map(|service| 2 * families(service)).sum();
        let quotas = self.around.namespace.quotas.iter();
        let short = quotas.filter_map(|(name, quota)| Some((name, *quota.hard.get(SLICES)?)));
        let short = short.filter(|(_, hard)| *hard < needed);
        short
            .map(|(name, hard)| {
                let message = format!(
                    "ResourceQuota {name} allows {hard} EndpointSlices, and {needed} are needed for this workload alone. \
                     Raise {SLICES}."
                );
                refuse("QuotaExceeded", message)
            })
            .collect()
    }

    /// HorizontalPodAutoscalers of the target, by name.
    pub(super) fn autoscalers_of_target(&self) -> BTreeMap<&String, &HpaFact> {
        let target = &self.workload.autoscaler.spec.scale_target_ref;
        let all = self.around.namespace.autoscalers.iter();
        all.filter(|(_, hpa)| is_same(&hpa.target, target)).collect()
    }

    /// Whether a selector is about the target's pods: those there are, or those to come. `None` selects all.
    pub(super) fn is_about(&self, pods: Option<&Selector>) -> bool {
        let Some(selector) = pods else { return true };
        let to_come = self.around.target.iter().map(|target| &target.pod_labels);
        let there = self.workload.pods.values().map(|pod| &*pod.labels);
        there.chain(to_come).any(|labels| selector.selects(labels))
    }

    /// Whether every pod has our queue-proxy, those to come as well.
    fn has_queue_proxies(&self) -> bool {
        let to_come = self.around.target.as_ref().map(|target| target.has_queue_proxy);
        let mut there = self.workload.pods.values().map(|pod| pod.has_queue_proxy);
        match to_come {
            Some(to_come) => to_come && there.all(|has| has),
            None => !self.workload.pods.is_empty() && there.all(|has| has),
        }
    }
}

fn of_service(name: &str, service: &ServiceFact) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let mut add = |is: bool, reason, message: String| {
        if is {
            refusals.push(refuse(reason, message));
        }
    };
    add(
        service.is_external_name,
        "ExternalName",
        format!("Service {name} is only another name (ExternalName). Name the Service that it stands for."),
    );
    add(
        service.is_headless(),
        "Headless",
        format!(
            "Service {name} is headless: clients resolve the pods' own addresses, and never meet an activator. Name a \
             Service with a cluster IP in `services`."
        ),
    );
    for port in service.ports.iter().filter(|port| port.transport != "TCP") {
        let (number, transport) = (port.port, &port.transport);
        let message = format!(
            "Service {name} has port {number} of {transport}, and activators take TCP alone. Move it to a Service of its \
             own that is not named in `services`."
        );
        add(true, "NotTcp", message);
    }
    for (field, locality) in [
        ("externalTrafficPolicy", service.external_traffic),
        ("internalTrafficPolicy", service.internal_traffic),
    ] {
        let message = format!(
            "Service {name} has {field}: Local, and nodes without an activator would drop its traffic. Set it to Cluster."
        );
        add(locality == Locality::Local, "TrafficPolicyLocal", message);
    }
    add(
        service.publishes_not_ready,
        "PublishesNotReady",
        format!(
            "Service {name} has publishNotReadyAddresses, so requests meet pods that are still starting instead of \
             activators. Remove it."
        ),
    );
    refusals
}

pub(super) fn is_same(one: &crate::crd::ScaleTargetRef, other: &crate::crd::ScaleTargetRef) -> bool {
    // Versions of a group name the same objects.
    let group = |version: &str| version.split_once('/').map_or(String::new(), |(group, _)| group.to_owned());
    one.kind == other.kind && one.name == other.name && group(&one.api_version) == group(&other.api_version)
}

fn refuse(reason: &'static str, message: impl Into<String>) -> Refusal {
    Refusal { reason, message: message.into() }
}

/// The annotation of a namespace that says whom Linkerd's proxies let in.
const LINKERD_INBOUND: &str = "config.linkerd.io/default-inbound-policy";
/// The resource that a quota counts EndpointSlices by.
const SLICES: &str = "count/endpointslices.discovery.k8s.io";
/// The controller of NGINX Inc's IngressClass.
const NGINX_INC: &str = "nginx.org/ingress-controller";

#[cfg(test)]
mod tests;
