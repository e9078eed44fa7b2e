//! The subresource `scale` of whatever has one.

use http::{Method, Request, header};
use k8s_openapi::api::autoscaling::v1::Scale;
use kube::Client;
use serde_json::json;

use crate::knative::TargetRef;
use crate::known::Versioned;
use crate::write::{WriteError, within};

/// The number of pods that an object asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScaleFact {
    /// The version of the object.
    pub resource_version: String,
    /// Pods.
    pub replicas: u32,
}

impl Versioned for ScaleFact {
    fn resource_version(&self) -> &str {
        &self.resource_version
    }
}

/// Reads and writes scales. Clones are the same one.
#[derive(Clone)]
pub struct Scales {
    client: Client,
}

impl Scales {
    /// Scales of this API server.
    pub fn new(client: Client) -> Self {
        Scales { client }
    }

    /// The scale of an object, and the label selector of its pods; an empty selector: the object names none.
    pub async fn read(&self, namespace: &str, target: &TargetRef) -> Result<(ScaleFact, String), WriteError> {
        self.send(Request::get(scale_path(namespace, target)), Vec::new()).await
    }

    /// Has an object ask for so many pods, whatever it asks for now.
    pub async fn set(&self, namespace: &str, target: &TargetRef, pods: u32) -> Result<ScaleFact, WriteError> {
        let request = patch(namespace, target, "application/json-patch+json");
        Ok(self.send(request, scale_patch(pods).into_bytes()).await?.0)
    }

    /// Has an object ask for so many pods if it still is in the version that was seen; [`WriteError::Changed`]: it is not.
    pub async fn set_from(
        &self,
        namespace: &str,
        target: &TargetRef,
        seen: &ScaleFact,
        pods: u32,
    ) -> Result<ScaleFact, WriteError> {
        let change =
            json!({ "metadata": { "resourceVersion": seen.resource_version }, "spec": { "replicas": pods } });
        let request = patch(namespace, target, "application/merge-patch+json");
        Ok(self.send(request, change.to_string().into_bytes()).await?.0)
    }

    async fn send(
        &self,
        request: http::request::Builder,
        body: Vec<u8>,
    ) -> Result<(ScaleFact, String), WriteError> {
        let request = request.header(header::ACCEPT, "application/json").body(body);
        let request =
            request.map_err(|error| WriteError::Refused(format!("the scale target's name: {error}")))?;
        let scale: Scale = within(self.client.request(request)).await?;
        let replicas = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0);
        let fact = ScaleFact {
            resource_version: scale.metadata.resource_version.unwrap_or_default(),
            replicas: u32::try_from(replicas).unwrap_or(0),
        };
        Ok((fact, scale.status.and_then(|status| status.selector).unwrap_or_default()))
    }
}

fn patch(namespace: &str, target: &TargetRef, content_type: &str) -> http::request::Builder {
    Request::builder()
        .method(Method::PATCH)
        .uri(scale_path(namespace, target))
        .header(header::CONTENT_TYPE, content_type)
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
}
