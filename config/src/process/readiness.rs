//! The readiness probe that the controller took from the app's container and handed to the queue-proxy:
//! Kubernetes' Probe in JSON.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde::Deserialize;

/// One way of asking whether the app is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadinessProbe {
    /// The question.
    pub action: ProbeAction,
    /// How often it must succeed in a row.
    pub success_threshold: u32,
    /// How it is paced.
    pub pace: ProbePace,
}

/// The question of a readiness probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeAction {
    /// `GET`; any status from 200 to 399 is a yes.
    Http {
        /// The address.
        host: IpAddr,
        /// The port.
        port: u16,
        /// Path and query, with their leading slash.
        path: String,
        /// Whether over TLS.
        https: bool,
        /// Headers to add.
        headers: Vec<(String, String)>,
    },
    /// Whether a connection is accepted.
    Tcp {
        /// The address.
        host: IpAddr,
        /// The port.
        port: u16,
    },
    /// gRPC's health service.
    Grpc {
        /// The port, on 127.0.0.1.
        port: u16,
        /// The service to ask about; empty: the whole server.
        service: String,
    },
    /// A command in the app's container, which a sidecar cannot run: always a no.
    Exec,
    /// Nothing: always a no.
    Nothing,
}

/// When a readiness probe is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbePace {
    /// Over and over until it succeeds (written `periodSeconds: 0`, and the default).
    Aggressive,
    /// Once, within this time.
    Once(Duration),
}

/// Reads the one probe of an app's container.
pub(super) fn one_probe(json: &str) -> Result<Vec<ReadinessProbe>, String> {
    let probe: WireProbe = serde_json::from_str(json).map_err(|error| not_a_probe(&error))?;
    Ok(vec![probe.read()?])
}

/// Reads the probes of all containers of a pod. Elements may be `null`.
pub(super) fn many_probes(json: &str) -> Result<Vec<ReadinessProbe>, String> {
    let probes: Vec<Option<WireProbe>> = serde_json::from_str(json).map_err(|error| not_a_probe(&error))?;
    probes.into_iter().flatten().map(WireProbe::read).collect()
}

fn not_a_probe(error: &serde_json::Error) -> String {
    format!("is not a readiness probe in JSON: {error}")
}

/// Kubernetes' Probe, as far as it concerns a sidecar. Zero values are left out by whoever writes it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireProbe {
    http_get: Option<WireHttpGet>,
    tcp_socket: Option<WireTcpSocket>,
    grpc: Option<WireGrpc>,
    exec: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    success_threshold: u32,
    #[serde(default)]
    period_seconds: u32,
    #[serde(default)]
    timeout_seconds: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireHttpGet {
    #[serde(default)]
    path: String,
    port: WirePort,
    #[serde(default)]
    host: String,
    #[serde(default)]
    scheme: String,
    #[serde(default)]
    http_headers: Vec<WireHeader>,
}

#[derive(Deserialize)]
struct WireHeader {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
struct WireTcpSocket {
    port: WirePort,
    #[serde(default)]
    host: String,
}

#[derive(Deserialize)]
struct WireGrpc {
    port: WirePort,
    service: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WirePort {
    Number(u16),
    Text(String),
}

impl WireProbe {
    fn read(self) -> Result<ReadinessProbe, String> {
        let action = match self {
            WireProbe { http_get: Some(http), .. } => ProbeAction::Http {
                host: local_host(&http.host)?,
                port: http.port.read()?,
                path: format!("/{}", http.path.strip_prefix('/').unwrap_or(&http.path)),
                https: http.scheme.eq_ignore_ascii_case("https"),
                headers: http.http_headers.into_iter().map(|header| (header.name, header.value)).collect(),
            },
            WireProbe { tcp_socket: Some(tcp), .. } => {
                ProbeAction::Tcp { host: local_host(&tcp.host)?, port: tcp.port.read()? }
            }
            WireProbe { grpc: Some(grpc), .. } => {
                ProbeAction::Grpc { port: grpc.port.read()?, service: grpc.service.unwrap_or_default() }
            }
            WireProbe { exec: Some(_), .. } => ProbeAction::Exec,
            WireProbe { .. } => ProbeAction::Nothing,
        };
        let pace = match self.period_seconds {
            0 => ProbePace::Aggressive,
            // Kubernetes' own default for a timeout that is left out.
            _ => ProbePace::Once(Duration::from_secs(self.timeout_seconds.max(1).into())),
        };
        Ok(ReadinessProbe { action, success_threshold: self.success_threshold.max(1), pace })
    }
}

impl WirePort {
    fn read(self) -> Result<u16, String> {
        match self {
            WirePort::Number(number) => Ok(number),
            WirePort::Text(text) => {
                text.parse().map_err(|_| format!("has a port {text:?} that is no number"))
            }
        }
    }
}

fn local_host(host: &str) -> Result<IpAddr, String> {
    match host {
        "" | "localhost" => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        // The controller always writes 127.0.0.1; a name would need a resolver in the pod's first second.
        _ => host.parse().map_err(|_| format!("has a host {host:?} that is no IP address")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(json: &str) -> ReadinessProbe {
        let mut probes = one_probe(json).unwrap();
        assert_eq!(probes.len(), 1);
        probes.remove(0)
    }

    #[test]
    fn an_http_probe_keeps_its_query_and_gets_one_leading_slash() {
        for path in ["health?foo=bar", "/health?foo=bar"] {
            let json = format!(
                r#"{{"httpGet":{{"path":"{path}","port":"8080","host":"127.0.0.1","scheme":"HTTP",
                     "httpHeaders":[{{"name":"A","value":"b"}}]}},"successThreshold":3}}"#
            );
            let action = ProbeAction::Http {
                host: IpAddr::V4(Ipv4Addr::LOCALHOST),
                port: 8080,
                path: "/health?foo=bar".to_owned(),
                https: false,
                headers: vec![("A".to_owned(), "b".to_owned())],
            };
            assert_eq!(
                probe(&json),
                ReadinessProbe { action, success_threshold: 3, pace: ProbePace::Aggressive }
            );
        }
    }

    #[test]
    fn a_period_makes_a_probe_try_once() {
        let paced = probe(r#"{"tcpSocket":{"port":8080},"periodSeconds":1,"timeoutSeconds":5}"#);
        assert_eq!(paced.pace, ProbePace::Once(Duration::from_secs(5)));
        let untimed = probe(r#"{"tcpSocket":{"port":8080},"periodSeconds":1}"#);
        assert_eq!(untimed.pace, ProbePace::Once(Duration::from_secs(1)));
    }

    #[test]
    fn exec_and_empty_probes_are_understood_as_what_they_are() {
        assert_eq!(probe(r#"{"exec":{"command":["true"]}}"#).action, ProbeAction::Exec);
        assert_eq!(probe("{}").action, ProbeAction::Nothing);
        let grpc = ProbeAction::Grpc { port: 8080, service: String::new() };
        assert_eq!(probe(r#"{"grpc":{"port":8080,"service":null}}"#).action, grpc);
    }
}
