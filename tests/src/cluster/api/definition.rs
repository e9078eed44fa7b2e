//! Kinds of objects that are served, and where each has its replicas.

use serde_json::Value;

/// A kind of object: its names, its scope and its subresources.
///
/// ```
/// use pilotlight_tests::cluster::api::Definition;
/// let bird = Definition::new("example.org", "v1", "Bird", "birds").with_status().with_scale(".spec.replicas");
/// assert_eq!(bird.id(), "birds.example.org");
/// ```
#[derive(Clone, Debug)]
pub struct Definition {
    /// The API group; empty for the core group.
    pub group: String,
    /// The one version that is served and stored.
    pub version: String,
    /// Such as `Deployment`.
    pub kind: String,
    /// Such as `deployments`.
    pub plural: String,
    /// Other names that kubectl may be given, such as `deploy`.
    pub short_names: Vec<String>,
    /// Whether objects are in namespaces.
    pub is_namespaced: bool,
    /// Whether there is a `status` subresource; the main resource ignores the status then.
    pub has_status: bool,
    /// The replicas, if there is a `scale` subresource.
    pub scale: Option<ScalePaths>,
    /// Whether `metadata.generation` counts the changes of the spec.
    pub has_generation: bool,
    /// Whether an update may leave out `metadata.resourceVersion`.
    pub allows_unconditional_update: bool,
    /// Whether it came as a custom resource: lists are atomic unless `schema` says otherwise, strategic merge is refused.
    pub is_custom: bool,
    /// The `openAPIV3Schema` of a custom resource, if it has one.
    pub schema: Option<Value>,
    /// Extra columns of tables: name, and the path of the value such as `.status.phase`.
    pub columns: Vec<(String, String)>,
}

/// Paths to the numbers behind a `scale` subresource.
#[derive(Clone, Debug)]
pub struct ScalePaths {
    /// The replicas that are wanted, such as `["spec", "replicas"]`.
    pub spec: Vec<String>,
    /// The replicas that are there.
    pub status: Vec<String>,
    /// The selector of the pods: a string, or a label selector.
    pub selector: Vec<String>,
}

impl Definition {
    /// A namespaced custom resource without subresources.
    pub fn new(group: &str, version: &str, kind: &str, plural: &str) -> Self {
        Self {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            plural: plural.into(),
            short_names: Vec::new(),
            is_namespaced: true,
            has_status: false,
            scale: None,
            has_generation: true,
            allows_unconditional_update: false,
            is_custom: true,
            schema: None,
            columns: Vec::new(),
        }
    }

    /// With a `status` subresource.
    pub fn with_status(self) -> Self {
        Self { has_status: true, ..self }
    }

    /// With a `scale` subresource whose wanted replicas are at `path`; what is there is told by `.status.replicas`.
    pub fn with_scale(self, path: &str) -> Self {
        let scale = ScalePaths {
            spec: path_of(path),
            status: path_of(".status.replicas"),
            selector: path_of(if self.is_custom { ".status.selector" } else { ".spec.selector" }),
        };
        Self { scale: Some(scale), ..self }
    }

    /// Without namespaces.
    pub fn cluster_scoped(self) -> Self {
        Self { is_namespaced: false, ..self }
    }

    /// With other names, for kubectl.
    pub fn with_short_names(self, names: &[&str]) -> Self {
        Self { short_names: names.iter().map(|name| (*name).to_owned()).collect(), ..self }
    }

    /// `deployments.apps`; `pods` for the core group.
    pub fn id(&self) -> String {
        id(&self.group, &self.plural)
    }

