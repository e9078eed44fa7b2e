//! The environment of each process. The queue-proxy's is Knative's contract between the controller and the sidecar,
//! read with Knative's rules (envconfig): "required" means that the variable is set, and an empty one is set too.
//! [`variables`] lists them all.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::{duration, number};
use pilotlight_core::{ConcurrencyLimit, Timeouts};

mod autoscaler;
mod kubernetes;
mod observability;
mod readiness;
mod telemetry;
mod traces;
pub mod variables;

pub use autoscaler::{AutoscalerEnv, StatefulEnv, cluster_domain};
pub use kubernetes::{KubernetesVersion, MinimumKubernetes, OldKubernetes};
pub use observability::{MetricsProtocol, Observability, RequestMetricsConfig, TraceProtocol, TracingConfig};
pub use readiness::{ProbeAction, ProbePace, ReadinessProbe};
use readiness::{many_probes, one_probe};
pub use telemetry::{PrometheusClients, PrometheusEnv, PrometheusTls, TelemetryEnv};
pub use traces::{OtlpEndpoint, Sampling, TraceExport, TraceReceiver};

/// The queue-proxy's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueProxyEnv {
    /// The most requests the app may run at once.
    pub container_concurrency: ConcurrencyLimit,
    /// Port for requests.
    pub serving_port: u16,
    /// Port for requests over TLS, if there is a certificate.
    pub serving_tls_port: u16,
    /// Port of the app, on 127.0.0.1 or `::1`.
    pub user_port: u16,
    /// The time limits of a request. A total of zero is a limit, too: nothing passes.
    pub timeouts: Timeouts,
    /// Probes of the app's readiness; all must succeed. Empty: it is always ready.
    pub readiness: Vec<ReadinessProbe>,
    /// Whether HTTP readiness probes try HTTP/2 first.
    pub http2_auto_detection: bool,
    /// The least severe level to log, in zap's words; empty: the default.
    pub logging_level: String,
    /// The namespace of the revision.
    pub namespace: String,
    /// The configuration that owns the revision; empty: none.
    pub configuration: String,
    /// The revision.
    pub revision: String,
    /// The service that owns the configuration; empty: none.
    pub service: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's address.
    pub pod_ip: String,
    /// The address that all servers bind to.
    pub bind_address: IpAddr,
    /// Port of the stats that the autoscaler scrapes.
    pub metrics_port: u16,
    /// Port of the kubelet's request to wait for the drain.
    pub admin_port: u16,
    /// Port that Prometheus scrapes, if request metrics are on.
    pub user_metrics_port: u16,
    /// How long nothing may have arrived before a terminating pod stops serving.
    pub drain_quiet_period: Duration,
    /// The most connections of clients at each port.
    pub max_connections: usize,
    /// The most bytes of waiting requests in memory: beginnings of bodies, and large heads.
    pub max_queued_bytes: usize,
    /// Metrics, traces and log of its requests.
    pub telemetry: TelemetryEnv,
    /// Folder of `tls.crt` and `tls.key`, if there is a certificate.
    pub cert_dir: PathBuf,
    /// How often to look whether they were replaced.
    pub cert_poll_interval: Duration,
    /// Versions, cipher suites and curves of TLS, if there is a certificate.
    pub tls: TlsEnv,
}

/// Settings of TLS as they were written: without a certificate they do not matter, and may be anything. Empty: not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsEnv {
    /// The lowest version.
    pub min_version: String,
    /// The highest version.
    pub max_version: String,
    /// Go's names of cipher suites, with commas between them.
    pub cipher_suites: String,
    /// Go's names of curves, with commas between them.
    pub curve_preferences: String,
}

