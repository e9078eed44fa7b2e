//! The activator's side of TLS: the identity that a pod must prove.
//!
//! Every pod's certificate is for `data-plane.knative.dev`; that alone would let any pod pose as any other. So it must name
//! the namespace as well (Knative: `pkg/activator/certificate`), and no session is resumed: one that was begun with a pod
//! of one namespace would be good for a pod of another.

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

/// A client's side of TLS, towards pods: the authorities that it trusts, from files that may be replaced at any time.
pub struct PodTls {
    /// The files; empty: the bundles come from elsewhere.
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
    /// Reads the bundles: files with any number of certificates of authorities in PEM. Bundles that cannot be read are passed
    /// over with a warning, but at least one authority must be found.
    pub fn load(bundles: Vec<PathBuf>) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let seen = Seen::default();
        let contents = seen.read(&bundles).unwrap_or_default();
        let current = RwLock::new(trust(&bundles, &contents, &provider)?);
        Ok(PodTls { bundles, provider, current, seen })
    }

    /// Bundles that come from elsewhere than files, such as objects of a cluster, each with its name for logs.
    /// [`replace`](PodTls::replace) takes the next ones. At least one authority must be found.
    pub fn of(bundles: Vec<(String, Vec<u8>)>) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let (names, contents) = named(bundles);
        let current = RwLock::new(trust(&names, &contents, &provider)?);
        Ok(PodTls { bundles: Vec::new(), provider, current, seen: Seen::of(contents) })
    }

    /// Puts other bundles in force for new connections. False: they hold what is in force. An error leaves the last ones
    /// in force.
    pub fn replace(&self, bundles: Vec<(String, Vec<u8>)>) -> Result<bool, TlsError> {
        let (names, contents) = named(bundles);
        let Some(contents) = self.seen.note(contents) else { return Ok(false) };
        *self.current.write() = trust(&names, &contents, &self.provider)?;
        Ok(true)
    }

    /// Does the handshake with a pod's queue-proxy, which must prove to be of `namespace`. ALPN is not used: the first bytes
    /// of the connection say which protocol it is.
    pub async fn connect(&self, stream: TcpStream, namespace: &str) -> io::Result<TlsStream<TcpStream>> {
        let Trust { chain, template } = self.current.read().clone();
        let mut config = ClientConfig::clone(&template);
        let verifier = PodVerifier { chain, san: format!("kn-user-{}", namespace.to_lowercase()) };
        config.dangerous().set_certificate_verifier(Arc::new(verifier));
        let name = ServerName::try_from(DATA_PLANE).map_err(io::Error::other)?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// The address at which a pod takes requests over TLS, given the one in the clear: Knative's fixed port.
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

/// The certificate of a pod of another namespace.
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

/// A verifier that also asks for the name of a namespace.
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
        // Names are compared letter by letter: no wildcard stands for a namespace.
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

fn named(bundles: Vec<(String, Vec<u8>)>) -> (Vec<PathBuf>, Vec<FileContent>) {
    bundles.into_iter().map(|(name, pem)| (PathBuf::from(name), Ok(pem))).unzip()
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
                warn!(%error, "Skipping a bundle of certificate authorities");
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
            warn!(file = %path.display(), added, passed_over, "Skipping entries that are no certificate of an authority");
        }
    }
    // An empty set of roots is the only error.
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

/// The name in every certificate of the data plane.
const DATA_PLANE: &str = "data-plane.knative.dev";
const POD_PORT: u16 = 8112;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles_that_are_no_files_can_be_replaced_and_a_bad_one_leaves_the_last_in_force() {
        let pem = || rcgen::generate_simple_self_signed([]).unwrap().cert.pem().into_bytes();
        let (first, second) = (pem(), pem());
        let bundle = |pem: &[u8]| vec![("secret a, ca.crt".to_owned(), pem.to_vec())];
        let tls = PodTls::of(bundle(&first)).unwrap();
        assert!(!tls.replace(bundle(&first)).unwrap(), "nothing is new");
        assert!(tls.replace(bundle(&second)).unwrap());
        let refusal = tls.replace(bundle(b"nothing")).unwrap_err().to_string();
        assert_eq!(refusal, "no certificate authority to trust in secret a, ca.crt");
        assert!(PodTls::of(Vec::new()).is_err());
    }

    #[test]
    fn a_pod_takes_tls_on_a_fixed_port() {
        for (plain, tls) in [("10.0.0.1:8012", "10.0.0.1:8112"), ("[2001:db8::1]:8012", "[2001:db8::1]:8112")]
        {
            assert_eq!(PodTls::address_of(plain.parse().unwrap()), tls.parse().unwrap());
        }
    }
}
