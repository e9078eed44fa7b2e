//! The ConfigMaps of the system namespace, read at the start and watched from then on.
//!
//! At the start everything must be there and legal, or the program does not run. Later an illegal change is refused: what
//! was legal last stays in force. A ConfigMap that is deleted changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use pilotlight_config::cluster::{
    DeploymentConfig, LeaderElectionConfig, LogLevel, LoggingConfig, NetworkConfig, ObservabilityConfig,
};
use pilotlight_config::{AutoscalerConfig, Fault, Faults, Parsed};
use pilotlight_feed::{Change, Feed, Follower};
use pilotlight_kubernetes::{WatchParams, watch};
use pilotlight_process::WrongSettings;
use tokio::sync::watch::{Receiver, Sender, channel};
use tracing::{Level, info, warn};

use crate::autoscaler::Settings;
use crate::autoscaler::metrics::Metrics;

/// Names of the ConfigMaps whose names can be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigMapNames {
    /// How much is logged.
    pub logging: String,
    /// How metrics are told.
    pub observability: String,
    /// How several autoscalers share revisions.
    pub leader_election: String,
}

impl Default for ConfigMapNames {
    fn default() -> Self {
        ConfigMapNames {
            logging: "config-logging".to_owned(),
            observability: "config-observability".to_owned(),
            leader_election: "config-leader-election".to_owned(),
        }
    }
}

/// Hears of a ConfigMap, by name and UID, that was changed to something illegal.
pub type OnRefused = Arc<dyn Fn(&str, &str, &Faults) + Send + Sync>;

/// The ConfigMaps as they are in force.
#[derive(Clone, Debug)]
pub struct ConfigMaps {
    names: ConfigMapNames,
    component: &'static str,
    settings: Settings,
    leader_election: LeaderElectionConfig,
    observability: ObservabilityConfig,
    logging: LoggingConfig,
}

impl ConfigMaps {
    /// Reads the ConfigMaps of a namespace for a component, such as `autoscaler`; all that is wrong with them at once.
    pub async fn read(
        client: &Client,
        namespace: &str,
        component: &'static str,
        names: &ConfigMapNames,
    ) -> anyhow::Result<ConfigMaps> {
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let listed = api.list(&ListParams::default()).await;
        let listed = listed.map_err(|error| {
            anyhow::Error::new(error)
                .context(format!("cannot read the ConfigMaps of the namespace {namespace}"))
        })?;
        let data =
            listed.items.into_iter().map(|map| (map.name_any(), map.data.unwrap_or_default())).collect();
        Ok(ConfigMaps::parse(component, names, &data, namespace)?)
    }

    fn parse(
        component: &'static str,
        names: &ConfigMapNames,
        all: &BTreeMap<String, Data>,
        namespace: &str,
    ) -> Result<ConfigMaps, WrongSettings> {
        let mut wrong = WrongSettings::default();
        let mut maps = ConfigMaps {
            component,
            settings: Settings::default(),
            leader_election: LeaderElectionConfig::default(),
            observability: ObservabilityConfig::default(),
            logging: LoggingConfig::default(),
            names: names.clone(),
        };
        for name in REQUIRED {
            if !all.contains_key(*name) {
                wrong.check(Err::<(), _>(format!("the ConfigMap {namespace}/{name} is missing")));
            }
        }
        for (name, data) in all {
            if let Err(faults) = maps.learn(name, data, true) {
                wrong.check_all(Err::<(), _>(faults.in_file(&format!("{namespace}/{name}")).into_vec()));
            }
        }
        wrong.finish(|| Some(maps))
    }

    /// The settings of the whole cluster.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How several autoscalers share revisions. Read at the start, and then no more.
    pub fn leader_election(&self) -> &LeaderElectionConfig {
        &self.leader_election
    }

    /// How metrics are told. Read at the start, and then no more.
    pub fn observability(&self) -> &ObservabilityConfig {
        &self.observability
    }

    /// How much this component logs; `None`: nothing is said about it.
    pub fn log_level(&self) -> Option<Level> {
        self.logging.levels.get(self.component).map(|level| match level {
            LogLevel::Debug => Level::DEBUG,
            LogLevel::Info => Level::INFO,
            LogLevel::Warn => Level::WARN,
            LogLevel::Error => Level::ERROR,
        })
    }

