//! Facts: the part of each watched object that is kept, read once when it arrives.

mod autoscaler;
mod pod;
mod service;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub use autoscaler::AutoscalerFact;
pub use pod::{PodFact, PodPhase, QUEUE_PROXY};
pub use service::{Locality, OwnerFact, SELECTOR, ServiceFact, ServicePort, TargetPort};

/// The name of an object within its kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The namespace.
    pub namespace: String,
    /// The name within it.
    pub name: String,
}

impl Name {
    /// Names an object.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Name { namespace: namespace.into(), name: name.into() }
    }

    pub(crate) fn of(meta: &ObjectMeta) -> Option<Name> {
        Some(Name::new(meta.namespace.clone()?, meta.name.clone()?))
    }
}
