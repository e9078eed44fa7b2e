//! Our own rights, held by finalizers while there is something to restore: whoever deletes everything at once would
//! otherwise take them away before anything was put back.
//!
//! The finalizer is set at run time, so that an installation that never worked can be deleted at once.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::{Method, Request, header};
use kube::Client;
use pilotlight_kubernetes::write::{WriteError, within};
use serde_json::{Value, json};
use tokio::time::{Instant, interval, sleep};
use tracing::{debug, info, warn};

use super::work::Worker;

/// The keeper of our own rights.
#[derive(Clone)]
pub(crate) struct OwnRights {
    client: Client,
    worker: Arc<Worker>,
    /// Paths of our own objects, in the order in which they may go: what the others are written with comes last.
    paths: Arc<[String]>,
}

/// One of our own objects.
#[derive(Debug, PartialEq, Eq)]
struct OwnObject {
    resource_version: String,
    finalizers: Vec<String>,
    is_deleted: bool,
}

impl OwnRights {
    pub(crate) fn new(
        client: Client,
        worker: Arc<Worker>,
        system_namespace: &str,
        namespaces: &[String],
    ) -> Self {
        let rbac = "/apis/rbac.authorization.k8s.io/v1";
        let watched = namespaces.iter().filter(|namespace| *namespace != system_namespace);
        let of_namespace = |namespace: &str| {
            ["rolebindings", "roles"].map(|kind| format!("{rbac}/namespaces/{namespace}/{kind}/{NAME}"))
        };
        let mut paths = vec![format!("/api/v1/namespaces/{system_namespace}/serviceaccounts/{NAME}")];
        paths.extend(watched.flat_map(|namespace| of_namespace(namespace)));
        paths.extend(["clusterrolebindings", "clusterroles"].map(|kind| format!("{rbac}/{kind}/{NAME}")));
        paths.extend(of_namespace(system_namespace));
        OwnRights { client, worker, paths: paths.into() }
    }

    /// Keeps the finalizers, for ever.
    pub(crate) async fn keep(self) {
        let mut rounds = interval(BETWEEN);
        loop {
            rounds.tick().await;
            if let Err(error) = self.round().await {
                debug!(%error, "Our own rights were not looked at");
            }
        }
    }

    /// Waits until everything is restored, if we are being uninstalled. Returns after [`PATIENCE`] at the latest.
    pub(crate) async fn settle(&self) {
        let deadline = Instant::now() + PATIENCE;
        while let Ok(true) = self.round().await {
            if !self.worker.has_something_to_restore() {
                return;
            }
            if Instant::now() >= deadline {
                warn!("Not everything is restored: see `pilotlight kube uninstall --force`");
                return;
            }
            sleep(BETWEEN_LOOKS).await;
        }
    }

