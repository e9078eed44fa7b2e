//! The pods of a workload as the activator is told them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use pilotlight_core::{PodEndpoint, PodProbe, PodSharing, PodTimeline, RevisionEndpoints, Trouble};

use super::rules::Rules;
use crate::Workload;
use crate::facts::{PodFact, PodPhase};

/// The pods of a workload, and how requests get to them. `activators` are those that share the pods, `own` is the address
/// of this one: a pod that has addresses of both families is reached by one of the same family.
///
/// A pod that no Service leads to gets no requests. Neither does one that is about to go: it is being deleted, or the
/// controller has chosen it. A pod that nobody probes is ready for Kubernetes as soon as it runs; the activator finds out
/// by connecting.
pub(super) fn endpoints(
    workload: &Workload,
    rules: &Rules,
    activators: &BTreeSet<IpAddr>,
    own: IpAddr,
) -> RevisionEndpoints {
    let leaving = &workload.autoscaler.status.leaving;
    let mut known = PortsInUse::default();
    let (mut ready, mut not_ready) = (Vec::new(), Vec::new());
    for (name, fact) in workload.pods.iter().filter(|(name, _)| !leaving.contains(name)) {
        let into = match fact.phase {
            PodPhase::Ready => &mut ready,
            PodPhase::Starting if !fact.is_probed => &mut not_ready,
            PodPhase::Starting | PodPhase::Pending | PodPhase::Terminating => continue,
        };
        let ports = workload.pod_ports(fact);
        // Without any port the activator would take one address for all of them.
        let (Some(ip), Some(port)) = (address(fact, own), ports.values().next().copied()) else { continue };
        into.push(PodEndpoint {
            name: name.clone(),
            address: SocketAddr::new(ip, port),
            tls_address: None,
            ports: known.shared(ports),
            timeline: PodTimeline::default(),
        });
    }
    let starting = workload.pods.values().filter(|pod| is_starting(pod)).count();
    RevisionEndpoints {
        container_concurrency: rules.limit,
        timeouts: rules.timeouts,
        ready,
        not_ready,
        starting: u32::try_from(starting).unwrap_or(u32::MAX),
        trouble: trouble(workload),
        trust_probes: true,
        probe: PodProbe::Connect,
        // Each pod belongs to one activator, so that its limit holds.
        sharing: PodSharing::Owned,
        // Without a limit each activator uses all pods, and which others there are is of no use.
        activators: if rules.limit.get().is_some() { activators.clone() } else { BTreeSet::new() },
        ..RevisionEndpoints::default()
    }
}

/// Whether any pod is there or on its way up: nobody has to wake the workload.
pub(super) fn is_awake(workload: &Workload) -> bool {
    workload.pods.values().any(|pod| pod.phase != PodPhase::Terminating)
}

fn is_starting(pod: &PodFact) -> bool {
    matches!(pod.phase, PodPhase::Pending | PodPhase::Starting)
}

fn address(pod: &PodFact, own: IpAddr) -> Option<IpAddr> {
    let alike = pod.ips.iter().find(|ip| ip.is_ipv6() == own.is_ipv6());
    alike.or(pod.ips.first()).copied()
}

/// The trouble of a pod that does not come up, as long as none is ready. Requests are held all the same: Kubernetes tries
/// again by itself.
fn trouble(workload: &Workload) -> Option<Trouble> {
    if workload.pods.values().any(|pod| pod.phase == PodPhase::Ready) {
        return None;
    }
    workload.pods.iter().find_map(|(name, pod)| Some(pod.trouble.as_ref()?.told(name)))
}

/// Ports of pods that were listed before: as a rule all pods of a workload have the same.
#[derive(Default)]
struct PortsInUse(Vec<Arc<BTreeMap<String, u16>>>);

