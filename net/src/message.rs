//! The types of requests and responses, and the responses that a proxy makes by itself.

use http::{HeaderValue, StatusCode, header};

use crate::body::Body;
use crate::error::Error;
use crate::headers::{NO_ROOM, REASON};

/// A request whose body is a [`Body`].
pub type Request = http::Request<Body>;
/// A response whose body is a [`Body`].
pub type Response = http::Response<Body>;

/// The response to a request whose forwarding failed: the error's status and text.
pub fn respond(error: &Error) -> Response {
    let mut response = plain(error.status(), error.to_string());
    if let Error::NoRoom = error {
        mark_no_room(&mut response);
    }
    response
}

/// Marks a response as that to a request for which there is no memory now.
pub(crate) fn mark_no_room(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    headers.insert(REASON, HeaderValue::from_static(NO_ROOM));
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
