//! The activator's side of TLS: who a pod must be.
//!
//! Every pod's certificate is for `data-plane.knative.dev`; that alone would let any pod pose as any other. So it must
//! name the namespace as well, and nothing is resumed: a session that was begun with one namespace's pod would
//! otherwise be good for another's.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::{fmt, io};

use parking_lot::RwLock;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
    version,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::warn;

use super::error::TlsError;
use super::renewal::{FileContent, Renewable, Seen, bytes_of};

/// A client's side of TLS, towards pods: whom it trusts, from files that may be replaced at any time.
pub struct PodTls {
    bundles: Vec<PathBuf>,
    provider: Arc<CryptoProvider>,
    current: RwLock<Trust>,
    seen: Seen,
}

#[derive(Clone)]
struct Trust {
    chain: Arc<WebPkiServerVerifier>,
    template: Arc<ClientConfig>,
}

impl PodTls {
    /// Reads the bundles: files with any number of certificates of authorities in PEM. What cannot be read is passed
    /// over with a warning, but there must be somebody to trust.
    pub fn load(bundles: Vec<PathBuf>) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let seen = Seen::default();
        let contents = seen.read(&bundles).unwrap_or_default();
        let current = RwLock::new(trust(&bundles, &contents, &provider)?);
        Ok(PodTls { bundles, provider, current, seen })
    }

    /// Does the handshake with a pod's queue-proxy, who must prove to be one of `namespace`. No protocol is
    /// negotiated: the request that comes next says what it is.
    pub async fn connect(&self, stream: TcpStream, namespace: &str) -> io::Result<TlsStream<TcpStream>> {
        let Trust { chain, template } = self.current.read().clone();
        let mut config = ClientConfig::clone(&template);
        let verifier = PodVerifier { chain, san: format!("kn-user-{}", namespace.to_lowercase()) };
        config.dangerous().set_certificate_verifier(Arc::new(verifier));
        let name = ServerName::try_from(DATA_PLANE).map_err(io::Error::other)?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Where a pod takes requests over TLS, who takes them at `plain` otherwise: Knative's fixed port.
    pub fn address_of(plain: SocketAddr) -> SocketAddr {
        SocketAddr::new(plain.ip(), POD_PORT)
    }
}

impl Renewable for PodTls {
    const CHANGED: &str = "Certificate authorities have changed on disk and were reloaded.";

    fn renew(&self) -> Result<bool, TlsError> {
        let Some(contents) = self.seen.read(&self.bundles) else { return Ok(false) };
        *self.current.write() = trust(&self.bundles, &contents, &self.provider)?;
        Ok(true)
    }
}

impl fmt::Debug for PodTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodTls").field("bundles", &self.bundles).finish_non_exhaustive()
    }
}

/// A pod that is not one of the namespace it should be of.
#[derive(Debug, thiserror::Error)]
#[error("san {wanted:?} does not have a matching name in [{}]", names.join(" "))]
struct WrongNamespace {
    wanted: String,
    names: Vec<String>,
}

/// The refusal of a handshake; `None`: the connection failed, not the handshake.
pub(crate) fn handshake_refusal(error: &io::Error) -> Option<rustls::Error> {
    error.get_ref()?.downcast_ref::<rustls::Error>().cloned()
}

/// Certificates as usual, and one name more.
#[derive(Debug)]
struct PodVerifier {
    chain: Arc<WebPkiServerVerifier>,
    san: String,
}

impl ServerCertVerifier for PodVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified =
            self.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        let leaf = webpki::EndEntityCert::try_from(end_entity)
            .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        // By the letter: no wildcard stands for a namespace.
        if leaf.valid_dns_names().any(|name| name == self.san) {
            return Ok(verified);
        }
        let names = leaf.valid_dns_names().map(str::to_owned).collect();
        let reason = WrongNamespace { wanted: self.san.clone(), names };
        Err(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(reason)))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

fn trust(
    bundles: &[PathBuf],
    contents: &[FileContent],
    provider: &Arc<CryptoProvider>,
) -> Result<Trust, TlsError> {
    let mut roots = RootCertStore::empty();
    for (path, content) in bundles.iter().zip(contents) {
        let pem = match bytes_of(path, content) {
            Ok(pem) => pem,
            Err(error) => {
                warn!(%error, "Passing over a bundle of authorities");
                continue;
            }
        };
        let (mut added, mut passed_over) = (0, 0);
        for certificate in CertificateDer::pem_slice_iter(pem) {
            match certificate.map(|certificate| roots.add(certificate)) {
                Ok(Ok(())) => added += 1,
                _ => passed_over += 1,
            }
        }
        if added == 0 || passed_over > 0 {
            warn!(file = %path.display(), added, passed_over, "Passing over what is no certificate of an authority");
        }
    }
    // The one way to fail is that there are no roots.
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|_| {
            TlsError::NoTrust(
                bundles.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "),
            )
        })?;
    let mut template = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&version::TLS13])?
        .with_webpki_verifier(Arc::clone(&chain))
        .with_no_client_auth();
    template.resumption = Resumption::disabled();
    Ok(Trust { chain, template: Arc::new(template) })
}

/// What every certificate of the data plane is for.
const DATA_PLANE: &str = "data-plane.knative.dev";
const POD_PORT: u16 = 8112;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_takes_tls_on_a_fixed_port() {
        for (plain, tls) in [("10.0.0.1:8012", "10.0.0.1:8112"), ("[2001:db8::1]:8012", "[2001:db8::1]:8112")]
        {
            assert_eq!(PodTls::address_of(plain.parse().unwrap()), tls.parse().unwrap());
        }
    }
}