    /// `apps/v1`; `v1` for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The definition that a CustomResourceDefinition makes: its storage version.
    pub(crate) fn of_crd(crd: &Value) -> Option<Self> {
        let spec = &crd["spec"];
        let versions = spec["versions"].as_array()?;
        let version = versions.iter().find(|version| version["storage"] == true).or(versions.first())?;
        let names = &spec["names"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let plural = text(&names["plural"])?;
        let mut definition =
            Self::new(spec["group"].as_str()?, version["name"].as_str()?, names["kind"].as_str()?, &plural);
        definition.is_namespaced = spec["scope"] != "Cluster";
        definition.has_status = version["subresources"]["status"].is_object();
        definition.short_names = strings(&names["shortNames"]);
        let scale = &version["subresources"]["scale"];
        if let Some(path) = scale["specReplicasPath"].as_str() {
            let or = |name: &str, default: &str| path_of(scale[name].as_str().unwrap_or(default));
            definition.scale = Some(ScalePaths {
                spec: path_of(path),
                status: or("statusReplicasPath", ".status.replicas"),
                selector: or("labelSelectorPath", ""),
            });
        }
        definition.schema = version["schema"].get("openAPIV3Schema").cloned();
        for column in version["additionalPrinterColumns"].as_array().into_iter().flatten() {
            definition.columns.push((text(&column["name"])?, text(&column["jsonPath"])?));
        }
        Some(definition)
    }

    fn built_in(group: &str, version: &str, kind: &str, plural: &str) -> Self {
        let has_generation = matches!(group, "apps" | "apiextensions.k8s.io");
        Self {
            is_custom: false,
            has_generation,
            allows_unconditional_update: true,
            ..Self::new(group, version, kind, plural)
        }
    }
}

/// `deployments.apps`; `pods` for the core group.
pub(crate) fn id(group: &str, plural: &str) -> String {
    if group.is_empty() { plural.into() } else { format!("{plural}.{group}") }
}

/// `.spec.replicas` as its names.
pub(crate) fn path_of(path: &str) -> Vec<String> {
    path.split('.').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The strings of a list of strings.
pub(crate) fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// What every server has from the start: Kubernetes' kinds that controllers deal with, and Knative's.
pub(crate) fn built_ins() -> Vec<Definition> {
    let core = |kind, plural| Definition::built_in("", "v1", kind, plural);
    let apps = |kind, plural| {
        Definition::built_in("apps", "v1", kind, plural).with_status().with_scale(".spec.replicas")
    };
    let knative = |group, version, kind, plural| Definition::new(group, version, kind, plural).with_status();
    let internal = |kind, plural| knative("autoscaling.internal.knative.dev", "v1alpha1", kind, plural);
    let serving = |kind, plural| knative("serving.knative.dev", "v1", kind, plural);
    let networking = |kind, plural| knative("networking.internal.knative.dev", "v1alpha1", kind, plural);
    let mut lease = Definition::built_in("coordination.k8s.io", "v1", "Lease", "leases");
    lease.allows_unconditional_update = false;
    let mut crd = Definition::built_in(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
    );
    crd.allows_unconditional_update = false;
    vec![
        core("Pod", "pods").with_status().with_short_names(&["po"]),
        core("Service", "services").with_status().with_short_names(&["svc"]),
        core("Endpoints", "endpoints").with_short_names(&["ep"]),
        core("ConfigMap", "configmaps").with_short_names(&["cm"]),
        core("Secret", "secrets"),
        core("Event", "events").with_short_names(&["ev"]),
        core("Namespace", "namespaces").with_status().cluster_scoped().with_short_names(&["ns"]),
        core("Node", "nodes").with_status().cluster_scoped().with_short_names(&["no"]),
        core("ServiceAccount", "serviceaccounts").with_short_names(&["sa"]),
        apps("Deployment", "deployments").with_short_names(&["deploy"]),
        apps("ReplicaSet", "replicasets").with_short_names(&["rs"]),
        apps("StatefulSet", "statefulsets").with_short_names(&["sts"]),
        Definition::built_in("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
        lease,
        Definition::built_in("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
            .with_status()
            .with_short_names(&["hpa"]),
        crd.with_status().cluster_scoped().with_short_names(&["crd"]),
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
