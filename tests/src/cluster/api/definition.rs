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
    /// Such as `deployment`.
    pub singular: String,
    /// Other names that kubectl may be given, such as `deploy`.
    pub short_names: Vec<String>,
    /// Groups of kinds that kubectl may be given, such as `all`.
    pub categories: Vec<String>,
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
    /// Extra columns of tables.
    pub columns: Vec<PrinterColumn>,
}

/// A column of a custom resource's tables.
#[derive(Clone, Debug)]
pub struct PrinterColumn {
    /// The head.
    pub name: String,
    /// The JSON path of the cell, such as `.status.conditions[?(@.type=="Ready")].status`.
    pub path: String,
    /// Whether only `-o wide` shows it.
    pub is_wide: bool,
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
            singular: kind.to_lowercase(),
            short_names: Vec::new(),
            categories: Vec::new(),
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

    /// In groups of kinds, for kubectl.
    pub fn in_categories(self, categories: &[&str]) -> Self {
        Self { categories: categories.iter().map(|name| (*name).to_owned()).collect(), ..self }
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
        definition.categories = strings(&names["categories"]);
        if let Some(singular) = text(&names["singular"]).filter(|singular| !singular.is_empty()) {
            definition.singular = singular;
        }
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
            definition.columns.push(PrinterColumn {
                name: text(&column["name"])?,
                path: text(&column["jsonPath"])?,
                is_wide: column["priority"].as_i64().is_some_and(|priority| priority > 0),
            });
        }
        Some(definition)
    }

    /// A kind of Kubernetes' own, namespaced and without subresources.
    pub(super) fn built_in(group: &str, version: &str, kind: &str, plural: &str) -> Self {
        Self {
            is_custom: false,
            has_generation: false,
            allows_unconditional_update: true,
            ..Self::new(group, version, kind, plural)
        }
    }

    /// With a `metadata.generation`.
    pub(super) fn with_generation(self) -> Self {
        Self { has_generation: true, ..self }
    }

    /// Every update has to name the version that it is based on.
    pub(super) fn with_conditional_updates(self) -> Self {
        Self { allows_unconditional_update: false, ..self }
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
