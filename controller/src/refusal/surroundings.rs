//! Objects that have a say about a workload beside its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::crd::ScaleTargetRef;
use crate::selector::Selector;

/// Everything around a workload that decides what may be done for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Surroundings {
    /// The cluster.
    pub cluster: Arc<ClusterFacts>,
    /// The workload's namespace.
    pub namespace: Arc<NamespaceFacts>,
    /// The object that is scaled; `None`: it is not there, or cannot be read.
    pub target: Option<Arc<TargetFact>>,
    /// Ready pods that are not the target's, by the Service of the workload that selects them.
    pub strangers: BTreeMap<String, BTreeSet<String>>,
    /// Other RequestAutoscalers of the namespace that want the same target, or one of the same Services.
    pub rivals: Vec<Rival>,
}

/// Facts of the whole cluster. Looked at by the leader at its start and hourly.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterFacts {
    /// API groups that the server has.
    pub groups: BTreeSet<String>,
    /// Controllers of the classes of Ingresses, by the class.
    pub ingress_classes: BTreeMap<String, String>,
    /// The class of an Ingress that names none.
    pub default_ingress_class: Option<String>,
    /// Whether the activators' pods are members of the service mesh.
    pub activators_in_mesh: bool,
    /// Whether the whole mesh takes only mutual TLS: the PeerAuthentication that says so, as `namespace/name`.
    pub strict_mtls: Option<String>,
    /// Whether a node runs Windows.
    pub has_windows_nodes: bool,
    /// The namespace of the activators.
    pub system_namespace: String,
}

/// Facts of a namespace. Maps are by the objects' names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamespaceFacts {
    /// Labels of the namespace.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the namespace.
    pub annotations: BTreeMap<String, String>,
    /// HorizontalPodAutoscalers.
    pub autoscalers: BTreeMap<String, HpaFact>,
    /// KEDA's ScaledObjects.
    pub scaled_objects: BTreeMap<String, ScaledObjectFact>,
    /// NetworkPolicies that restrict who reaches pods.
    pub policies: BTreeMap<String, PolicyFact>,
    /// PodDisruptionBudgets.
    pub budgets: BTreeMap<String, BudgetFact>,
    /// ResourceQuotas.
    pub quotas: BTreeMap<String, QuotaFact>,
    /// Services, for what leads to them past their addresses.
    pub services: BTreeMap<String, ServiceAround>,
    /// Targets of Flagger's Canaries.
    pub canaries: BTreeMap<String, ScaleTargetRef>,
    /// PeerAuthentications that take only mutual TLS, with the pods that they are about; `None`: all of them.
    pub strict_mtls: BTreeMap<String, Option<Selector>>,
    /// Resources that may not be read here, so that nothing is known of them: `networkpolicies.networking.k8s.io`.
    pub unreadable: BTreeSet<String>,
}

/// A HorizontalPodAutoscaler.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HpaFact {
    /// The object that it scales.
    pub target: ScaleTargetRef,
    /// The fewest pods; 1 where it is not written.
    pub min_replicas: u32,
    /// The most pods.
    pub max_replicas: u32,
    /// The greatest of its current metrics as a share of its target; `None`: one of them is not known.
    pub load_fraction: Option<f64>,
}

/// A ScaledObject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScaledObjectFact {
    /// The object that it scales.
    pub target: ScaleTargetRef,
    /// Whether it is paused by its annotations.
    pub is_paused: bool,
}

/// A NetworkPolicy that restricts ingress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyFact {
    /// Pods that it is about; `None`: all of them.
    pub pods: Option<Selector>,
}

/// A PodDisruptionBudget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BudgetFact {
    /// Pods that it is about; `None`: all of them.
    pub pods: Option<Selector>,
    /// Whether it lets a single pod go.
    pub allows_one_of_one: bool,
}

/// A ResourceQuota.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuotaFact {
    /// Limits of numbers of objects, by the resource: `pods`, `count/endpointslices.discovery.k8s.io`.
    pub hard: BTreeMap<String, u64>,
}

/// A Service, as far as something else than its address leads to its endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceAround {
    /// Whether Google's load balancer sends to its endpoints (`cloud.google.com/neg`).
    pub has_neg: bool,
    /// TargetGroupBindings of target type `ip` that name it.
    pub target_groups: BTreeSet<String>,
    /// Ingresses that name it, with the class of each; `None`: the default class.
    pub ingresses: BTreeMap<String, IngressAround>,
}

