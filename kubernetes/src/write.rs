//! The outcome of one request to the API server, as those who try again want to know it.

use std::time::Duration;

use tokio::time::timeout;

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The object is not as we know it: the watch will tell.
    #[error("the object has changed meanwhile: {0}")]
    Changed(String),
    /// There is no such object: the watch will tell.
    #[error("the object is not there: {0}")]
    Missing(String),
    /// Our role does not say that we may.
    #[error("{0} (403)")]
    Forbidden(String),
    /// Anything else that the API server, or the way to it, has against it.
    #[error("{0}")]
    Refused(String),
    /// No answer.
    #[error("the API server did not answer within {} s", WRITE_LIMIT.as_secs())]
    TimedOut,
    /// The answer is not the object.
    #[error("the API server answered with something else than the object")]
    Misread,
}

/// Sends a request, and waits for its answer no longer than [`WRITE_LIMIT`].
pub async fn within<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, WriteError> {
    match timeout(WRITE_LIMIT, request).await {
        Err(_) => Err(WriteError::TimedOut),
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => Err(match status.code {
            403 => WriteError::Forbidden(status.message.clone()),
            404 => WriteError::Missing(status.message.clone()),
            409 => WriteError::Changed(status.message.clone()),
            code => WriteError::Refused(format!("{} ({code})", status.message)),
        }),
        Ok(Err(error)) => Err(WriteError::Refused(error.to_string())),
    }
}

/// The longest time that one write may take.
pub const WRITE_LIMIT: Duration = Duration::from_secs(10);
