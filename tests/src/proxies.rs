//! One proxy by itself, as a process: the real binary between a test and an app of the test's own.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use pilotlight_core::{EndpointLine, PodEndpoint, PodTimeline, RevisionEndpoints, RevisionId};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::interval;

use crate::components::Addresses;
use crate::started::{Started, pilotlight};
use crate::{SOON, eventually};

/// The host that leads to the app through [`Proxy::activator`]. A queue-proxy takes any.
pub const HOST: &str = "app.example";

/// A running proxy. Dropping it kills it.
pub struct Proxy {
    /// Address for requests.
    pub address: SocketAddr,
    process: Started,
}

impl Proxy {
    /// A queue-proxy in front of this app, with these variables besides those it needs.
    pub async fn queue_proxy(app: SocketAddr, env: &[(&str, &str)]) -> Proxy {
        let ip = own_ip();
        let (port, ip_text) = (app.port().to_string(), ip.to_string());
        let mut command = pilotlight();
        command.arg("queue-proxy").envs([
            ("CONTAINER_CONCURRENCY", "0"),
            ("QUEUE_SERVING_PORT", "8012"),
            ("QUEUE_SERVING_TLS_PORT", "8112"),
            ("USER_PORT", &port),
            ("REVISION_TIMEOUT_SECONDS", "300"),
            ("SERVING_LOGGING_CONFIG", ""),
            ("SERVING_LOGGING_LEVEL", ""),
            ("SERVING_NAMESPACE", "default"),
            ("SERVING_CONFIGURATION", "app"),
            ("SERVING_REVISION", "app"),
            ("SERVING_POD", "pod-1"),
            ("SERVING_POD_IP", &ip_text),
            ("PILOTLIGHT_BIND_ADDRESS", &ip_text),
            ("PILOTLIGHT_DRAIN_QUIET_PERIOD", "100ms"),
        ]);
        command.envs(env.iter().copied());
        Proxy { address: SocketAddr::new(ip, 8012), process: Started::new(command) }
            .listening("Serving")
            .await
    }

    /// An activator with these revisions of the namespace `default`, each with the hosts and the pods it has.
    pub async fn activator(revisions: &[(&str, &[&str], &[SocketAddr])]) -> Proxy {
        let table = revisions.iter().map(|(name, hosts, pods)| {
            let revision = RevisionEndpoints {
                hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
                ready: pods.iter().copied().map(pod).collect(),
                ..RevisionEndpoints::default()
            };
            (RevisionId::new("default", *name), revision)
        });
        let endpoints = tell(&EndpointLine::Snapshot(table.collect())).await;
        let ip = own_ip();
        let mut command = pilotlight();
        command.args(["activator", "--listen", &format!("{ip}:8012"), "--admin", &format!("{ip}:8022")]);
        // The discard port has no listener, which an activator takes calmly.
        command.args(["--autoscaler", "ws://127.0.0.1:9", "--drain-wait", "100ms"]);
        command.args(["--endpoints", &format!("http://{endpoints}/v1/endpoints")]);
        let proxy = Proxy { address: SocketAddr::new(ip, 8012), process: Started::new(command) };
        proxy.listening("Following endpoints").await
    }

    /// Both proxies, each by itself in front of the app at `pod`: reached by the host [`HOST`].
    pub async fn each(app: SocketAddr) -> [(&'static str, Proxy); 2] {
        let activator = Proxy::activator(&[("app", &[HOST], &[app])]).await;
        [("queue-proxy", Proxy::queue_proxy(app, &[]).await), ("activator", activator)]
    }

    async fn listening(mut self, after: &str) -> Proxy {
        eventually("a proxy that listens", SOON, async || {
            if let Some(status) = self.process.exit_status() {
                panic!("{status} instead of listening");
            }
            let is_ready = self.process.stderr.lines().iter().any(|line| line.contains(after));
            (is_ready && TcpStream::connect(self.address).await.is_ok()).then_some(())
        })
        .await;
        self
    }

    /// The same server at another port.
    pub fn at_port(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address.ip(), port)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits until it has exited, and says how.
    pub async fn exit(&mut self, within: Duration) -> std::process::ExitStatus {
        eventually("the exit", within, async || self.process.exit_status()).await
    }

    /// The number of its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The lines it has written to standard output so far.
    pub fn output(&self) -> Vec<String> {
        self.process.stdout.lines()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.exit_status().is_none()
    }
}

/// A loopback address that nobody else has.
fn own_ip() -> IpAddr {
    Addresses::free().address.ip()
}

fn pod(address: SocketAddr) -> PodEndpoint {
    PodEndpoint {
        name: format!("pod-{}", address.port()),
        address,
        tls_address: None,
        ports: Default::default(),
        timeline: PodTimeline::default(),
    }
}

/// Tells one table to whoever asks, and that it still holds for as long as the test runs.
async fn tell(snapshot: &EndpointLine) -> SocketAddr {
    let line = serde_json::to_string(snapshot).expect("a line is JSON");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let line = line.clone();
            // The stream ends when the activator does.
            tokio::spawn(async move { drop(tell_over(stream, &line).await) });
        }
    });
    address
}

async fn tell_over(mut stream: TcpStream, line: &str) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    stream.write_all(format!("HTTP/1.1 200 OK\r\n\r\n{line}\n").as_bytes()).await?;
    // An empty line says nothing, but that we are still there.
    let mut still = interval(Duration::from_secs(2));
    loop {
        still.tick().await;
        stream.write_all(b"\n").await?;
    }
}