/// An Ingress that leads to a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IngressAround {
    /// The class; `None`: the default class.
    pub class: Option<String>,
    /// Whether NGINX Inc's controller is told to use the Service's address (`nginx.org/use-cluster-ip`).
    pub uses_cluster_ip: bool,
}

/// The object that is scaled.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TargetFact {
    /// The annotations.
    pub annotations: BTreeMap<String, String>,
    /// Labels of its pods, by its template.
    pub pod_labels: BTreeMap<String, String>,
    /// `spec.selector.matchLabels`.
    pub match_labels: BTreeMap<String, String>,
    /// Whether its template has our queue-proxy.
    pub has_queue_proxy: bool,
    /// Whether its template shares the network of its node.
    pub on_host_network: bool,
    /// Whether something else moves traffic between its versions.
    pub progressive: Option<Progressive>,
    /// Managers that write `spec.replicas` again whenever they apply the object: names of field managers.
    pub replicas_managers: Vec<String>,
}

/// Something that moves traffic between versions of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progressive {
    /// A Flagger Canary owns it.
    Flagger,
    /// An Argo Rollout with the strategy `blueGreen`.
    BlueGreen,
    /// An Argo Rollout with `trafficRouting`.
    TrafficRouting,
}

/// Another RequestAutoscaler that wants the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rival {
    /// The name.
    pub name: String,
    /// When it was created, in seconds since 1970.
    pub created: i64,
    /// Whether it wants the same target.
    pub wants_target: bool,
    /// Services that both want.
    pub services: BTreeSet<String>,
}

/// A part of a cluster that leads traffic, as the API groups tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DataPlane {
    /// AWS Load Balancer Controller.
    AwsLoadBalancer,
    /// Cilium.
    Cilium,
    /// Contour.
    Contour,
    /// Envoy Gateway.
    EnvoyGateway,
    /// Google Kubernetes Engine.
    Gke,
    /// Istio.
    Istio,
    /// Linkerd.
    Linkerd,
    /// The ingress controller of NGINX Inc.
    NginxInc,
    /// OVN-Kubernetes.
    OvnKubernetes,
    /// Traefik.
    Traefik,
}

impl DataPlane {
    /// All of them, with an API group that each brings.
    pub const ALL: [(DataPlane, &'static str); 10] = [
        (DataPlane::AwsLoadBalancer, "elbv2.k8s.aws"),
        (DataPlane::Cilium, "cilium.io"),
        (DataPlane::Contour, "projectcontour.io"),
        (DataPlane::EnvoyGateway, "gateway.envoyproxy.io"),
        (DataPlane::Gke, "networking.gke.io"),
        (DataPlane::Istio, "networking.istio.io"),
        (DataPlane::Linkerd, "policy.linkerd.io"),
        (DataPlane::NginxInc, "k8s.nginx.org"),
        (DataPlane::OvnKubernetes, "k8s.ovn.org"),
        (DataPlane::Traefik, "traefik.io"),
    ];

    /// The name that people know it by.
    pub fn name(self) -> &'static str {
        match self {
            DataPlane::AwsLoadBalancer => "AWS Load Balancer Controller",
            DataPlane::Cilium => "Cilium",
            DataPlane::Contour => "Contour",
            DataPlane::EnvoyGateway => "Envoy Gateway",
            DataPlane::Gke => "Google Kubernetes Engine",
            DataPlane::Istio => "Istio",
            DataPlane::Linkerd => "Linkerd",
            DataPlane::NginxInc => "NGINX Ingress Controller (NGINX Inc)",
            DataPlane::OvnKubernetes => "OVN-Kubernetes",
            DataPlane::Traefik => "Traefik",
        }
    }
}

impl ClusterFacts {
    /// Whether the cluster has a data plane.
    pub fn has(&self, plane: DataPlane) -> bool {
        DataPlane::ALL.iter().any(|(known, group)| *known == plane && self.groups.contains(*group))
    }

    /// Data planes of the cluster.
    pub fn data_planes(&self) -> Vec<DataPlane> {
        let all = DataPlane::ALL.iter().map(|(plane, _)| *plane);
        all.filter(|plane| self.has(*plane)).collect()
    }

    /// Whether the pods' CPU can be asked for.
    pub fn has_pod_metrics(&self) -> bool {
        self.groups.contains(POD_METRICS)
    }
}

/// The API group of the pods' metrics.
const POD_METRICS: &str = "metrics.k8s.io";
