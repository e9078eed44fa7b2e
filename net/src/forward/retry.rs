//! Whether a request that failed may be sent again.

use http::Method;
use http_body::Body as _;

use crate::{Error, Request};

/// A failure to get a response, and whether the request may be sent elsewhere.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No byte of the request reached the app: it was not written, or the proxy in front of the app did not send it on. The
    /// request is as it was, and may be sent anywhere else.
    #[error(transparent)]
    NotSent {
        /// The failure.
        source: Error,
    },
    /// The upstream may have seen the request, and answered with no byte. The request is [replayable](is_replayable): it is
    /// as it was, and may be sent again.
    #[error(transparent)]
    Replayable {
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
    pub(super) fn not_dialed(source: Error, was_written: bool) -> Self {
        match source {
            Error::Handshake(_) => SendError::Failed { source },
            _ => SendError::whole(source, was_written),
        }
    }

    /// The outcome for a request that is as it was. `was_written`: an earlier attempt wrote it, in vain.
    pub(super) fn whole(source: Error, was_written: bool) -> Self {
        if was_written { SendError::Replayable { source } } else { SendError::NotSent { source } }
    }

    /// The failure.
    pub fn into_error(self) -> Error {
        match self {
            SendError::NotSent { source }
            | SendError::Replayable { source }
            | SendError::Failed { source } => source,
        }
    }

    /// The failure.
    pub fn error(&self) -> &Error {
        match self {
            SendError::NotSent { source }
            | SendError::Replayable { source }
            | SendError::Failed { source } => source,
        }
    }
}

/// Whether the request may be sent again although the upstream may have seen it: it has no body, and is idempotent by
/// method or by its own word, as in Go (net/http, `Request.isReplayable`).
pub fn is_replayable(request: &Request) -> bool {
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
