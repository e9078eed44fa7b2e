//! The names that Knative's components speak to each other with, and what a proxy does to the headers of what it
//! forwards.

mod marks;

use http::header::{CONNECTION, Entry, HOST, HeaderName, TE, TRANSFER_ENCODING, UPGRADE, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, Version};

pub use self::marks::Marks;
use crate::{Client, Request, Response};

/// The name of the revision a request is for, set by the ingress; never forwarded to the app.
pub const REVISION: HeaderName = HeaderName::from_static("knative-serving-revision");
/// The namespace of that revision; never forwarded to the app.
pub const NAMESPACE: HeaderName = HeaderName::from_static("knative-serving-namespace");
/// Who forwarded the request: [`ACTIVATOR`] or absent.
pub const PROXY_REQUEST: HeaderName = HeaderName::from_static("k-proxy-request");
/// The host the client asked for, where a mesh rewrote `Host`.
pub const ORIGINAL_HOST: HeaderName = HeaderName::from_static("k-original-host");
/// `true` where a mesh must send the request on to the pod it names.
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
/// RFC 7239's header.
pub const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
/// The addresses a request came by.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The host the client asked the first proxy for.
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The scheme the client used with the first proxy.
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Why a proxy of ours answered in place of the app, as a word for machines.
pub const REASON: HeaderName = HeaderName::from_static("x-pilotlight-reason");
/// A [`REASON`]: the app took the connection away, or never took it.
pub const APP_FAILED: &str = "app-failed";
/// A [`REASON`]: the client left, or what it sent is malformed.
pub const CLIENT_FAILED: &str = "client-failed";
/// A [`REASON`]: time was up.
pub const TIMED_OUT: &str = "timeout";

/// The value of [`NETWORK_PROBE`] that asks the queue-proxy; also the body of its answer.
pub const QUEUE: &str = "queue";
/// The value of [`NETWORK_PROBE`] and of [`PROXY_REQUEST`] that names the activator; also the body of its answer.
pub const ACTIVATOR: &str = "activator";
/// The value of [`NETWORK_PROBE`] that asks whoever is there, with a hash.
pub const PROBE: &str = "probe";

/// How the user agent of a kubelet's probe begins.
pub const KUBELET_USER_AGENT: &str = "kube-probe/";
/// The user agent of the activator's probes.
pub const ACTIVATOR_USER_AGENT: &str = "Knative-Activator-Probe";
/// The user agent of the autoscaler's probes.
pub const AUTOSCALER_USER_AGENT: &str = "Knative-Autoscaling-Probe";
/// The user agent of the queue-proxy's probes.
pub const QUEUE_PROXY_USER_AGENT: &str = "Knative-Queue-Proxy-Probe";
/// The user agent of the ingress's probes.
pub const INGRESS_USER_AGENT: &str = "Knative-Ingress-Probe";

/// The path that probes ask for. Servers answer on any.
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

/// Makes a client's request ready for the next hop: takes out what concerns only this hop and the headers that
/// name the revision, adds the client to `X-Forwarded-For`, and asks for the path rather than for the whole URL.
/// Path and query stay as they are, byte for byte. `Trailer` stays, since the trailers it announces are forwarded;
/// and so does a wish to [upgrade](crate::Upstreams::send), except to HTTP/2: a server may pass over that one
/// (RFC 9110, 7.8), and clients that insist begin with HTTP/2 right away.
///
/// `marks` are those of the request as it came.
pub fn prepare_forward(request: &mut Request, client: &Client, marks: Marks) {
    to_origin_form(request);
    let speaks_http1 = request.version() == Version::HTTP_11;
    let headers = request.headers_mut();
    if marks.any(ONE_HOP) {
        let takes_trailers = lists_token(headers, &TE, "trailers");
        let upgrade =
            upgrade(headers).filter(|name| speaks_http1 && !name.as_bytes().eq_ignore_ascii_case(b"h2c"));
        remove_hop_by_hop(headers);
        restore_upgrade(headers, upgrade);
        if takes_trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
    if marks.any(Marks::REVISION) {
        headers.remove(REVISION);
        headers.remove(NAMESPACE);
    }
    append_forwarded_for(headers, client.forwarded_for());
}

/// Makes an upstream's response ready for the client: takes out what concerned only that hop. `Trailer` stays,
/// since the trailers it announces are forwarded, and what a `101` switches to.
pub fn prepare_response(response: &mut Response) {
    let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    if !Marks::of(headers).any(ONE_HOP) {
        return;
    }
    let upgrade = upgrade(headers).filter(|_| switches);
    remove_hop_by_hop(headers);
    restore_upgrade(headers, upgrade);
}

/// What the sender wants to switch to, or has switched to.
pub(crate) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let upgrade = headers.get(UPGRADE)?;
    lists_token(headers, &CONNECTION, "upgrade").then(|| upgrade.clone()).filter(|name| !name.is_empty())
}

