//! The data plane over TLS: the real binary, real certificates, and curl as the client.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

use pilotlight_tests::sample::Sample;
use pilotlight_tests::{SOON, binary, eventually};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::json;
use tempfile::TempDir;

#[tokio::test]
async fn curl_gets_an_answer_from_the_queue_proxy_over_tls_and_in_the_clear() {
    let Some(curl) = Curl::find() else { return };
    let (app, certificates, ip) =
        (Sample::start(&["--port", "0"], &[]).await, Certificates::new(), own_address());
    certificates.replace(NAMES);
    let proxy = queue_proxy(ip, &app, &certificates, &[]);
    proxy.listens_at(ip, 8112).await;
    for protocol in ["--http1.1", "--http2"] {
        let answer = curl.get(&certificates, ip, 8112, &[protocol]);
        assert!(answer.is_ok(), "{protocol}: {answer:?}");
    }
    let version = curl.get(&certificates, ip, 8112, &["-o", "/dev/null", "-w", "%{http_version}"]);
    assert_eq!(version.as_deref(), Ok(if curl.speaks_http2 { "2" } else { "1.1" }));
    assert!(curl.get(&certificates, ip, 8112, &["--tls-max", "1.2"]).is_err());
    assert!(Curl::run(&[&format!("http://{ip}:8012/")]).is_ok());
}

#[tokio::test]
async fn a_replaced_certificate_is_shown_without_a_restart() {
    let Some(curl) = Curl::find() else { return };
    let (app, certificates, ip) =
        (Sample::start(&["--port", "0"], &[]).await, Certificates::new(), own_address());
    certificates.replace(&["old.example"]);
    let proxy = queue_proxy(ip, &app, &certificates, &[("PILOTLIGHT_CERT_POLL_INTERVAL", "20ms")]);
    proxy.listens_at(ip, 8112).await;
    assert!(curl.get(&certificates, ip, 8112, &[]).is_err(), "it is for another name");
    certificates.replace(NAMES);
    proxy.says("Certificate and/or key have changed on disk and were reloaded.").await;
    assert!(curl.get(&certificates, ip, 8112, &[]).is_ok());
}

