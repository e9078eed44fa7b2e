//! The types of requests and responses, and the responses that a proxy makes by itself.

use http::{HeaderValue, StatusCode, header};

use crate::body::Body;
use crate::error::Error;

/// A request whose body is a [`Body`].
pub type Request = http::Request<Body>;
/// A response whose body is a [`Body`].
pub type Response = http::Response<Body>;

/// The response to a request whose forwarding failed: the error's status and text.
pub fn respond(error: &Error) -> Response {
    plain(error.status(), error.to_string())
}

/// A plain-text response; a newline is added to the text (Go's `http.Error`).
pub fn plain(status: StatusCode, text: impl Into<String>) -> Response {
    let mut text = text.into();
    text.push('\n');
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A response without a body.
pub fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