fn restore_upgrade(headers: &mut HeaderMap, upgrade: Option<HeaderValue>) {
    if let Some(upgrade) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, upgrade);
    }
}

/// A target in absolute form names the host a second time, and that one counts (RFC 9112, 3.2.2).
pub(crate) fn to_origin_form(request: &mut Request) {
    let Some(authority) = request.uri().authority() else { return };
    if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
        request.headers_mut().insert(HOST, host);
    }
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let listed: Vec<HeaderName> = tokens(headers, &CONNECTION)
            .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
            // Host is not anybody's to take away: without it the next hop cannot tell whom the request is for.
            .filter(|name| name != HOST)
            .collect();
        for name in listed {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

fn append_forwarded_for(headers: &mut HeaderMap, client: &HeaderValue) {
    let mut before = match headers.entry(X_FORWARDED_FOR) {
        Entry::Vacant(entry) => {
            entry.insert(client.clone());
            return;
        }
        Entry::Occupied(entry) => entry,
    };
    let mut line = Vec::new();
    for value in before.iter() {
        line.extend_from_slice(value.as_bytes());
        line.extend_from_slice(b", ");
    }
    line.extend_from_slice(client.as_bytes());
    // Legal values joined with a comma are a legal value.
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(line)) {
        before.insert(value);
    }
}

pub(crate) fn lists_token(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    headers.contains_key(name) && tokens(headers, name).any(|token| token.eq_ignore_ascii_case(wanted))
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim)
}

/// All of [`HOP_BY_HOP`].
const ONE_HOP: Marks = Marks::CONNECTION.and(Marks::TE).and(Marks::UPGRADE).and(Marks::HOP_BY_HOP);