impl TlsEnv {
    /// Reads the variables of one process, which begin with its `prefix`: `QUEUE_PROXY_` or `ACTIVATOR_`.
    pub fn from_env(prefix: &str, lookup: impl Fn(&str) -> Option<String>) -> Self {
        let read = |name| lookup(&format!("{prefix}{name}")).unwrap_or_default();
        TlsEnv {
            min_version: read("TLS_MIN_VERSION"),
            max_version: read("TLS_MAX_VERSION"),
            cipher_suites: read("TLS_CIPHER_SUITES"),
            curve_preferences: read("TLS_CURVE_PREFERENCES"),
        }
    }
}

/// One thing wrong with the environment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// A required variable is not there.
    #[error("required key {0} missing value")]
    Missing(&'static str),
    /// A variable is there, but not what it must be.
    #[error("{name}: {value:?} {rule}")]
    Invalid {
        /// The variable.
        name: &'static str,
        /// The value.
        value: String,
        /// The rule it breaks: a sentence whose subject is the value.
        rule: String,
    },
}

impl QueueProxyEnv {
    /// Reads the environment; all that is wrong with it at once.
    pub fn from_env(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<EnvError>> {
        let mut env = EnvReader { lookup, errors: Vec::new() };
        let parsed = QueueProxyEnv {
            container_concurrency: env.required("CONTAINER_CONCURRENCY", count).into(),
            serving_port: env.required("QUEUE_SERVING_PORT", port),
            serving_tls_port: env.required("QUEUE_SERVING_TLS_PORT", port),
            user_port: env.required("USER_PORT", port),
            timeouts: Timeouts {
                total: env.required("REVISION_TIMEOUT_SECONDS", seconds),
                response_start: env
                    .optional("REVISION_RESPONSE_START_TIMEOUT_SECONDS", seconds)
                    .filter(|limit| !limit.is_zero()),
                idle: env.optional("REVISION_IDLE_TIMEOUT_SECONDS", seconds).filter(|limit| !limit.is_zero()),
            },
            readiness: env.readiness(),
            http2_auto_detection: env.optional("ENABLE_HTTP2_AUTO_DETECTION", truth).unwrap_or_default(),
            logging_level: env.required("SERVING_LOGGING_LEVEL", text),
            namespace: env.required("SERVING_NAMESPACE", text),
            configuration: env.required("SERVING_CONFIGURATION", text),
            revision: env.required("SERVING_REVISION", text),
            service: env.optional("SERVING_SERVICE", text).unwrap_or_default(),
            pod: env.required("SERVING_POD", text),
            pod_ip: env.required("SERVING_POD_IP", text),
            bind_address: env
                .optional("PILOTLIGHT_BIND_ADDRESS", address)
                .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            metrics_port: env.optional("PILOTLIGHT_METRICS_PORT", port).unwrap_or(9090),
            admin_port: env.optional("PILOTLIGHT_ADMIN_PORT", port).unwrap_or(8022),
            user_metrics_port: env.optional("PILOTLIGHT_USER_METRICS_PORT", port).unwrap_or(9091),
            drain_quiet_period: env
                .optional("PILOTLIGHT_DRAIN_QUIET_PERIOD", go_duration)
                .unwrap_or(Duration::from_secs(30)),
            max_connections: env
                .optional("PILOTLIGHT_MAX_CONNECTIONS", some_number)
                .unwrap_or(DEFAULT_MAX_CONNECTIONS),
            max_queued_bytes: env.optional("PILOTLIGHT_MAX_QUEUED_BYTES", any_number).unwrap_or(16 << 20),
            telemetry: TelemetryEnv::read(&mut env),
            cert_dir: env
                .optional("PILOTLIGHT_CERT_DIR", path)
                .unwrap_or_else(|| PathBuf::from("/var/lib/knative/certs")),
            cert_poll_interval: env
                .optional("PILOTLIGHT_CERT_POLL_INTERVAL", some_time)
                .unwrap_or(Duration::from_secs(60)),
            tls: TlsEnv::from_env("QUEUE_PROXY_", &env.lookup),
        };
        // zap's configuration is not used, but its absence means that this is not a controller's environment.
        env.required("SERVING_LOGGING_CONFIG", text);
        if env.errors.is_empty() { Ok(parsed) } else { Err(env.errors) }
    }
}

/// The most connections of clients at one port, where nothing else is set.
pub const DEFAULT_MAX_CONNECTIONS: usize = 20_000;

struct EnvReader<L> {
    lookup: L,
    errors: Vec<EnvError>,
}

/// Reads a value, or says which rule it breaks.
type Parse<T> = fn(&str) -> Result<T, String>;

impl<L: Fn(&str) -> Option<String>> EnvReader<L> {
    // After an error the value does not matter: the errors are returned instead.
    fn required<T: Default>(&mut self, name: &'static str, parse: Parse<T>) -> T {
        match (self.lookup)(name) {
            Some(value) => self.parse(name, value, parse).unwrap_or_default(),
            None => {
                self.errors.push(EnvError::Missing(name));
                T::default()
            }
        }
    }

