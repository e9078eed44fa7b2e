//! Metrics, traces and log of a proxy's requests: `OBSERVABILITY_CONFIG`, and the variables of OpenTelemetry and of
//! Knative's Prometheus server that come before it.

use std::path::PathBuf;

use super::observability::{self, MetricsProtocol, Observability};
use super::traces::TraceExport;
use super::{EnvError, EnvReader, TlsEnv, port, text};

/// Metrics, traces and log of a proxy's requests, with their receivers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TelemetryEnv {
    /// The settings as they were written: those of the request log, and the source of the other fields.
    pub observability: Observability,
    /// The export of traces; `None`: there are none.
    pub traces: Option<TraceExport>,
    /// The name of this service in OpenTelemetry; `None`: not set.
    pub service_name: Option<String>,
    /// The server that Prometheus asks.
    pub prometheus: PrometheusEnv,
}

/// The server that Prometheus asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrometheusEnv {
    /// The address to listen at; `None`: the usual.
    pub host: Option<String>,
    /// The port to listen at; `None`: the usual.
    pub port: Option<u16>,
    /// `None`: in the clear.
    pub tls: Option<PrometheusTls>,
}

/// TLS towards Prometheus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrometheusTls {
    /// The certificate, in PEM.
    pub certificate: PathBuf,
    /// The key of the certificate, in PEM.
    pub key: PathBuf,
    /// The clients that may ask.
    pub clients: PrometheusClients,
    /// Versions, cipher suites and curves.
    pub words: TlsEnv,
}

/// The clients that may ask for metrics over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrometheusClients {
    /// All clients.
    Any,
    /// Clients without a certificate, or with one of these authorities (in PEM).
    Optional(PathBuf),
    /// Clients with a certificate of these authorities (in PEM).
    Required(PathBuf),
}

impl TelemetryEnv {
    /// Reads the variables; all that is wrong with them at once.
    pub fn from_env(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<EnvError>> {
        let mut env = EnvReader { lookup, errors: Vec::new() };
        let read = TelemetryEnv::read(&mut env);
        if env.errors.is_empty() { Ok(read) } else { Err(env.errors) }
    }

    pub(super) fn read<L: Fn(&str) -> Option<String>>(env: &mut EnvReader<L>) -> Self {
        let observability: Observability =
            env.optional("OBSERVABILITY_CONFIG", observability::parse).unwrap_or_default();
        let mut prometheus = PrometheusEnv {
            host: env.optional("METRICS_PROMETHEUS_HOST", text),
            port: env.optional("METRICS_PROMETHEUS_PORT", port),
            tls: read_tls(env),
        };
        let asked = &observability.request_metrics;
        if asked.protocol == MetricsProtocol::Prometheus && !asked.endpoint.is_empty() {
            let place = env.parse("OBSERVABILITY_CONFIG", asked.endpoint.clone(), place).unwrap_or_default();
            prometheus.host = prometheus.host.or(place.0);
            prometheus.port = prometheus.port.or(place.1);
        }
        TelemetryEnv {
            traces: TraceExport::read(&observability.tracing, env),
            service_name: env.optional("OTEL_SERVICE_NAME", text),
            prometheus,
            observability,
        }
    }
}

fn read_tls<L: Fn(&str) -> Option<String>>(env: &mut EnvReader<L>) -> Option<PrometheusTls> {
    let certificate = env.optional(CERT, text);
    let key = env.optional(KEY, text);
    let clients = env.optional(CLIENT_AUTH, client_auth).unwrap_or(ClientAuth::None);
    let authorities = env.optional(CLIENT_CA, text);
    let mut wrong = |name, value: &str, rule: &str| {
        env.errors.push(EnvError::Invalid { name, value: value.to_owned(), rule: rule.to_owned() });
        None
    };
    let (certificate, key) = match (certificate, key) {
        (Some(certificate), Some(key)) => (certificate, key),
        (Some(alone), None) => return wrong(CERT, &alone, "needs METRICS_PROMETHEUS_TLS_KEY beside it"),
        (None, Some(alone)) => return wrong(KEY, &alone, "needs METRICS_PROMETHEUS_TLS_CERT beside it"),
        (None, None) => {
            return match authorities {
                Some(alone) => wrong(CLIENT_CA, &alone, "needs METRICS_PROMETHEUS_TLS_CERT and _KEY"),
                None if clients != ClientAuth::None => {
                    wrong(CLIENT_AUTH, "", "needs METRICS_PROMETHEUS_TLS_CERT and _KEY")
                }
                None => None,
            };
        }
    };
    let clients = match (clients, authorities) {
        (ClientAuth::None, None) => PrometheusClients::Any,
        (ClientAuth::Optional, Some(authorities)) => PrometheusClients::Optional(authorities.into()),
        (ClientAuth::Require, Some(authorities)) => PrometheusClients::Required(authorities.into()),
        (ClientAuth::None, Some(unused)) => {
            return wrong(
                CLIENT_CA,
                &unused,
                "needs METRICS_PROMETHEUS_TLS_CLIENT_AUTH to be optional or require",
            );
        }
        (_, None) => return wrong(CLIENT_CA, "", "must name the authorities of clients' certificates"),
    };
    let words = TlsEnv::from_env("METRICS_PROMETHEUS_", &env.lookup);
    Some(PrometheusTls { certificate: certificate.into(), key: key.into(), clients, words })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ClientAuth {
    None,
    Optional,
    Require,
}

fn client_auth(text: &str) -> Result<ClientAuth, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "" | "none" => Ok(ClientAuth::None),
        "optional" => Ok(ClientAuth::Optional),
        "require" => Ok(ClientAuth::Require),
        _ => Err("is not none, optional or require".to_owned()),
    }
}