    /// One look at our own objects. Returns whether we are being uninstalled.
    async fn round(&self) -> Result<bool, WriteError> {
        if !self.worker.is_complete() {
            return Ok(false);
        }
        let mut seen = Vec::new();
        for path in self.paths.iter() {
            match self.read(path).await {
                Ok(object) => seen.push((path, object)),
                // An installation in certain namespaces has no ClusterRole, and a cluster without our rights none of them.
                Err(WriteError::Missing(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let is_uninstalled = seen.iter().any(|(_, object)| object.is_deleted);
        if is_uninstalled {
            self.worker.uninstall();
        }
        let is_needed = self.worker.has_something_to_restore();
        let changes = seen.into_iter().filter_map(|(path, object)| {
            let has_it = object.finalizers.iter().any(|name| name == UNINSTALL);
            if has_it == is_needed || (object.is_deleted && !has_it) {
                return None;
            }
            let others = object.finalizers.iter().filter(|name| *name != UNINSTALL).cloned();
            let finalizers: Vec<String> = others.chain(is_needed.then(|| UNINSTALL.to_owned())).collect();
            Some(async move {
                self.write(path, &object, &finalizers).await?;
                info!(path, is_held = is_needed, "Finalizer of our own rights has changed");
                Ok(())
            })
        });
        // All at once: with the first of them that goes, the right to change the others goes as well.
        for outcome in join_all(changes).await {
            outcome?;
        }
        Ok(is_uninstalled)
    }

    async fn read(&self, path: &str) -> Result<OwnObject, WriteError> {
        let object = self.send(Request::get(path), Vec::new()).await?;
        let meta = &object["metadata"];
        let finalizers = meta["finalizers"].as_array().into_iter().flatten();
        Ok(OwnObject {
            resource_version: meta["resourceVersion"].as_str().unwrap_or_default().to_owned(),
            finalizers: finalizers.filter_map(|name| Some(name.as_str()?.to_owned())).collect(),
            is_deleted: !meta["deletionTimestamp"].is_null(),
        })
    }

    async fn write(&self, path: &str, object: &OwnObject, finalizers: &[String]) -> Result<(), WriteError> {
        let change = json!({
            "metadata": { "resourceVersion": object.resource_version, "finalizers": finalizers },
        });
        let request = Request::builder()
            .method(Method::PATCH)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/merge-patch+json");
        match self.send(request, change.to_string().into_bytes()).await {
            Ok(_) | Err(WriteError::Missing(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn send(&self, request: http::request::Builder, body: Vec<u8>) -> Result<Value, WriteError> {
        let request = request.header(header::ACCEPT, "application/json").body(body);
        let request = request.map_err(|error| WriteError::Refused(format!("our own path: {error}")))?;
        within(self.client.request(request)).await
    }
}

/// The name of our ServiceAccount, roles and bindings.
const NAME: &str = "pilotlight";
/// The finalizer of our own rights.
pub(crate) const UNINSTALL: &str = "pilotlight.dev/uninstall";
const BETWEEN: Duration = Duration::from_secs(2);
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);
/// Pods have 30 s to become ready, and slices leave in two steps.
const PATIENCE: Duration = Duration::from_secs(50);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leader::work::tests::{AUTOSCALER, TARGET, World, wants};

    const ACCOUNT: &str = "/api/v1/namespaces/pilotlight-system/serviceaccounts/pilotlight";

    fn finalizers(world: &World, path: &str) -> Value {
        world.api.get(path).unwrap()["metadata"]["finalizers"].clone()
    }

    #[tokio::test]
    async fn our_rights_are_held_until_everything_is_restored() {
        let world = World::with(1, &json!({})).await;
        world.api.put(ACCOUNT, json!({"metadata": {"namespace": "pilotlight-system"}}));
        world.until_shown().await;
        let client = world.api.client();
        let own = OwnRights::new(client, Arc::clone(world.worker()), "pilotlight-system", &[]);
        assert!(!own.round().await.unwrap());
        assert_eq!(finalizers(&world, ACCOUNT), Value::Null, "there is nothing to restore yet");

        world.decide(&wants(1));
        world
            .until("finalizer", |api| {
                api.get(AUTOSCALER).unwrap()["metadata"]["finalizers"][0] == "pilotlight.dev/restore"
            })
            .await;
        world.until_settled().await;
        assert!(!own.round().await.unwrap());
        assert_eq!(finalizers(&world, ACCOUNT), json!([UNINSTALL]));

        // Somebody else puts the target to sleep, and everything is deleted at once.
        let mut target = world.api.get(TARGET).unwrap();
        target["spec"]["replicas"] = json!(0);
        world.api.put(TARGET, target);
        let mut account = world.api.get(ACCOUNT).unwrap();
        account["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        world.api.put(ACCOUNT, account);
        assert!(own.round().await.unwrap());
        world.until("wake", |api| api.get(TARGET).unwrap()["spec"]["replicas"] == 1).await;
        world.ready_pod();
        own.settle().await;
        assert_eq!(finalizers(&world, AUTOSCALER), json!([]));
        own.round().await.unwrap();
        assert_eq!(finalizers(&world, ACCOUNT), json!([]));
    }
}