    // An optional variable that is there but empty is as good as absent; envconfig refuses it for numbers, but
    // templates that leave a value out write exactly this.
    fn optional<T>(&mut self, name: &'static str, parse: Parse<T>) -> Option<T> {
        let value = (self.lookup)(name).filter(|value| !value.is_empty())?;
        self.parse(name, value, parse)
    }

    fn parse<T>(&mut self, name: &'static str, value: String, parse: Parse<T>) -> Option<T> {
        parse(&value).map_err(|rule| self.errors.push(EnvError::Invalid { name, value, rule })).ok()
    }

    fn readiness(&mut self) -> Vec<ReadinessProbe> {
        let several = self.optional("ENABLE_MULTI_CONTAINER_PROBES", truth).unwrap_or_default();
        let parse = if several { many_probes } else { one_probe };
        self.optional("SERVING_READINESS_PROBE", parse).unwrap_or_default()
    }
}

fn text(value: &str) -> Result<String, String> {
    Ok(value.to_owned())
}

fn truth(value: &str) -> Result<bool, String> {
    number::parse_bool(value).ok_or_else(|| "is not true or false".to_owned())
}

fn path(value: &str) -> Result<PathBuf, String> {
    Ok(PathBuf::from(value))
}

fn address(value: &str) -> Result<IpAddr, String> {
    IpAddr::from_str(value).map_err(|_| "is not an IP address".to_owned())
}

fn port(value: &str) -> Result<u16, String> {
    value.parse().map_err(|_| "is not a port number (0 to 65535)".to_owned())
}

fn go_duration(value: &str) -> Result<Duration, String> {
    duration::parse(value).map_err(|error| format!("is not a duration: {error}"))
}

fn some_time(value: &str) -> Result<Duration, String> {
    let time = go_duration(value)?;
    if time.is_zero() { Err("is no time at all".to_owned()) } else { Ok(time) }
}

fn seconds(value: &str) -> Result<Duration, String> {
    count(value).map(|seconds| Duration::from_secs(seconds.into()))
}

fn count(value: &str) -> Result<u32, String> {
    let number = go_integer(value).ok_or("is not a whole number")?;
    u32::try_from(number).map_err(|_| format!("is not between 0 and {}", u32::MAX))
}

fn some_number(value: &str) -> Result<usize, String> {
    let number = any_number(value)?;
    if number == 0 { Err("lets nothing through".to_owned()) } else { Ok(number) }
}

fn any_number(value: &str) -> Result<usize, String> {
    let number = go_integer(value).ok_or("is not a whole number")?;
    usize::try_from(number).map_err(|_| "is less than 0".to_owned())
}

/// Go's integer literals: decimal, or with a base prefix (`0x10`, `0o20`, `020`, `0b10000`), `_` after the prefix
/// and between digits.
fn go_integer(value: &str) -> Option<i64> {
    let (negative, digits) = match value.as_bytes().first()? {
        b'-' => (true, &value[1..]),
        b'+' => (false, &value[1..]),
        _ => (false, value),
    };
    let lower = digits.to_ascii_lowercase();
    let (base, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    let prefixed = base != 10;
    let digits = if prefixed { digits.strip_prefix('_').unwrap_or(digits) } else { digits };
    // Go allows `_` only where a base prefix is.
    let separated = prefixed && !digits.ends_with('_') && !digits.contains("__");
    if (digits.contains('_') && !separated) || digits.starts_with(['+', '-', '_']) {
        return None;
    }
    let magnitude = i64::from_str_radix(&digits.replace('_', ""), base).ok()?;
    Some(if negative { -magnitude } else { magnitude })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNATIVE: &[(&str, &str)] = &[
        ("CONTAINER_CONCURRENCY", "10"),
        ("QUEUE_SERVING_PORT", "8012"),
        ("QUEUE_SERVING_TLS_PORT", "8112"),
        ("USER_PORT", "8080"),
        ("REVISION_TIMEOUT_SECONDS", "300"),
        ("SERVING_LOGGING_CONFIG", ""),
        ("SERVING_LOGGING_LEVEL", ""),
        ("SERVING_NAMESPACE", "default"),
        ("SERVING_CONFIGURATION", ""),
        ("SERVING_REVISION", "hello-00001"),
        ("SERVING_POD", "hello-00001-deployment-0"),
        ("SERVING_POD_IP", "10.0.0.1"),
    ];

    fn read(changes: &[(&str, &str)]) -> Result<QueueProxyEnv, Vec<EnvError>> {
        let all: std::collections::BTreeMap<_, _> = KNATIVE.iter().chain(changes).copied().collect();
        QueueProxyEnv::from_env(|name| all.get(name).map(|&value| value.to_owned()))
    }

    fn messages(errors: Result<QueueProxyEnv, Vec<EnvError>>) -> Vec<String> {
        errors.unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_the_controller_writes_is_enough() {
        let env = read(&[]).unwrap();
        assert_eq!((env.container_concurrency, env.serving_port, env.user_port), (10.into(), 8012, 8080));
        assert_eq!((env.metrics_port, env.admin_port, env.user_metrics_port), (9090, 8022, 9091));
        assert_eq!(env.timeouts, Timeouts::total(Duration::from_secs(300)));
        assert_eq!(env.drain_quiet_period, Duration::from_secs(30));
        assert!(env.readiness.is_empty());
    }

    #[test]
    fn every_missing_variable_is_named_in_one_answer() {
        let errors = messages(QueueProxyEnv::from_env(|_| None));
        assert_eq!(errors.len(), KNATIVE.len());
        for (name, _) in KNATIVE {
            assert!(errors.contains(&format!("required key {name} missing value")), "{name} in {errors:?}");
        }
    }

    #[test]
    fn numbers_follow_go_and_say_what_is_wrong() {
        assert_eq!(read(&[("CONTAINER_CONCURRENCY", "0x10")]).unwrap().container_concurrency, 16.into());
        assert_eq!(read(&[("CONTAINER_CONCURRENCY", "010")]).unwrap().container_concurrency, 8.into());
        assert_eq!(
            messages(read(&[
                ("CONTAINER_CONCURRENCY", ""),
                ("REVISION_TIMEOUT_SECONDS", "-1"),
                ("USER_PORT", "http")
            ])),
            [
                r#"CONTAINER_CONCURRENCY: "" is not a whole number"#,
                r#"USER_PORT: "http" is not a port number (0 to 65535)"#,
                r#"REVISION_TIMEOUT_SECONDS: "-1" is not between 0 and 4294967295"#,
            ]
        );
    }

    #[test]
    fn go_integers_are_read_as_go_reads_them() {
        for (text, value) in
            [("0", 0), ("-7", -7), ("+7", 7), ("0B11", 3), ("0o17", 15), ("0x_f", 15), ("0_7", 7)]
        {
            assert_eq!(go_integer(text), Some(value), "{text}");
        }
        for text in [
            "",
            "-",
            "0x",
            "1_000",
            "08",
            "1.5",
            "0x1__0",
            "0x1_",
            "--1",
            "0x-1",
            " 1",
            "9223372036854775808",
        ] {
            assert_eq!(go_integer(text), None, "{text}");
        }
    }

    #[test]
    fn a_timeout_of_zero_stays_a_limit_but_the_other_two_are_off() {
        let env = read(&[
            ("REVISION_TIMEOUT_SECONDS", "0"),
            ("REVISION_RESPONSE_START_TIMEOUT_SECONDS", "0"),
            ("REVISION_IDLE_TIMEOUT_SECONDS", "7"),
        ])
        .unwrap();
        let idle = Some(Duration::from_secs(7));
        assert_eq!(env.timeouts, Timeouts { idle, ..Timeouts::total(Duration::ZERO) });
    }

    #[test]
    fn several_probes_come_as_an_array_that_may_have_holes() {
        let json = r#"[{"tcpSocket":{"port":8080}},null,{"tcpSocket":{"port":8081}}]"#;
        let env =
            read(&[("ENABLE_MULTI_CONTAINER_PROBES", "true"), ("SERVING_READINESS_PROBE", json)]).unwrap();
        assert_eq!(env.readiness.len(), 2);
        assert_eq!(messages(read(&[("SERVING_READINESS_PROBE", json)])).len(), 1);
    }

    #[test]
    fn a_malformed_probe_is_an_error_with_its_place() {
        let [error] = &messages(read(&[("SERVING_READINESS_PROBE", "{nope")]))[..] else {
            panic!("one error")
        };
        assert!(error.contains("is not a readiness probe in JSON") && error.contains("line 1"), "{error}");
        let [error] = &messages(read(&[("SERVING_READINESS_PROBE", r#"{"tcpSocket":{"port":"http"}}"#)]))[..]
        else {
            panic!("one error")
        };
        assert!(error.contains(r#"has a port "http" that is no number"#), "{error}");
    }

    #[test]
    fn what_is_written_about_tls_is_kept_for_whoever_finds_a_certificate() {
        let env = read(&[]).unwrap();
        assert_eq!((env.cert_dir.to_str(), env.tls), (Some("/var/lib/knative/certs"), TlsEnv::default()));
        assert_eq!(env.cert_poll_interval, Duration::from_secs(60));
        let env = read(&[
            ("PILOTLIGHT_CERT_DIR", "/certs"),
            ("PILOTLIGHT_CERT_POLL_INTERVAL", "1s"),
            ("QUEUE_PROXY_TLS_MIN_VERSION", "9"),
            ("QUEUE_PROXY_TLS_CURVE_PREFERENCES", "X25519"),
        ])
        .unwrap();
        assert_eq!((env.cert_dir.to_str(), env.cert_poll_interval), (Some("/certs"), Duration::from_secs(1)));
        assert_eq!((env.tls.min_version.as_str(), env.tls.curve_preferences.as_str()), ("9", "X25519"));
        assert_eq!(messages(read(&[("PILOTLIGHT_CERT_POLL_INTERVAL", "0s")])).len(), 1);
    }

    #[test]
    fn our_own_settings_have_their_own_rules() {
        let env =
            read(&[("PILOTLIGHT_BIND_ADDRESS", "::1"), ("PILOTLIGHT_DRAIN_QUIET_PERIOD", "500ms")]).unwrap();
        assert_eq!((env.bind_address.is_ipv6(), env.drain_quiet_period), (true, Duration::from_millis(500)));
        let errors =
            messages(read(&[("PILOTLIGHT_BIND_ADDRESS", "lo"), ("PILOTLIGHT_DRAIN_QUIET_PERIOD", "30")]));
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(errors[1].contains("a number needs a unit, such as 30s"), "{errors:?}");
    }
}
