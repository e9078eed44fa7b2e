//! Which kinds there are: `/api`, `/apis`, and what is below them, also in the aggregated form.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::definition::Definition;
use super::store::Store;

/// The answer to a path of discovery; none if it is none. `is_aggregated`: the client accepts `APIGroupDiscoveryList`.
pub(crate) fn find(store: &Store, path: &str, is_aggregated: bool) -> Option<Value> {
    let definitions: Vec<_> = store.tables().map(|table| &*table.definition).collect();
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
    Some(match parts[..] {
        ["api"] if is_aggregated => aggregated(&definitions, true),
        ["apis"] if is_aggregated => aggregated(&definitions, false),
        ["api"] => json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
        ["apis"] => {
            let groups: Vec<_> =
                groups(&definitions).iter().filter_map(|(name, all)| group(name, all)).collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        ["apis", name] => group(name, groups(&definitions).get(name)?)?,
        ["api", version] => resources("", version, &definitions)?,
        ["apis", group, version] => resources(group, version, &definitions)?,
        _ => return None,
    })
}

/// Definitions by group.
fn groups<'a>(definitions: &[&'a Definition]) -> BTreeMap<&'a str, Vec<&'a Definition>> {
    let mut groups: BTreeMap<&str, Vec<&Definition>> = BTreeMap::new();
    for definition in definitions {
        groups.entry(&definition.group).or_default().push(definition);
    }
    groups
}

/// Versions of a group, once each.
fn versions<'a>(definitions: &[&'a Definition]) -> Vec<&'a str> {
    let mut versions: Vec<_> = definitions.iter().map(|definition| definition.version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    versions
}

fn group(name: &str, definitions: &[&Definition]) -> Option<Value> {
    if name.is_empty() {
        return None;
    }
    let version = |version: &&str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let versions: Vec<_> = versions(definitions).iter().map(version).collect();
    let preferred = versions.first()?;
    Some(
        json!({"kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": versions, "preferredVersion": preferred}),
    )
}

fn resources(group: &str, version: &str, definitions: &[&Definition]) -> Option<Value> {
    let is_meant = |definition: &&&Definition| definition.group == group && definition.version == version;
    let mut resources = Vec::new();
    for definition in definitions.iter().filter(is_meant) {
        resources.push(resource(definition, &definition.plural, &definition.kind, VERBS));
        for (subresource, kind, verbs) in subresources(definition) {
            resources.push(resource(
                definition,
                &format!("{}/{subresource}", definition.plural),
                kind,
                verbs,
            ));
        }
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    (!resources.is_empty()).then(|| {
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources})
    })
}

fn resource(definition: &Definition, name: &str, kind: &str, verbs: &[&str]) -> Value {
    let mut resource = json!({"name": name, "singularName": "", "namespaced": definition.is_namespaced, "kind": kind, "verbs": verbs});
    if name == definition.plural {
        resource["singularName"] = definition.singular.clone().into();
        resource["shortNames"] = definition.short_names.clone().into();
        resource["categories"] = definition.categories.clone().into();
    }
    if kind == "Scale" {
        resource["group"] = "autoscaling".into();
        resource["version"] = "v1".into();
    }
    resource
}

fn subresources(definition: &Definition) -> Vec<(&'static str, &str, &'static [&'static str])> {
    let mut subresources: Vec<(&str, &str, &[&str])> = Vec::new();
    if definition.has_status {
        subresources.push(("status", &definition.kind, &["get", "patch", "update"]));
    }
    if definition.scale.is_some() {
        subresources.push(("scale", "Scale", &["get", "patch", "update"]));
    }
    subresources
}

fn aggregated(definitions: &[&Definition], is_core: bool) -> Value {
    let items: Vec<_> = groups(definitions)
        .iter()
        .filter(|(name, _)| name.is_empty() == is_core)
        .map(|(name, all)| {
            let version = |version: &&str| {
                let resources: Vec<_> = all
                    .iter()
                    .filter(|each| each.version == **version)
                    .map(|each| aggregated_resource(each))
                    .collect();
                json!({"version": version, "freshness": "Current", "resources": resources})
            };
            let versions: Vec<_> = versions(all).iter().map(version).collect();
            json!({"metadata": {"name": name, "creationTimestamp": null}, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_resource(definition: &Definition) -> Value {
    let kind =
        |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let own = kind(&definition.group, &definition.version, &definition.kind);
    let subresources: Vec<_> = subresources(definition)
        .into_iter()
        .map(|(name, response, verbs)| {
            let response = if response == "Scale" { kind("autoscaling", "v1", "Scale") } else { own.clone() };
            json!({"subresource": name, "responseKind": response, "verbs": verbs})
        })
        .collect();
    json!({
        "resource": definition.plural,
        "responseKind": own,
        "scope": if definition.is_namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": definition.singular,
        "verbs": VERBS,
        "shortNames": definition.short_names,
        "categories": definition.categories,
        "subresources": subresources,
    })
}

const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
