//! Figures that are no rate: how soon a queue-proxy answers after its start, and what requests cost that are in flight or
//! parked.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use std::{io, thread};

use anyhow::{Context, ensure};
use pilotlight_tests::{eventually, http};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::candidates::{activator_command, first_answer, queue_proxy_command};
use crate::endpoints::Endpoints;
use crate::process::{Process, free_ports};

/// From the start of a queue-proxy's process to its first yes to a readiness probe, in milliseconds: for that the
/// app was asked, too.
pub(crate) fn start_to_first_probe(app: u16) -> anyhow::Result<f64> {
    let ports = free_ports()?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports[0]));
    let started = Instant::now();
    let mut process = Process::start(queue_proxy_command(app, 0, ports))?;
    loop {
        match probe(address) {
            Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => break,
            Ok(answer) => ensure!(answer.is_empty(), "the probe was answered {answer:?}"),
            Err(error) => ensure!(error.kind() == io::ErrorKind::ConnectionRefused, error),
        }
        ensure!(process.is_running(), "the queue-proxy ended");
        ensure!(started.elapsed() < PATIENCE, "no queue-proxy within {PATIENCE:?}");
        thread::sleep(KNOCK_EVERY);
    }
    Ok(started.elapsed().as_secs_f64() * 1e3)
}

fn probe(to: SocketAddr) -> io::Result<String> {
    let mut stream = std::net::TcpStream::connect(to)?;
    stream.write_all(
        b"GET /healthz HTTP/1.1\r\nHost: app\r\nUser-Agent: kube-probe/1.34\r\n\
        K-Network-Probe: queue\r\nConnection: close\r\n\r\n",
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Resident memory of a queue-proxy with so many requests in flight, in MiB.
pub(crate) async fn memory_in_flight(app: u16, requests: usize) -> anyhow::Result<f64> {
    let ports = free_ports()?;
    let process = Process::start(queue_proxy_command(app, 0, ports))?;
    first_answer("a queue-proxy", ports[0], "app").await;
    let app = SocketAddr::from((Ipv4Addr::LOCALHOST, app));
    let _clients = Clients::connect(ports[0], requests).await?.ask("app", "/hold").await?;
    eventually("all requests in flight", PATIENCE, async || {
        let held = http::get(app, "app", "/held").await.ok()?;
        (held.body.parse() == Ok(requests)).then_some(())
    })
    .await;
    Ok(process.meter().resident_mib())
}

/// Memory of an activator for each client, in KiB.
pub(crate) struct Parked {
    /// A connection that waits for its next request.
    pub(crate) connection_kib: f64,
    /// A connection whose request waits for a pod.
    pub(crate) request_kib: f64,
}

/// Parks so many requests in an activator.
pub(crate) async fn parked(endpoints: &Endpoints, requests: usize) -> anyhow::Result<Parked> {
    let [port, admin] = free_ports()?;
    let process = Process::start(activator_command(port, admin, endpoints))?;
    let meter = process.meter();
    // The first answer says that the table is there, and takes what is allocated once and for all.
    first_answer("an activator", port, ONE_POD).await;
    let idle = meter.resident_mib();
    let clients = Clients::connect(port, requests).await?;
    // Answered once each, so that a connection has allocated what it keeps.
    let clients = clients.ask(ONE_POD, "/0").await?.read().await?;
    let connected = meter.resident_mib();
    let _clients = clients.ask(NO_PODS, "/0").await?;
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, admin));
    eventually("all requests parked", PATIENCE, async || {
        let activity = http::get(admin, "admin", "/v1/activity").await.ok()?;
        let activity: Value = serde_json::from_str(&activity.body).ok()?;
        (activity["bench/parked"]["queued"] == requests).then_some(())
    })
    .await;
    let each = |mib: f64| (mib - idle) * 1024.0 / requests as f64;
    Ok(Parked { connection_kib: each(connected), request_kib: each(meter.resident_mib()) })
}

/// Connections to one server.
struct Clients(Vec<TcpStream>);

impl Clients {
    async fn connect(port: u16, count: usize) -> io::Result<Clients> {
        let mut streams = Vec::with_capacity(count);
        for _ in 0..count {
            streams.push(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?);
        }
        Ok(Clients(streams))
    }

    /// Sends one request each.
    async fn ask(mut self, host: &str, path: &str) -> io::Result<Clients> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        for stream in &mut self.0 {
            stream.write_all(request.as_bytes()).await?;
        }
        Ok(self)
    }

    /// Reads one response each, which has no body.
    async fn read(mut self) -> anyhow::Result<Clients> {
        for stream in &mut self.0 {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                ensure!(stream.read_buf(&mut head).await? > 0, "a connection was closed");
            }
            ensure!(head.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&head));
        }
        Ok(self)
    }
}

/// Lets us, and all we start from now on, have so many files open at once.
pub(crate) fn raise_open_files(wanted: u64) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: Some(wanted), ..limit };
        setrlimit(Resource::Nofile, raised).with_context(|| format!("cannot open {wanted} files"))?;
    }
    Ok(())
}

const ONE_POD: &str = "one.bench.svc.cluster.local";
const NO_PODS: &str = "parked.bench.svc.cluster.local";
const PATIENCE: Duration = Duration::from_secs(20);
const KNOCK_EVERY: Duration = Duration::from_micros(200);
