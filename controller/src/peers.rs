//! The controller's view of each activator: asked once a second at its admin port, which is its heartbeat as well.

use std::collections::BTreeMap;

use pilotlight_core::RevisionId;
use serde::{Deserialize, Serialize};

/// An activator's answer at [`STATUS_PATH`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ActivatorStatus {
    /// The name of its pod.
    pub name: String,
    /// The version of the port table of which it has bound every port that it could; empty: none yet.
    pub table_version: String,
    /// Ports of that table that it could not bind.
    pub unbindable: Vec<u16>,
    /// Whether every object has been listed once, so that it can serve.
    pub is_complete: bool,
    /// Whether it has been told to stop: no slice should name it any more.
    pub is_leaving: bool,
    /// Workloads with requests at this moment.
    pub workloads: BTreeMap<RevisionId, WorkloadActivity>,
}

/// Requests of one workload at one activator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadActivity {
    /// Requests that wait for a pod.
    pub waiting: u32,
    /// Requests at pods, by the pod's name. Pods without any are left out.
    pub pods: BTreeMap<String, u32>,
}

/// The path at the admin port.
pub const STATUS_PATH: &str = "/v1/activator";
