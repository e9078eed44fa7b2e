//! ServerlessServices to a private and a public Service each, and to the endpoints of the latter: the revision's pods, or
//! activators.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{EndpointSubset, Endpoints, Service};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use pilotlight_core::balance::choose_subset;
use pilotlight_kubernetes::knative::{ServerlessService, ServerlessServiceStatus};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::conditions::{Said, conditions};
use super::{ACTIVATOR_SERVICE, SYSTEM_NAMESPACE};
use crate::cluster::log::Log;
use crate::cluster::objects::{controlled_by, is_controlled_by};
use crate::cluster::queue::{Queue, work};
use crate::cluster::store::{Key, Store, key_of};

/// The label of both Services: [`PUBLIC`] or [`PRIVATE`].
const SERVICE_TYPE: &str = "networking.internal.knative.dev/serviceType";
const PUBLIC: &str = "Public";
const PRIVATE: &str = "Private";
const OWNER: &str = "networking.internal.knative.dev/serverlessservice";

pub(super) struct ServiceReconciler {
    client: Client,
    all: Arc<Store<ServerlessService>>,
    deployments: Arc<Store<Deployment>>,
    services: Arc<Store<Service>>,
    endpoints: Arc<Store<Endpoints>>,
}

impl ServiceReconciler {
    pub(super) fn start(
        client: Client,
        deployments: &Arc<Store<Deployment>>,
        services: &Arc<Store<Service>>,
        endpoints: &Arc<Store<Endpoints>>,
        tasks: &mut JoinSet<()>,
        log: &Log,
    ) {
        let all: Arc<Store<ServerlessService>> = Store::watch(Api::all(client.clone()), tasks, log.clone());
        let queue: Arc<Queue<Key>> = Queue::new();
        let added = Arc::clone(&queue);
        all.on_change(move |sks, _| added.add(key_of(sks)));
        let added = Arc::clone(&queue);
        services.on_change(move |service, _| {
            if let Some(name) = service.labels().get(OWNER) {
                added.add((service.namespace().unwrap_or_default(), name.clone()));
            }
        });
        let (added, every) = (Arc::clone(&queue), Arc::clone(&all));
        endpoints.on_change(move |endpoints, _| {
            if key_of(endpoints) == (SYSTEM_NAMESPACE.to_owned(), ACTIVATOR_SERVICE.to_owned()) {
                every.all().iter().for_each(|sks| added.add(key_of(&**sks)));
            } else if let Some(name) = endpoints.labels().get(OWNER) {
                added.add((endpoints.namespace().unwrap_or_default(), name.clone()));
            }
        });
        let reconciler = Arc::new(ServiceReconciler {
            client,
            all,
            deployments: Arc::clone(deployments),
            services: Arc::clone(services),
            endpoints: Arc::clone(endpoints),
        });
        work(tasks, log, "serverless services", &queue, move |key| {
            let reconciler = Arc::clone(&reconciler);
            async move { reconciler.reconcile(&key).await }
        });
    }

    async fn reconcile(&self, key: &Key) -> anyhow::Result<()> {
        self.services.listed().await;
        self.endpoints.listed().await;
        self.deployments.listed().await;
        let Some(sks) = self.all.get(key).filter(|sks| sks.metadata.deletion_timestamp.is_none()) else {
            // Its owner references take the rest along.
            return Ok(());
        };
        let private_name = format!("{}-private", key.1);
        ensure!(
            private_name.len() <= 63,
            "{private_name} is longer than a name may be: shorter ones are not made here"
        );
        let target = (key.0.clone(), sks.spec.object_ref.name.clone());
        let deployment =
            self.deployments.get(&target).with_context(|| format!("no Deployment {}", target.1))?;
        let selector =
            deployment.spec.as_ref().and_then(|spec| spec.selector.match_labels.clone()).unwrap_or_default();
        let private = self.write_service(&sks, &private_name, private_spec(&sks, &selector), PRIVATE).await?;
        let public = self.write_service(&sks, &key.1, public_spec(&sks), PUBLIC).await?;
        if !private || !public {
            return self.write_status(&sks, "", "", not_owned(&key.1)).await;
        }
        let pods =
            self.endpoints.get(&(key.0.clone(), private_name.clone())).context("no private Endpoints yet")?;
        let system = (SYSTEM_NAMESPACE.to_owned(), ACTIVATOR_SERVICE.to_owned());
        let activators = self.endpoints.get(&system).context("no Endpoints of activators yet")?;
        let number = usize::try_from(sks.spec.num_activators).unwrap_or(0);
        let subsets = public_subsets(&sks, subsets(&pods), subsets(&activators), number);
        self.write_endpoints(&sks, subsets).await?;
        let has_pods = ready_count(subsets_ref(&pods)) > 0;
        let populated = match has_pods {
            true => Said::is_true("EndpointsPopulated"),
            false => Said::is_unknown("EndpointsPopulated", "NoHealthyBackends", "K8s Service is not ready"),
        };
        let by_activators = match sks.spec.mode == "Proxy" || !has_pods {
            true => Said::is_true("ActivatorEndpointsPopulated"),
            false => Said::is_false("ActivatorEndpointsPopulated", "", ""),
        };
        self.write_status(&sks, &key.1, &private_name, vec![populated, by_activators.as_info()]).await
    }

