//! Requests that a proxy could not send on: no app has seen them, and the proxy in front may send them to another pod.
//!
//! The sign is meant for one hop and forged by nobody behind it: over HTTP/1.1 a connection option, which every proxy takes
//! off what it forwards (RFC 9110, 7.6.1), over HTTP/2 the stream error REFUSED_STREAM (RFC 9113, 8.7). Knative's activator
//! takes off the first and answers its client with the rest of the response.

use http::header::CONNECTION;
use http::{HeaderValue, StatusCode};

use crate::Response;
use crate::headers::lists_token;

/// Says in the response to a request that no byte of it was sent on.
pub fn mark_unsent(response: &mut Response) {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static(UNSENT));
}

/// Whether the response says that no byte of its request was sent on.
pub(crate) fn is_unsent(response: &Response) -> bool {
    response.status() == StatusCode::BAD_GATEWAY && lists_token(response.headers(), &CONNECTION, UNSENT)
}

/// The connection option.
const UNSENT: &str = "pilotlight-unsent";
