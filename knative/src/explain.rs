//! Decisions of the autoscalers of a cluster, read through the API server: nothing has to be forwarded for that.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use pilotlight_autoscaler::RevisionStatus;

/// The decisions of all autoscalers of a cluster.
#[derive(Debug)]
pub struct Decisions {
    /// The decisions, by revision.
    pub revisions: Vec<RevisionStatus>,
    /// Autoscalers that could not be asked, and why.
    pub silent: Vec<SilentPod>,
}

/// A pod that could not be asked for its decisions.
#[derive(Debug, thiserror::Error)]
#[error("the pod {pod} does not tell its decisions: {why}")]
pub struct SilentPod {
    /// The pod.
    pub pod: String,
    /// Why.
    pub why: String,
}

/// Why no autoscaler could be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecisionsError {
    /// The pods cannot be listed.
    #[error("cannot list the pods of the namespace {namespace}")]
    List {
        /// The namespace.
        namespace: String,
        /// Why.
        source: kube::Error,
    },
    /// There is no autoscaler.
    #[error("no pod with the label {SELECTOR} runs in the namespace {0} (name another with --namespace)")]
    NoPods(String),
    /// None of the autoscalers answers.
    #[error("{}\n  (Knative's own autoscaler tells nothing; ours does on port {ADMIN_PORT})", words(.0))]
    Silent(Vec<SilentPod>),
}

/// Reads the decisions of the autoscalers that run in Knative's system namespace. Each tells those of its own buckets.
pub async fn decisions(client: &Client, namespace: &str) -> Result<Decisions, DecisionsError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pods = pods.list(&ListParams::default().labels(SELECTOR)).await;
    let pods = pods.map_err(|source| DecisionsError::List { namespace: namespace.to_owned(), source })?;
    let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
    let running: Vec<String> = pods
        .iter()
        .filter(|pod| phase(pod).as_deref() == Some("Running"))
        .map(ResourceExt::name_any)
        .collect();
    if running.is_empty() {
        return Err(DecisionsError::NoPods(namespace.to_owned()));
    }
    let (mut revisions, mut silent) = (Vec::new(), Vec::new());
    let asked = running.len();
    for pod in running {
        match ask(client, namespace, &pod).await {
            Ok(told) => revisions.extend(told),
            Err(why) => silent.push(SilentPod { pod, why }),
        }
    }
    if silent.len() == asked {
        return Err(DecisionsError::Silent(silent));
    }
    revisions.sort_by(|one, other| one.revision.cmp(&other.revision));
    Ok(Decisions { revisions, silent })
}

async fn ask(client: &Client, namespace: &str, pod: &str) -> Result<Vec<RevisionStatus>, String> {
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{ADMIN_PORT}/proxy/v1/decisions");
    let request = http::Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
    let text = client.request_text(request).await.map_err(|error| match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    })?;
    serde_json::from_str(&text).map_err(|error| format!("what it tells is not understood: {error}"))
}

fn words(silent: &[SilentPod]) -> String {
    let words: Vec<String> = silent.iter().map(ToString::to_string).collect();
    words.join("\n")
}

/// Knative's label of the autoscaler's pods.
const SELECTOR: &str = "app=autoscaler";
/// The port at which an autoscaler tells its decisions.
const ADMIN_PORT: u16 = 8008;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use pilotlight_kubernetes::pretend::PretendApi;

    const PODS: &str = "/api/v1/namespaces/knative-serving/pods";

    fn running(api: &PretendApi, name: &str) {
        let labels = json!({ "app": "autoscaler" });
        api.put(
            &format!("{PODS}/{name}"),
            json!({ "metadata": { "labels": labels }, "status": { "phase": "Running" } }),
        );
    }

    fn tells(api: &PretendApi, name: &str, decisions: Value) {
        api.raw(&format!("{PODS}/{name}:8008/proxy/v1/decisions"), decisions);
    }

    #[tokio::test]
    async fn decisions_of_all_autoscalers_are_read_and_those_that_say_nothing_are_named() {
        let (api, client) = PretendApi::start();
        let none = decisions(&client, "knative-serving").await.unwrap_err();
        assert!(matches!(none, DecisionsError::NoPods(_)), "{none}");
        running(&api, "a");
        running(&api, "b");
        let silent = decisions(&client, "knative-serving").await.unwrap_err().to_string();
        assert_eq!(silent.lines().count(), 3, "{silent}");
        assert!(silent.starts_with("the pod a does not tell its decisions"), "{silent}");
        tells(&api, "b", json!([]));
        let read = decisions(&client, "knative-serving").await.unwrap();
        assert_eq!((read.revisions.len(), read.silent.len(), read.silent[0].pod.as_str()), (0, 1, "a"));
        tells(&api, "a", json!({ "not": "decisions" }));
        let read = decisions(&client, "knative-serving").await.unwrap();
        assert!(read.silent[0].why.contains("is not understood"), "{read:?}");
    }
}
