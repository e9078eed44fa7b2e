//! Writes to the API server, one function each. Every write returns the object as it is then.

use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource};
use pilotlight_core::RevisionId;
use pilotlight_kubernetes::knative::{
    ConditionsStatus, Metric, MetricSpec, PodAutoscaler, PodAutoscalerStatus, ServerlessService,
    ServerlessServiceSpec,
};
use pilotlight_kubernetes::write::{WriteError, within};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::facts::{self, AutoscalerFact};
use super::index::Written;

/// Writes.
#[derive(Clone)]
pub(crate) struct Writer {
    client: Client,
}

impl Writer {
    pub(crate) fn new(client: Client) -> Self {
        Writer { client }
    }

    pub(crate) async fn create_service(&self, service: &ServerlessService) -> Result<Written, WriteError> {
        let created = self.create(service).await?;
        Ok(Written::Service(facts::service(&created).ok_or(WriteError::Misread)?.1))
    }

    pub(crate) async fn change_service(
        &self,
        id: &RevisionId,
        spec: &ServerlessServiceSpec,
    ) -> Result<Written, WriteError> {
        let changed: ServerlessService = self.patch(id, &json!({ "spec": whole(spec) })).await?;
        Ok(Written::Service(facts::service(&changed).ok_or(WriteError::Misread)?.1))
    }

    pub(crate) async fn create_metric(&self, metric: &Metric) -> Result<Written, WriteError> {
        let created = self.create(metric).await?;
        Ok(Written::Metric(facts::metric(&created).ok_or(WriteError::Misread)?.1))
    }

    pub(crate) async fn change_metric(
        &self,
        id: &RevisionId,
        spec: &MetricSpec,
    ) -> Result<Written, WriteError> {
        let changed: Metric = self.patch(id, &json!({ "spec": spec })).await?;
        Ok(Written::Metric(facts::metric(&changed).ok_or(WriteError::Misread)?.1))
    }

    /// Only the version that the status was made for: another autoscaler may have taken the revision over, or it may be
    /// another of the same name.
    pub(crate) async fn status(
        &self,
        id: &RevisionId,
        seen: &AutoscalerFact,
        status: &PodAutoscalerStatus,
    ) -> Result<Written, WriteError> {
        let patch = status_patch(&seen.resource_version, &json!(status));
        let changed: PodAutoscaler = self.patch_status(id, &patch).await?;
        Ok(Written::Autoscaler(facts::autoscaler(&changed).ok_or(WriteError::Misread)?.1))
    }

    pub(crate) async fn metric_status(
        &self,
        id: &RevisionId,
        resource_version: &str,
        status: &ConditionsStatus,
    ) -> Result<Written, WriteError> {
        let changed: Metric = self.patch_status(id, &status_patch(resource_version, &json!(status))).await?;
        Ok(Written::Metric(facts::metric(&changed).ok_or(WriteError::Misread)?.1))
    }

    async fn create<K>(&self, object: &K) -> Result<K, WriteError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Serialize
            + DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let namespace = object.meta().namespace.as_deref().unwrap_or_default();
        let api = Api::<K>::namespaced(self.client.clone(), namespace);
        within(api.create(&PostParams::default(), object)).await
    }

    async fn patch<K>(&self, id: &RevisionId, patch: &Value) -> Result<K, WriteError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let api = Api::<K>::namespaced(self.client.clone(), &id.namespace);
        within(api.patch(&id.name, &PatchParams::default(), &Patch::Merge(patch))).await
    }

    async fn patch_status<K>(&self, id: &RevisionId, patch: &Value) -> Result<K, WriteError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let api = Api::<K>::namespaced(self.client.clone(), &id.namespace);
        within(api.patch_status(&id.name, &PatchParams::default(), &Patch::Merge(patch))).await
    }
}

fn status_patch(resource_version: &str, status: &Value) -> Value {
    json!({ "metadata": { "resourceVersion": resource_version }, "status": status })
}

/// A merge patch leaves alone what it does not name: a number that is 0 must be named.
fn whole(spec: &ServerlessServiceSpec) -> Value {
    let mut value = json!(spec);
    value["numActivators"] = json!(spec.num_activators);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_names_every_field_that_it_means() {
        let spec = ServerlessServiceSpec { mode: "Proxy".to_owned(), ..ServerlessServiceSpec::default() };
        assert_eq!(whole(&spec)["numActivators"], 0);
        let patch = status_patch("12", &json!({ "desiredScale": 2 }));
        assert_eq!(patch, json!({"metadata": {"resourceVersion": "12"}, "status": {"desiredScale": 2}}));
    }
}
