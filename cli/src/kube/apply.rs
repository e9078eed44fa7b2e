//! Objects on their way to the API server.

use anyhow::Context;
use kube::Client;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, TypeMeta,
};
use serde_json::{Value, json};

/// Applies an object on the server's side, as `kubectl apply --server-side` does.
pub(super) async fn apply(client: &Client, object: &Value) -> anyhow::Result<()> {
    let api = api_of(client, object)?;
    let name = name_of(object);
    // What is applied is ours: another manager's fields are those of an older way to install.
    let params = PatchParams::apply(MANAGER).force();
    api.patch(name, &params, &Patch::Apply(object))
        .await
        .map(drop)
        .with_context(|| format!("cannot apply {}", title(object)))
}

/// Deletes an object; `false`: it is not there.
pub(super) async fn delete(client: &Client, object: &Value) -> anyhow::Result<bool> {
    match api_of(client, object)?.delete(name_of(object), &DeleteParams::default()).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot delete {}", title(object))),
    }
}

/// Takes our finalizer off an object, if it is there and has it.
pub(super) async fn release(client: &Client, object: &Value) -> anyhow::Result<()> {
    let (api, name) = (api_of(client, object)?, name_of(object));
    let found = match api.get_opt(name).await {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(()),
        // A kind that is gone already.
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", title(object))),
    };
    let finalizers = found.metadata.finalizers.unwrap_or_default();
    if !finalizers.iter().any(|finalizer| finalizer == UNINSTALL) {
        return Ok(());
    }
    let others: Vec<&String> = finalizers.iter().filter(|finalizer| *finalizer != UNINSTALL).collect();
    let patch = json!({"metadata": {"finalizers": others}});
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map(drop)
        .with_context(|| format!("cannot let {} go", title(object)))
}

/// `Deployment pilotlight-system/pilotlight`.
pub(super) fn title(object: &Value) -> String {
    let part = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, name) = (part(&object["kind"]), name_of(object));
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn api_of(client: &Client, object: &Value) -> anyhow::Result<Api<DynamicObject>> {
    let types: TypeMeta = serde_json::from_value(object.clone()).context("an object without a kind")?;
    let kind = GroupVersionKind::try_from(&types).context("an object without a version")?;
    let resource = ApiResource::from_gvk(&kind);
    Ok(match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    })
}

/// The field manager of what commands write.
pub(super) const MANAGER: &str = "pilotlight-cli";
/// The finalizer of the controller's own objects, while there is something to restore.
const UNINSTALL: &str = "pilotlight.dev/uninstall";