/// An address to listen at: `host:port`, `:port` or a URL of that.
fn place(text: &str) -> Result<(Option<String>, Option<u16>), String> {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let rest = rest.split('/').next().unwrap_or_default();
    let (host, number) = rest.rsplit_once(':').ok_or("is not of the form host:port")?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok(((!host.is_empty()).then(|| host.to_owned()), Some(port(number)?)))
}

const CERT: &str = "METRICS_PROMETHEUS_TLS_CERT";
const KEY: &str = "METRICS_PROMETHEUS_TLS_KEY";
const CLIENT_AUTH: &str = "METRICS_PROMETHEUS_TLS_CLIENT_AUTH";
const CLIENT_CA: &str = "METRICS_PROMETHEUS_TLS_CLIENT_CA_FILE";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(env: &[(&str, &str)]) -> Result<TelemetryEnv, Vec<EnvError>> {
        TelemetryEnv::from_env(|name| {
            env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn nothing_is_told_unless_somebody_asks() {
        let env = read(&[]).unwrap();
        assert_eq!(env, TelemetryEnv::default());
        assert_eq!(env.observability.request_metrics.protocol, MetricsProtocol::None);
    }

    #[test]
    fn the_endpoint_of_prometheus_is_a_place_to_listen_at_and_variables_come_first() {
        let config = (
            "OBSERVABILITY_CONFIG",
            r#"{"requestMetrics":{"protocol":"prometheus","endpoint":"127.0.0.1:9999"}}"#,
        );
        let place = |env: &[(&str, &str)]| {
            let prometheus = read(env).unwrap().prometheus;
            (prometheus.host, prometheus.port)
        };
        assert_eq!(place(&[config]), (Some("127.0.0.1".to_owned()), Some(9999)));
        assert_eq!(
            place(&[config, ("METRICS_PROMETHEUS_PORT", "9000")]),
            (Some("127.0.0.1".to_owned()), Some(9000))
        );
        let bad = r#"{"requestMetrics":{"protocol":"prometheus","endpoint":"somewhere"}}"#;
        assert_eq!(read(&[("OBSERVABILITY_CONFIG", bad)]).unwrap_err().len(), 1);
    }

    #[test]
    fn tls_for_prometheus_needs_both_files_and_clients_need_an_authority() {
        let pair = [(CERT, "/c"), (KEY, "/k")];
        let tls =
            |more: &[(&str, &str)]| read(&[&pair[..], more].concat()).map(|env| env.prometheus.tls.unwrap());
        let plain = tls(&[("METRICS_PROMETHEUS_TLS_MIN_VERSION", "1.2")]).unwrap();
        assert_eq!((plain.clients, plain.words.min_version.as_str()), (PrometheusClients::Any, "1.2"));
        let ca = (CLIENT_CA, "/ca");
        let clients = |auth: &str| tls(&[(CLIENT_AUTH, auth), ca]).unwrap().clients;
        assert_eq!(clients("Optional "), PrometheusClients::Optional("/ca".into()));
        assert_eq!(clients("require"), PrometheusClients::Required("/ca".into()));
        for wrong in [&[(CLIENT_AUTH, "sometimes")][..], &[(CLIENT_AUTH, "require")], &[ca]] {
            assert_eq!(tls(wrong).unwrap_err().len(), 1, "{wrong:?}");
        }
        for wrong in [&[(CERT, "/c")][..], &[(KEY, "/k")], &[ca], &[(CLIENT_AUTH, "require")]] {
            assert_eq!(read(wrong).unwrap_err().len(), 1, "{wrong:?}");
        }
    }
}
