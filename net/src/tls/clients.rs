//! Client certificates that a server asks for.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;

use super::error::TlsError;
use super::policy::TlsPolicy;

impl TlsPolicy {
    /// Lets in only clients with a certificate of one of the authorities in `bundle` (in PEM); with `optional`, also clients
    /// that show none.
    pub fn with_clients(mut self, bundle: &Path, optional: bool) -> Result<Self, TlsError> {
        let pem = std::fs::read(bundle)
            .map_err(|source| TlsError::Read { path: bundle.to_owned(), reason: source.to_string() })?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).flatten());
        let no_trust = || TlsError::NoTrust(bundle.display().to_string());
        let builder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider));
        let builder = if optional { builder.allow_unauthenticated() } else { builder };
        // An empty set of roots is the only error.
        self.clients = Some(builder.build().map_err(|_| no_trust())?);
        Ok(self)
    }
}