    /// Follows the ConfigMaps, on the current runtime, until nobody looks at the settings any more. `on_level` hears of
    /// each change of the level of this component's log.
    pub fn follow(
        self,
        client: Client,
        namespace: &str,
        metrics: Metrics,
        on_refused: OnRefused,
        on_level: impl Fn(Level) + Send + Sync + 'static,
    ) -> Receiver<Arc<Settings>> {
        let (sender, settings) = channel(Arc::new(self.settings.clone()));
        let api: Api<ConfigMap> = Api::namespaced(client, namespace);
        let feed = Feed::default();
        let follower = feed.follow();
        let read = |map: &ConfigMap| {
            let uid = map.uid().unwrap_or_default();
            Some((map.name_any(), (uid, map.data.clone().unwrap_or_default())))
        };
        tokio::spawn(async move {
            tokio::select! {
                () = watch(api, WatchParams::default(), feed, read) => {}
                () = self.apply(follower, &sender, &metrics, &on_refused, on_level) => {}
                () = sender.closed() => {}
            }
        });
        settings
    }

    async fn apply(
        mut self,
        mut changes: Follower<String, (String, Data)>,
        settings: &Sender<Arc<Settings>>,
        metrics: &Metrics,
        on_refused: &OnRefused,
        on_level: impl Fn(Level),
    ) {
        let mut level = self.log_level();
        while let Some(change) = changes.next().await {
            let Change::Set(name, map) = change else { continue };
            let (uid, data) = &*map;
            if let Err(faults) = self.learn(&name, data, false) {
                warn!(config_map = %name, faults = %faults.to_string().replace('\n', "; "), "An illegal change of a ConfigMap is not followed");
                metrics.config_refused.count(&name);
                on_refused(&name, uid, &faults);
                continue;
            }
            let is_news = settings.send_if_modified(|current| {
                let is_news = **current != self.settings;
                if is_news {
                    *current = Arc::new(self.settings.clone());
                }
                is_news
            });
            if is_news {
                info!(config_map = %name, "Settings have changed");
            }
            if self.log_level() != level {
                level = self.log_level();
                on_level(level.unwrap_or(Level::INFO));
            }
        }
    }

    /// Takes over what a ConfigMap says, unless it is illegal. What is read once is read at the start alone.
    fn learn(&mut self, name: &str, data: &Data, is_start: bool) -> Result<(), Faults> {
        match name {
            AUTOSCALER => self.settings.autoscaler = checked(name, AutoscalerConfig::from_map(data))?,
            DEPLOYMENT => {
                self.settings.progress_deadline =
                    checked(name, DeploymentConfig::from_map(data))?.progress_deadline;
            }
            NETWORK => {
                let network = checked(name, NetworkConfig::from_map(data))?;
                if is_start {
                    self.settings.mesh = network.mesh;
                    self.settings.pods_addressable_in_mesh = network.pods_addressable_in_mesh;
                }
            }
            name if name == self.names.leader_election => {
                let election = checked(name, LeaderElectionConfig::from_map(data))?;
                if is_start {
                    self.leader_election = election;
                }
            }
            name if name == self.names.observability => {
                let observability = checked(name, ObservabilityConfig::from_map(data))?;
                if is_start {
                    self.observability = observability;
                }
            }
            name if name == self.names.logging => {
                self.logging = checked(name, LoggingConfig::from_map(data))?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// The value, once its warnings have been told.
fn checked<T>(name: &str, parsed: Parsed<T>) -> Result<T, Faults> {
    for warning in parsed.warnings {
        warn!(
            config_map = name,
            key = warning.key,
            advice = warning.advice,
            "A setting is probably not what was meant"
        );
    }
    parsed.value
}

/// The faults as one line for an Event.
pub fn in_one_line(faults: &Faults) -> String {
    let faults: Vec<String> = faults.iter().map(Fault::to_string).collect();
    faults.join("; ")
}

type Data = BTreeMap<String, String>;

const AUTOSCALER: &str = "config-autoscaler";
const DEPLOYMENT: &str = "config-deployment";
const NETWORK: &str = "config-network";
/// The ConfigMaps without which Knative's autoscaler does not start either.
const REQUIRED: &[&str] = &[AUTOSCALER, DEPLOYMENT, NETWORK];

#[cfg(test)]
mod tests;
