use std::sync::Arc;

use pilotlight_core::RevisionId;
use serde_json::{Value, json};

use super::super::{
    BudgetFact, ClusterFacts, IngressAround, NamespaceFacts, PolicyFact, QuotaFact, Rival, ScaledObjectFact,
    ServiceAround, TargetFact, warnings, way,
};
use super::*;
use crate::crd::ScaleTargetRef;
use crate::facts::{AutoscalerFact, OwnerFact, PodFact, ServicePort};

/// A workload that is served at zero by its HorizontalPodAutoscaler, and what is around it. Each row of a table changes one
/// thing.
#[derive(Clone)]
struct Row {
    spec: Value,
    service: ServiceFact,
    target: TargetFact,
    namespace: NamespaceFacts,
    cluster: ClusterFacts,
    strangers: BTreeMap<String, std::collections::BTreeSet<String>>,
    rivals: Vec<Rival>,
    pods: Vec<PodFact>,
}

impl Default for Row {
    fn default() -> Self {
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        Row {
            spec: json!({"scaleTargetRef": {"name": "web"}, "minReplicas": 0}),
            service: service(),
            target: TargetFact { pod_labels: labels, ..TargetFact::default() },
            namespace: NamespaceFacts::default(),
            cluster: ClusterFacts {
                system_namespace: "pilotlight-system".to_owned(),
                ..ClusterFacts::default()
            },
            strangers: BTreeMap::new(),
            rivals: Vec::new(),
            pods: Vec::new(),
        }
    }
}

fn service() -> ServiceFact {
    let port = ServicePort {
        name: "http".to_owned(),
        port: 80,
        target: TargetPort::Name("http".to_owned()),
        transport: "TCP".to_owned(),
        app_protocol: String::new(),
    };
    ServiceFact {
        selector: Selector::parse("app=web").unwrap(),
        ports: vec![port],
        cluster_ips: vec!["10.96.0.7".parse().unwrap()],
        ..ServiceFact::default()
    }
}

fn web() -> ScaleTargetRef {
    serde_json::from_value(json!({"name": "web"})).unwrap()
}

fn hpa(min_replicas: u32) -> HpaFact {
    HpaFact { target: web(), min_replicas, max_replicas: 5, load_fraction: None }
}

impl Row {
    fn parts(&self) -> (Workload, Surroundings) {
        let spec = serde_json::from_value(self.spec.clone()).unwrap();
        let pods = self.pods.iter().enumerate();
        let workload = Workload {
            id: Arc::new(RevisionId::new("shop", "web")),
            autoscaler: Arc::new(AutoscalerFact { spec, created: 100, ..AutoscalerFact::default() }),
            services: BTreeMap::from([("web".to_owned(), Arc::new(self.service.clone()))]),
            pods: pods.map(|(at, pod)| (format!("web-{at}"), Arc::new(pod.clone()))).collect(),
            former: Vec::new(),
        };
        let around = Surroundings {
            cluster: Arc::new(self.cluster.clone()),
            namespace: Arc::new(self.namespace.clone()),
            target: Some(Arc::new(self.target.clone())),
            strangers: self.strangers.clone(),
            rivals: self.rivals.clone(),
        };
        (workload, around)
    }

    fn way(&self) -> Result<Way, Refusal> {
        let (workload, around) = self.parts();
        way(&workload, &around)
    }

    fn refused(&self) -> Option<&'static str> {
        self.way().err().map(|refusal| refusal.reason)
    }

    fn warned(&self) -> Vec<&'static str> {
        let (workload, around) = self.parts();
        warnings(&workload, &around).into_iter().map(|warning| warning.reason).collect()
    }

    fn set(&mut self, field: &str, value: Value) {
        self.spec[field] = value;
    }
}

type Change = fn(&mut Row);

fn changed(change: Change) -> Row {
    let mut row = Row::default();
    change(&mut row);
    row
}

fn no_selector(row: &mut Row) {
    row.service.selector = Selector::default();
}

