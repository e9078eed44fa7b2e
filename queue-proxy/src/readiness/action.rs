//! One probe: its question, and the answers that count as a yes.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use pilotlight_config::process::ProbeAction;
use pilotlight_net::grpc::{self, GrpcError};
use pilotlight_net::probe::{ProbeError, Speech, probe_in};
use pilotlight_net::tls::ClientTls;
use pilotlight_net::{connect, other_localhost};
use prost::Message;
use tokio::time::timeout;
use tracing::warn;

/// The question of a probe.
#[derive(Debug)]
pub(super) enum Action {
    /// An HTTP request in each of the protocols, until one answer is a yes.
    Http { speeches: Vec<Speech>, to: SocketAddr, path: String, headers: HeaderMap },
    /// A TCP connection.
    Tcp { to: SocketAddr },
    /// A call of gRPC's health service.
    Grpc { to: SocketAddr, service: String },
    /// A question that a sidecar cannot ask.
    Unsupported(String),
}

/// The reason for a no.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttemptError {
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error("HTTP probe did not respond Ready, got status code: {}", .0.as_u16())]
    Status(StatusCode),
    #[error(transparent)]
    Grpc(#[from] GrpcError),
    #[error("service unhealthy (responded with {0:?})")]
    Unhealthy(&'static str),
    #[error("{0}")]
    Unsupported(String),
}

impl Action {
    /// `detects_http2`: HTTP probes in the clear try HTTP/2 first.
    pub(super) fn new(action: &ProbeAction, detects_http2: bool) -> Self {
        match action {
            ProbeAction::Http { host, port, path, https, headers } => {
                let speeches = match (https, detects_http2) {
                    (false, false) => vec![Speech::Http1],
                    (false, true) => vec![Speech::Http2, Speech::Http1],
                    (true, _) => match ClientTls::unverified() {
                        Ok(tls) => vec![Speech::Https(tls)],
                        Err(error) => return Action::Unsupported(format!("cannot probe over TLS: {error}")),
                    },
                };
                let to = SocketAddr::new(*host, *port);
                Action::Http { speeches, to, path: path.clone(), headers: probe_headers(headers) }
            }
            ProbeAction::Tcp { host, port } => Action::Tcp { to: SocketAddr::new(*host, *port) },
            ProbeAction::Grpc { port, service } => {
                Action::Grpc { to: (Ipv4Addr::LOCALHOST, *port).into(), service: service.clone() }
            }
            ProbeAction::Exec => Action::Unsupported("exec probe not supported".to_owned()),
            ProbeAction::Nothing => Action::Unsupported("no probe found".to_owned()),
        }
    }

    /// Asks once, at the other localhost, too, if nobody listens at the first. The limit is for each protocol that is tried.
    pub(super) async fn attempt(&self, limit: Duration) -> Result<(), AttemptError> {
        let to = match self {
            Action::Http { to, .. } | Action::Tcp { to } | Action::Grpc { to, .. } => *to,
            Action::Unsupported(reason) => return Err(AttemptError::Unsupported(reason.clone())),
        };
        match (self.attempt_at(to, limit).await, other_localhost(to)) {
            (Err(refused), Some(other)) if refused.is_refused() => {
                match self.attempt_at(other, limit).await {
                    Err(error) if error.is_refused() => Err(refused),
                    outcome => outcome,
                }
            }
            (outcome, _) => outcome,
        }
    }

    async fn attempt_at(&self, to: SocketAddr, limit: Duration) -> Result<(), AttemptError> {
        match self {
            Action::Http { speeches, path, headers, .. } => {
                let mut outcome = Ok(());
                for speech in speeches {
                    outcome = ask_http(speech, to, path, headers, limit).await;
                    // A refused connection is refused in every protocol.
                    if outcome.as_ref().is_ok() || outcome.as_ref().is_err_and(AttemptError::is_refused) {
                        break;
                    }
                }
                outcome
            }
            Action::Tcp { .. } => match timeout(limit, connect(to)).await {
                Ok(connected) => connected.map(drop).map_err(|error| ProbeError::Failed(error).into()),
                Err(_) => Err(ProbeError::TimedOut(limit).into()),
            },
            Action::Grpc { service, .. } => match timeout(limit, ask_health(to, service)).await {
                Ok(answer) => answer,
                Err(_) => Err(ProbeError::TimedOut(limit).into()),
            },
            Action::Unsupported(reason) => Err(AttemptError::Unsupported(reason.clone())),
        }
    }
}

impl AttemptError {
    /// Whether nobody listens there.
    pub(super) fn is_refused(&self) -> bool {
        match self {
            AttemptError::Probe(ProbeError::Failed(error)) | AttemptError::Grpc(GrpcError::Failed(error)) => {
                error.is_refused()
            }
            _ => false,
        }
    }
}

async fn ask_http(
    speech: &Speech,
    to: SocketAddr,
    path: &str,
    headers: &HeaderMap,
    limit: Duration,
) -> Result<(), AttemptError> {
    let answer = probe_in(speech, to, path, headers.clone(), limit).await?;
    if answer.is_success() { Ok(()) } else { Err(AttemptError::Status(answer.status)) }
}

/// The question of `grpc.health.v1`.
#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    /// The service; empty: the server as a whole.
    #[prost(string, tag = "1")]
    service: String,
}

/// The answer of `grpc.health.v1`.
#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(enumeration = "ServingStatus", tag = "1")]
    status: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
enum ServingStatus {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

async fn ask_health(to: SocketAddr, service: &str) -> Result<(), AttemptError> {
    let request = HealthCheckRequest { service: service.to_owned() }.encode_to_vec();
    let answer = grpc::call(to, None, HEALTH_CHECK, probe_headers(&[]), &request).await?;
    let answer = HealthCheckResponse::decode(answer).map_err(|_| GrpcError::Malformed)?;
    match answer.status() {
        ServingStatus::Serving => Ok(()),
        ServingStatus::NotServing => Err(AttemptError::Unhealthy("NOT_SERVING")),
        ServingStatus::ServiceUnknown => Err(AttemptError::Unhealthy("SERVICE_UNKNOWN")),
        ServingStatus::Unknown => Err(AttemptError::Unhealthy("UNKNOWN")),
    }
}

/// The headers that Knative's probe sends: its own user agent and host win over those configured.
fn probe_headers(configured: &[(String, String)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in configured {
        match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            (Ok(name), Ok(value)) if name != header::HOST && name != header::USER_AGENT => {
                headers.append(name, value);
            }
            (Ok(_), Ok(_)) => {}
            _ => warn!(name, value, "Leaving out a header of the readiness probe that is not legal"),
        }
    }
    // Knative leaves out the version, which belongs between and after the slashes.
    headers.insert(header::USER_AGENT, HeaderValue::from_static("kube-probe//"));
    headers
}

const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
