//! ConfigMaps of the system namespace: read at the start, and followed where Knative's activator follows them.

use std::collections::BTreeMap;

use anyhow::Context;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, ResourceExt};
use pilotlight_feed::{Change, Feed};
use pilotlight_kubernetes::{WatchParams, watch};
use pilotlight_process::set_log_level;
use pilotlight_telemetry::Telemetry;
use tracing::{info, warn};

use super::observability::{log_level, request_log};

/// Names of the ConfigMaps. The defaults are Knative's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigNames {
    /// `CONFIG_NETWORK_NAME`.
    pub network: String,
    /// `CONFIG_OBSERVABILITY_NAME`.
    pub observability: String,
    /// `CONFIG_LOGGING_NAME`.
    pub logging: String,
}

impl Default for ConfigNames {
    fn default() -> Self {
        ConfigNames::from_env(|_| None)
    }
}

impl ConfigNames {
    /// The names that variables give.
    pub fn from_env(env: impl Fn(&str) -> Option<String>) -> Self {
        let name = |variable: &str, default: &str| {
            env(variable).filter(|name| !name.is_empty()).unwrap_or_else(|| default.to_owned())
        };
        ConfigNames {
            network: name("CONFIG_NETWORK_NAME", "config-network"),
            observability: name("CONFIG_OBSERVABILITY_NAME", "config-observability"),
            logging: name("CONFIG_LOGGING_NAME", "config-logging"),
        }
    }
}

/// The data of a ConfigMap; nothing, with a warning, if there is none.
pub(crate) async fn read(
    client: &Client,
    namespace: &str,
    name: &str,
) -> anyhow::Result<BTreeMap<String, String>> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let map =
        maps.get_opt(name).await.with_context(|| format!("cannot read ConfigMap {namespace}/{name}"))?;
    if map.is_none() {
        warn!(namespace, name, "There is no such ConfigMap; Knative's defaults are in force");
    }
    Ok(map.and_then(|map| map.data).unwrap_or_default())
}

/// Follows the log level and the request log, until the task is aborted. What cannot be read leaves the last in force.
pub(crate) async fn follow(client: Client, namespace: String, names: ConfigNames, telemetry: Telemetry) {
    let one = |name: &str| {
        let params = WatchParams { fields: format!("metadata.name={name}"), ..WatchParams::default() };
        let maps = Api::<ConfigMap>::namespaced(client.clone(), &namespace);
        let feed = Feed::default();
        let follower = feed.follow();
        (watch(maps, params, feed, data_of), follower)
    };
    let ((watch_levels, mut levels), (watch_telling, mut telling)) =
        (one(&names.logging), one(&names.observability));
    let follow = async {
        loop {
            tokio::select! {
                Some(change) = levels.next() => if let Change::Set(_, data) = change {
                    take_level(&data);
                },
                Some(change) = telling.next() => if let Change::Set(_, data) = change {
                    take_request_log(&data, &telemetry);
                },
                else => return,
            }
        }
    };
    tokio::select! {
        () = watch_levels => {}
        () = watch_telling => {}
        () = follow => {}
    }
}

fn take_level(data: &BTreeMap<String, String>) {
    if let Some(level) = log_level(data) {
        info!(%level, "Log level is that of the ConfigMap");
        set_log_level(level);
    }
}

fn take_request_log(data: &BTreeMap<String, String>, telemetry: &Telemetry) {
    match request_log(data) {
        Ok(asked) => {
            info!(on = asked.enable_request_log, "Request log is as the ConfigMap says");
            telemetry.change_request_log(&asked);
        }
        Err(faults) => {
            warn!(faults = faults.join("; "), "Cannot use the ConfigMap; the last one stays in force");
        }
    }
}

fn data_of(map: &ConfigMap) -> Option<(String, BTreeMap<String, String>)> {
    let data = map.data.iter().flatten().filter(|(key, _)| !key.starts_with('_'));
    Some((map.name_any(), data.map(|(key, value)| (key.clone(), value.clone())).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_empty_names_nothing() {
        let env = |name: &str| match name {
            "CONFIG_LOGGING_NAME" => Some("my-logging".to_owned()),
            "CONFIG_NETWORK_NAME" => Some(String::new()),
            _ => None,
        };
        let names = ConfigNames::from_env(env);
        let expected = ConfigNames { logging: "my-logging".to_owned(), ..ConfigNames::default() };
        assert_eq!(names, expected);
        assert_eq!(
            (names.network.as_str(), names.observability.as_str()),
            ("config-network", "config-observability")
        );
    }
}
