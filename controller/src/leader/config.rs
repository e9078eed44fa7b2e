//! Our ConfigMaps: the defaults of all workloads, and the table of ports.
//!
//! An illegal change of the defaults is refused with an Event: what was legal last stays in force. A ConfigMap that is
//! deleted changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use kube::ResourceExt;
use pilotlight_config::{AutoscalerConfig, Fault, Parsed};
use pilotlight_kubernetes::event::{Note, Recorder};
use tracing::{info, warn};

use super::metrics::LeaderMetrics;
use crate::ports::{CONFIG_MAP, PortTable};

/// One of our ConfigMaps.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConfigFact {
    uid: String,
    object: ConfigMap,
}

/// Reads one; `None`: it is none of ours.
pub(crate) fn read(object: &ConfigMap) -> Option<(String, ConfigFact)> {
    let name = object.name_any();
    let is_ours = [AUTOSCALER, CONFIG_MAP].contains(&name.as_str());
    is_ours.then(|| (name, ConfigFact { uid: object.uid().unwrap_or_default(), object: object.clone() }))
}

impl ConfigFact {
    /// The table of ports that it keeps.
    pub(crate) fn table(&self) -> PortTable {
        let (table, faults) = PortTable::decode(&self.object);
        for fault in faults {
            warn!(config_map = CONFIG_MAP, fault, "A line of the table of ports cannot be used");
        }
        table
    }
}

/// The defaults of all workloads.
pub(crate) struct Defaults {
    namespace: String,
    recorder: Recorder,
    metrics: LeaderMetrics,
    in_force: Arc<AutoscalerConfig>,
}

impl Defaults {
    pub(crate) fn new(namespace: String, recorder: Recorder, metrics: LeaderMetrics) -> Self {
        Defaults { namespace, recorder, metrics, in_force: Arc::default() }
    }

    /// Takes over what the ConfigMap says, unless it is illegal. Returns the defaults if they have changed.
    pub(crate) fn learn(&mut self, map: &ConfigFact) -> Option<Arc<AutoscalerConfig>> {
        match parse(map.object.data.as_ref()) {
            Ok(config) if config == *self.in_force => None,
            Ok(config) => {
                info!(config_map = AUTOSCALER, "Settings have changed");
                self.in_force = Arc::new(config);
                Some(Arc::clone(&self.in_force))
            }
            Err(faults) => {
                warn!(config_map = AUTOSCALER, faults, "An illegal change of a ConfigMap is not followed");
                self.metrics.config_refused.count(AUTOSCALER);
                self.recorder.record(Note {
                    object: ObjectReference {
                        api_version: Some("v1".to_owned()),
                        kind: Some("ConfigMap".to_owned()),
                        name: Some(AUTOSCALER.to_owned()),
                        namespace: Some(self.namespace.clone()),
                        uid: Some(map.uid.clone()).filter(|uid| !uid.is_empty()),
                        ..ObjectReference::default()
                    },
                    is_warning: true,
                    reason: "ChangeRefused",
                    message: format!("what was in force before stays in force: {faults}"),
                });
                None
            }
        }
    }
}

/// The defaults that a ConfigMap's data say; or everything that is wrong, in one line.
pub(crate) fn parse(data: Option<&BTreeMap<String, String>>) -> Result<AutoscalerConfig, String> {
    let empty = BTreeMap::new();
    let Parsed { value, warnings } = AutoscalerConfig::from_map(data.unwrap_or(&empty));
    for warning in warnings {
        warn!(
            config_map = AUTOSCALER,
            key = warning.key,
            advice = warning.advice,
            "A setting is probably not what was meant"
        );
    }
    value.map_err(|faults| faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("; "))
}

/// The ConfigMap with the defaults of all workloads, with Knative's keys.
pub(crate) const AUTOSCALER: &str = "config-autoscaler";
