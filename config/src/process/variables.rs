//! The environment variables of each program: one table, which `--help` and `docs/processes.md` are written from.
//!
//! A test compares it with the variables that are really read.

use std::fmt::Write;

/// An environment variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Name of the variable.
    pub name: &'static str,
    /// The value in force where it is not set.
    pub default: Absent,
    /// Meaning of the value.
    pub meaning: &'static str,
}

/// The value in force where a variable is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// None: the variable must be set.
    Required,
    /// This one.
    Value(&'static str),
    /// The setting is off, or nothing is limited.
    Unset,
}

use Absent::{Required, Unset, Value};

macro_rules! tls_variables {
    ($prefix:literal) => {
        &[
            variable(concat!($prefix, "MIN_VERSION"), Value("1.3"), MIN_VERSION),
            variable(concat!($prefix, "MAX_VERSION"), Unset, MAX_VERSION),
            variable(concat!($prefix, "CIPHER_SUITES"), Unset, CIPHER_SUITES),
            variable(concat!($prefix, "CURVE_PREFERENCES"), Unset, CURVE_PREFERENCES),
        ]
    };
}

/// Variables of the log, read by every program.
pub const LOGS: &[Variable] = &[
    variable("PILOTLIGHT_LOG_FORMAT", Value("text"), "Form of log lines: text or json"),
    variable(
        "RUST_LOG",
        Value("info"),
        "Log lines to write: off, error, warn, info, debug or trace, or levels by target as in info,app=off",
    ),
    variable("NO_COLOR", Unset, "Set to anything: no colors on a terminal"),
];

/// Variables of the programs in the place of Knative's: the cluster.
pub const CLUSTER: &[Variable] = &[variable(
    "KUBERNETES_MIN_VERSION",
    Unset,
    "Oldest API server to start at; without it, one that is older than 1.33.0 is only warned of",
)];

/// Variables of the autoscaler in the place of Knative's.
pub const KNATIVE_AUTOSCALER: &[Variable] = &[
    variable("POD_NAME", Required, "Name of the pod"),
    variable("POD_IP", Required, "Address of the pod"),
    variable("SYSTEM_NAMESPACE", Required, "Namespace of Knative's own parts, as a rule knative-serving"),
    variable(
        "CLUSTER_DOMAIN",
        Unset,
        "Domain of the cluster's Services; without it that of /etc/resolv.conf",
    ),
    variable("CONFIG_LOGGING_NAME", Value("config-logging"), "ConfigMap of the log"),
    variable("CONFIG_OBSERVABILITY_NAME", Value("config-observability"), "ConfigMap of metrics"),
    variable("CONFIG_LEADERELECTION_NAME", Value("config-leader-election"), "ConfigMap of leases"),
    variable(
        "STATEFUL_CONTROLLER_ORDINAL",
        Unset,
        "Name of a StatefulSet's pod: its ordinal decides, not leases",
    ),
    variable("STATEFUL_SERVICE_NAME", Unset, "Service that governs the StatefulSet"),
    variable(
        "STATEFUL_SERVICE_PROTOCOL",
        Value("http"),
        "Protocol of its pods' stat servers: ws where there are several",
    ),
    variable("STATEFUL_SERVICE_PORT", Value("80"), "Port of its pods' stat servers"),
    variable("PILOTLIGHT_BIND_ADDRESS", Value("0.0.0.0"), "Address that all servers bind to"),
];

