//! The settings that ConfigMaps of the system namespace hold, as they are in force.

use std::time::Duration;

use pilotlight_config::AutoscalerConfig;
use pilotlight_core::MeshMode;

/// Settings of the whole cluster. Always legal: an illegal change leaves the last legal ones in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `config-autoscaler`.
    pub autoscaler: AutoscalerConfig,
    /// `progress-deadline` of `config-deployment`: how long a revision may take to come up that does not say so itself.
    pub progress_deadline: Duration,
    /// `mesh-compatibility-mode` of `config-network`, as it was at the start.
    pub mesh: MeshMode,
    /// `enable-mesh-pod-addressability` of `config-network`, as it was at the start.
    pub pods_addressable_in_mesh: bool,
}

impl Default for Settings {
    /// Knative's defaults.
    fn default() -> Self {
        Settings {
            autoscaler: AutoscalerConfig::default(),
            progress_deadline: Duration::from_secs(600),
            mesh: MeshMode::Auto,
            pods_addressable_in_mesh: false,
        }
    }
}
