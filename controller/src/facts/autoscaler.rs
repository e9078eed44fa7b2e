//! A RequestAutoscaler.

use pilotlight_core::RevisionId;
use pilotlight_kubernetes::known::Versioned;

use crate::crd::{RequestAutoscaler, RequestAutoscalerSpec, RequestAutoscalerStatus};

/// A RequestAutoscaler.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AutoscalerFact {
    /// The UID.
    pub uid: String,
    /// The version.
    pub resource_version: String,
    /// The generation of the spec.
    pub generation: i64,
    /// Whether it is being deleted, and waits for finalizers.
    pub is_deleted: bool,
    /// The finalizers.
    pub finalizers: Vec<String>,
    /// When it was created, in seconds since 1970: the older of two that want the same thing wins.
    pub created: i64,
    /// The user's part.
    pub spec: RequestAutoscalerSpec,
    /// The controller's part.
    pub status: RequestAutoscalerStatus,
}

impl AutoscalerFact {
    /// Reads one.
    pub fn read(object: &RequestAutoscaler) -> Option<(RevisionId, AutoscalerFact)> {
        let meta = &object.metadata;
        let fact = AutoscalerFact {
            uid: meta.uid.clone().unwrap_or_default(),
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            generation: meta.generation.unwrap_or(0),
            is_deleted: meta.deletion_timestamp.is_some(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
            created: meta.creation_timestamp.as_ref().map_or(0, |created| created.0.as_second()),
            spec: object.spec.clone(),
            status: object.status.clone().unwrap_or_default(),
        };
        Some((RevisionId::new(meta.namespace.clone()?, meta.name.clone()?), fact))
    }
}

impl Versioned for AutoscalerFact {
    fn resource_version(&self) -> &str {
        &self.resource_version
    }
}