/// Variables of the queue-proxy that Knative's controller sets.
pub const QUEUE_PROXY: &[Variable] = &[
    variable("CONTAINER_CONCURRENCY", Required, "Requests the app may run at once; 0: no limit"),
    variable("QUEUE_SERVING_PORT", Required, "Port for requests"),
    variable("QUEUE_SERVING_TLS_PORT", Required, "Port for requests over TLS, if there is a certificate"),
    variable("USER_PORT", Required, "Port of the app, on 127.0.0.1 or `::1`"),
    variable(
        "REVISION_TIMEOUT_SECONDS",
        Required,
        "Seconds from a request's arrival to the end of its response",
    ),
    variable(
        "REVISION_RESPONSE_START_TIMEOUT_SECONDS",
        Unset,
        "Seconds from a request's arrival to the head of its response",
    ),
    variable("REVISION_IDLE_TIMEOUT_SECONDS", Unset, "Longest silence of a request, in seconds"),
    variable("SERVING_READINESS_PROBE", Unset, "Probe that says whether the app is ready, as JSON"),
    variable(
        "ENABLE_MULTI_CONTAINER_PROBES",
        Value("false"),
        "SERVING_READINESS_PROBE is an array of probes, all of which must succeed",
    ),
    variable("ENABLE_HTTP2_AUTO_DETECTION", Value("false"), "HTTP readiness probes try HTTP/2 first"),
    variable("SERVING_NAMESPACE", Required, "Namespace of the revision"),
    variable("SERVING_CONFIGURATION", Required, "Configuration of the revision; may be empty"),
    variable("SERVING_REVISION", Required, "Name of the revision"),
    variable("SERVING_SERVICE", Unset, "Service of the revision"),
    variable("SERVING_POD", Required, "Name of the pod"),
    variable("SERVING_POD_IP", Required, "Address of the pod"),
    variable("SERVING_LOGGING_CONFIG", Required, "Knative's configuration of its own log; not used"),
    variable(
        "SERVING_LOGGING_LEVEL",
        Required,
        "Level of the log: debug, info, warn or error; RUST_LOG comes first; may be empty",
    ),
];

/// Variables of the queue-proxy beyond Knative's, so that many can share a host.
pub const QUEUE_PROXY_PLACES: &[Variable] = &[
    variable("PILOTLIGHT_BIND_ADDRESS", Value("0.0.0.0"), "Address that all servers bind to"),
    variable("PILOTLIGHT_METRICS_PORT", Value("9090"), "Port of the stats for the autoscaler"),
    variable(
        "PILOTLIGHT_USER_METRICS_PORT",
        Value("9091"),
        "Port of the metrics for Prometheus, if asked for",
    ),
    variable("PILOTLIGHT_ADMIN_PORT", Value("8022"), "Port of /wait-for-drain, /healthz and /readyz"),
    variable(
        "PILOTLIGHT_DRAIN_QUIET_PERIOD",
        Value("30s"),
        "How long no request must have arrived before a terminating pod stops",
    ),
    variable(
        "PILOTLIGHT_MAX_CONNECTIONS",
        Value("20000"),
        "Most connections at each port; more wait to be accepted",
    ),
    variable(
        "PILOTLIGHT_MAX_QUEUED_BYTES",
        Value("16777216"),
        "Most bytes of waiting requests in memory: beginnings of bodies, and large heads",
    ),
    variable(
        "PILOTLIGHT_CERT_DIR",
        Value("/var/lib/knative/certs"),
        "Folder of tls.crt and tls.key; TLS if both are there at the start",
    ),
    variable("PILOTLIGHT_CERT_POLL_INTERVAL", Value("60s"), "How often to look whether they were replaced"),
];

/// TLS of the queue-proxy's requests.
pub const QUEUE_PROXY_TLS: &[Variable] = tls_variables!("QUEUE_PROXY_TLS_");

/// TLS of the activator's requests.
pub const ACTIVATOR_TLS: &[Variable] = tls_variables!("ACTIVATOR_TLS_");

