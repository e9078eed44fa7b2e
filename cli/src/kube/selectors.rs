//! Selectors of Services: taken away and kept in an annotation, and put back.

use std::collections::BTreeMap;

use anyhow::{Context, anyhow};
use k8s_openapi::api::core::v1::Service;
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams};
use pilotlight_controller::facts::SELECTOR;
use serde_json::json;

use super::apply::MANAGER;

/// Takes the selector of a Service away, and keeps it in its annotation. Returns what is kept; `None`: there is no selector.
pub(super) async fn take(client: &Client, namespace: &str, name: &str) -> anyhow::Result<Option<String>> {
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let service = services.get(name).await.with_context(|| format!("cannot read Service {name}"))?;
    let selector = service.spec.and_then(|spec| spec.selector).unwrap_or_default();
    if selector.is_empty() {
        return Ok(None);
    }
    let kept = written(&selector);
    let patch = json!({
        "metadata": {"resourceVersion": service.metadata.resource_version, "annotations": {SELECTOR: kept}},
        "spec": {"selector": null},
    });
    services
        .patch(name, &params(), &Patch::Merge(patch))
        .await
        .with_context(|| format!("cannot take the selector of Service {name} away"))?;
    Ok(Some(kept))
}

/// Puts the selector back that the annotation of a Service keeps. Returns it; `None`: the annotation keeps none.
pub(super) async fn put_back(client: &Client, service: &Service) -> anyhow::Result<Option<String>> {
    let meta = &service.metadata;
    let (Some(namespace), Some(name)) = (&meta.namespace, &meta.name) else { return Ok(None) };
    let Some(kept) = meta.annotations.as_ref().and_then(|annotations| annotations.get(SELECTOR)) else {
        return Ok(None);
    };
    let has_one =
        service.spec.as_ref().and_then(|spec| spec.selector.as_ref()).is_some_and(|own| !own.is_empty());
    let mut patch = json!({
        "metadata": {"resourceVersion": meta.resource_version, "annotations": {SELECTOR: null}},
    });
    if !has_one {
        let selector = read(kept)
            .ok_or_else(|| anyhow!("Service {name}: the annotation {SELECTOR} is no selector: {kept}"))?;
        patch["spec"] = json!({"selector": selector});
    }
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    services
        .patch(name, &params(), &Patch::Merge(patch))
        .await
        .with_context(|| format!("cannot put the selector of Service {namespace}/{name} back"))?;
    Ok(Some(kept.clone()))
}

/// Services that keep a selector in their annotation; without a namespace, those of the whole cluster.
pub(super) async fn keeping(client: &Client, namespace: Option<&str>) -> anyhow::Result<Vec<Service>> {
    let services: Api<Service> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let listed = services.list(&ListParams::default()).await.context("cannot read Services")?;
    let keeps = |service: &Service| {
        service.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(SELECTOR))
    };
    Ok(listed.items.into_iter().filter(keeps).collect())
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

fn written(selector: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}

fn read(text: &str) -> Option<BTreeMap<String, String>> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=')?;
        Some((key.trim().to_owned(), value.trim().to_owned()))
    };
    text.split(',').map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_kept_as_kubectl_writes_it_and_read_again() {
        let selector =
            BTreeMap::from([("app".to_owned(), "web".to_owned()), ("tier".to_owned(), String::new())]);
        assert_eq!(written(&selector), "app=web,tier=");
        assert_eq!(read(&written(&selector)), Some(selector));
        assert_eq!(read("app in (a)"), None);
        assert_eq!(read(""), None);
    }
}