pub(crate) const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    http::header::PROXY_AUTHENTICATE,
    http::header::PROXY_AUTHORIZATION,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Body;

    fn forwarded(uri: &str, before: &[(&'static str, &'static str)]) -> Request {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = uri.parse().unwrap();
        for (name, value) in before {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        let marks = Marks::of(request.headers());
        prepare_forward(&mut request, &Client::new(([10, 0, 0, 9], 1).into()), marks);
        request
    }

    fn left(before: &[(&'static str, &'static str)]) -> Vec<String> {
        let request = forwarded("/", before);
        let rest = request.headers().iter().filter(|(name, _)| *name != X_FORWARDED_FOR);
        rest.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    }

    #[test]
    fn headers_of_one_hop_and_those_they_list_stay_behind() {
        let hop_by_hop = [
            ("connection", "close, X-Private ,x-also"),
            ("connection", "x-more"),
            ("x-private", "1"),
            ("x-also", "2"),
            ("x-more", "3"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic x"),
            ("proxy-authenticate", "Basic"),
            ("te", "gzip"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("x-kept", "4"),
        ];
        assert_eq!(left(&hop_by_hop), ["x-kept: 4"]);
    }

    #[test]
    fn host_cannot_be_listed_away() {
        assert_eq!(left(&[("host", "h"), ("connection", "host")]), ["host: h"]);
    }

    #[test]
    fn te_trailers_is_for_the_next_hop_too() {
        assert_eq!(left(&[("te", "gzip, Trailers")]), ["te: trailers"]);
    }

    #[test]
    fn a_wish_to_upgrade_is_passed_on_but_not_to_http_2_nor_by_halves() {
        let wish = [("connection", "keep-alive, upgrade"), ("upgrade", "websocket"), ("keep-alive", "x")];
        assert_eq!(left(&wish), ["connection: Upgrade", "upgrade: websocket"]);
        let h2c = [("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "x")];
        assert!(left(&h2c).is_empty());
        assert!(left(&[("upgrade", "websocket")]).is_empty());
        assert!(left(&[("connection", "upgrade")]).is_empty());
    }

    #[test]
    fn announced_trailers_stay_announced() {
        assert_eq!(left(&[("trailer", "x-checksum")]), ["trailer: x-checksum"]);
    }

    #[test]
    fn the_revision_is_pruned_and_knatives_other_headers_reach_the_app() {
        let kept = [
            ("k-proxy-request", "activator"),
            ("k-passthrough-lb", "true"),
            ("k-network-hash", "abc"),
            ("k-network-probe", "other"),
            ("knative-serving-tag", "t"),
            ("knative-serving-default-route", "true"),
            ("traceparent", "00-1-2-01"),
        ];
        let mut all = kept.to_vec();
        all.extend([("knative-serving-revision", "rev"), ("knative-serving-namespace", "ns")]);
        assert_eq!(left(&all).len(), kept.len());
    }

    #[test]
    fn the_client_is_appended_to_one_line_of_forwarded_for() {
        let line = |before: &[(&'static str, &'static str)]| {
            let request = forwarded("/", before);
            let lines = request
                .headers()
                .get_all(X_FORWARDED_FOR)
                .iter()
                .map(|line| line.to_str().unwrap().to_owned());
            lines.collect::<Vec<_>>()
        };
        assert_eq!(line(&[]), ["10.0.0.9"]);
        assert_eq!(line(&[("x-forwarded-for", "1.1.1.1")]), ["1.1.1.1, 10.0.0.9"]);
        let two = [("x-forwarded-for", "1.1.1.1, ::1"), ("x-forwarded-for", "2.2.2.2")];
        assert_eq!(line(&two), ["1.1.1.1, ::1, 2.2.2.2, 10.0.0.9"]);
    }

    #[test]
    fn an_ipv4_client_of_an_ipv6_socket_is_written_as_ipv4() {
        let mut request = Request::new(Body::empty());
        let client = Client::new("[::ffff:10.0.0.9]:1".parse().unwrap());
        prepare_forward(&mut request, &client, Marks::of(&HeaderMap::new()));
        assert_eq!(request.headers()[X_FORWARDED_FOR], "10.0.0.9");
    }

    #[test]
    fn path_and_query_stay_byte_for_byte() {
        for target in ["/a//b/../c", "/%2F%2f/x;y=1?q=%20&&z", "/?", "*", "/a?b?c", "/~!$&'()+,:@|"] {
            assert_eq!(forwarded(target, &[]).uri().to_string(), target);
        }
    }

    #[test]
    fn a_target_in_absolute_form_becomes_path_and_host() {
        let request = forwarded("http://a.example:81/x//y?z", &[("host", "b.example")]);
        assert_eq!(
            (request.uri().to_string().as_str(), &request.headers()[HOST]),
            ("/x//y?z", &HeaderValue::from_static("a.example:81"))
        );
        let request = forwarded("http://a.example?z", &[]);
        assert_eq!(request.uri().to_string(), "/?z");
    }

    #[test]
    fn a_user_agent_is_never_invented() {
        assert!(!forwarded("/", &[]).headers().contains_key(USER_AGENT));
        assert_eq!(forwarded("/", &[("user-agent", "mine")]).headers()[USER_AGENT], "mine");
    }

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
