//! A pod that has not ended.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus};
use pilotlight_core::Time;
use pilotlight_kubernetes::trouble::{PodTrouble, trouble_of, waits_for};

use super::Name;

/// A pod that has not ended.
#[derive(Clone, Debug, PartialEq)]
pub struct PodFact {
    /// The UID.
    pub uid: String,
    /// The labels.
    pub labels: Arc<BTreeMap<String, String>>,
    /// The phase of its life.
    pub phase: PodPhase,
    /// The addresses, one of each family; none before it has started.
    pub ips: Vec<IpAddr>,
    /// The node that it runs on; empty: none yet.
    pub node: String,
    /// When it was started, or created.
    pub started: Time,
    /// Named TCP ports of its containers.
    pub named_ports: Arc<BTreeMap<String, u16>>,
    /// Whether only Kubernetes can say if it is ready: a container has a readiness or start-up probe, or the pod a
    /// readiness gate.
    pub is_probed: bool,
    /// Whether it has our queue-proxy.
    pub has_queue_proxy: bool,
    /// Whether it shares the network of its node.
    pub on_host_network: bool,
    /// The thing that it waits for, while it starts.
    pub waits_for: Option<String>,
    /// Why it does not come up.
    pub trouble: Option<Box<PodTrouble>>,
}

/// The phase of a pod's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodPhase {
    /// Not running yet.
    Pending,
    /// Running, and not ready.
    Starting,
    /// Ready for requests.
    Ready,
    /// Being deleted.
    Terminating,
}

impl PodFact {
    /// Reads one; `None`: it has ended.
    pub fn read(pod: &Pod) -> Option<(Name, PodFact)> {
        let (meta, status) = (&pod.metadata, pod.status.clone().unwrap_or_default());
        let mut conditions = status.conditions.iter().flatten();
        let is_ready = conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True");
        let phase = match status.phase.as_deref() {
            Some("Succeeded" | "Failed") => return None,
            _ if meta.deletion_timestamp.is_some() => PodPhase::Terminating,
            Some("Running") if is_ready => PodPhase::Ready,
            Some("Running") => PodPhase::Starting,
            _ => PodPhase::Pending,
        };
        let is_starting = matches!(phase, PodPhase::Pending | PodPhase::Starting);
        let spec = pod.spec.clone().unwrap_or_default();
        let started = status.start_time.as_ref().or(meta.creation_timestamp.as_ref());
        let since_1970 = |nanos| Time::from_nanos(u64::try_from(nanos).unwrap_or(0));
        let fact = PodFact {
            uid: meta.uid.clone().unwrap_or_default(),
            labels: Arc::new(meta.labels.clone().unwrap_or_default()),
            phase,
            ips: addresses(&status),
            node: spec.node_name.clone().unwrap_or_default(),
            started: started.map_or(Time::EPOCH, |time| since_1970(time.0.as_nanosecond())),
            named_ports: Arc::new(named_ports(&spec)),
            is_probed: is_probed(&spec),
            has_queue_proxy: containers(&spec).any(|container| container.name == QUEUE_PROXY),
            on_host_network: spec.host_network == Some(true),
            waits_for: is_starting.then(|| waits_for(&status)).flatten(),
            trouble: is_starting.then(|| trouble_of(&status)).flatten().map(Box::new),
        };
        Some((Name::of(meta)?, fact))
    }
}

/// Containers that run as long as the pod: sidecars are init containers that are always restarted.
fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    spec.containers.iter().chain(sidecars)
}

/// The list of addresses has the first one as well; an older API server knows that one alone.
fn addresses(status: &PodStatus) -> Vec<IpAddr> {
    let listed: Vec<IpAddr> = status.pod_ips.iter().flatten().filter_map(|ip| ip.ip.parse().ok()).collect();
    let only = || status.pod_ip.iter().filter_map(|ip| ip.parse().ok()).collect();
    if listed.is_empty() { only() } else { listed }
}

fn named_ports(spec: &PodSpec) -> BTreeMap<String, u16> {
    let mut named = BTreeMap::new();
    for port in containers(spec).flat_map(|container| container.ports.iter().flatten()) {
        let is_tcp = port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
        if let (Some(name), Ok(number), true) = (&port.name, u16::try_from(port.container_port), is_tcp) {
            // As in Kubernetes: the first one of a name counts.
            named.entry(name.clone()).or_insert(number);
        }
    }
    named
}

