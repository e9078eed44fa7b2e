//! Why there is no TLS.

use std::path::PathBuf;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {reason}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
    /// A file is not what it should be.
    #[error("{} holds no {what}: {reason}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// Why it was not found.
        reason: String,
    },
    /// A certificate and a key that cannot be used, or not together.
    #[error("cannot use {} with {}: {cause}", certificate.display(), key.display())]
    Pair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What is wrong.
        cause: rustls::Error,
    },
    /// There is nobody to trust.
    #[error("no certificate authority to trust in {0}")]
    NoTrust(String),
    /// A name that no certificate can be for.
    #[error("`{0}` is no name of a server")]
    NoServerName(String),
    /// What was asked for does not add up.
    #[error(transparent)]
    Unusable(#[from] rustls::Error),
}