    /// False: somebody else owns a Service of this name.
    async fn write_service(
        &self,
        sks: &ServerlessService,
        name: &str,
        spec: Value,
        type_: &str,
    ) -> anyhow::Result<bool> {
        let namespace = sks.namespace().unwrap_or_default();
        let api: Api<Service> = Api::namespaced(self.client.clone(), &namespace);
        let mut labels = sks.labels().clone();
        labels.insert(OWNER.to_owned(), sks.name_any());
        labels.insert(SERVICE_TYPE.to_owned(), type_.to_owned());
        let metadata = json!({ "name": name, "namespace": namespace, "labels": labels, "ownerReferences": controlled_by(sks) });
        let wanted: Service = serde_json::from_value(json!({ "metadata": metadata, "spec": spec }))?;
        let written = match self.services.get(&(namespace, name.to_owned())) {
            None => api.create(&PostParams::default(), &wanted).await?,
            Some(before) if !is_controlled_by(&*before, sks.uid().as_deref()) => return Ok(false),
            Some(before) if is_as_wanted(&before, &wanted) => return Ok(true),
            Some(_) => {
                let spec = wanted.spec.unwrap_or_default();
                // `null` takes a selector away that somebody has added.
                let patch = json!({ "spec": { "selector": spec.selector, "ports": spec.ports } });
                api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?
            }
        };
        self.services.put(written);
        Ok(true)
    }

    async fn write_endpoints(
        &self,
        sks: &ServerlessService,
        subsets: Vec<EndpointSubset>,
    ) -> anyhow::Result<()> {
        let (namespace, name) = (sks.namespace().unwrap_or_default(), sks.name_any());
        let api: Api<Endpoints> = Api::namespaced(self.client.clone(), &namespace);
        let subsets = Some(subsets).filter(|subsets| !subsets.is_empty());
        let written = match self.endpoints.get(&(namespace.clone(), name.clone())) {
            Some(before) if before.subsets == subsets => return Ok(()),
            Some(_) => {
                let patch = Patch::Merge(json!({ "subsets": subsets }));
                api.patch(&name, &PatchParams::default(), &patch).await?
            }
            None => {
                let service =
                    self.services.get(&(namespace.clone(), name.clone())).context("no public Service")?;
                let metadata = json!({
                    "name": name, "namespace": namespace, "labels": service.labels(), "ownerReferences": controlled_by(sks),
                });
                let endpoints = serde_json::from_value(json!({ "metadata": metadata, "subsets": subsets }))?;
                api.create(&PostParams::default(), &endpoints).await?
            }
        };
        self.endpoints.put(written);
        Ok(())
    }

    async fn write_status(
        &self,
        sks: &ServerlessService,
        public: &str,
        private: &str,
        said: Vec<Said>,
    ) -> anyhow::Result<()> {
        let before = sks.status.clone().unwrap_or_default();
        let status = ServerlessServiceStatus {
            observed_generation: sks.metadata.generation,
            conditions: conditions(&before.conditions, said),
            service_name: public.to_owned(),
            private_service_name: private.to_owned(),
        };
        if before != status {
            let api: Api<ServerlessService> =
                Api::namespaced(self.client.clone(), &sks.namespace().unwrap_or_default());
            let patch = Patch::Merge(json!({ "status": status }));
            self.all.put(api.patch_status(&sks.name_any(), &PatchParams::default(), &patch).await?);
        }
        Ok(())
    }
}

fn not_owned(name: &str) -> Vec<Said> {
    let message = format!("There is an existing Service \"{name}\" that we do not own.");
    vec![Said::is_false("EndpointsPopulated", "NotOwned", &message)]
}

fn is_as_wanted(before: &Service, wanted: &Service) -> bool {
    let ports = |service: &Service| {
        let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
        ports.map(|port| (port.name.clone(), port.port, port.target_port.clone())).collect::<Vec<_>>()
    };
    let selector =
        |service: &Service| service.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
    ports(before) == ports(wanted) && selector(before) == selector(wanted)
}

/// Name of the port, its number in the public Service, its target.
fn serving_port(sks: &ServerlessService) -> (&'static str, i32, i32) {
    if sks.spec.protocol_type == "h2c" { ("http2", 81, 8013) } else { ("http", 80, 8012) }
}

fn public_spec(sks: &ServerlessService) -> Value {
    let (name, port, target) = serving_port(sks);
    json!({ "ports": [
        { "name": name, "protocol": "TCP", "port": port, "targetPort": target },
        { "name": "https", "protocol": "TCP", "port": 443, "targetPort": 8112 },
    ] })
}

