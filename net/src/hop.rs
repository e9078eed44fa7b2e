//! Header fields at the passage from one hop to the next.

use http::header::{CONNECTION, Entry, HOST, HeaderName, TE, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, Version};

use crate::headers::{HOP_BY_HOP, Marks, NAMESPACE, REVISION, X_FORWARDED_FOR, lists_token, tokens, upgrade};
use crate::{Client, Request, Response};

/// Prepares a client's request for the next hop: hop-by-hop fields (RFC 9110, 7.6.1) and those that name the revision are
/// taken out, the client is added to `X-Forwarded-For`, and an absolute-form target becomes origin-form (RFC 9112, 3.2).
/// Path and query stay as they are, byte for byte. `Trailer` stays, since the trailers that it announces are forwarded;
/// `Upgrade` stays as well, except for h2c: a server may ignore it (RFC 9110, 7.8), and clients that insist on HTTP/2 begin
/// with it.
///
/// `marks` are those of the request as it came in.
pub fn prepare_forward(request: &mut Request, client: &Client, marks: Marks) {
    prepare_onward(request, marks);
    append_forwarded_for(request.headers_mut(), client.forwarded_for());
}

/// The same for a request whose client is a proxy of ours, which has added its own client: this one is not added.
pub fn prepare_onward(request: &mut Request, marks: Marks) {
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
}

/// Prepares an upstream's response for the client: hop-by-hop fields are taken out. `Trailer` stays, since the trailers that
/// it announces are forwarded, and so does the `Upgrade` of a `101`.
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

fn restore_upgrade(headers: &mut HeaderMap, upgrade: Option<HeaderValue>) {
    if let Some(upgrade) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, upgrade);
    }
}

/// Makes an absolute-form target origin-form. Its host replaces the one in `Host` (RFC 9112, 3.2.2).
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
            // Host stays even if it is listed, for the next hop could not route the request without it.
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
    // Legal values, joined with a comma, are a legal value.
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(line)) {
        before.insert(value);
    }
}

/// Marks of all [`HOP_BY_HOP`] fields.
pub(crate) const ONE_HOP: Marks = Marks::CONNECTION.and(Marks::TE).and(Marks::UPGRADE).and(Marks::HOP_BY_HOP);

#[cfg(test)]
mod tests {
    use http::header::USER_AGENT;

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
}