/// Metrics, traces and request logs of the activator and the queue-proxy.
pub const TELEMETRY: &[Variable] = &[
    variable(
        "OBSERVABILITY_CONFIG",
        Unset,
        "Request metrics, traces and request log: Knative's JSON, all of whose keys may be left out",
    ),
    variable("METRICS_PROMETHEUS_HOST", Unset, "IP address to serve metrics at"),
    variable("METRICS_PROMETHEUS_PORT", Unset, "Port to serve metrics at"),
    variable("METRICS_PROMETHEUS_TLS_CERT", Unset, "Certificate (PEM file) to serve metrics with, over TLS"),
    variable("METRICS_PROMETHEUS_TLS_KEY", Unset, "Key (PEM file) of that certificate"),
    variable(
        "METRICS_PROMETHEUS_TLS_CLIENT_AUTH",
        Value("none"),
        "Certificates of clients that ask for metrics: none, optional or require",
    ),
    variable(
        "METRICS_PROMETHEUS_TLS_CLIENT_CA_FILE",
        Unset,
        "Authorities (PEM file) of clients' certificates",
    ),
    variable("METRICS_PROMETHEUS_TLS_MIN_VERSION", Value("1.3"), MIN_VERSION),
    variable("METRICS_PROMETHEUS_TLS_MAX_VERSION", Unset, MAX_VERSION),
    variable("METRICS_PROMETHEUS_TLS_CIPHER_SUITES", Unset, CIPHER_SUITES),
    variable("METRICS_PROMETHEUS_TLS_CURVE_PREFERENCES", Unset, CURVE_PREFERENCES),
    variable("OTEL_SERVICE_NAME", Unset, "Name of this service in metrics and traces"),
    variable(
        "OTEL_TRACES_SAMPLER",
        Unset,
        "Sampler of traces, before the sampling rate of OBSERVABILITY_CONFIG",
    ),
    variable("OTEL_TRACES_SAMPLER_ARG", Value("0.1"), "Fraction of traces begun here, 0 to 1"),
    variable(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        Value("http://localhost"),
        "Collector of OTLP; with TRACES_ in front of ENDPOINT, of traces only",
    ),
    variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", Unset, "Collector of traces"),
    variable("OTEL_EXPORTER_OTLP_HEADERS", Unset, "Headers for the collector: name=value,other=value"),
    variable("OTEL_EXPORTER_OTLP_TRACES_HEADERS", Unset, "Headers for the collector of traces"),
    variable("OTEL_EXPORTER_OTLP_TIMEOUT", Value("10000"), "Milliseconds one attempt to send may take"),
    variable("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", Unset, "Milliseconds one attempt to send traces may take"),
    variable(
        "OTEL_EXPORTER_OTLP_CERTIFICATE",
        Unset,
        "Authorities (PEM file) of the collector's certificate; otherwise those of the system",
    ),
    variable("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", Unset, "Authorities of the collector of traces"),
];

const fn variable(name: &'static str, default: Absent, meaning: &'static str) -> Variable {
    Variable { name, default, meaning }
}

const MIN_VERSION: &str = "Lowest version of TLS: 1.2 or 1.3";
const MAX_VERSION: &str = "Highest version of TLS: 1.2 or 1.3";
const CIPHER_SUITES: &str = "Cipher suites by Go's names, with commas between them";
const CURVE_PREFERENCES: &str = "Curves by Go's names, with commas between them";

/// The section of `--help` that lists variables, in clap's style.
pub fn help(tables: &[&[Variable]]) -> String {
    let mut text = String::from("Environment:\n");
    for variable in tables.iter().copied().flatten() {
        // Writing to a string cannot fail.
        let _ =
            writeln!(text, "  {}\n          {}{}", variable.name, variable.meaning, variable.default.note());
    }
    text.truncate(text.trim_end().len());
    text
}

/// The same as a table in Markdown.
pub fn markdown(tables: &[&[Variable]]) -> String {
    let mut text = String::from("| variable | default | meaning |\n|---|---|---|\n");
    for Variable { name, default, meaning } in tables.iter().copied().flatten() {
        let default = match default {
            Required => "required".to_owned(),
            Value(value) => format!("`{value}`"),
            Unset => "-".to_owned(),
        };
        let _ = writeln!(text, "| `{name}` | {default} | {meaning} |");
    }
    text
}

