//! ConfigMaps of Knative's system namespace beside `config-autoscaler`, as far as an autoscaler or an activator needs them.
//!
//! Keys that are not read here belong to other components, and are passed over without a word.

use std::collections::BTreeMap;
use std::time::Duration;

use pilotlight_core::MeshMode;

use crate::duration;
use crate::fault::{Findings, Parsed};
use crate::number;
use crate::process::MetricsProtocol;

type Data = BTreeMap<String, String>;

/// `config-deployment`: how pods are deployed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeploymentConfig {
    /// How long a revision may take to come up that does not say so itself; whole seconds, above zero.
    pub progress_deadline: Duration,
}

/// `config-network`: how requests reach pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Whether pods are asked one by one, or through their Service.
    pub mesh: MeshMode,
    /// Whether the mesh lets requests to single pods through if they name the Service.
    pub pods_addressable_in_mesh: bool,
}

/// `config-leader-election`: how several autoscalers share revisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderElectionConfig {
    /// How long a lease lasts that is not renewed; whole seconds.
    pub lease_duration: Duration,
    /// How long a holder goes on that cannot renew; shorter than the lease.
    pub renew_deadline: Duration,
    /// From one renewal to the next; shorter than the deadline.
    pub retry_period: Duration,
    /// The number of leases that revisions are dealt out to: 1 to 10.
    pub buckets: u32,
}

/// `config-observability`: the metrics of Knative's own components.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservabilityConfig {
    /// How they are told.
    pub metrics_protocol: MetricsProtocol,
    /// Address to listen at for Prometheus, as `host:port`; empty: the usual one.
    pub metrics_endpoint: String,
}

/// `config-logging`: how much each component logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoggingConfig {
    /// The levels that are written, by the component's name.
    pub levels: BTreeMap<String, LogLevel>,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What changes.
    Info,
    /// What may be wrong.
    Warn,
    /// What is wrong. zap's higher levels are the same.
    Error,
}

impl Default for DeploymentConfig {
    fn default() -> Self {
        DeploymentConfig { progress_deadline: Duration::from_secs(600) }
    }
}

impl Default for NetworkConfig {
    fn default() -> Self {
        NetworkConfig { mesh: MeshMode::Auto, pods_addressable_in_mesh: false }
    }
}

impl Default for LeaderElectionConfig {
    fn default() -> Self {
        let [lease_duration, renew_deadline, retry_period] = [60, 40, 10].map(Duration::from_secs);
        LeaderElectionConfig { lease_duration, renew_deadline, retry_period, buckets: 1 }
    }
}

impl DeploymentConfig {
    /// Reads the data of the ConfigMap.
    pub fn from_map(data: &Data) -> Parsed<Self> {
        let mut findings = Findings::default();
        let mut config = DeploymentConfig::default();
        for key in ["progressDeadline", "progress-deadline"] {
            let read = |text: &str| match duration::parse(text) {
                Ok(read) if !read.is_zero() && read.subsec_nanos() == 0 => Ok(read),
                Ok(_) => Err("is not a duration above zero, in whole seconds".to_owned()),
                Err(error) => Err(format!("is not a duration: {error}")),
            };
            set(&mut config.progress_deadline, data, key, read, &mut findings);
        }
        Parsed::new(config, findings)
    }
}

impl NetworkConfig {
    /// Reads the data of the ConfigMap. A mode that does not exist counts as `auto`, as in Knative, with a warning.
    pub fn from_map(data: &Data) -> Parsed<Self> {
        let mut findings = Findings::default();
        let mut config = NetworkConfig::default();
        if let Some(text) = data.get(MESH_MODE) {
            config.mesh = match text.to_ascii_lowercase().as_str() {
                "auto" => MeshMode::Auto,
                "enabled" => MeshMode::Enabled,
                "disabled" => MeshMode::Disabled,
                _ => {
                    findings.warn(
                        MESH_MODE,
                        format!("{text:?} is none of auto, enabled and disabled: auto is meant"),
                    );
                    MeshMode::Auto
                }
            };
        }
        let read = |text: &str| number::parse_bool(text).ok_or_else(|| "is not true or false".to_owned());
        set(
            &mut config.pods_addressable_in_mesh,
            data,
            "enable-mesh-pod-addressability",
            read,
            &mut findings,
        );
        Parsed::new(config, findings)
    }
}