fn is_probed(spec: &PodSpec) -> bool {
    let is_probed =
        |container: &Container| container.readiness_probe.is_some() || container.startup_probe.is_some();
    containers(spec).any(is_probed) || spec.readiness_gates.iter().flatten().next().is_some()
}

/// The name of our sidecar's container.
pub const QUEUE_PROXY: &str = "pilotlight-queue-proxy";

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(meta: &Value, spec: &Value, status: &Value) -> Option<PodFact> {
        let mut object =
            json!({"metadata": {"namespace": "shop", "name": "web-1"}, "spec": spec, "status": status});
        object["metadata"].as_object_mut().unwrap().extend(meta.as_object().unwrap().clone());
        let (name, fact) = PodFact::read(&serde_json::from_value(object).unwrap())?;
        assert_eq!(name, Name::new("shop", "web-1"));
        Some(fact)
    }

    #[test]
    fn the_phase_is_that_of_the_pods_life() {
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let table = [
            (json!({}), json!({"phase": "Pending"}), Some(PodPhase::Pending)),
            (json!({}), json!({}), Some(PodPhase::Pending)),
            (json!({}), json!({"phase": "Running"}), Some(PodPhase::Starting)),
            (json!({}), json!({"phase": "Running", "conditions": ready}), Some(PodPhase::Ready)),
            (
                json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}),
                json!({"phase": "Running", "conditions": ready}),
                Some(PodPhase::Terminating),
            ),
            (json!({}), json!({"phase": "Succeeded"}), None),
            (json!({}), json!({"phase": "Failed"}), None),
        ];
        for (meta, status, expected) in table {
            let spec = json!({"containers": []});
            assert_eq!(read(&meta, &spec, &status).map(|fact| fact.phase), expected, "{status}");
        }
    }

    #[test]
    fn addresses_of_both_families_are_told_once() {
        let ips = |status: Value| read(&json!({}), &json!({"containers": []}), &status).unwrap().ips;
        let both = json!({"podIP": "10.0.0.7", "podIPs": [{"ip": "10.0.0.7"}, {"ip": "fd00::7"}]});
        assert_eq!(ips(both), ["10.0.0.7", "fd00::7"].map(|ip| ip.parse::<IpAddr>().unwrap()));
        assert_eq!(ips(json!({"podIP": "10.0.0.7"})), ["10.0.0.7".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn ports_are_named_by_containers_and_sidecars_over_tcp() {
        let spec = json!({
            "initContainers": [
                {"name": "init", "ports": [{"name": "no", "containerPort": 1}]},
                {"name": "side", "restartPolicy": "Always", "ports": [{"name": "metrics", "containerPort": 9090}]}],
            "containers": [
                {"name": "a", "ports": [{"name": "http", "containerPort": 8080}, {"containerPort": 2},
                    {"name": "dns", "containerPort": 53, "protocol": "UDP"}]},
                {"name": QUEUE_PROXY, "ports": [{"name": "http", "containerPort": 8012}]}]});
        let fact = read(&json!({}), &spec, &json!({})).unwrap();
        let expected = BTreeMap::from([("http".to_owned(), 8080), ("metrics".to_owned(), 9090)]);
        assert_eq!(*fact.named_ports, expected);
        assert!(fact.has_queue_proxy && !fact.is_probed);
    }

    #[test]
    fn readiness_is_kubernetes_word_where_anything_is_probed() {
        let is_probed = |spec: Value| read(&json!({}), &spec, &json!({})).unwrap().is_probed;
        let probe = json!({"tcpSocket": {"port": 1}});
        assert!(!is_probed(json!({"containers": [{"name": "a", "livenessProbe": probe}]})));
        assert!(is_probed(json!({"containers": [{"name": "a"}, {"name": "b", "readinessProbe": probe}]})));
        assert!(is_probed(json!({"containers": [{"name": "a", "startupProbe": probe}]})));
        assert!(is_probed(json!({"containers": [], "readinessGates": [{"conditionType": "x"}]})));
    }
}