#[test]
fn the_way_is_that_of_the_selector_and_of_what_can_be_seen() {
    let table: [(&str, Change, Way); 10] = [
        ("a selector and nothing else", |_| {}, Way::WakeOnly),
        ("no selector", no_selector, Way::Always),
        (
            "an autoscaler of the target",
            |row| drop(row.namespace.autoscalers.insert("web".to_owned(), hpa(1))),
            Way::AtZero(AtZeroSignal::Autoscaler),
        ),
        (
            "an autoscaler of another target",
            |row| {
                let target = ScaleTargetRef { name: "api".to_owned(), ..web() };
                drop(row.namespace.autoscalers.insert("api".to_owned(), HpaFact { target, ..hpa(0) }));
            },
            Way::WakeOnly,
        ),
        (
            "a queue-proxy in the template",
            |row| row.target.has_queue_proxy = true,
            Way::AtZero(AtZeroSignal::QueueProxy),
        ),
        (
            "a queue-proxy and an autoscaler: two may not set the number of pods",
            |row| {
                row.target.has_queue_proxy = true;
                row.namespace.autoscalers.insert("web".to_owned(), hpa(2));
            },
            Way::AtZero(AtZeroSignal::Autoscaler),
        ),
        (
            "AtZero in writing, and the pods' CPU",
            |row| {
                row.set("interception", json!("AtZero"));
                row.cluster.groups.insert("metrics.k8s.io".to_owned());
            },
            Way::AtZero(AtZeroSignal::Cpu),
        ),
        ("Always while the selector is back", |row| row.set("interception", json!("Always")), Way::WakeOnly),
        (
            "a limit, and every pod has a queue-proxy",
            |row| {
                row.set("containerConcurrency", json!(1));
                row.target.has_queue_proxy = true;
            },
            Way::AtZero(AtZeroSignal::QueueProxy),
        ),
        (
            "a limit, and no selector",
            |row| {
                row.set("containerConcurrency", json!(1));
                no_selector(row);
            },
            Way::Always,
        ),
    ];
    for (about, change, expected) in table {
        assert_eq!(changed(change).way(), Ok(expected), "{about}");
    }
}

