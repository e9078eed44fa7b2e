//! Services to Endpoints and EndpointSlices, as Kubernetes' three controllers of them do it: what a selector selects, and a
//! mirror in slices of the Endpoints that others write for Services without one.
//!
//! A Service whose selector is taken away keeps the slices and the Endpoints that it had, and gets a mirror of the latter.

mod wanted;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::task::JoinSet;

use self::wanted::{endpoints_of, mirror_of, slices_of};
use super::log::Log;
use super::objects::{is_not_found, selects};
use super::queue::{Queue, work};
use super::store::{Key, Store, key_of};

/// The label of a slice with its Service's name.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label of a slice with the controller that keeps it.
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// The controller of slices of Services with a selector.
pub(crate) const OF_SELECTORS: &str = "endpointslice-controller.k8s.io";
/// The controller of slices that mirror Endpoints.
pub(crate) const OF_MIRRORS: &str = "endpointslicemirroring-controller.k8s.io";
/// The label of Endpoints that are not to be mirrored.
const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";

/// The controllers of Endpoints and EndpointSlices.
pub(crate) struct EndpointControllers {
    client: Client,
    services: Arc<Store<Service>>,
    pods: Arc<Store<Pod>>,
    endpoints: Arc<Store<Endpoints>>,
    slices: Arc<Store<EndpointSlice>>,
}

impl EndpointControllers {
    /// Starts them.
    pub(crate) fn start(
        client: Client,
        services: &Arc<Store<Service>>,
        pods: &Arc<Store<Pod>>,
        endpoints: &Arc<Store<Endpoints>>,
        slices: &Arc<Store<EndpointSlice>>,
        tasks: &mut JoinSet<()>,
        log: &Log,
    ) {
        let controller = Arc::new(EndpointControllers {
            client,
            services: Arc::clone(services),
            pods: Arc::clone(pods),
            endpoints: Arc::clone(endpoints),
            slices: Arc::clone(slices),
        });
        let queue = Queue::new();
        let added = Arc::clone(&queue);
        services.on_change(move |service, _| added.add(key_of(service)));
        let added = Arc::clone(&queue);
        endpoints.on_change(move |endpoints, _| added.add(key_of(endpoints)));
        let added = Arc::clone(&queue);
        slices.on_change(move |slice, _| {
            if let Some(service) = slice.labels().get(SERVICE_NAME) {
                added.add((slice.namespace().unwrap_or_default(), service.clone()));
            }
        });
        let (added, known) = (Arc::clone(&queue), Arc::clone(services));
        pods.on_change(move |pod, _| {
            let namespace = pod.namespace().unwrap_or_default();
            let selecting = known
                .in_namespace(&namespace)
                .into_iter()
                .filter(|service| selector(service).is_some_and(|selector| selects(selector, pod.labels())));
            selecting.for_each(|service| added.add(key_of(&*service)));
        });
        work(tasks, log, "endpoints", &queue, move |key| {
            let controller = Arc::clone(&controller);
            async move { controller.reconcile(&key).await }
        });
    }

    async fn reconcile(&self, key: &Key) -> anyhow::Result<()> {
        self.services.listed().await;
        self.pods.listed().await;
        self.endpoints.listed().await;
        self.slices.listed().await;
        let Some(service) = self.services.get(key) else { return self.collect(key).await };
        match selector(&service) {
            Some(selector) => {
                let pods = self.pods.in_namespace(&key.0);
                let selected: Vec<&Pod> =
                    pods.iter().map(|pod| &**pod).filter(|pod| selects(selector, pod.labels())).collect();
                self.write_slices(key, OF_SELECTORS, slices_of(&service, &selected)).await?;
                self.write_slices(key, OF_MIRRORS, Vec::new()).await?;
                self.write_endpoints(key, endpoints_of(&service, &selected)).await
            }
            None => {
                let endpoints = self.endpoints.get(key);
                let mirrored =
                    endpoints.filter(|each| each.labels().get(SKIP_MIRROR).is_none_or(|skip| skip != "true"));
                self.write_slices(key, OF_MIRRORS, mirrored.map(|each| mirror_of(&each)).unwrap_or_default())
                    .await
            }
        }
    }

    /// Deletes what a Service left behind that is gone.
    async fn collect(&self, key: &Key) -> anyhow::Result<()> {
        self.write_slices(key, OF_SELECTORS, Vec::new()).await?;
        self.write_slices(key, OF_MIRRORS, Vec::new()).await?;
        if self.endpoints.get(key).is_some() {
            let api: Api<Endpoints> = Api::namespaced(self.client.clone(), &key.0);
            gone(api.delete(&key.1, &DeleteParams::default()).await)?;
        }
        Ok(())
    }

    async fn write_endpoints(&self, key: &Key, wanted: Endpoints) -> anyhow::Result<()> {
        let api: Api<Endpoints> = Api::namespaced(self.client.clone(), &key.0);
        let written = match self.endpoints.get(key) {
            Some(before) if before.subsets == wanted.subsets && has_all(before.labels(), wanted.labels()) => {
                return Ok(());
            }
            Some(_) => {
                let patch = json!({ "metadata": { "labels": wanted.labels() }, "subsets": wanted.subsets });
                api.patch(&key.1, &PatchParams::default(), &Patch::Merge(patch)).await?
            }
            None => api.create(&PostParams::default(), &wanted).await?,
        };
        self.endpoints.put(written);
        Ok(())
    }

    /// Makes these all slices of the Service that `manager` keeps.
    async fn write_slices(&self, key: &Key, manager: &str, wanted: Vec<EndpointSlice>) -> anyhow::Result<()> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &key.0);
        let is_of = |slice: &EndpointSlice, label: &str, value: &str| {
            slice.labels().get(label).is_some_and(|each| each == value)
        };
        let mut before: BTreeMap<String, Arc<EndpointSlice>> = self
            .slices
            .in_namespace(&key.0)
            .into_iter()
            .filter(|slice| is_of(slice, SERVICE_NAME, &key.1) && is_of(slice, MANAGED_BY, manager))
            .map(|slice| (slice.name_any(), slice))
            .collect();
        for slice in wanted {
            let name = slice.name_any();
            let written = match before.remove(&name) {
                Some(before) if before.endpoints == slice.endpoints && before.ports == slice.ports => {
                    continue;
                }
                Some(before) => {
                    let mut changed = EndpointSlice::clone(&before);
                    (changed.endpoints, changed.ports) = (slice.endpoints, slice.ports);
                    changed.metadata.managed_fields = None;
                    api.replace(&name, &PostParams::default(), &changed).await?
                }
                None => api.create(&PostParams::default(), &slice).await?,
            };
            self.slices.put(written);
        }
        for name in before.into_keys() {
            gone(api.delete(&name, &DeleteParams::default()).await)?;
        }
        Ok(())
    }
}

/// The Service's selector, if it has one.
pub(crate) fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    service.spec.as_ref()?.selector.as_ref().filter(|selector| !selector.is_empty())
}

fn has_all(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(name, value)| labels.get(name) == Some(value))
}

fn gone<T>(answer: kube::Result<T>) -> kube::Result<()> {
    match answer {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) => Ok(()),
        Err(error) => Err(error),
    }
}
