//! Writes to the API server, one function each. Every write returns the object as it is then.

use k8s_openapi::api::core::v1::{Endpoints, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use pilotlight_core::RevisionId;
use pilotlight_kubernetes::write::{WriteError, within};
use serde_json::{Value, json};

use super::restore::RESTORE;
use super::workloads::WrittenObject;
use crate::crd::{RequestAutoscaler, RequestAutoscalerStatus};
use crate::facts::{AutoscalerFact, Name};
use crate::path::EndpointsDeletion;
use crate::slices::{SliceFact, SliceWrite};

/// Writes.
#[derive(Clone)]
pub(crate) struct Writer {
    client: Client,
}

impl Writer {
    pub(crate) fn new(client: Client) -> Self {
        Writer { client }
    }

    /// Only the version that the status was made for: it may be another one of the same name by now.
    pub(crate) async fn status(
        &self,
        id: &RevisionId,
        fact: &AutoscalerFact,
        status: &RequestAutoscalerStatus,
    ) -> Result<WrittenObject, WriteError> {
        let patch = json!({
            "metadata": { "resourceVersion": fact.resource_version },
            "status": whole(status, &fact.status),
        });
        let (api, params) = (self.autoscalers(id), PatchParams::default());
        let changed = within(api.patch_status(&id.name, &params, &Patch::Merge(&patch))).await?;
        autoscaler(&changed)
    }

    pub(crate) async fn add_finalizer(
        &self,
        id: &RevisionId,
        fact: &AutoscalerFact,
    ) -> Result<WrittenObject, WriteError> {
        let with: Vec<&str> = fact.finalizers.iter().map(String::as_str).chain([RESTORE]).collect();
        self.finalizers(id, fact, &with).await
    }

    pub(crate) async fn remove_finalizer(
        &self,
        id: &RevisionId,
        fact: &AutoscalerFact,
    ) -> Result<WrittenObject, WriteError> {
        let others: Vec<&str> =
            fact.finalizers.iter().map(String::as_str).filter(|name| *name != RESTORE).collect();
        self.finalizers(id, fact, &others).await
    }

    async fn finalizers(
        &self,
        id: &RevisionId,
        fact: &AutoscalerFact,
        finalizers: &[&str],
    ) -> Result<WrittenObject, WriteError> {
        let patch = json!({
            "metadata": { "resourceVersion": fact.resource_version, "finalizers": finalizers },
        });
        let (api, params) = (self.autoscalers(id), PatchParams::default());
        let changed = within(api.patch(&id.name, &params, &Patch::Merge(&patch))).await?;
        autoscaler(&changed)
    }

    /// Writes a slice; `None`: it is deleted.
    pub(crate) async fn slice(
        &self,
        namespace: &str,
        write: &SliceWrite,
    ) -> Result<(Name, Option<SliceFact>), WriteError> {
        let api = Api::<EndpointSlice>::namespaced(self.client.clone(), namespace);
        let params = PostParams::default();
        let written = match write {
            SliceWrite::Create(slice) => within(api.create(&params, slice)).await?,
            SliceWrite::Replace(slice) => {
                let name = slice.metadata.name.clone().unwrap_or_default();
                within(api.replace(&name, &params, slice)).await?
            }
            SliceWrite::Delete { name, uid, resource_version } => {
                let params = only_if(uid, resource_version);
                gone(within(api.delete(name, &params)).await.map(drop))?;
                return Ok((Name::new(namespace, name), None));
            }
        };
        let (name, fact) = SliceFact::read(&written).ok_or(WriteError::Misread)?;
        Ok((name, Some(fact)))
    }

    pub(crate) async fn delete_endpoints(
        &self,
        namespace: &str,
        deletion: &EndpointsDeletion,
    ) -> Result<(), WriteError> {
        let api = Api::<Endpoints>::namespaced(self.client.clone(), namespace);
        let params = only_if(&deletion.uid, &deletion.resource_version);
        gone(within(api.delete(&deletion.name, &params)).await.map(drop))
    }

    /// Has a pod go before all others when the number of pods falls, or (`false`) not any more. A pod that is gone is as good.
    pub(crate) async fn deletion_cost(
        &self,
        namespace: &str,
        pod: &str,
        is_first: bool,
    ) -> Result<(), WriteError> {
        let cost = if is_first { json!(FIRST) } else { Value::Null };
        let patch = json!({ "metadata": { "annotations": { DELETION_COST: cost } } });
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
        let params = PatchParams::default();
        gone(within(api.patch(pod, &params, &Patch::Merge(&patch))).await.map(drop))
    }

    /// The Endpoints object of a Service; `None`: there is none.
    pub(crate) async fn endpoints(
        &self,
        namespace: &str,
        service: &str,
    ) -> Result<Option<Endpoints>, WriteError> {
        let api = Api::<Endpoints>::namespaced(self.client.clone(), namespace);
        within(api.get_opt(service)).await
    }

    fn autoscalers(&self, id: &RevisionId) -> Api<RequestAutoscaler> {
        Api::namespaced(self.client.clone(), &id.namespace)
    }
}

fn autoscaler(object: &RequestAutoscaler) -> Result<WrittenObject, WriteError> {
    Ok(WrittenObject::Autoscaler(Box::new(AutoscalerFact::read(object).ok_or(WriteError::Misread)?.1)))
}

fn only_if(uid: &str, resource_version: &str) -> DeleteParams {
    let preconditions =
        Preconditions { uid: Some(uid.to_owned()), resource_version: Some(resource_version.to_owned()) };
    DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() }
}

/// Gone already is as good as deleted.
fn gone(deleted: Result<(), WriteError>) -> Result<(), WriteError> {
    match deleted {
        Err(WriteError::Missing(_)) => Ok(()),
        deleted => deleted,
    }
}

/// A merge patch leaves alone what it does not name: what is not there any more must be named as `null`.
fn whole(status: &RequestAutoscalerStatus, before: &RequestAutoscalerStatus) -> Value {
    let (mut value, before) = (json!(status), json!(before));
    clear(&mut value, &before);
    value
}

fn clear(value: &mut Value, before: &Value) {
    let (Some(value), Some(before)) = (value.as_object_mut(), before.as_object()) else { return };
    for (key, old) in before {
        match value.get_mut(key) {
            Some(new) => clear(new, old),
            None => drop(value.insert(key.clone(), Value::Null)),
        }
    }
}

/// Kubernetes deletes pods with the least cost first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const FIRST: &str = "-1000";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_of_a_status_names_what_is_not_there_any_more() {
        let before = RequestAutoscalerStatus {
            panicking: true,
            ports: [("web/http".to_owned(), 10_000), ("web/admin".to_owned(), 10_001)].into(),
            ..RequestAutoscalerStatus::default()
        };
        let ports = [("web/http".to_owned(), 10_000)].into();
        let after =
            RequestAutoscalerStatus { ports, replicas: Some(2), ..RequestAutoscalerStatus::default() };
        let expected =
            json!({"panicking": null, "replicas": 2, "ports": {"web/http": 10_000, "web/admin": null}});
        assert_eq!(whole(&after, &before), expected);
    }
}