#[test]
fn each_refusal_has_its_reason() {
    let table: [(&str, Change, &str); 33] = [
        ("headless", |row| row.service.cluster_ips.clear(), "Headless"),
        ("another name", |row| row.service.is_external_name = true, "ExternalName"),
        ("UDP", |row| row.service.ports[0].transport = "UDP".to_owned(), "NotTcp"),
        ("external local", |row| row.service.external_traffic = Locality::Local, "TrafficPolicyLocal"),
        ("internal local", |row| row.service.internal_traffic = Locality::Local, "TrafficPolicyLocal"),
        ("not ready", |row| row.service.publishes_not_ready = true, "PublishesNotReady"),
        ("host network", |row| row.target.on_host_network = true, "HostNetwork"),
        ("a Service that is not there", |row| row.set("services", json!([{"name": "wbe"}])), "NoService"),
        (
            "pods of others",
            |row| drop(row.strangers.insert("web".to_owned(), ["api-1".to_owned()].into())),
            "SharedService",
        ),
        ("Flagger", |row| drop(row.namespace.canaries.insert("web".to_owned(), web())), "SharedService"),
        ("Flagger's own", |row| row.target.progressive = Some(Progressive::Flagger), "SharedService"),
        ("blue and green", |row| row.target.progressive = Some(Progressive::BlueGreen), "SharedService"),
        ("routing", |row| row.target.progressive = Some(Progressive::TrafficRouting), "SharedService"),
        (
            "an autoscaler to zero",
            |row| drop(row.namespace.autoscalers.insert("web".to_owned(), hpa(0))),
            "AutoscalerToZero",
        ),
        (
            "two autoscalers",
            |row| {
                row.namespace.autoscalers.insert("a".to_owned(), hpa(1));
                row.namespace.autoscalers.insert("b".to_owned(), hpa(1));
            },
            "TwoAutoscalers",
        ),
        (
            "an autoscaler beside Always",
            |row| {
                no_selector(row);
                row.namespace.autoscalers.insert("web".to_owned(), hpa(1));
            },
            "TwoAutoscalers",
        ),
        (
            "KEDA",
            |row| {
                let object = ScaledObjectFact { target: web(), is_paused: false };
                drop(row.namespace.scaled_objects.insert("web".to_owned(), object));
            },
            "ScaledObject",
        ),
        (
            "a policy",
            |row| {
                let pods = Selector::parse("app=web").ok();
                drop(row.namespace.policies.insert("web".to_owned(), PolicyFact { pods }));
            },
            "PolicyBypassed",
        ),
        (
            "a policy for all",
            |row| drop(row.namespace.policies.insert("all".to_owned(), PolicyFact { pods: None })),
            "PolicyBypassed",
        ),
        ("strict", |row| drop(row.namespace.strict_mtls.insert("all".to_owned(), None)), "StrictMtls"),
        ("mesh-wide", |row| row.cluster.strict_mtls = Some("istio-system/default".to_owned()), "StrictMtls"),
        (
            "Linkerd's policy",
            |row| {
                let policy = (LINKERD_INBOUND.to_owned(), "all-authenticated".to_owned());
                row.namespace.annotations.extend([policy]);
            },
            "StrictMtls",
        ),
        ("OVN", |row| row.cluster.groups.extend(["k8s.ovn.org".to_owned()]), "OvnKubernetes"),
        (
            "Linkerd",
            |row| {
                row.cluster.groups.insert("policy.linkerd.io".to_owned());
                row.service.ports[0].target = TargetPort::Number(8080);
            },
            "Linkerd",
        ),
        (
            "a NEG",
            |row| {
                let around = ServiceAround { has_neg: true, ..ServiceAround::default() };
                row.namespace.services.insert("web".to_owned(), around);
                row.service.ports[0].target = TargetPort::Number(8080);
            },
            "NetworkEndpointGroup",
        ),
        (
            "a target group",
            |row| {
                let around = ServiceAround {
                    target_groups: ["k8s-web".to_owned()].into(),
                    ..ServiceAround::default()
                };
                drop(row.namespace.services.insert("web".to_owned(), around));
            },
            "TargetGroupBinding",
        ),
        (
            "NGINX Inc",
            |row| {
                row.cluster.ingress_classes.insert("nginx".to_owned(), NGINX_INC.to_owned());
                with_ingress(row, "nginx");
            },
            "NginxIngress",
        ),
        (
            "a quota on slices",
            |row| {
                let quota = QuotaFact { hard: BTreeMap::from([(SLICES.to_owned(), 1)]) };
                drop(row.namespace.quotas.insert("small".to_owned(), quota));
            },
            "QuotaExceeded",
        ),
        ("a limit that nobody holds", |row| row.set("containerConcurrency", json!(1)), "LimitNotEnforced"),
        ("no metrics", |row| row.set("interception", json!("AtZero")), "NoPodMetrics"),
        (
            "AtZero without a selector",
            |row| {
                no_selector(row);
                row.set("interception", json!("AtZero"));
            },
            "SelectorMissing",
        ),
        (
            "a Service of KServe",
            |row| {
                no_selector(row);
                row.service.owner = Some(OwnerFact {
                    api_version: "serving.kserve.io/v1beta1".to_owned(),
                    kind: "InferenceService".to_owned(),
                    name: "web".to_owned(),
                });
            },
            "OwnedService",
        ),
        (
            "an older one",
            |row| {
                row.rivals = vec![Rival {
                    name: "other".to_owned(),
                    created: 99,
                    wants_target: true,
                    ..Rival::default()
                }];
            },
            "TargetTaken",
        ),
    ];
    for (about, change, reason) in table {
        let refusal = changed(change).way().expect_err(about);
        assert_eq!(refusal.reason, reason, "{about}: {refusal}");
        assert!(refusal.message.ends_with('.'), "{about}: {refusal}");
    }
}

fn with_ingress(row: &mut Row, class: &str) {
    let ingress = IngressAround { class: Some(class.to_owned()), uses_cluster_ip: false };
    let around = row.namespace.services.entry("web".to_owned()).or_default();
    around.ingresses.insert("front".to_owned(), ingress);
}

