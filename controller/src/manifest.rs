//! Everything that an installation is: the objects, and the file that they are written down in.
//!
//! `config/deploy/kubernetes/pilotlight.yaml` is what [`yaml`] writes; a test compares the two.

mod deployments;
mod roles;
mod yaml;

use serde_json::{Value, json};

use crate::crd;
pub use yaml::to_yaml;

/// Choices about an installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestParams {
    /// The image of both programs.
    pub image: String,
    /// The namespace of both programs.
    pub system_namespace: String,
    /// Namespaces whose workloads are looked after, by Roles of their own; empty: all of them, by ClusterRoles.
    pub namespaces: Vec<String>,
    /// Whether the controller may patch pods, to say which are to go first. It is a right to change their images.
    pub with_deletion_cost: bool,
}

impl Default for ManifestParams {
    fn default() -> Self {
        ManifestParams {
            image: format!("ghcr.io/pilotlight/pilotlight:{}", env!("CARGO_PKG_VERSION")),
            system_namespace: SYSTEM_NAMESPACE.to_owned(),
            namespaces: Vec::new(),
            with_deletion_cost: false,
        }
    }
}

/// Every object, in the order in which they are applied.
pub fn objects(params: &ManifestParams) -> Vec<Value> {
    let namespace = &params.system_namespace;
    let mut objects = vec![
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": namespace, "labels": {
                "app.kubernetes.io/name": NAME,
                "pod-security.kubernetes.io/enforce": "restricted",
            }},
        }),
        custom_resource_definition(),
    ];
    objects.extend(roles::objects(params));
    objects.push(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": metadata("config-autoscaler", namespace, CONTROLLER),
        "data": {"_example": pilotlight_config::reference::example_data()},
    }));
    objects.extend(deployments::objects(params));
    objects
}

/// The definition of RequestAutoscalers, with the labels of an installation.
pub fn custom_resource_definition() -> Value {
    let mut definition = serde_json::to_value(crd::definition()).unwrap_or_default();
    definition["metadata"]["labels"] = json!({"app.kubernetes.io/name": NAME});
    definition
}

/// The file of an installation.
pub fn yaml(params: &ManifestParams) -> String {
    let objects = objects(params);
    let documents: Vec<String> = objects.iter().map(to_yaml).collect();
    format!("{HEAD}{}", documents.join("---\n"))
}

/// The name of the controller's objects, and the label of all.
pub const NAME: &str = "pilotlight";
/// The name of the activators' objects.
pub const ACTIVATOR_NAME: &str = "pilotlight-activator";
/// The namespace of both programs, unless another is chosen.
pub const SYSTEM_NAMESPACE: &str = "pilotlight-system";
/// The component that is the controller.
const CONTROLLER: &str = "controller";
/// The component that is the activators.
const ACTIVATOR: &str = "activator";
const HEAD: &str = "\
# Pilotlight for plain Kubernetes. Written by `pilotlight kube install --dry-run`: do not edit, but change
# controller/src/manifest and run PILOTLIGHT_BLESS=1 cargo test -p pilotlight-controller manifest
#
#   kubectl apply -f pilotlight.yaml
";

fn metadata(name: &str, namespace: &str, component: &str) -> Value {
    json!({"name": name, "namespace": namespace, "labels": labels(component)})
}

fn labels(component: &str) -> Value {
    json!({"app.kubernetes.io/name": NAME, "app.kubernetes.io/component": component})
}

#[cfg(test)]
mod tests;
