//! Writes to the API server, one function each. Every write returns the object as it is then.

use std::time::Duration;

use http::{Method, Request, header};
use k8s_openapi::api::autoscaling::v1::Scale;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource};
use pilotlight_core::RevisionId;
use pilotlight_kubernetes::knative::{
    ConditionsStatus, Metric, MetricSpec, PodAutoscaler, PodAutoscalerStatus, ServerlessService,
    ServerlessServiceSpec, TargetRef,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::facts::{self, AutoscalerFact, TargetFact};
use super::index::Written;

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// The object is not as we know it: the watch will tell.
    #[error("the object has changed meanwhile: {0}")]
    Changed(String),
    /// There is no such object: the watch will tell.
    #[error("the object is not there: {0}")]
    Missing(String),
    /// Anything else that the API server, or the way to it, has against it.
    #[error("{0}")]
    Refused(String),
    /// No answer.
    #[error("the API server did not answer within {} s", WRITE_LIMIT.as_secs())]
    TimedOut,
    /// The answer is not the object.
    #[error("the API server answered with something else than the object")]
    Misread,
}

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

    /// How many pods a scale target asks for.
    pub(crate) async fn scale(&self, namespace: &str, target: &TargetRef) -> Result<TargetFact, WriteError> {
        let request = Request::get(scale_path(namespace, target));
        self.scale_request(request, Vec::new()).await
    }

    /// Has a scale target ask for so many pods.
    pub(crate) async fn set_scale(
        &self,
        namespace: &str,
        target: &TargetRef,
        pods: u32,
    ) -> Result<TargetFact, WriteError> {
        let request = Request::builder()
            .method(Method::PATCH)
            .uri(scale_path(namespace, target))
            .header(header::CONTENT_TYPE, "application/json-patch+json");
        self.scale_request(request, scale_patch(pods).into_bytes()).await
    }

    async fn scale_request(
        &self,
        request: http::request::Builder,
        body: Vec<u8>,
    ) -> Result<TargetFact, WriteError> {
        let request = request.header(header::ACCEPT, "application/json").body(body);
        let request =
            request.map_err(|error| WriteError::Refused(format!("the scale target's name: {error}")))?;
        let scale: Scale = within(self.client.request(request)).await?;
        let replicas = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0);
        Ok(TargetFact {
            resource_version: scale.metadata.resource_version.unwrap_or_default(),
            replicas: u32::try_from(replicas).unwrap_or(0),
        })
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

async fn within<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, WriteError> {
    match timeout(WRITE_LIMIT, request).await {
        Err(_) => Err(WriteError::TimedOut),
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => Err(match status.code {
            404 => WriteError::Missing(status.message.clone()),
            409 => WriteError::Changed(status.message.clone()),
            code => WriteError::Refused(format!("{} ({code})", status.message)),
        }),
        Ok(Err(error)) => Err(WriteError::Refused(error.to_string())),
    }
}

/// Exactly what Knative sends.
fn scale_patch(pods: u32) -> String {
    format!(r#"[{{"op":"add","path":"/spec/replicas","value":{pods}}}]"#)
}

/// The path of the subresource `scale`. The plural is made as Knative makes it.
fn scale_path(namespace: &str, target: &TargetRef) -> String {
    let TargetRef { api_version, kind, name } = target;
    let root = if api_version.contains('/') { "apis" } else { "api" };
    let kind = kind.to_lowercase();
    let ending = if kind.ends_with('s') { "es" } else { "s" };
    format!("/{root}/{api_version}/namespaces/{namespace}/{kind}{ending}/{name}/scale")
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

/// The longest time that one write may take.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_target_is_addressed_and_patched_as_knative_does_it() {
        let target = |api_version: &str, kind: &str| TargetRef {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            name: "hello".to_owned(),
        };
        let path = |api_version, kind| scale_path("ns", &target(api_version, kind));
        assert_eq!(path("apps/v1", "Deployment"), "/apis/apps/v1/namespaces/ns/deployments/hello/scale");
        assert_eq!(path("example.com/v1", "Bus"), "/apis/example.com/v1/namespaces/ns/buses/hello/scale");
        assert_eq!(
            path("v1", "ReplicationController"),
            "/api/v1/namespaces/ns/replicationcontrollers/hello/scale"
        );
        assert_eq!(scale_patch(3), r#"[{"op":"add","path":"/spec/replicas","value":3}]"#);
    }

    #[test]
    fn a_patch_names_every_field_that_it_means() {
        let spec = ServerlessServiceSpec { mode: "Proxy".to_owned(), ..ServerlessServiceSpec::default() };
        assert_eq!(whole(&spec)["numActivators"], 0);
        let patch = status_patch("12", &json!({ "desiredScale": 2 }));
        assert_eq!(patch, json!({"metadata": {"resourceVersion": "12"}, "status": {"desiredScale": 2}}));
    }
}