impl Absent {
    fn note(self) -> String {
        match self {
            Required => " [required]".to_owned(),
            Value(value) => format!(" [default: {value}]"),
            Unset => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use super::super::{AutoscalerEnv, MinimumKubernetes, QueueProxyEnv, TelemetryEnv, TlsEnv};
    use super::*;

    /// The names of all variables that are read, whatever is set.
    fn read_by(read: impl Fn(&dyn Fn(&str) -> Option<String>)) -> BTreeSet<String> {
        let names = RefCell::new(BTreeSet::new());
        let settings =
            ["grpc", "http/protobuf"].map(|protocol| format!(r#"{{"tracing":{{"protocol":"{protocol}"}}}}"#));
        for observability in &settings {
            read(&|name: &str| {
                names.borrow_mut().insert(name.to_owned());
                match name {
                    "OBSERVABILITY_CONFIG" => Some(observability.clone()),
                    "METRICS_PROMETHEUS_TLS_CERT" | "METRICS_PROMETHEUS_TLS_KEY" => Some("/x".to_owned()),
                    _ => None,
                }
            });
        }
        names.into_inner()
    }

    fn listed(tables: &[&[Variable]]) -> BTreeSet<String> {
        let all: Vec<_> = tables.iter().copied().flatten().map(|variable| variable.name.to_owned()).collect();
        let names: BTreeSet<_> = all.iter().cloned().collect();
        assert_eq!(names.len(), all.len(), "a variable is listed twice");
        names
    }

    #[test]
    fn the_variables_that_are_listed_are_those_that_are_read() {
        let queue_proxy = read_by(|lookup| drop(QueueProxyEnv::from_env(lookup)));
        assert_eq!(listed(&[QUEUE_PROXY, QUEUE_PROXY_PLACES, QUEUE_PROXY_TLS, TELEMETRY]), queue_proxy);
        assert_eq!(listed(&[KNATIVE_AUTOSCALER]), read_by(|lookup| drop(AutoscalerEnv::from_env(lookup))));
        assert_eq!(listed(&[CLUSTER]), read_by(|lookup| drop(MinimumKubernetes::from_env(lookup))));
        assert_eq!(listed(&[TELEMETRY]), read_by(|lookup| drop(TelemetryEnv::from_env(lookup))));
        assert_eq!(listed(&[ACTIVATOR_TLS]), read_by(|lookup| drop(TlsEnv::from_env("ACTIVATOR_", lookup))));
    }

    #[test]
    fn those_that_are_listed_as_required_are_and_defaults_are_what_is_in_force() {
        let required: Vec<_> =
            QUEUE_PROXY.iter().filter(|it| it.default == Required).map(|it| it.name).collect();
        let refused = QueueProxyEnv::from_env(|_| None).unwrap_err();
        let missing: BTreeSet<_> = refused.iter().map(ToString::to_string).collect();
        let expected: BTreeSet<_> =
            required.iter().map(|it| format!("required key {it} missing value")).collect();
        assert_eq!(missing, expected);

        let given = |name: &str| required.contains(&name).then(|| "1".to_owned());
        let unset = QueueProxyEnv::from_env(given).unwrap();
        let listed = QueueProxyEnv::from_env(|name| {
            let all = [QUEUE_PROXY, QUEUE_PROXY_PLACES].concat();
            given(name).or_else(|| match all.iter().find(|it| it.name == name)?.default {
                Value(value) => Some(value.to_owned()),
                Required | Unset => None,
            })
        });
        assert_eq!(listed.unwrap(), unset);
    }

    #[test]
    fn help_and_page_say_the_same() {
        let one = [variable("A", Value("1"), "Letter"), variable("B", Required, "Other")];
        assert_eq!(
            help(&[&one]),
            "Environment:\n  A\n          Letter [default: 1]\n  B\n          Other [required]"
        );
        let rows = "| variable | default | meaning |\n|---|---|---|\n| `A` | `1` | Letter |\n| `B` | required | Other |\n";
        assert_eq!(markdown(&[&one]), rows);
    }
}
