//! A client's side of TLS, towards servers that are no pods.

use std::path::PathBuf;
use std::sync::Arc;
use std::{fmt, fs, io};

use http::Version;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::TlsError;

/// The expected identity of a server, and the authorities that vouch for it.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    // None: any server.
    name: Option<ServerName<'static>>,
}

impl ClientTls {
    /// Any server, as in the kubelet's readiness probes over HTTPS: the connection is encrypted, and its certificate is not
    /// verified.
    pub fn unverified() -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
            .with_no_client_auth();
        Ok(ClientTls { config: Arc::new(config), name: None })
    }

    /// Only `host`, by a certificate of an authority in one of the `bundles` (files in PEM). Bundles that cannot be read are
    /// passed over, but at least one authority must be found.
    pub fn to(host: &str, bundles: &[PathBuf]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for pem in bundles.iter().filter_map(|path| fs::read(path).ok()) {
            roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).flatten());
        }
        if roots.is_empty() {
            let searched: Vec<String> = bundles.iter().map(|path| path.display().to_string()).collect();
            return Err(TlsError::NoTrust(searched.join(", ")));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name =
            ServerName::try_from(host.to_owned()).map_err(|_| TlsError::NoServerName(host.to_owned()))?;
        Ok(ClientTls { config: Arc::new(config), name: Some(name) })
    }

    /// Does the handshake, and offers the version of HTTP that will be spoken by ALPN: many servers insist on it.
    pub(crate) async fn connect(
        &self,
        stream: TcpStream,
        version: Version,
    ) -> io::Result<TlsStream<TcpStream>> {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols =
            vec![if version == Version::HTTP_2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let name = match &self.name {
            Some(name) => name.clone(),
            None => stream.peer_addr()?.ip().into(),
        };
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A verifier that accepts any certificate, as long as the server has its key.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
