//! Names of header fields, and of their values, that Knative's components use among each other (knative.dev/networking,
//! `pkg/http/header`), and questions about them.

mod marks;

use http::header::{CONNECTION, HeaderName, TE, TRANSFER_ENCODING, UPGRADE, USER_AGENT};
use http::{HeaderMap, HeaderValue};

pub use self::marks::Marks;

/// The name of the revision a request is for, set by the ingress; never forwarded to the app.
pub const REVISION: HeaderName = HeaderName::from_static("knative-serving-revision");
/// The namespace of that revision; never forwarded to the app.
pub const NAMESPACE: HeaderName = HeaderName::from_static("knative-serving-namespace");
/// The proxy that forwarded the request: [`ACTIVATOR`] or absent.
pub const PROXY_REQUEST: HeaderName = HeaderName::from_static("k-proxy-request");
/// The host the client asked for, where a mesh rewrote `Host`.
pub const ORIGINAL_HOST: HeaderName = HeaderName::from_static("k-original-host");
/// `true`: asks a service mesh to send a request to the address it is for, whatever its `Host`.
pub const PASSTHROUGH_LB: HeaderName = HeaderName::from_static("k-passthrough-lb");
/// The tag of the traffic target that was chosen.
pub const TAG: HeaderName = HeaderName::from_static("knative-serving-tag");
/// Whether the default route was taken: `true` or `false`.
pub const DEFAULT_ROUTE: HeaderName = HeaderName::from_static("knative-serving-default-route");
/// Marks a network probe; the value says who should answer: [`QUEUE`], [`ACTIVATOR`] or [`PROBE`].
pub const NETWORK_PROBE: HeaderName = HeaderName::from_static("k-network-probe");
/// Echoed in the answer to a network probe.
pub const NETWORK_HASH: HeaderName = HeaderName::from_static("k-network-hash");
/// Marks a kubelet's probe (deprecated): any value.
pub const KUBELET_PROBE: HeaderName = HeaderName::from_static("k-kubelet-probe");
/// The addresses, hosts and schemes of each hop, in one field (RFC 7239).
pub const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
/// The addresses a request came by.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The host the client asked the first proxy for.
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The scheme the client used with the first proxy.
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The reason for which a proxy of ours answered in place of the app, as a word for machines.
pub const REASON: HeaderName = HeaderName::from_static("x-pilotlight-reason");
/// Set by an activator on a request that it hands on to the owner of the pods; never forwarded to the app.
pub const HANDED_ON: HeaderName = HeaderName::from_static("pilotlight-handed-on");
/// A [`REASON`]: the app took the connection away, or never took it.
pub const APP_FAILED: &str = "app-failed";
/// A [`REASON`]: the app ended the connection without a byte of an answer, and the request is one that may be sent again.
pub const APP_CLOSED: &str = "app-closed";
/// A [`REASON`]: too many bytes of requests wait already.
pub const NO_ROOM: &str = "no-room";
/// A [`REASON`]: the client left, or its request is malformed.
pub const CLIENT_FAILED: &str = "client-failed";
/// A [`REASON`]: time was up.
pub const TIMED_OUT: &str = "timeout";

/// The value of [`NETWORK_PROBE`] that asks the queue-proxy; also the body of its answer.
pub const QUEUE: &str = "queue";
/// The value of [`NETWORK_PROBE`] and of [`PROXY_REQUEST`] that names the activator; also the body of its answer.
pub const ACTIVATOR: &str = "activator";
/// The value of [`NETWORK_PROBE`] that asks any of our proxies, with a hash.
pub const PROBE: &str = "probe";

/// The beginning of the user agent of a kubelet's probes.
pub const KUBELET_USER_AGENT: &str = "kube-probe/";
/// The user agent of the activator's probes.
pub const ACTIVATOR_USER_AGENT: &str = "Knative-Activator-Probe";
/// The user agent of the autoscaler's probes.
pub const AUTOSCALER_USER_AGENT: &str = "Knative-Autoscaling-Probe";

/// The path that probes ask for. Servers answer them on any path.
pub const HEALTH_PATH: &str = "/healthz";
/// The content type of stats. Scrapers compare it for equality.
pub const STATS_CONTENT_TYPE: &str = "application/protobuf";

/// Whether a kubelet sent this: by its user agent or by its header.
pub fn is_kubelet_probe(headers: &HeaderMap) -> bool {
    user_agent_starts_with(headers, KUBELET_USER_AGENT) || is_set(headers, &KUBELET_PROBE)
}

/// Whether this is a probe of any kind.
pub fn is_probe(headers: &HeaderMap) -> bool {
    is_kubelet_probe(headers) || is_set(headers, &NETWORK_PROBE)
}

/// Whether the user agent begins with `prefix`, letter by letter.
pub fn user_agent_starts_with(headers: &HeaderMap, prefix: &str) -> bool {
    headers.get(USER_AGENT).is_some_and(|value| value.as_bytes().starts_with(prefix.as_bytes()))
}

/// Whether a header is there and not empty.
pub fn is_set(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.get(name).is_some_and(|value| !value.is_empty())
}

/// The protocol in `Upgrade`, if `Connection` lists it: the one asked for in a request, or switched to in a `101`.
pub(crate) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let upgrade = headers.get(UPGRADE)?;
    lists_token(headers, &CONNECTION, "upgrade").then(|| upgrade.clone()).filter(|name| !name.is_empty())
}

/// Whether a field that is a list of tokens has this one, in any case (RFC 9110, 5.6.1).
pub(crate) fn lists_token(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    headers.contains_key(name) && tokens(headers, name).any(|token| token.eq_ignore_ascii_case(wanted))
}

pub(crate) fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim)
}

/// How long a sender keeps its connection.
pub(crate) const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Fields that are for one hop only (RFC 9110, 7.6.1), as in Go (`httputil.ReverseProxy`, `hopHeaders`). `Trailer` is not
/// among them: trailers are forwarded, and so is their announcement.
pub(crate) const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    KEEP_ALIVE,
    HeaderName::from_static("proxy-connection"),
    http::header::PROXY_AUTHENTICATE,
    http::header::PROXY_AUTHORIZATION,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubelets_are_known_by_name_or_by_header() {
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            pairs
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect()
        };
        assert!(is_kubelet_probe(&headers(&[("user-agent", "kube-probe/1.29")])));
        assert!(is_kubelet_probe(&headers(&[("k-kubelet-probe", "x")])));
        assert!(!is_kubelet_probe(&headers(&[("k-kubelet-probe", ""), ("user-agent", "Kube-Probe/1")])));
        assert!(is_probe(&headers(&[("k-network-probe", "anything")])));
        assert!(!is_probe(&headers(&[("user-agent", "curl")])));
    }
}