impl PortsInUse {
    fn shared(&mut self, ports: BTreeMap<String, u16>) -> Arc<BTreeMap<String, u16>> {
        if let Some(known) = self.0.iter().find(|known| ***known == ports) {
            return Arc::clone(known);
        }
        let ports = Arc::new(ports);
        self.0.push(Arc::clone(&ports));
        ports
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::data::pretend::{autoscaler, pod, service, workload};

    fn shown(pods: &[PodEndpoint]) -> Vec<String> {
        pods.iter().map(|pod| format!("{} {} {:?}", pod.name, pod.address, pod.ports)).collect()
    }

    fn told(pods: &[(&str, Value)], status: &Value) -> RevisionEndpoints {
        let spec = json!({"scaleTargetRef": {"name": "web"}, "timeoutSeconds": 7});
        let mut facts = vec![
            autoscaler("web", &spec, status),
            service(
                "web",
                &json!({"app": "web"}),
                &json!([{"name": "http", "port": 80, "targetPort": 8080}]),
            ),
        ];
        facts.extend(pods.iter().map(|(name, status)| pod(name, &json!({"app": "web"}), &json!({}), status)));
        let workload = workload(facts, "web");
        let own = "10.0.0.1".parse().unwrap();
        endpoints(&workload, &Rules::default(), &BTreeSet::new(), own)
    }

    fn running(ip: &str, is_ready: bool) -> Value {
        let ready = if is_ready { "True" } else { "False" };
        json!({"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": ready}]})
    }

    #[test]
    fn pods_are_listed_by_what_kubernetes_says_of_them() {
        let status = json!({"selector": "app=web", "leaving": ["d"]});
        let told = told(
            &[
                ("a", running("10.1.0.1", true)),
                ("b", running("10.1.0.2", false)),
                ("c", json!({"phase": "Pending"})),
                ("d", running("10.1.0.4", true)),
                ("e", running("", true)),
            ],
            &status,
        );
        assert_eq!(shown(&told.ready), [r#"a 10.1.0.1:8080 {"web/http": 8080}"#]);
        assert_eq!(shown(&told.not_ready), [r#"b 10.1.0.2:8080 {"web/http": 8080}"#]);
        assert_eq!((told.starting, told.probe, told.trust_probes), (2, PodProbe::Connect, true));
        assert!(Arc::ptr_eq(&told.ready[0].ports, &told.not_ready[0].ports), "equal ports are kept once");
        assert_eq!(told.activators, BTreeSet::new());
    }

    #[test]
    fn a_pod_that_is_probed_is_used_once_it_is_ready_and_one_that_goes_is_not() {
        let probed = json!({"containers": [{"name": "app", "readinessProbe": {"tcpSocket": {"port": 1}}}]});
        let facts = |status: &Value, meta: &Value| {
            let mut pod = pod("a", &json!({"app": "web"}), &probed, status);
            if meta["gone"] == true {
                pod = crate::data::pretend::terminating(pod);
            }
            vec![
                autoscaler(
                    "web",
                    &json!({"scaleTargetRef": {"name": "web"}}),
                    &json!({"selector": "app=web"}),
                ),
                service("web", &json!({"app": "web"}), &json!([{"port": 80}])),
                pod,
            ]
        };
        let count = |status: &Value, meta: &Value| {
            let workload = workload(facts(status, meta), "web");
            let told = endpoints(&workload, &Rules::default(), &BTreeSet::new(), "10.0.0.1".parse().unwrap());
            (told.ready.len(), told.not_ready.len(), told.starting, is_awake(&workload))
        };
        assert_eq!(count(&running("10.1.0.1", false), &json!({})), (0, 0, 1, true));
        assert_eq!(count(&running("10.1.0.1", true), &json!({})), (1, 0, 0, true));
        assert_eq!(count(&running("10.1.0.1", true), &json!({"gone": true})), (0, 0, 0, false));
    }

    #[test]
    fn a_pod_that_no_service_leads_to_gets_nothing() {
        let facts = vec![
            autoscaler("web", &json!({"scaleTargetRef": {"name": "web"}}), &json!({"selector": "app=web"})),
            service("web", &json!({"app": "web", "track": "stable"}), &json!([{"port": 80}])),
            pod("a", &json!({"app": "web", "track": "canary"}), &json!({}), &running("10.1.0.1", true)),
            pod("b", &json!({"app": "web", "track": "stable"}), &json!({}), &running("10.1.0.2", true)),
        ];
        let told = endpoints(
            &workload(facts, "web"),
            &Rules::default(),
            &BTreeSet::new(),
            "10.0.0.1".parse().unwrap(),
        );
        assert_eq!(shown(&told.ready), [r#"b 10.1.0.2:80 {"web/": 80}"#]);
    }

    #[test]
    fn addresses_are_of_this_activators_family_where_pods_have_both() {
        let status = json!({"phase": "Running", "podIP": "10.1.0.1",
            "podIPs": [{"ip": "10.1.0.1"}, {"ip": "fd00::1"}], "conditions": [{"type": "Ready", "status": "True"}]});
        let facts = vec![
            autoscaler("web", &json!({"scaleTargetRef": {"name": "web"}}), &json!({"selector": "app=web"})),
            service("web", &json!({"app": "web"}), &json!([{"port": 80}])),
            pod("a", &json!({"app": "web"}), &json!({}), &status),
            pod("b", &json!({"app": "web"}), &json!({}), &running("10.1.0.2", true)),
        ];
        let workload = workload(facts, "web");
        let addresses = |own: &str| {
            let told = endpoints(&workload, &Rules::default(), &BTreeSet::new(), own.parse().unwrap());
            told.ready.iter().map(|pod| pod.address.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(addresses("10.0.0.1"), ["10.1.0.1:80", "10.1.0.2:80"]);
        assert_eq!(addresses("fd00::9"), ["[fd00::1]:80", "10.1.0.2:80"]);
    }

    #[test]
    fn with_a_limit_the_activators_share_the_pods() {
        let facts = vec![
            autoscaler("web", &json!({"scaleTargetRef": {"name": "web"}}), &json!({})),
            service("web", &json!({"app": "web"}), &json!([])),
        ];
        let activators = BTreeSet::from(["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()]);
        let rules = Rules { limit: 3.into(), ..Rules::default() };
        let told = endpoints(&workload(facts, "web"), &rules, &activators, "10.0.0.1".parse().unwrap());
        assert_eq!((told.container_concurrency, told.activators), (3.into(), activators));
        assert_eq!(told.sharing, PodSharing::Owned);
    }

    #[test]
    fn trouble_is_told_until_a_pod_is_ready() {
        let crashing = json!({"phase": "Running", "podIP": "10.1.0.1", "containerStatuses": [
            {"name": "app", "ready": false, "restartCount": 2, "image": "", "imageID": "",
             "state": {"terminated": {"exitCode": 3, "message": "no database"}}}]});
        let status = json!({"selector": "app=web"});
        let trouble = told(&[("a", crashing.clone())], &status).trouble.expect("it crashes");
        assert!(trouble.message.starts_with("pod a: CrashLoopBackOff"), "{}", trouble.message);
        assert!(!trouble.give_up);
        let beside = told(&[("a", crashing), ("b", running("10.1.0.2", true))], &status);
        assert_eq!(beside.trouble, None);
    }
}
