//! What an activator needs of a workload's settings.

use std::sync::Arc;

use pilotlight_activator::{IgnoreRule, IgnoreRules, PortProtocol, PortSettings, TcpTimes};
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
    /// Names of ports whose connections begin with a header of the PROXY protocol.
    pub(super) proxy_protocol: Box<[String]>,
    /// Times of connections that are not HTTP.
    pub(super) tcp: TcpTimes,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            limit: ConcurrencyLimit::UNLIMITED,
            timeouts: Timeouts::default(),
            wakes_to: 1,
            ignore: Arc::default(),
            proxy_protocol: Box::default(),
            tcp: TcpTimes::default(),
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
            proxy_protocol: accepted.proxy_protocol.clone().into(),
            tcp: TcpTimes { idle: accepted.tcp_idle, idle_timeout: accepted.tcp_idle_timeout },
        }
    }

    /// The settings of a port of a Service.
    pub(super) fn port(&self, port: &ServicePort) -> PortSettings {
        PortSettings {
            protocol: protocol(port),
            proxy_protocol: self.proxy_protocol.contains(&port.name),
            ignore: Arc::clone(&self.ignore),
            tcp: self.tcp,
        }
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
        // TLS is passed through: the activator has no certificates.
        "https" | "tls" | "wss" | "tcp" | "redis" | "mongo" | "postgres" | "amqp" => Some(PortProtocol::Tcp),
        SERVER_FIRST | "mysql" | "smtp" | "ftp" | "imap" | "pop3" | "ssh" | "nats" => {
            Some(PortProtocol::TcpServerFirst)
        }
        _ => None,
    }
}

/// The `appProtocol` of any protocol in which the server speaks first.
const SERVER_FIRST: &str = "pilotlight.dev/server-first";

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use pilotlight_config::AutoscalerConfig;
    use serde_json::json;

    use super::*;
    use crate::data::pretend::{autoscaler, service, workload};
    use crate::facts::TargetPort;
    use crate::settings::accept;

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
            ("kubernetes.io/wss", "http", PortProtocol::Tcp),
            ("https", "web", PortProtocol::Tcp),
            ("", "tls-web", PortProtocol::Tcp),
            ("tcp", "http", PortProtocol::Tcp),
            ("", "mysql", PortProtocol::TcpServerFirst),
            (SERVER_FIRST, "tcp", PortProtocol::TcpServerFirst),
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
    #[test]
    fn settings_of_a_port_are_those_of_its_workload() {
        let spec = json!({"scaleTargetRef": {"name": "web"}, "tcpIdle": "5s", "tcpIdleTimeout": "1h",
            "proxyProtocol": ["raw"], "ignore": [{"path": "/up"}], "activationScale": 4, "minReplicas": 3});
        let facts = vec![
            autoscaler("web", &spec, &json!({"selector": "app=web"})),
            service(
                "web",
                &json!({"app": "web"}),
                &json!([{"name": "raw", "port": 9}, {"name": "http", "port": 80}]),
            ),
        ];
        let workload = workload(facts, "web");
        let rules = Rules::of(&accept(&workload, &BTreeMap::new(), &AutoscalerConfig::default()).unwrap());
        assert_eq!(rules.wakes_to, 4);
        let settings: Vec<PortSettings> = workload.ports().map(|port| rules.port(&port.port)).collect();
        let [raw, http] = &settings[..] else { panic!("{settings:?}") };
        assert_eq!((raw.proxy_protocol, http.proxy_protocol), (true, false));
        let expected =
            TcpTimes { idle: Duration::from_secs(5), idle_timeout: Some(Duration::from_secs(3600)) };
        assert_eq!(raw.tcp, expected);
        assert!(http.ignore.matches("/up", "curl") && !http.ignore.matches("/", "curl"));
    }
}
