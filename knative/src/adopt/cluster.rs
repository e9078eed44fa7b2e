//! Reads and patches of an adoption.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{ListParams, LogParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use pilotlight_kubernetes::labels;

use super::component::Component;
use super::plan::{CONFIG_DEPLOYMENT, FORMER_IMAGE, IMAGE_KEY, Plan, SeenImage};
use super::requirements::ClusterFacts;
use super::rollout::{StuckPod, Workload};

/// A cluster with Knative in one of its namespaces.
#[derive(Clone)]
pub(crate) struct Installation {
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

impl Installation {
    /// The facts that decide whether a part can be adopted.
    pub(crate) async fn facts(&self, component: Component) -> kube::Result<ClusterFacts> {
        let version = self.client.apiserver_version().await?;
        let controller = self.deployments().get_opt("controller").await?;
        let mut missing = Vec::new();
        for (api, resource) in component.apis() {
            let known = match self.client.list_api_group_resources(api).await {
                Ok(list) => list.resources.iter().any(|known| known.name == *resource),
                Err(kube::Error::Api(status)) if status.code == 404 => false,
                Err(error) => return Err(error),
            };
            if !known {
                missing.push(format!("{resource}.{api}"));
            }
        }
        let owner = controller.as_ref().and_then(|controller| {
            let owner = controller.owner_references().iter().find(|owner| owner.kind == "KnativeServing")?;
            Some((owner.kind.clone(), owner.name.clone()))
        });
        Ok(ClusterFacts {
            kubernetes: version.git_version,
            knative: controller.and_then(|controller| controller.labels().get(VERSION).cloned()),
            missing,
            owner,
        })
    }

    /// The image of a part; `None`: the object, or the container or key in it, is not there.
    pub(crate) async fn seen(&self, component: Component) -> kube::Result<Option<SeenImage>> {
        if component == Component::QueueProxy {
            let Some(map) = self.config_maps().get_opt(CONFIG_DEPLOYMENT).await? else { return Ok(None) };
            let former = map.annotations().get(FORMER_IMAGE).cloned();
            let image =
                map.data.and_then(|mut data| data.remove(IMAGE_KEY)).filter(|image| !image.is_empty());
            return Ok(image.map(|image| SeenImage { image, former }));
        }
        let Some(deployment) = self.deployments().get_opt(component.name()).await? else { return Ok(None) };
        let former = deployment.annotations().get(FORMER_IMAGE).cloned();
        let pod = deployment.spec.and_then(|spec| spec.template.spec);
        let containers = pod.map(|pod| pod.containers).unwrap_or_default();
        let container = containers.into_iter().find(|container| container.name == component.name());
        Ok(container.and_then(|container| container.image).map(|image| SeenImage { image, former }))
    }

    /// Makes a change.
    pub(crate) async fn apply(&self, plan: &Plan) -> kube::Result<()> {
        let (params, patch) = (PatchParams::default(), plan.patch());
        if plan.component == Component::QueueProxy {
            self.config_maps().patch(CONFIG_DEPLOYMENT, &params, &Patch::Merge(patch)).await?;
        } else {
            self.deployments().patch(plan.component.name(), &params, &Patch::Strategic(patch)).await?;
        }
        Ok(())
    }

    /// The Deployments whose pods have the part, with their state towards `image`.
    pub(crate) async fn workloads(&self, component: Component, image: &str) -> kube::Result<Vec<Workload>> {
        if component == Component::QueueProxy {
            let all: Api<Deployment> = Api::all(self.client.clone());
            let revisions = all.list(&ListParams::default().labels(labels::REVISION)).await?;
            return Ok(revisions.iter().map(|deployment| Workload::of(deployment, image)).collect());
        }
        let deployment = self.deployments().get(component.name()).await?;
        Ok(vec![Workload::of(&deployment, image)])
    }

    /// The troubles of a workload's pods that run `image`.
    pub(crate) async fn troubles(&self, workload: &Workload, image: &str) -> kube::Result<Vec<StuckPod>> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &workload.namespace);
        let listed = pods.list(&ListParams::default().labels(&workload.selector)).await?;
        Ok(listed.iter().filter_map(|pod| StuckPod::of(pod, image)).collect())
    }

    /// The last line that a container wrote, if it can be had.
    pub(crate) async fn last_words(&self, trouble: &StuckPod) -> Option<String> {
        if trouble.container.is_empty() {
            return None;
        }
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &trouble.namespace);
        let params = LogParams {
            container: Some(trouble.container.clone()),
            tail_lines: Some(1),
            previous: trouble.has_ended,
            ..LogParams::default()
        };
        let text = pods.logs(&trouble.pod, &params).await.ok()?;
        text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
    }

    fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

const VERSION: &str = "app.kubernetes.io/version";