#[test]
fn what_is_refused_is_served_once_the_remedy_is_applied() {
    let table: [(&str, Change); 8] = [
        ("a policy that is known of", |row| {
            row.namespace.policies.insert("all".to_owned(), PolicyFact { pods: None });
            row.set("trustActivators", json!(true));
        }),
        ("a policy for other pods", |row| {
            let pods = Selector::parse("app=api").ok();
            row.namespace.policies.insert("api".to_owned(), PolicyFact { pods });
        }),
        ("activators in the mesh", |row| {
            row.namespace.strict_mtls.insert("all".to_owned(), None);
            row.cluster.activators_in_mesh = true;
        }),
        ("KEDA is paused", |row| {
            let object = ScaledObjectFact { target: web(), is_paused: true };
            row.namespace.scaled_objects.insert("web".to_owned(), object);
        }),
        ("OVN without a selector", |row| {
            row.cluster.groups.insert("k8s.ovn.org".to_owned());
            no_selector(row);
        }),
        ("Linkerd and a port's name", |row| {
            row.cluster.groups.insert("policy.linkerd.io".to_owned());
        }),
        ("NGINX Inc and the cluster IP", |row| {
            row.cluster.ingress_classes.insert("nginx".to_owned(), NGINX_INC.to_owned());
            with_ingress(row, "nginx");
            for around in row.namespace.services.values_mut().flat_map(|around| around.ingresses.values_mut())
            {
                around.uses_cluster_ip = true;
            }
        }),
        ("a younger one", |row| {
            row.rivals = vec![Rival {
                name: "other".to_owned(),
                created: 101,
                wants_target: true,
                ..Rival::default()
            }];
        }),
    ];
    for (about, change) in table {
        assert_eq!(changed(change).refused(), None, "{about}");
    }
}

#[test]
fn services_of_both_kinds_are_refused() {
    let (mut workload, around) = Row::default().parts();
    workload.services.insert("bare".to_owned(), Arc::new(changed(no_selector).service));
    assert_eq!(way(&workload, &around).map_err(|refusal| refusal.reason), Err("MixedServices"));
    workload.services.clear();
    assert_eq!(way(&workload, &around).map_err(|refusal| refusal.reason), Err("NoService"));
}

#[test]
fn each_warning_has_its_reason() {
    let table: [(Change, &str); 9] = [
        (|row| row.service.has_session_affinity = true, "SessionAffinity"),
        (|row| row.set("interception", json!("Always")), "SelectorPresent"),
        (|row| row.service.kept_selector = Selector::parse("app=web").ok(), "SelectorPresent"),
        (|row| with_ingress(row, "unheard-of"), "UnknownIngress"),
        (
            |row| {
                let budget = BudgetFact { pods: Selector::parse("app=web").ok(), allows_one_of_one: false };
                drop(row.namespace.budgets.insert("web".to_owned(), budget));
            },
            "BudgetBlocksDrain",
        ),
        (
            |row| {
                row.set("maxReplicas", json!(10));
                let quota = QuotaFact { hard: BTreeMap::from([("pods".to_owned(), 5)]) };
                drop(row.namespace.quotas.insert("small".to_owned(), quota));
            },
            "QuotaBelowMax",
        ),
        (|row| row.cluster.has_windows_nodes = true, "WindowsNodes"),
        (|row| row.target.replicas_managers = vec!["argocd-controller".to_owned()], "ReplicasInGit"),
        (
            |row| row.namespace.unreadable.extend(["networkpolicies.networking.k8s.io".to_owned()]),
            "MissingRights",
        ),
    ];
    for (change, reason) in table {
        assert_eq!(changed(change).warned(), [reason]);
    }
    assert_eq!(Row::default().warned(), [""; 0]);
}

#[test]
fn the_remedy_is_that_of_the_tool_that_writes() {
    let told = |manager: &str| {
        let mut row = Row::default();
        row.target.replicas_managers = vec![manager.to_owned()];
        let (workload, around) = row.parts();
        warnings(&workload, &around).remove(0).message
    };
    assert!(told("argocd-controller").contains("RespectIgnoreDifferences"));
    assert!(told("kustomize-controller").contains("Flux"));
    assert!(told("helm").contains("the chart's template"));
    assert!(told("kubectl apply").ends_with("where the object is written down."));
}