impl LeaderElectionConfig {
    /// The most buckets.
    pub const MAX_BUCKETS: u32 = 10;

    /// Reads the data of the ConfigMap.
    pub fn from_map(data: &Data) -> Parsed<Self> {
        let mut findings = Findings::default();
        let mut config = LeaderElectionConfig::default();
        for (keys, value) in [
            (["leaseDuration", LEASE_DURATION], &mut config.lease_duration),
            (["renewDeadline", RENEW_DEADLINE], &mut config.renew_deadline),
            (["retryPeriod", RETRY_PERIOD], &mut config.retry_period),
        ] {
            for key in keys {
                let read = |text: &str| match duration::parse(text) {
                    Ok(read) if !read.is_zero() => Ok(read),
                    Ok(_) => Err("is not above zero".to_owned()),
                    Err(error) => Err(format!("is not a duration: {error}")),
                };
                set(value, data, key, read, &mut findings);
            }
        }
        let read = |text: &str| match text.parse() {
            Ok(buckets @ 1..=Self::MAX_BUCKETS) => Ok(buckets),
            _ => Err(format!("is not a whole number between 1 and {}", Self::MAX_BUCKETS)),
        };
        set(&mut config.buckets, data, "buckets", read, &mut findings);
        // A lease has whole seconds.
        config.lease_duration = Duration::from_secs(config.lease_duration.as_secs());
        if findings.faults.is_empty() {
            let in_words = duration::format;
            if config.lease_duration <= config.renew_deadline {
                let rule =
                    format!("is not longer than the {RENEW_DEADLINE} of {}", in_words(config.renew_deadline));
                findings.fault(LEASE_DURATION, &in_words(config.lease_duration), rule);
            }
            // client-go has the same rule: there must be time for a second attempt.
            if config.renew_deadline <= config.retry_period.mul_f64(1.2) {
                let rule = format!(
                    "is not longer than 1.2 times the {RETRY_PERIOD} of {}",
                    in_words(config.retry_period)
                );
                findings.fault(RENEW_DEADLINE, &in_words(config.renew_deadline), rule);
            }
        }
        Parsed::new(config, findings)
    }

    /// The names of all buckets' leases, in order.
    ///
    /// ```
    /// let names = pilotlight_config::cluster::LeaderElectionConfig::default().bucket_names();
    /// assert_eq!(names, ["autoscaler-bucket-00-of-01"]);
    /// ```
    pub fn bucket_names(&self) -> Vec<String> {
        let buckets = self.buckets;
        (0..buckets).map(|bucket| format!("autoscaler-bucket-{bucket:02}-of-{buckets:02}")).collect()
    }
}

impl ObservabilityConfig {
    /// Reads the data of the ConfigMap.
    pub fn from_map(data: &Data) -> Parsed<Self> {
        let mut findings = Findings::default();
        let mut config = ObservabilityConfig::default();
        let read = |text: &str| match text {
            "" | "none" => Ok(MetricsProtocol::None),
            "prometheus" => Ok(MetricsProtocol::Prometheus),
            "grpc" | "http/protobuf" => Ok(MetricsProtocol::Otlp),
            _ => Err("is none of none, prometheus, grpc and http/protobuf".to_owned()),
        };
        set(&mut config.metrics_protocol, data, METRICS_PROTOCOL, read, &mut findings);
        if config.metrics_protocol == MetricsProtocol::Otlp {
            let advice = "metrics are not sent anywhere; prometheus, with a collector that asks for them, is what there is";
            findings.warn(METRICS_PROTOCOL, advice);
        }
        config.metrics_endpoint = data.get("metrics-endpoint").cloned().unwrap_or_default();
        Parsed::new(config, findings)
    }
}

