//! Whether a request that failed may be sent again.

use http::Method;
use http_body::Body as _;

use crate::{Error, Request};

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No byte of the request reached the network: it is as it was and may be sent anywhere else.
    #[error(transparent)]
    NotSent {
        /// What went wrong.
        source: Error,
    },
    /// The upstream may have seen the request, which is gone.
    #[error(transparent)]
    Failed {
        /// What went wrong.
        source: Error,
    },
}

impl SendError {
    /// There is no connection to send the request over. A pod that is not who it should be is not passed over for
    /// another: somebody must look into that.
    pub(super) fn not_dialed(source: Error) -> Self {
        match source {
            Error::Handshake(_) => SendError::Failed { source },
            _ => SendError::NotSent { source },
        }
    }

    /// What went wrong.
    pub fn into_error(self) -> Error {
        match self {
            SendError::NotSent { source } | SendError::Failed { source } => source,
        }
    }

    /// What went wrong.
    pub fn error(&self) -> &Error {
        match self {
            SendError::NotSent { source } | SendError::Failed { source } => source,
        }
    }
}

/// Whether it may be sent a second time although the upstream may have seen it.
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
