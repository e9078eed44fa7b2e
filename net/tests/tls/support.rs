//! An authority, the certificates that it signs, a server that shows them, and a client that looks at them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use pilotlight_net::tls::{CertificateFiles, ServerTls, TlsPolicy, TlsWords};
use pilotlight_net::{Body, Drain, Handler, Request, Response, serve_tls};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Nothing here takes long; what takes longer hangs.
pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), work).await.unwrap_or_else(|_| panic!("never came: {what}"))
}

pub(crate) async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    soon(what, async {
        while !condition().await {
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for these names and its key, both in PEM.
    pub(crate) fn certify(&self, names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        (params.unwrap().signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// The names in the certificate of a pod, as Knative has them.
pub(crate) const POD: [&str; 2] = ["kn-user-default", DATA_PLANE];
pub(crate) const DATA_PLANE: &str = "data-plane.knative.dev";

/// A folder with the files of a server and those who trust it.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    pub(crate) fn with(authority: &Authority, names: &[&str]) -> Self {
        let folder = Folder::new();
        folder.replace(&authority.certify(names));
        folder
    }

    pub(crate) fn replace(&self, (certificate, key): &(String, String)) {
        self.write("tls.crt", certificate);
        self.write("tls.key", key);
    }

    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn files(&self) -> CertificateFiles {
        CertificateFiles::in_folder(self.0.path())
    }

    pub(crate) fn load(&self, words: TlsWords<'_>) -> Arc<ServerTls> {
        Arc::new(ServerTls::load(self.files(), TlsPolicy::parse(words).unwrap()).unwrap())
    }
}

/// A server that answers every request with its own body, and with its version in `spoken`.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) drain: Drain,
    pub(crate) task: JoinHandle<()>,
}

struct Echo;

impl Handler for Echo {
    async fn handle(&self, _: &pilotlight_net::Client, request: Request) -> Response {
        let spoken = format!("{:?}", request.version()).parse().unwrap();
        let mut response = Response::new(Body::full(request.into_body().collect().await.unwrap().to_bytes()));
        response.headers_mut().insert("spoken", spoken);
        response
    }
}

pub(crate) async fn start(tls: Arc<ServerTls>) -> Server {
    start_with(tls, Echo).await
}

pub(crate) async fn start_with(tls: Arc<ServerTls>, handler: impl Handler) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let drain = Drain::default();
    let task = tokio::spawn(serve_tls(listener, tls, Arc::new(handler), drain.clone()));
    Server { address, drain, task }
}

/// A handshake by a client that trusts `authority` and offers these versions and protocols.
pub(crate) async fn handshake(
    to: SocketAddr,
    authority: &Authority,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(DATA_PLANE).unwrap();
    let stream = TcpStream::connect(to).await?;
    soon("the handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

pub(crate) async fn connect(to: SocketAddr, authority: &Authority) -> TlsStream<TcpStream> {
    handshake(to, authority, &[&version::TLS13], &[]).await.unwrap()
}

/// Posts `text` and reads until it comes back.
pub(crate) async fn echo(stream: &mut TlsStream<TcpStream>, text: &str) {
    let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", text.len());
    stream.write_all((head + text).as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    soon("the echo", async {
        while !answer.ends_with(text.as_bytes()) {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "closed before the echo");
        }
    })
    .await;
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"));
}

/// The certificate that a server shows on a new connection.
pub(crate) async fn shown(to: SocketAddr, authority: &Authority) -> String {
    let stream = connect(to, authority).await;
    pem_of(&stream)
}

pub(crate) fn pem_of(stream: &TlsStream<TcpStream>) -> String {
    let shown = &stream.get_ref().1.peer_certificates().unwrap()[0];
    format!("{shown:?}")
}

pub(crate) fn printed(certificate: &str) -> String {
    format!("{:?}", CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap())
}