impl LoggingConfig {
    /// Reads the data of the ConfigMap.
    pub fn from_map(data: &Data) -> Parsed<Self> {
        let mut findings = Findings::default();
        let mut levels = BTreeMap::new();
        for (key, text) in data {
            let Some(component) = key.strip_prefix("loglevel.") else { continue };
            let level = match text.to_ascii_lowercase().as_str() {
                "debug" => LogLevel::Debug,
                "info" => LogLevel::Info,
                "warn" => LogLevel::Warn,
                "error" | "dpanic" | "panic" | "fatal" => LogLevel::Error,
                // Empty: nothing is said.
                "" => continue,
                _ => {
                    findings.fault(key, text, "is none of debug, info, warn, error, dpanic, panic and fatal");
                    continue;
                }
            };
            levels.insert(component.to_owned(), level);
        }
        Parsed::new(LoggingConfig { levels }, findings)
    }
}

/// Reads a key, if it is written.
fn set<T>(
    value: &mut T,
    data: &Data,
    key: &str,
    read: impl FnOnce(&str) -> Result<T, String>,
    findings: &mut Findings,
) {
    let Some(text) = data.get(key) else { return };
    match read(text) {
        Ok(read) => *value = read,
        Err(rule) => findings.fault(key, text, rule),
    }
}

const MESH_MODE: &str = "mesh-compatibility-mode";
const LEASE_DURATION: &str = "lease-duration";
const RENEW_DEADLINE: &str = "renew-deadline";
const RETRY_PERIOD: &str = "retry-period";
const METRICS_PROTOCOL: &str = "metrics-protocol";

#[cfg(test)]
mod tests {
    use super::*;

