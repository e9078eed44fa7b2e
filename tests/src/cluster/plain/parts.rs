//! Pilotlight's own objects, as its manifest installs them.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use kube::api::Api;
use pilotlight_controller::crd::RequestAutoscaler;
use serde_json::{Value, json};

use super::{PlainCluster, PlainParams};
use crate::cluster::Image;
use crate::cluster::whole::{create, kubeconfig};

/// A part of Pilotlight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The controller.
    Controller,
    /// The activator.
    Activator,
}

impl Part {
    /// The name of its Deployment.
    pub fn deployment(self) -> &'static str {
        match self {
            Part::Controller => "pilotlight",
            Part::Activator => "pilotlight-activator",
        }
    }

    fn component(self) -> &'static str {
        match self {
            Part::Controller => "controller",
            Part::Activator => "activator",
        }
    }

    fn admin_port(self) -> u16 {
        match self {
            Part::Controller => 9091,
            Part::Activator => 9090,
        }
    }

    /// The label selector of its pods.
    pub(super) fn selector(self) -> String {
        format!("app.kubernetes.io/name=pilotlight,app.kubernetes.io/component={}", self.component())
    }

    fn object(self, replicas: u32) -> Value {
        let field = |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
        let labels = json!({ "app.kubernetes.io/name": "pilotlight", "app.kubernetes.io/component": self.component() });
        json!({
            "metadata": { "name": self.deployment(), "labels": labels },
            "spec": {
                "replicas": replicas,
                "selector": { "matchLabels": labels },
                "strategy": { "rollingUpdate": { "maxUnavailable": 0, "maxSurge": 1 } },
                "template": {
                    "metadata": { "labels": labels },
                    "spec": { "serviceAccountName": "pilotlight", "terminationGracePeriodSeconds": 60, "containers": [{
                        "name": CONTAINER, "image": self.deployment(),
                        "readinessProbe": {
                            "httpGet": { "path": "/readyz", "port": self.admin_port() }, "periodSeconds": 1, "failureThreshold": 5,
                        },
                        "env": [
                            field("POD_NAME", "metadata.name"), field("POD_IP", "status.podIP"),
                            field("NODE_NAME", "spec.nodeName"),
                        ],
                    }] },
                },
            },
        })
    }
}

impl PlainCluster {
    /// Creates everything that the manifest has, but for what the small cluster does not look at.
    pub(super) async fn install(&self, params: &PlainParams) -> anyhow::Result<()> {
        create(&Api::<CustomResourceDefinition>::all(self.client.clone()), &RequestAutoscaler::crd()).await?;
        let namespace = json!({ "metadata": { "name": SYSTEM_NAMESPACE } });
        create(&Api::<Namespace>::all(self.client.clone()), &serde_json::from_value(namespace)?).await?;
        self.create_rights().await?;
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        let config = json!({ "metadata": { "name": CONFIG }, "data": params.config });
        create(&maps, &serde_json::from_value(config)?).await?;
        let kubeconfig = kubeconfig(&self.server)?;
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        for (part, replicas) in [(Part::Controller, params.controllers), (Part::Activator, params.activators)]
        {
            let env = [
                ("PART", format!("plain-{}", part.component())),
                ("KUBECONFIG", kubeconfig.clone()),
                ("SYSTEM_NAMESPACE", SYSTEM_NAMESPACE.to_owned()),
                ("PILOTLIGHT_BIND_ADDRESS", "{ip}".to_owned()),
                ("NO_COLOR", "1".to_owned()),
            ];
            let env = env.map(|(name, value)| (name.to_owned(), value)).into();
            let image = Image { program: params.parts.clone(), args: Vec::new(), env };
            self.small.kubelet.add_image(part.deployment(), image);
            create(&deployments, &serde_json::from_value(part.object(replicas))?).await?;
        }
        Ok(())
    }

    /// The objects that hold finalizers while there is something to restore. Nobody's rights are looked at.
    async fn create_rights(&self) -> anyhow::Result<()> {
        let named = json!({ "metadata": { "name": "pilotlight" } });
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        create(&accounts, &serde_json::from_value(named.clone())?).await?;
        create(&Api::<ClusterRole>::all(self.client.clone()), &serde_json::from_value(named)?).await?;
        let role =
            json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "pilotlight" });
        let binding = json!({ "metadata": { "name": "pilotlight" }, "roleRef": role });
        create(&Api::<ClusterRoleBinding>::all(self.client.clone()), &serde_json::from_value(binding)?).await
    }
}

/// The namespace of Pilotlight's parts.
pub const SYSTEM_NAMESPACE: &str = "pilotlight-system";
/// The Lease of the controller that leads.
pub(super) const LEASE: &str = "pilotlight";
/// The container of each part.
pub(super) const CONTAINER: &str = "part";
/// The ConfigMap with the defaults of all workloads.
const CONFIG: &str = "config-autoscaler";
