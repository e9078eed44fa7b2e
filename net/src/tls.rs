//! TLS on both sides of a proxy. [`ServerTls`] is the certificate a server shows, read again whenever its files
//! change; [`PodTls`] is how the activator makes sure that it talks to a pod of the right namespace.
//!
//! Knative's rules throughout: TLS 1.3 unless somebody asks for less ([`TlsPolicy`]), no client certificates, and no
//! need to negotiate HTTP/2: whoever wants it may just begin.

mod certificate;
mod client;
mod clients;
mod error;
mod pods;
mod policy;
mod renewal;
mod stream;

pub use certificate::{CertificateFiles, ServerTls};
pub use client::ClientTls;
pub use error::TlsError;
pub use pods::PodTls;
pub(crate) use pods::handshake_refusal;
pub use policy::{PolicyError, TlsPolicy, TlsWords};
pub use renewal::{Renewable, keep_renewed};
pub(crate) use stream::MaybeTls;
