//! TLS towards Prometheus, as Knative's variables ask for it.

use std::sync::Arc;

use pilotlight_config::process::{PrometheusClients, PrometheusTls};
use pilotlight_net::tls::{CertificateFiles, PolicyError, ServerTls, TlsError, TlsPolicy, TlsWords};

/// Why metrics cannot be served over TLS.
#[derive(Debug, thiserror::Error)]
pub enum PrometheusError {
    /// A version, cipher suite or curve that does not exist.
    #[error("METRICS_PROMETHEUS_{0}")]
    Policy(PolicyError),
    /// A certificate, its key or an authority cannot be used.
    #[error("cannot serve metrics over TLS")]
    Certificate(#[from] TlsError),
}

/// The certificate to show to Prometheus, and the authorities of its own. To be [kept renewed].
///
/// [kept renewed]: pilotlight_net::tls::keep_renewed
pub fn prometheus_tls(asked: &PrometheusTls) -> Result<Arc<ServerTls>, PrometheusError> {
    let policy = TlsPolicy::parse(TlsWords {
        min_version: &asked.words.min_version,
        max_version: &asked.words.max_version,
        cipher_suites: &asked.words.cipher_suites,
        curve_preferences: &asked.words.curve_preferences,
    })
    .map_err(PrometheusError::Policy)?;
    let policy = match &asked.clients {
        PrometheusClients::Any => policy,
        PrometheusClients::Optional(authorities) => policy.with_clients(authorities, true)?,
        PrometheusClients::Required(authorities) => policy.with_clients(authorities, false)?,
    };
    let files = CertificateFiles { certificate: asked.certificate.clone(), key: asked.key.clone() };
    Ok(Arc::new(ServerTls::load(files, policy)?))
}
