//! What an activator needs of a workload's settings.

use std::sync::Arc;

use pilotlight_activator::{IgnoreRule, IgnoreRules, PortProtocol, PortSettings};
use pilotlight_core::{ConcurrencyLimit, Timeouts};

use crate::facts::ServicePort;
use crate::settings::Accepted;

/// The settings of a workload, as far as its requests are concerned. The default: those of a workload whose own were never
/// accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    /// The most requests that a pod is given at once.
    pub(super) limit: ConcurrencyLimit,
    /// The limits of each request's time.
    pub(super) timeouts: Timeouts,
    /// The pods that a wake asks for, if this activator has to wake the workload itself.
    pub(super) wakes_to: u32,
    /// Requests that are no demand.
    pub(super) ignore: Arc<IgnoreRules>,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            limit: ConcurrencyLimit::UNLIMITED,
            timeouts: Timeouts::default(),
            wakes_to: 1,
            ignore: Arc::default(),
        }
    }
}

impl Rules {
    /// The part of a workload's settings that is needed here.
    pub(super) fn of(accepted: &Accepted) -> Rules {
        let ignore = accepted
            .ignore
            .iter()
            .map(|rule| IgnoreRule { path: rule.path.clone(), user_agent: rule.user_agent.clone() });
        Rules {
            limit: accepted.limit,
            timeouts: accepted.timeouts,
            wakes_to: accepted.spec.min_scale.max(accepted.spec.activation_scale.unwrap_or(1)).max(1),
            ignore: Arc::new(IgnoreRules::new(ignore)),
        }
    }

    /// The settings of a port of a Service.
    pub(super) fn port(&self, port: &ServicePort) -> PortSettings {
        PortSettings { protocol: protocol(port), ignore: Arc::clone(&self.ignore) }
    }
}

/// The protocol of a port: what `appProtocol` says, or else the port's name, or else the clients' first bytes.
fn protocol(port: &ServicePort) -> PortProtocol {
    let declared = port.app_protocol.strip_prefix("kubernetes.io/").unwrap_or(&port.app_protocol);
    // The name is the protocol, or begins with it as in `http-admin`.
    let named = port.name.split('-').next().unwrap_or_default();
    known(declared).or_else(|| known(named)).unwrap_or_default()
}

fn known(protocol: &str) -> Option<PortProtocol> {
    match protocol.to_ascii_lowercase().as_str() {
        "http" | "http1" | "ws" | "websocket" => Some(PortProtocol::Http),
        "http2" | "h2c" | "grpc" => Some(PortProtocol::Http2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::TargetPort;

    #[test]
    fn the_protocol_is_declared_or_named_or_found_out() {
        let table = [
            ("", "http", PortProtocol::Http),
            ("", "http-admin", PortProtocol::Http),
            ("", "httpd", PortProtocol::Detect),
            ("", "", PortProtocol::Detect),
            ("", "web", PortProtocol::Detect),
            ("", "h2c", PortProtocol::Http2),
            ("", "grpc-api", PortProtocol::Http2),
            ("http", "grpc", PortProtocol::Http),
            ("HTTP2", "web", PortProtocol::Http2),
            ("kubernetes.io/h2c", "web", PortProtocol::Http2),
            ("kubernetes.io/ws", "web", PortProtocol::Http),
            ("example.com/own", "http", PortProtocol::Http),
            ("example.com/own", "web", PortProtocol::Detect),
        ];
        for (app_protocol, name, expected) in table {
            let port = ServicePort {
                name: name.to_owned(),
                port: 80,
                target: TargetPort::Number(80),
                transport: "TCP".to_owned(),
                app_protocol: app_protocol.to_owned(),
            };
            assert_eq!(Rules::default().port(&port).protocol, expected, "{app_protocol} {name}");
        }
    }
}
