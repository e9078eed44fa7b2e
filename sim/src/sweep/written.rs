//! Settings as they are written, before they are parsed.

use std::collections::BTreeMap;

use pilotlight_config::keys::annotation;
use pilotlight_config::{AutoscalerConfig, Fault, Faults, Verdict, resolve};
use pilotlight_core::{ConcurrencyLimit, Reachability};

use super::knob::KnobPlace;
use crate::scenario::Settings;

/// Settings as they are written: what a sweep changes, and a search begins with. The default is Knative's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Written {
    /// The data of the ConfigMap `config-autoscaler`.
    pub config: BTreeMap<String, String>,
    /// The annotations of the revision.
    pub annotations: BTreeMap<String, String>,
    /// The revision's `containerConcurrency`.
    pub container_concurrency: ConcurrencyLimit,
}

impl Written {
    /// With one thing written differently.
    #[must_use]
    pub(crate) fn with(mut self, place: KnobPlace, value: &str) -> Self {
        match place {
            KnobPlace::Annotation(key) => self.annotations.insert(key.to_owned(), value.to_owned()),
            KnobPlace::Config(key) => self.config.insert(key.to_owned(), value.to_owned()),
        };
        self
    }

    /// The settings that come of it, by the parsers that production uses.
    pub fn resolve(&self, name: &str) -> Result<Settings, Faults> {
        let config = AutoscalerConfig::from_map(&self.config).value;
        let config = config.map_err(|faults| faults.in_file("config-autoscaler"))?;
        let limit = self.container_concurrency;
        match resolve(&config, &self.annotations, limit, Reachability::Reachable).value? {
            Verdict::Resolved(resolved) => Ok(Settings::requests(name, resolved.spec, limit)),
            Verdict::OtherClass(class) => {
                let rule =
                    "is another autoscaler's class; only settings of Knative's algorithm can be varied";
                Err(Fault::new(annotation::CLASS.name, class, rule).into())
            }
        }
    }
}
