//! Everything about one workload at one moment, read from the API server: what a command needs to say what would be done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use pilotlight_core::RevisionId;
use pilotlight_kubernetes::scale::Scales;
use pilotlight_kubernetes::write::WriteError;

use crate::Workload;
use crate::crd::{RequestAutoscaler, ScaleTargetRef};
use crate::facts::{AutoscalerFact, Name, PodFact, PodPhase, ServiceFact};
use crate::index::{Fact, Index};
use crate::refusal::look::{self, LookError};
use crate::refusal::{Rival, Surroundings};
use crate::selector::Selector;

/// Everything about a workload.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The workload. Its RequestAutoscaler may be one that is only thought of.
    pub workload: Workload,
    /// Everything around it.
    pub surroundings: Surroundings,
    /// Pods that the target asks for.
    pub replicas: u32,
}

/// Why there is no survey.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SurveyError {
    /// The target is not there.
    #[error("{kind} {name} is not there", kind = .0.kind, name = .0.name)]
    NoTarget(ScaleTargetRef),
    /// The scale of the target cannot be read.
    #[error("cannot read how many pods {kind} {name} asks for", kind = .0.kind, name = .0.name)]
    Scale(ScaleTargetRef, #[source] WriteError),
    /// Objects of the namespace cannot be read.
    #[error("cannot read Services, pods and RequestAutoscalers")]
    Objects(#[source] Box<kube::Error>),
    /// Objects around the workload cannot be read.
    #[error("cannot read what is around the workload")]
    Around(#[from] LookError),
}

/// Reads everything about a workload. `autoscaler` may be one that is only thought of: it counts in the place of the one of
/// its name.
pub async fn survey(
    client: &Client,
    system_namespace: &str,
    namespace: &str,
    autoscaler: &RequestAutoscaler,
) -> Result<Survey, SurveyError> {
    let target = &autoscaler.spec.scale_target_ref;
    let scaled = Scales::new(client.clone()).read(namespace, &target.into()).await;
    let (scale, selector) = match scaled {
        Ok(scaled) => scaled,
        Err(WriteError::Missing(_)) => return Err(SurveyError::NoTarget(target.clone())),
        Err(error) => return Err(SurveyError::Scale(target.clone(), error)),
    };
    let services: Vec<Service> = list(client, namespace).await?;
    let pods: Vec<Pod> = list(client, namespace).await?;
    let others: Vec<RequestAutoscaler> = list(client, namespace).await?;
    let name = autoscaler.name_any();
    let others = others.into_iter().filter(|other| other.name_any() != name);

    let cluster = look::cluster(client, system_namespace).await?;
    let around = look::namespace(client, namespace, &cluster).await?;
    let seen = Listed { namespace, services: &services, pods: &pods, others: others.collect() };
    let (workload, strangers, rivals) = seen.join(autoscaler, selector);
    let surroundings = Surroundings {
        target: look::target(client, namespace, target).await?.map(Arc::new),
        cluster: Arc::new(cluster),
        namespace: Arc::new(around),
        strangers,
        rivals,
    };
    Ok(Survey { workload, surroundings, replicas: scale.replicas })
}

impl Survey {
    /// Annotations of the target: they are settings as well.
    pub fn target_annotations(&self) -> BTreeMap<String, String> {
        self.surroundings.target.as_ref().map(|target| target.annotations.clone()).unwrap_or_default()
    }
}

async fn list<K>(client: &Client, namespace: &str) -> Result<Vec<K>, SurveyError>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    match api.list(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        // A kind that is not defined yet.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(SurveyError::Objects(Box::new(error))),
    }
}

/// Objects of a namespace.
struct Listed<'a> {
    namespace: &'a str,
    services: &'a [Service],
    pods: &'a [Pod],
    others: Vec<RequestAutoscaler>,
}

/// Pods that are not the target's, by the Service that leads to them.
type PodsOfOthers = BTreeMap<String, BTreeSet<String>>;

impl Listed<'_> {
    /// The workload, pods of others that its Services lead to, and others that want the same.
    fn join(&self, autoscaler: &RequestAutoscaler, selector: String) -> (Workload, PodsOfOthers, Vec<Rival>) {
        let mut index = Index::default();
        for (name, fact) in self.services.iter().filter_map(ServiceFact::read) {
            index.learn(Fact::Service(Arc::new(name), Some(Arc::new(fact))));
        }
        for (name, fact) in self.pods.iter().filter_map(PodFact::read) {
            index.learn(Fact::Pod(Arc::new(name), Some(Arc::new(fact))));
        }
        for (id, fact) in self.others.iter().filter_map(AutoscalerFact::read) {
            index.learn(Fact::Autoscaler(Arc::new(id), Some(Arc::new(fact))));
        }
        let id = Arc::new(RevisionId::new(self.namespace, autoscaler.name_any()));
        let mut placed = autoscaler.clone();
        placed.metadata.namespace = Some(self.namespace.to_owned());
        placed.status.get_or_insert_default().selector = selector;
        let mut fact = AutoscalerFact::read(&placed).map(|(_, fact)| fact).unwrap_or_default();
        if placed.metadata.creation_timestamp.is_none() {
            // One that is only thought of is younger than all that are there.
            fact.created = i64::MAX;
        }
        let fact = Arc::new(fact);
        index.learn(Fact::Autoscaler(Arc::clone(&id), Some(Arc::clone(&fact))));
        let workload = index.workload(&id).unwrap_or_else(|| Workload {
            id: Arc::clone(&id),
            autoscaler: Arc::clone(&fact),
            services: BTreeMap::new(),
            pods: BTreeMap::new(),
            former: Vec::new(),
        });
        let strangers = strangers(&index, &workload);
        let rivals = rivals(&index, &workload);
        (workload, strangers, rivals)
    }
}

fn strangers(index: &Index, workload: &Workload) -> PodsOfOthers {
    let mut strangers = PodsOfOthers::new();
    for (service, fact) in &workload.services {
        let selector: &Selector = &fact.selector;
        for (Name { name, .. }, pod) in index.selected(&workload.id.namespace, selector) {
            if pod.phase == PodPhase::Ready && !workload.pods.contains_key(name) {
                strangers.entry(service.clone()).or_default().insert(name.clone());
            }
        }
    }
    strangers
}

fn rivals(index: &Index, workload: &Workload) -> Vec<Rival> {
    let others = index.ids().filter(|id| **id != *workload.id).filter_map(|id| index.workload(id));
    let rival = |other: Workload| {
        let same = workload.services.keys().filter(|service| other.services.contains_key(*service));
        let services: BTreeSet<String> = same.cloned().collect();
        let target = |of: &Workload| of.autoscaler.spec.scale_target_ref.clone();
        let wants_target = target(&other) == target(workload);
        (wants_target || !services.is_empty()).then(|| Rival {
            name: other.id.name.clone(),
            created: other.autoscaler.created,
            wants_target,
            services,
        })
    };
    others.filter_map(rival).collect()
}
