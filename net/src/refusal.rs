//! Refusal of requests that are well-formed but that two readers could take for two different things: request smuggling
//! (RFC 9112, 11.2), and routing to another host, live on that. And of `CONNECT`, which only a forward proxy serves.

use http::{HeaderValue, Method, StatusCode, Version, header};

use crate::h1::length::is_only_chunked;
use crate::{Request, Response, plain};

/// The response to a request that must not be handled; `None` for all others.
pub(crate) fn refusal(request: &Request) -> Option<Response> {
    let headers = request.headers();
    // Refused here, so that nobody who looks for an open proxy wakes an app.
    if request.method() == Method::CONNECT {
        return Some(plain(
            StatusCode::NOT_IMPLEMENTED,
            "501 Not Implemented: CONNECT is for forward proxies",
        ));
    }
    let fault = host_fault(request).or_else(|| target_fault(request));
    if let Some(fault) = fault {
        return Some(plain(StatusCode::BAD_REQUEST, format!("400 Bad Request: {fault}")));
    }
    // Any coding but `chunked` is refused with 501 (RFC 9112, 6.1): `Transfer-Encoding` is taken off here with the chunks,
    // and the next hop would not learn that the body is still encoded.
    (!is_only_chunked(headers))
        .then(|| plain(StatusCode::NOT_IMPLEMENTED, "501 Not Implemented: unsupported transfer encoding"))
}

/// The fault in `Host`: a request must name exactly one legal host (RFC 9112, 3.2).
fn host_fault(request: &Request) -> Option<&'static str> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => Some("too many Host headers"),
        (Some(host), None) => (!is_host(host)).then_some("malformed Host header"),
        // Host may be left out in HTTP/1.0, and in HTTP/2 (RFC 9113, 8.3.1).
        (None, _) if request.version() != Version::HTTP_11 => None,
        (None, _) => Some("missing required Host header"),
    }
}

/// Whether this is a host with its port (RFC 3986, 3.2.2), as Go sees it (`httpguts.ValidHostHeader`).
fn is_host(value: &HeaderValue) -> bool {
    value.as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || b"!$%&'()*+,-.:;=[]_~".contains(byte))
}

/// The fault in the target: origin-form and absolute-form without userinfo are legal, asterisk-form for `OPTIONS` only
/// (RFC 9112, 3.2).
fn target_fault(request: &Request) -> Option<&'static str> {
    let (method, uri) = (request.method(), request.uri());
    let is_well_formed = match (uri.scheme(), uri.authority()) {
        (_, Some(authority)) if authority.as_str().contains('@') => false,
        (None, Some(_)) => false,
        _ => uri.path() != "*" || method == Method::OPTIONS,
    };
    (!is_well_formed).then_some("malformed request target")
}