fn private_spec(sks: &ServerlessService, selector: &BTreeMap<String, String>) -> Value {
    let (name, _, target) = serving_port(sks);
    json!({ "selector": selector, "ports": [
        { "name": name, "protocol": "TCP", "port": 80, "targetPort": target },
        { "name": "https", "protocol": "TCP", "port": 443, "targetPort": 8112 },
        { "name": "http-autometric", "protocol": "TCP", "port": 9090, "targetPort": "http-autometric" },
        { "name": "http-usermetric", "protocol": "TCP", "port": 9091, "targetPort": "http-usermetric" },
        { "name": format!("{name}-istio"), "protocol": "TCP", "port": target, "targetPort": target },
    ] })
}

fn subsets(endpoints: &Endpoints) -> Vec<EndpointSubset> {
    endpoints.subsets.clone().unwrap_or_default()
}

fn subsets_ref(endpoints: &Endpoints) -> &[EndpointSubset] {
    endpoints.subsets.as_deref().unwrap_or_default()
}

fn ready_count(subsets: &[EndpointSubset]) -> usize {
    subsets.iter().flat_map(|subset| subset.addresses.iter().flatten()).count()
}

/// The public Endpoints: those of the pods or of the activators, whichever the mode says and there are.
fn public_subsets(
    sks: &ServerlessService,
    pods: Vec<EndpointSubset>,
    activators: Vec<EndpointSubset>,
    number: usize,
) -> Vec<EndpointSubset> {
    let is_proxy = sks.spec.mode == "Proxy" || ready_count(&pods) == 0;
    let source = if is_proxy && ready_count(&activators) > 0 {
        some_of(activators, number, &sks.name_any())
    } else {
        pods
    };
    let (_, _, target) = serving_port(sks);
    let mut source = source;
    for subset in &mut source {
        subset.ports.get_or_insert_default().retain(|port| port.port == 8112 || port.port == target);
    }
    source
}

/// The activators that stand by for this target.
fn some_of(mut subsets: Vec<EndpointSubset>, number: usize, target: &str) -> Vec<EndpointSubset> {
    let ips: Vec<String> = subsets
        .iter()
        .flat_map(|subset| subset.addresses.iter().flatten())
        .map(|address| address.ip.clone())
        .collect();
    let names: Vec<&str> = ips.iter().map(String::as_str).collect();
    let chosen = choose_subset(&names, number, target);
    for subset in &mut subsets {
        subset.addresses.get_or_insert_default().retain(|address| chosen.contains(&address.ip.as_str()));
    }
    subsets.retain(|subset| subset.addresses.iter().flatten().next().is_some());
    subsets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sks(mode: &str) -> ServerlessService {
        serde_json::from_value(json!({
            "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "ServerlessService",
            "metadata": { "name": "hello-00001" }, "spec": { "mode": mode, "protocolType": "http1" },
        }))
        .unwrap()
    }

    fn ready(ips: &[&str]) -> Vec<EndpointSubset> {
        let addresses: Vec<_> = ips.iter().map(|ip| json!({ "ip": ip })).collect();
        let ports = json!([
            { "name": "http", "port": 8012 }, { "name": "http2", "port": 8013 }, { "name": "https", "port": 8112 },
        ]);
        serde_json::from_value(json!([{ "addresses": addresses, "ports": ports }])).unwrap()
    }

    fn ips(mode: &str, pods: &[&str], activators: &[&str], number: usize) -> Vec<String> {
        let pods = if pods.is_empty() { Vec::new() } else { ready(pods) };
        let activators = if activators.is_empty() { Vec::new() } else { ready(activators) };
        let subsets = public_subsets(&sks(mode), pods, activators, number);
        assert!(
            subsets.iter().flat_map(|subset| subset.ports.iter().flatten()).all(|port| port.port != 8013)
        );
        subsets
            .iter()
            .flat_map(|subset| subset.addresses.iter().flatten())
            .map(|address| address.ip.clone())
            .collect()
    }

    #[test]
    fn the_public_service_leads_to_pods_or_activators() {
        assert_eq!(ips("Serve", &["p1"], &["a1"], 0), ["p1"]);
        assert_eq!(ips("Proxy", &["p1"], &["a1"], 0), ["a1"]);
        assert_eq!(ips("Serve", &[], &["a1"], 0), ["a1"]);
        assert_eq!(ips("Proxy", &["p1"], &[], 0), ["p1"]);
        assert_eq!(ips("Proxy", &[], &[], 0), [""; 0]);
    }

    /// The vector of Knative's `ChooseSubset` for these addresses and this name.
    #[test]
    fn a_number_of_activators_is_the_subset_that_knative_chooses() {
        let all: Vec<String> = (1..=8).map(|number| format!("10.0.0.{number}")).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        assert_eq!(ips("Proxy", &[], &all, 3), ["10.0.0.4", "10.0.0.6", "10.0.0.8"]);
        assert_eq!(ips("Proxy", &[], &all, 8).len(), 8);
        assert_eq!(ips("Proxy", &[], &all, 0).len(), 8);
    }
}