    fn data(pairs: &[(&str, &str)]) -> Data {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn faults<T>(parsed: Parsed<T>) -> Vec<String> {
        parsed.value.err().map(|faults| faults.iter().map(ToString::to_string).collect()).unwrap_or_default()
    }

    #[test]
    fn what_is_not_written_is_as_knative_has_it() {
        let none = Data::new();
        let deployment = DeploymentConfig::from_map(&none).value.unwrap();
        assert_eq!(deployment.progress_deadline, Duration::from_secs(600));
        let network = NetworkConfig::from_map(&none).value.unwrap();
        assert_eq!((network.mesh, network.pods_addressable_in_mesh), (MeshMode::Auto, false));
        let election = LeaderElectionConfig::from_map(&none).value.unwrap();
        assert_eq!(election, LeaderElectionConfig::default());
        let observability = ObservabilityConfig::from_map(&none).value.unwrap();
        assert_eq!(observability.metrics_protocol, MetricsProtocol::None);
        assert_eq!(LoggingConfig::from_map(&none).value.unwrap().levels.len(), 0);
    }

    #[test]
    fn the_old_name_of_the_progress_deadline_counts_unless_the_new_one_is_there() {
        let read = |pairs: &[(&str, &str)]| {
            DeploymentConfig::from_map(&data(pairs))
                .value
                .map(|config| config.progress_deadline.as_secs())
                .ok()
        };
        assert_eq!(read(&[("progressDeadline", "5m")]), Some(300));
        assert_eq!(read(&[("progressDeadline", "5m"), ("progress-deadline", "2m")]), Some(120));
        assert_eq!(read(&[("queue-sidecar-image", "x")]), Some(600));
        for wrong in ["0s", "-1s", "1500ms", "10", ""] {
            assert_eq!(read(&[("progress-deadline", wrong)]), None, "{wrong}");
        }
    }

    #[test]
    fn mesh_modes_are_read_in_any_case_and_an_unknown_one_is_auto() {
        let mode = |text| NetworkConfig::from_map(&data(&[("mesh-compatibility-mode", text)]));
        assert_eq!(mode("Enabled").value.unwrap().mesh, MeshMode::Enabled);
        assert_eq!(mode("disabled").value.unwrap().mesh, MeshMode::Disabled);
        let unknown = mode("sometimes");
        assert_eq!((unknown.value.unwrap().mesh, unknown.warnings.len()), (MeshMode::Auto, 1));
        let passthrough =
            |text| NetworkConfig::from_map(&data(&[("enable-mesh-pod-addressability", text)])).value;
        assert!(passthrough("TRUE").unwrap().pods_addressable_in_mesh);
        assert!(passthrough("yes").is_err());
    }

    #[test]
    fn buckets_have_knatives_names() {
        let config = LeaderElectionConfig::from_map(&data(&[("buckets", "3")])).value.unwrap();
        assert_eq!(
            config.bucket_names(),
            ["autoscaler-bucket-00-of-03", "autoscaler-bucket-01-of-03", "autoscaler-bucket-02-of-03"]
        );
        for wrong in ["0", "11", "-1", "one", ""] {
            let [fault] = &faults(LeaderElectionConfig::from_map(&data(&[("buckets", wrong)])))[..] else {
                panic!()
            };
            assert_eq!(*fault, format!("buckets: {wrong:?} is not a whole number between 1 and 10"));
        }
    }

    #[test]
    fn times_of_an_election_must_leave_room_for_a_second_attempt() {
        let read = |pairs: &[(&str, &str)]| LeaderElectionConfig::from_map(&data(pairs));
        let old = read(&[("leaseDuration", "15.5s"), ("renewDeadline", "10s"), ("retryPeriod", "2s")])
            .value
            .unwrap();
        let times = [old.lease_duration, old.renew_deadline, old.retry_period].map(|time| time.as_secs());
        assert_eq!(times, [15, 10, 2]);
        let lease = read(&[("map-lease-prefix.x", "y"), ("leaseDuration", "15s"), ("lease-duration", "70s")]);
        assert_eq!(lease.value.unwrap().lease_duration, Duration::from_secs(70));
        assert_eq!(
            faults(read(&[("lease-duration", "40s"), ("retry-period", "34s")])),
            [
                r#"lease-duration: "40s" is not longer than the renew-deadline of 40s"#,
                r#"renew-deadline: "40s" is not longer than 1.2 times the retry-period of 34s"#,
            ]
        );
        assert_eq!(
            faults(read(&[("lease-duration", "soon"), ("retry-period", "0s"), ("buckets", "x")])).len(),
            3
        );
    }

    #[test]
    fn metrics_are_for_prometheus_or_not_at_all() {
        let read = |protocol| ObservabilityConfig::from_map(&data(&[("metrics-protocol", protocol)]));
        assert_eq!(read("prometheus").value.unwrap().metrics_protocol, MetricsProtocol::Prometheus);
        let otlp = read("grpc");
        assert_eq!((otlp.value.unwrap().metrics_protocol, otlp.warnings.len()), (MetricsProtocol::Otlp, 1));
        assert!(read("opencensus").value.is_err());
    }

    #[test]
    fn each_component_has_a_level_of_its_own() {
        let read = LoggingConfig::from_map(&data(&[
            ("loglevel.autoscaler", "DEBUG"),
            ("loglevel.activator", "fatal"),
            ("loglevel.webhook", ""),
            ("zap-logger-config", "{}"),
        ]));
        let expected =
            [("activator".to_owned(), LogLevel::Error), ("autoscaler".to_owned(), LogLevel::Debug)];
        assert_eq!(read.value.unwrap().levels, expected.into());
        assert!(LoggingConfig::from_map(&data(&[("loglevel.autoscaler", "loud")])).value.is_err());
    }
}
