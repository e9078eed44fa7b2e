//! Failures of forwarding, and the one mapping from a failure to a status.

use std::error::Error as _;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use rustls::{CertificateError, OtherError};

/// Why a request or a body could not be forwarded.
///
/// The texts are Knative's where it has one (they come from Go's net/http), because people and tests look for them in the
/// bodies of 502s. A text contains those of its causes, which are therefore no `source()` as well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The upstream could not be connected to.
    #[error("dial tcp {to}: connect: {}", describe(cause))]
    Connect {
        /// The address.
        to: SocketAddr,
        /// The operating system's error.
        cause: io::Error,
    },
    /// The upstream did not accept a connection in time.
    #[error("dial tcp {to}: i/o timeout after {after:?}")]
    ConnectTimeout {
        /// The address.
        to: SocketAddr,
        /// The time limit.
        after: Duration,
    },
    /// The name of the upstream could not be resolved.
    #[error("dial tcp: lookup {host}: {}", describe(cause))]
    Lookup {
        /// The name.
        host: String,
        /// The resolver's error.
        cause: io::Error,
    },
    /// The TLS handshake was refused: the upstream's certificate is not the expected one, or there is no common version or
    /// cipher suite.
    #[error("{}", handshake_text(.0))]
    Handshake(rustls::Error),
    /// The upstream closed the connection before its response was complete.
    #[error("EOF")]
    UpstreamClosed,
    /// The connection to the upstream broke.
    #[error("{}", describe(.0))]
    Broken(io::Error),
    /// The upstream's response is malformed.
    #[error("malformed HTTP response: {0}")]
    Malformed(&'static str),
    /// The head of the upstream's response is malformed.
    #[error("malformed HTTP response: {what}: {line}")]
    MalformedHead {
        /// The fault.
        what: &'static str,
        /// The line that has it.
        line: String,
    },
    /// The upstream is a proxy, and answered that it did not send the request on.
    #[error("{0}")]
    SentBack(String),
    /// The body is longer or shorter than its `Content-Length`.
    #[error("the body is {0} than its Content-Length")]
    Length(&'static str),
    /// The upstream's HTTP/2 connection or stream failed.
    #[error("{}", chain(.0))]
    Upstream(hyper::Error),
    /// The upstream answered an HTTP/2 connection in HTTP/1.
    #[error("the client speaks HTTP/2, the app does not")]
    SpeaksHttp1,
    /// The upstream sent a `101` for a protocol that was not asked for (RFC 9110, 7.8).
    #[error("backend tried to switch protocol {switched:?} when {requested:?} was requested")]
    SwitchedProtocol {
        /// The protocol that it names; empty if it names none.
        switched: String,
        /// The protocol that was asked for; empty if none was.
        requested: String,
    },
    /// The client left, or the body of its request is malformed.
    #[error("reading request body: {0}")]
    Downstream(RequestBodyError),
    /// Too many bytes of requests wait in memory already.
    #[error("no room for the request to wait")]
    NoRoom,
    /// The response reached a time limit after it had begun.
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
    #[error("the body failed before")]
    Failed,
    /// The upstream answered without waiting for the body, whose client waits for `100 Continue`.
    #[error("the upstream answered without asking for the body")]
    NotWanted,
}

/// The side that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The server that requests are forwarded to.
    Upstream,
    /// The client.
    Downstream,
}

impl Error {
    /// The side that failed.
    pub fn fault(&self) -> Fault {
        match self {
            Error::Downstream(_) | Error::NoRoom => Fault::Downstream,
            _ => Fault::Upstream,
        }
    }

    /// The status a client sees if its response has not begun yet.
    pub fn status(&self) -> StatusCode {
        match self {
            Error::Downstream(_) => StatusCode::BAD_REQUEST,
            Error::NoRoom => StatusCode::SERVICE_UNAVAILABLE,
            Error::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::BAD_GATEWAY,
        }
    }

    /// Whether the connection was refused: nobody listens there.
    pub fn is_refused(&self) -> bool {
        matches!(self, Error::Connect { cause, .. } if cause.kind() == io::ErrorKind::ConnectionRefused)
    }

    /// The failure behind an error of hyper's client, which may be that of the request's body, several causes down.
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

/// The operating system's words as Go prints them: in lower case, and without Rust's `(os error 111)`.
pub(crate) fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.to_lowercase()
}

/// The words for a refused handshake: those of our own verifier of pods as they are, others behind `tls: `, as in Go.
fn handshake_text(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(reason))) => reason.to_string(),
        error => format!("tls: {error}"),
    }
}

/// The text of hyper's error with those of its causes, which hyper leaves out.
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
