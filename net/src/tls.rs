//! TLS on both sides of a proxy. [`ServerTls`] is the certificate that a server shows, read again whenever its files
//! change; [`PodTls`] verifies for the activator that it talks to a pod of the right namespace.
//!
//! The rules are Knative's: TLS 1.3 unless an operator asks for less ([`TlsPolicy`]), no client certificates, and HTTP/2
//! without negotiation: a client that wants it may begin with its preface.

mod certificate;
mod client;
mod clients;
mod error;
mod pods;
mod policy;
mod renewal;
mod stream;

pub use certificate::{CertificateFiles, PemPair, ServerTls};
pub use client::ClientTls;
pub use error::TlsError;
pub use pods::PodTls;
pub(crate) use pods::handshake_refusal;
pub use policy::{PolicyError, TlsPolicy, TlsWords};
pub use renewal::{Renewable, keep_renewed};
pub(crate) use stream::MaybeTls;
