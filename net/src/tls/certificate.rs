//! The certificate that a server shows.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::error::TlsError;
use super::policy::TlsPolicy;
use super::renewal::{FileContent, Renewable, Seen, bytes_of};

/// A server's side of TLS: a certificate with its key, from files that may be replaced at any time. New connections get the
/// new certificate; connections that exist stay.
pub struct ServerTls {
    files: CertificateFiles,
    policy: TlsPolicy,
    current: RwLock<Arc<ServerConfig>>,
    seen: Seen,
}

/// The files of a certificate chain and its key, both in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and after it those that lead to its authority.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// A certificate chain and its key, both in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct PemPair {
    /// The certificate, and after it those that lead to its authority.
    pub certificate: Vec<u8>,
    /// The key.
    pub key: Vec<u8>,
}

impl PemPair {
    fn contents(self) -> Vec<FileContent> {
        vec![Ok(self.certificate), Ok(self.key)]
    }
}

impl fmt::Debug for PemPair {
    // The key is not printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PemPair").finish_non_exhaustive()
    }
}

impl CertificateFiles {
    /// The files `tls.crt` and `tls.key`, as Kubernetes names them in a secret.
    pub fn in_folder(folder: &Path) -> Self {
        CertificateFiles { certificate: folder.join("tls.crt"), key: folder.join("tls.key") }
    }

    /// Whether both files exist. Not being able to tell is an error: a server must not go without TLS because of a slip in
    /// the permissions of a folder.
    pub fn exist(&self) -> Result<bool, TlsError> {
        let exists = |path: &Path| {
            path.try_exists().or_else(|source| match source.kind() {
                io::ErrorKind::NotFound => Ok(false),
                _ => Err(TlsError::Read { path: path.to_owned(), reason: source.to_string() }),
            })
        };
        Ok(exists(&self.certificate)? && exists(&self.key)?)
    }

    fn read(&self, seen: &Seen) -> Option<Vec<FileContent>> {
        seen.read(&[self.certificate.clone(), self.key.clone()])
    }
}

impl ServerTls {
    /// Reads the files, which must hold a certificate and its key.
    pub fn load(files: CertificateFiles, policy: TlsPolicy) -> Result<Self, TlsError> {
        let seen = Seen::default();
        let contents = files.read(&seen).unwrap_or_default();
        let current = RwLock::new(Arc::new(config(&files, &contents, &policy)?));
        Ok(ServerTls { files, policy, current, seen })
    }

    /// A certificate and its key (both PEM) that come from elsewhere than files, such as an object of a cluster; `files`
    /// names them in errors. [`replace`](ServerTls::replace) takes the next ones.
    pub fn of(files: CertificateFiles, pair: PemPair, policy: TlsPolicy) -> Result<Self, TlsError> {
        let contents = pair.contents();
        let current = RwLock::new(Arc::new(config(&files, &contents, &policy)?));
        Ok(ServerTls { files, policy, current, seen: Seen::of(contents) })
    }

    /// Puts another certificate with its key in force for new connections. False: they are those in force. An error leaves
    /// the last ones in force.
    pub fn replace(&self, pair: PemPair) -> Result<bool, TlsError> {
        match self.seen.note(pair.contents()) {
            Some(contents) => self.take(&contents),
            None => Ok(false),
        }
    }

    /// Does the handshake with a client, with the current certificate.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = Arc::clone(&self.current.read());
        TlsAcceptor::from(config).accept(stream).await
    }

    fn take(&self, contents: &[FileContent]) -> Result<bool, TlsError> {
        // A new configuration knows no old sessions either: none that the old certificate began is resumed.
        *self.current.write() = Arc::new(config(&self.files, contents, &self.policy)?);
        Ok(true)
    }
}

impl Renewable for ServerTls {
    const CHANGED: &str = "Certificate and/or key have changed on disk and were reloaded.";

    fn renew(&self) -> Result<bool, TlsError> {
        match self.files.read(&self.seen) {
            Some(contents) => self.take(&contents),
            None => Ok(false),
        }
    }
}

impl fmt::Debug for ServerTls {
    // The contents are not printed: among them is the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("files", &self.files).finish_non_exhaustive()
    }
}

fn config(
    files: &CertificateFiles,
    contents: &[FileContent],
    policy: &TlsPolicy,
) -> Result<ServerConfig, TlsError> {
    let [certificate, key] = contents else { unreachable!("two files were read") };
    let (chain, key) = (chain(&files.certificate, certificate)?, private_key(&files.key, key)?);
    let builder = ServerConfig::builder_with_provider(Arc::clone(&policy.provider))
        .with_protocol_versions(&policy.versions)?;
    let builder = match &policy.clients {
        Some(clients) => builder.with_client_cert_verifier(Arc::clone(clients)),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|cause| TlsError::Pair {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        cause,
    })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn chain(path: &Path, content: &FileContent) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad = |error: pem::Error| TlsError::Pem {
        path: path.to_owned(),
        what: "certificate",
        reason: error.to_string(),
    };
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(bytes_of(path, content)?).collect::<Result<_, _>>().map_err(bad)?;
    if chain.is_empty() { Err(bad(pem::Error::NoItemsFound)) } else { Ok(chain) }
}

fn private_key(path: &Path, content: &FileContent) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(bytes_of(path, content)?).map_err(|error| TlsError::Pem {
        path: path.to_owned(),
        what: "private key",
        reason: error.to_string(),
    })
}
