//! Whether a request that failed may be sent again.

use http::Method;
use http_body::Body as _;

use crate::{Error, Request};

/// A failure to get a response, and whether the request may be sent elsewhere.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No byte of the request reached the network: the request is as it was, and may be sent anywhere else.
    #[error(transparent)]
    NotSent {
        /// The failure.
        source: Error,
    },
    /// The upstream may have seen the request, whose body is gone.
    #[error(transparent)]
    Failed {
        /// The failure.
        source: Error,
    },
}

impl SendError {
    /// The outcome if no connection came about. A pod that fails to prove its identity is not passed over for another: a
    /// wrong certificate must not go unnoticed.
    pub(super) fn not_dialed(source: Error) -> Self {
        match source {
            Error::Handshake(_) => SendError::Failed { source },
            _ => SendError::NotSent { source },
        }
    }

    /// The failure.
    pub fn into_error(self) -> Error {
        match self {
            SendError::NotSent { source } | SendError::Failed { source } => source,
        }
    }

    /// The failure.
    pub fn error(&self) -> &Error {
        match self {
            SendError::NotSent { source } | SendError::Failed { source } => source,
        }
    }
}

/// Whether the request may be sent again although the upstream may have seen it: it has no body, and is idempotent by
/// method or by its own word, as in Go (net/http, `Request.isReplayable`).
pub(super) fn is_replayable(request: &Request) -> bool {
    request.body().is_end_stream()
        && (matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
            || request.headers().contains_key("idempotency-key")
            || request.headers().contains_key("x-idempotency-key"))
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn an_outcome_prints_as_its_error_and_has_no_cause_beside_it() {
        let outcome = SendError::NotSent { source: Error::UpstreamClosed };
        assert_eq!((outcome.to_string().as_str(), outcome.source().is_none()), ("EOF", true));
    }
}
