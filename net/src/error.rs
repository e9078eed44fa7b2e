//! Every way in which forwarding fails, and the one mapping from a failure to a status.

use std::error::Error as _;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use rustls::{CertificateError, OtherError};

/// Why a request or a body could not be carried on.
///
/// The texts are Knative's where it has one (they come from Go's HTTP stack), because people and tests look
/// for them in 502 bodies.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection to the upstream came about.
    #[error("dial tcp {to}: connect: {}", describe(cause))]
    Connect {
        /// Where to.
        to: SocketAddr,
        /// What the operating system said.
        cause: io::Error,
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
    #[error("{}", handshake_text(.0))]
    Handshake(rustls::Error),
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
    Downstream(RequestBodyError),
    /// The response took too long, after it had begun.
    #[error("{0}")]
    TimedOut(&'static str),
}

/// Why the body of a client's request could not be read. A clone is the same failure.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestBodyError {
    /// The client closed the connection before the end of the body.
    #[error("unexpected EOF")]
    Closed,
    /// The body is malformed.
    #[error("{0}")]
    Malformed(&'static str),
    /// The connection broke.
    #[error("{}", describe(.0))]
    Broken(Arc<io::Error>),
    /// The stream failed, over HTTP/2.
    #[error("{}", chain(.0))]
    Http2(Arc<hyper::Error>),
    /// The body had failed before.
    #[error("the body has failed")]
    Failed,
    /// The upstream answered without waiting for the body, whose client waits for `100 Continue`.
    #[error("the body was not wanted")]
    NotWanted,
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
        matches!(self, Error::Connect { cause, .. } if cause.kind() == io::ErrorKind::ConnectionRefused)
    }

    /// Sorts out what hyper's client reports: its errors also carry those of the request body it was sending.
    pub(crate) fn from_client(error: hyper::Error) -> Self {
        let mut source = error.source();
        while let Some(cause) = source {
            if let Some(Error::Downstream(cause)) = cause.downcast_ref() {
                return Error::Downstream(cause.clone());
            }
            source = cause.source();
        }
        if error.is_incomplete_message() { Error::UpstreamClosed } else { Error::Upstream(error) }
    }
}

/// The operating system's words without Rust's `(os error 111)`, in lower case, as Go prints them.
pub(crate) fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.to_lowercase()
}

/// The refusal of a peer's certificate, in the words that Go's TLS has for it.
fn handshake_text(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(reason))) => reason.to_string(),
        error => format!("tls: {error}"),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// An error with its causes, as the end of a process prints it.
    fn printed(error: &dyn std::error::Error) -> String {
        let causes = std::iter::successors(Some(error), |error| (*error).source());
        causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    }

    #[test]
    fn a_cause_is_told_once_and_in_the_words_that_clients_see() {
        let refused = || io::Error::from_raw_os_error(111);
        let to = ([127, 0, 0, 1], 80).into();
        let broken = RequestBodyError::Broken(Arc::new(refused()));
        let expired = rustls::Error::InvalidCertificate(CertificateError::Expired);
        for (error, text) in [
            (Error::Connect { to, cause: refused() }, "dial tcp 127.0.0.1:80: connect: connection refused"),
            (
                Error::Lookup { host: "h".to_owned(), cause: refused() },
                "dial tcp: lookup h: connection refused",
            ),
            (Error::Broken(refused()), "connection refused"),
            (Error::Downstream(broken), "reading request body: connection refused"),
            (Error::Downstream(RequestBodyError::Closed), "reading request body: unexpected EOF"),
            (Error::Handshake(expired), "tls: invalid peer certificate: Expired"),
        ] {
            assert_eq!(error.to_string(), text);
            assert_eq!(printed(&error), text);
        }
    }
}
