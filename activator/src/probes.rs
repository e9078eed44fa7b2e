//! Answers to probes of this activator: those of the kubelet, of ingresses and of other parts of Knative.

use http::{HeaderMap, StatusCode};
use pilotlight_net::{Body, Response, headers, is_kubelet_probe, message, plain, probe};

/// The health of the activator, as probes see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Health {
    /// The autoscaler is connected.
    pub(crate) is_connected: bool,
    /// Every revision that exists is known.
    pub(crate) has_endpoints: bool,
    /// The process was asked to stop.
    pub(crate) is_stopping: bool,
}

impl Health {
    /// Whether traffic should be sent to this activator, and if not, why, in Knative's words where it has any
    /// (cmd/activator/main.go, newHealthCheck).
    pub(crate) fn check(self) -> Result<(), &'static str> {
        match self {
            Health { is_stopping: true, .. } => Err("received SIGTERM from kubelet"),
            Health { is_connected: false, .. } => Err("connection has not yet been established"),
            Health { has_endpoints: false, .. } => Err("the endpoints are not known yet"),
            Health { .. } => Ok(()),
        }
    }
}

/// The answer to a probe; `None` if the request is no probe.
pub(crate) fn answer(request: &HeaderMap, health: Health) -> Option<Response> {
    if is_kubelet_probe(request) {
        return Some(match health.check() {
            Ok(()) => message::empty(StatusCode::OK),
            Err(reason) => plain(StatusCode::INTERNAL_SERVER_ERROR, reason),
        });
    }
    // An ingress asks whether the path leads here, not whether to use it: the answer is 200 even while stopping.
    if let Some(answer) = probe::answer_network_probe(request) {
        return Some(answer);
    }
    let value = request.get(headers::NETWORK_PROBE).filter(|value| !value.is_empty())?;
    Some(if value == headers::ACTIVATOR {
        Response::new(Body::full(headers::ACTIVATOR))
    } else {
        let text = format!("unexpected probe header value: {}", quoted(value.as_bytes()));
        plain(StatusCode::BAD_REQUEST, text)
    })
}

/// A header value as Knative prints it: HTML-escaped, then quoted as by Go's `%q`.
fn quoted(value: &[u8]) -> String {
    let mut quoted = String::from("\"");
    for chunk in value.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '<' => quoted.push_str("&lt;"),
                '>' => quoted.push_str("&gt;"),
                '&' => quoted.push_str("&amp;"),
                '\'' => quoted.push_str("&#39;"),
                '"' => quoted.push_str("&#34;"),
                '\\' => quoted.push_str("\\\\"),
                '\t' => quoted.push_str("\\t"),
                c => quoted.push(c),
            }
        }
        for byte in chunk.invalid() {
            quoted.push_str(&format!("\\x{byte:02x}"));
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_and_quoted() {
        assert_eq!(quoted(b"queue"), "\"queue\"");
        assert_eq!(quoted(b"<a href='x'>\\"), "\"&lt;a href=&#39;x&#39;&gt;\\\\\"");
        assert_eq!(quoted(b"a\xff"), "\"a\\xff\"");
    }

    #[test]
    fn stopping_outweighs_everything() {
        let healthy = Health { is_connected: true, has_endpoints: true, is_stopping: false };
        assert_eq!(healthy.check(), Ok(()));
        for is_connected in [true, false] {
            let health = Health { is_connected, is_stopping: true, ..healthy };
            assert_eq!(health.check(), Err("received SIGTERM from kubelet"));
        }
    }
}
