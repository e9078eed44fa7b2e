//! Every way in which forwarding fails, and the one mapping from a failure to a status.

use std::error::Error as _;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderValue, StatusCode, header};

use crate::{Body, Response};

/// Why a request or a body could not be carried on.
///
/// The texts are Knative's where it has one (they come from Go's HTTP stack), because people and tests look
/// for them in 502 bodies.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection to the upstream came about.
    #[error("dial tcp {to}: connect: {}", describe(source))]
    Connect {
        /// Where to.
        to: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The upstream did not answer the attempt to connect.
    #[error("dial tcp {to}: i/o timeout after {after:?}")]
    ConnectTimeout {
        /// Where to.
        to: SocketAddr,
        /// How long it was tried.
        after: Duration,
    },
    /// The name of the upstream could not be resolved.
    #[error("dial tcp: lookup {host}: {}", describe(cause))]
    Lookup {
        /// The name.
        host: String,
        /// What the resolver said.
        cause: io::Error,
    },
    /// The upstream is not who it should be, or cannot agree with us on how to speak.
    #[error("{0}")]
    Handshake(String),
    /// `CONNECT` asks for a tunnel, and this is not a forward proxy.
    #[error("client sent unsupported CONNECT request")]
    UnsupportedConnect,
    /// The upstream closed the connection before its response was complete.
    #[error("EOF")]
    UpstreamClosed,
    /// The connection to the upstream broke.
    #[error("{}", describe(.0))]
    Broken(io::Error),
    /// What the upstream said is not HTTP.
    #[error("malformed HTTP response: {0}")]
    Malformed(&'static str),
    /// A body is longer or shorter than was said before it.
    #[error("the body is {0} than its Content-Length")]
    Length(&'static str),
    /// The upstream failed in another way.
    #[error("{}", chain(.0))]
    Upstream(hyper::Error),
    /// The upstream has switched to what nobody asked it for.
    #[error("backend tried to switch protocol {switched:?} when {requested:?} was requested")]
    SwitchedProtocol {
        /// What it switched to; empty if it did not say.
        switched: String,
        /// What it was asked for; empty if it was not.
        requested: String,
    },
    /// The client failed: it left, or its body was malformed.
    #[error("reading request body: {0}")]
    Downstream(String),
    /// The response took too long, after it had begun.
    #[error("{0}")]
    TimedOut(&'static str),
}

/// Whose failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The one we forward to.
    Upstream,
    /// The one who asked.
    Downstream,
}

impl Error {
    /// Whose failure it is.
    pub fn fault(&self) -> Fault {
        match self {
            Error::Downstream(_) | Error::UnsupportedConnect => Fault::Downstream,
            _ => Fault::Upstream,
        }
    }

    /// The status a client sees if its response has not begun yet.
    pub fn status(&self) -> StatusCode {
        match self {
            Error::Downstream(_) => StatusCode::BAD_REQUEST,
            Error::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
            // CONNECT too: Knative answers it like any failure to forward.
            _ => StatusCode::BAD_GATEWAY,
        }
    }

    /// Whether nobody listens where we tried to connect.
    pub fn is_refused(&self) -> bool {
        matches!(self, Error::Connect { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused)
    }

    /// Sorts out what hyper's client reports: its errors also carry those of the request body it was sending.
    pub(crate) fn from_client(error: hyper::Error) -> Self {
        let mut source = error.source();
        while let Some(cause) = source {
            if let Some(Error::Downstream(text)) = cause.downcast_ref() {
                return Error::Downstream(text.clone());
            }
            source = cause.source();
        }
        if error.is_incomplete_message() { Error::UpstreamClosed } else { Error::Upstream(error) }
    }
}

/// The response for a failure: its status, its text.
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

/// The operating system's words without Rust's `(os error 111)`, in lower case, as Go prints them.
pub(crate) fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.to_lowercase()
}

/// hyper's error with its causes, which alone it does not print.
pub(crate) fn chain(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}
