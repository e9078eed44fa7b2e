//! Errors in the setup of TLS.

use std::path::PathBuf;

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {reason}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        reason: String,
    },
    /// A file does not hold the PEM that it should.
    #[error("{} holds no {what}: {reason}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// The kind of content that was expected.
        what: &'static str,
        /// The parser's words.
        reason: String,
    },
    /// The certificate and the key cannot be used, or not together.
    #[error("cannot use {} with {}: {cause}", certificate.display(), key.display())]
    Pair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// The reason.
        cause: rustls::Error,
    },
    /// No bundle holds an authority.
    #[error("no certificate authority to trust in {0}")]
    NoTrust(String),
    /// The name is none that a certificate can be for.
    #[error("`{0}` is not the name of a server: a host name or an IP address is needed")]
    NoServerName(String),
    /// The settings contradict each other.
    #[error(transparent)]
    Unusable(#[from] rustls::Error),
}
