//! The kinds that every server has from the start.

use super::definition::Definition;

/// Kubernetes' kinds that controllers and manifests deal with, and Knative's.
pub(crate) fn built_ins() -> Vec<Definition> {
    [core(), workloads(), policies(), cluster_services(), knative()].concat()
}

fn core() -> Vec<Definition> {
    let core = |kind, plural| Definition::built_in("", "v1", kind, plural);
    vec![
        core("Pod", "pods").with_status().with_short_names(&["po"]).in_categories(ALL),
        core("Service", "services").with_status().with_short_names(&["svc"]).in_categories(ALL),
        core("Endpoints", "endpoints").with_short_names(&["ep"]),
        core("ConfigMap", "configmaps").with_short_names(&["cm"]),
        core("Secret", "secrets"),
        core("Event", "events").with_short_names(&["ev"]),
        core("Namespace", "namespaces").with_status().cluster_scoped().with_short_names(&["ns"]),
        core("Node", "nodes").with_status().cluster_scoped().with_short_names(&["no"]),
        core("ServiceAccount", "serviceaccounts").with_short_names(&["sa"]),
        core("ResourceQuota", "resourcequotas").with_status().with_short_names(&["quota"]),
        core("LimitRange", "limitranges").with_short_names(&["limits"]),
        core("PersistentVolumeClaim", "persistentvolumeclaims").with_status().with_short_names(&["pvc"]),
    ]
}

fn workloads() -> Vec<Definition> {
    let apps = |kind, plural| {
        Definition::built_in("apps", "v1", kind, plural).with_status().with_generation().in_categories(ALL)
    };
    let scaled = |kind, plural| apps(kind, plural).with_scale(".spec.replicas");
    vec![
        scaled("Deployment", "deployments").with_short_names(&["deploy"]),
        scaled("ReplicaSet", "replicasets").with_short_names(&["rs"]),
        scaled("StatefulSet", "statefulsets").with_short_names(&["sts"]),
        apps("DaemonSet", "daemonsets").with_short_names(&["ds"]),
        Definition::built_in("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
            .with_status()
            .with_short_names(&["hpa"])
            .in_categories(ALL),
        Definition::built_in("metrics.k8s.io", "v1beta1", "PodMetrics", "pods"),
        Definition::built_in("metrics.k8s.io", "v1beta1", "NodeMetrics", "nodes").cluster_scoped(),
    ]
}

fn policies() -> Vec<Definition> {
    let rbac = |kind, plural| Definition::built_in("rbac.authorization.k8s.io", "v1", kind, plural);
    vec![
        Definition::built_in("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
            .with_status()
            .with_generation()
            .with_conditional_updates()
            .with_short_names(&["pdb"]),
        Definition::built_in("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies")
            .with_generation()
            .with_short_names(&["netpol"]),
        Definition::built_in("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses")
            .with_generation()
            .cluster_scoped()
            .with_short_names(&["pc"]),
        rbac("Role", "roles"),
        rbac("RoleBinding", "rolebindings"),
        rbac("ClusterRole", "clusterroles").cluster_scoped(),
        rbac("ClusterRoleBinding", "clusterrolebindings").cluster_scoped(),
    ]
}

fn cluster_services() -> Vec<Definition> {
    vec![
        Definition::built_in("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices").with_generation(),
        Definition::built_in("networking.k8s.io", "v1", "Ingress", "ingresses")
            .with_status()
            .with_generation()
            .with_short_names(&["ing"]),
        Definition::built_in("coordination.k8s.io", "v1", "Lease", "leases").with_conditional_updates(),
        Definition::built_in(
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
            "customresourcedefinitions",
        )
        .with_status()
        .with_generation()
        .with_conditional_updates()
        .cluster_scoped()
        .with_short_names(&["crd"]),
    ]
}

fn knative() -> Vec<Definition> {
    let kind = |group, version, kind, plural| Definition::new(group, version, kind, plural).with_status();
    let internal = |name, plural| kind("autoscaling.internal.knative.dev", "v1alpha1", name, plural);
    let serving = |name, plural| kind("serving.knative.dev", "v1", name, plural);
    let networking = |name, plural| kind("networking.internal.knative.dev", "v1alpha1", name, plural);
    vec![
        internal("PodAutoscaler", "podautoscalers").with_short_names(&["kpa", "pa"]),
        internal("Metric", "metrics"),
        networking("ServerlessService", "serverlessservices").with_short_names(&["sks"]),
        networking("Ingress", "ingresses").with_short_names(&["kingress", "king"]),
        serving("Service", "services").with_short_names(&["kservice", "ksvc"]),
        serving("Configuration", "configurations").with_short_names(&["config", "cfg"]),
        serving("Revision", "revisions").with_short_names(&["rev"]),
        serving("Route", "routes").with_short_names(&["rt"]),
    ]
}

/// The category of what `kubectl get all` shows.
const ALL: &[&str] = &["all"];