#[tokio::test]
async fn a_request_goes_over_tls_to_the_activator_and_on_to_a_pod_of_the_right_namespace() {
    let Some(curl) = Curl::find() else { return };
    let (app, certificates, ip) =
        (Sample::start(&["--port", "0"], &[]).await, Certificates::new(), own_address());
    certificates.replace(NAMES);
    let pod = queue_proxy(ip, &app, &certificates, &[]);
    pod.listens_at(ip, 8112).await;
    for (namespace, expected) in [("default", "200"), ("other", "502")] {
        let front = own_address();
        let endpoints = serve_table(&json!({ "snapshot": { format!("{namespace}/hello"): {
            "hosts": ["data-plane.knative.dev"], "container_concurrency": 0,
            "timeouts": { "total": { "secs": 30, "nanos": 0 }, "response_start": null, "idle": null },
            "starting": 0, "trouble": null,
            "ready": [{ "name": "pod", "address": format!("{ip}:8012"),
                "timeline": { "decided": null, "spawned": null, "ready": null } }],
        } } }));
        let activator = Process::start(Command::new(binary()).args([
            "activator",
            "--listen",
            &format!("{front}:8012"),
            "--listen-tls",
            &format!("{front}:8112"),
            "--tls-cert-dir",
            certificates.folder(),
            "--tls-ca",
            &certificates.authority(),
            "--tls-to-pods",
            "--autoscaler",
            "ws://127.0.0.1:1",
            "--endpoints",
            &format!("http://{endpoints}/v1/endpoints"),
        ]));
        activator.listens_at(front, 8112).await;
        activator.says("Following endpoints").await;
        for protocol in ["--http1.1", "--http2"] {
            let status =
                curl.get(&certificates, front, 8112, &[protocol, "-o", "/dev/null", "-w", "%{http_code}"]);
            assert_eq!(status.as_deref(), Ok(expected), "{namespace} {protocol}");
        }
        if expected == "502" {
            let told = curl.get(&certificates, front, 8112, &[]).unwrap();
            assert!(told.starts_with("san \"kn-user-other\" does not have a matching name in ["), "{told}");
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_tls_is_named_and_ends_the_queue_proxy() {
    let (app, certificates) = (Sample::start(&["--port", "0"], &[]).await, Certificates::new());
    certificates.replace(NAMES);
    let bad_version = [("QUEUE_PROXY_TLS_MIN_VERSION", "1.1")];
    let mut proxy = queue_proxy(own_address(), &app, &certificates, &bad_version);
    proxy.fails_with("QUEUE_PROXY_TLS_MIN_VERSION").await;
    fs::write(certificates.file("tls.key"), "no key").unwrap();
    let mut proxy = queue_proxy(own_address(), &app, &certificates, &[]);
    proxy.fails_with("holds no private key").await;
    // Without both files there is no TLS, and nothing about it matters.
    fs::remove_file(certificates.file("tls.key")).unwrap();
    let ip = own_address();
    let proxy = queue_proxy(ip, &app, &certificates, &bad_version);
    proxy.listens_at(ip, 8012).await;
    assert!(TcpStream::connect((ip, 8112)).is_err());
}

/// The name in a pod's certificate.
const NAMES: &[&str] = &["kn-user-default", "data-plane.knative.dev"];

/// A folder with an authority and the pair of a server.
struct Certificates {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Certificates {
    fn new() -> Self {
        let (folder, key) = (tempfile::tempdir().unwrap(), KeyPair::generate().unwrap());
        let mut params = CertificateParams::default();
        // OpenSSL takes a certificate for self-signed that has its issuer's name.
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        fs::write(folder.path().join("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
        Certificates { folder, issuer: Issuer::new(params, key) }
    }

    fn replace(&self, names: &[&str]) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        let certificate = params.unwrap().signed_by(&key, &self.issuer).unwrap();
        fs::write(self.file("tls.crt"), certificate.pem()).unwrap();
        fs::write(self.file("tls.key"), key.serialize_pem()).unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn folder(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    fn authority(&self) -> String {
        self.file("ca.crt").to_str().unwrap().to_owned()
    }
}

struct Curl {
    speaks_http2: bool,
}

impl Curl {
    fn find() -> Option<Curl> {
        let Ok(version) = Curl::run(&["--version"]) else {
            println!("skipped: there is no curl");
            return None;
        };
        Some(Curl { speaks_http2: version.contains("HTTP2") })
    }

    /// `GET /` of the data plane at an address; what curl wrote, or why it failed.
    fn get(&self, trust: &Certificates, ip: Ipv4Addr, port: u16, args: &[&str]) -> Result<String, String> {
        let (name, args) = (NAMES[1], args.iter().filter(|arg| self.speaks_http2 || **arg != "--http2"));
        let (to, url) = (format!("{name}:{port}:{ip}"), format!("https://{name}:{port}/"));
        let fixed = ["--cacert", &trust.authority(), "--resolve", &to, &url];
        Curl::run(&fixed.into_iter().chain(args.copied()).collect::<Vec<_>>())
    }

    fn run(args: &[&str]) -> Result<String, String> {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "20"])
            .args(args)
            .output()
            .map_err(|error| error.to_string())?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }
}

/// A process and what it says. Dropping it kills it.
struct Process {
    child: Child,
    log: TempDir,
}

impl Process {
    fn start(command: &mut Command) -> Process {
        let log = tempfile::tempdir().unwrap();
        let stderr = File::create(log.path().join("stderr")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        Process { child, log }
    }

    fn said(&self) -> String {
        fs::read_to_string(self.log.path().join("stderr")).unwrap()
    }

    async fn says(&self, text: &str) {
        eventually(text, SOON, async || self.said().contains(text).then_some(())).await;
    }

    async fn listens_at(&self, ip: Ipv4Addr, port: u16) {
        let what = format!("listening on {ip}:{port}");
        eventually(&what, SOON, async || TcpStream::connect((ip, port)).ok()).await;
    }

    async fn fails_with(&mut self, text: &str) {
        let status = eventually("the exit", SOON, async || self.child.try_wait().unwrap()).await;
        assert_eq!(status.code(), Some(2));
        assert!(self.said().contains(text), "{}", self.said());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- standard error\n{}---", self.said());
        }
    }
}

/// The real queue-proxy, on Knative's own ports of an address that nobody else has.
fn queue_proxy(ip: Ipv4Addr, app: &Sample, certificates: &Certificates, env: &[(&str, &str)]) -> Process {
    let mut command = Command::new(binary());
    command.arg("queue-proxy").envs([
        ("CONTAINER_CONCURRENCY", "10"),
        ("QUEUE_SERVING_PORT", "8012"),
        ("QUEUE_SERVING_TLS_PORT", "8112"),
        ("USER_PORT", &app.address.port().to_string()),
        ("REVISION_TIMEOUT_SECONDS", "300"),
        ("SERVING_LOGGING_CONFIG", ""),
        ("SERVING_LOGGING_LEVEL", ""),
        ("SERVING_NAMESPACE", "default"),
        ("SERVING_CONFIGURATION", ""),
        ("SERVING_REVISION", "hello-00001"),
        ("SERVING_POD", "pod"),
        ("SERVING_POD_IP", &ip.to_string()),
        ("PILOTLIGHT_BIND_ADDRESS", &ip.to_string()),
        ("PILOTLIGHT_CERT_DIR", certificates.folder()),
    ]);
    command.envs(env.iter().copied());
    Process::start(&mut command)
}

/// A loopback address that no other test has. 127.63 is neither the pods' nor any other component's.
fn own_address() -> Ipv4Addr {
    static COUNT: AtomicU8 = AtomicU8::new(1);
    let [.., low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 63, low, COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Tells these endpoints to whoever asks, and never that there is no more.
fn serve_table(table: &serde_json::Value) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, line) = (listener.local_addr().unwrap(), format!("{table}\n"));
    thread::spawn(move || {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = write!(stream, "HTTP/1.1 200 OK\r\n\r\n{line}");
            open.push(stream);
        }
    });
    address
}
