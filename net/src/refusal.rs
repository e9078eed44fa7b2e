//! Requests that can be read, and that two readers could take for two different things. Whoever smuggles one
//! request in another, or to another host, lives on that.

use http::{HeaderValue, Method, StatusCode, Version, header};

use crate::h1::length::is_only_chunked;
use crate::{Request, Response, plain};

/// The answer to a request that must not go any further.
pub(crate) fn refusal(request: &Request) -> Option<Response> {
    let headers = request.headers();
    let fault = host_fault(request).or_else(|| target_fault(request));
    if let Some(fault) = fault {
        return Some(plain(StatusCode::BAD_REQUEST, format!("400 Bad Request: {fault}")));
    }
    // The chunks are taken off here, and the next hop would not hear of any other coding.
    (!is_only_chunked(headers))
        .then(|| plain(StatusCode::NOT_IMPLEMENTED, "501 Not Implemented: unsupported transfer encoding"))
}

/// A request must name exactly one host, by the letters that hosts are made of.
fn host_fault(request: &Request) -> Option<&'static str> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => Some("too many Host headers"),
        (Some(host), None) => (!is_host(host)).then_some("malformed Host header"),
        // An address that needs no name is legal in HTTP/1.0 and HTTP/2.
        (None, _) if request.version() != Version::HTTP_11 || request.method() == Method::CONNECT => None,
        (None, _) => Some("missing required Host header"),
    }
}

/// What Go takes for a host (RFC 3986, 3.2.2), with its port.
fn is_host(value: &HeaderValue) -> bool {
    value.as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || b"!$%&'()*+,-.:;=[]_~".contains(byte))
}

/// A target is a path, or a whole URL without a user; only `CONNECT` names a host alone, and only `OPTIONS` nothing.
fn target_fault(request: &Request) -> Option<&'static str> {
    let (method, uri) = (request.method(), request.uri());
    let is_well_formed = match (uri.scheme(), uri.authority()) {
        (_, Some(authority)) if authority.as_str().contains('@') => false,
        (None, Some(_)) => method == Method::CONNECT,
        _ => uri.path() != "*" || method == Method::OPTIONS,
    };
    (!is_well_formed).then_some("malformed request target")
}
