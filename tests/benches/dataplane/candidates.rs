//! Candidates that are measured: the app by itself, the bare relay, nginx, our queue-proxy, our activator, and whatever a peer
//! brings.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use anyhow::Context;
use pilotlight_tests::{binary, eventually, http};
use serde_json::json;
use tempfile::TempDir;

use crate::endpoints::Endpoints;
use crate::process::{Meter, Process, free_ports};
use crate::wrk::Shape;

/// A running proxy (or the app itself), ready for requests.
pub(crate) struct Candidate {
    pub(crate) name: String,
    pub(crate) port: u16,
    /// The `Host` to ask for.
    pub(crate) host: String,
    pub(crate) meter: Meter,
    /// After its first request, before any load.
    pub(crate) idle_mib: f64,
    /// With more requests at a time it refuses some, as it should.
    pub(crate) most_requests: u32,
    /// On the same port as HTTP/1.1, by prior knowledge.
    pub(crate) speaks_http2: bool,
    _process: Option<Process>,
    _folder: Option<TempDir>,
}

/// Against which all others are measured; always the second.
pub(crate) const RELAY: usize = 1;
pub(crate) const QUEUE_PROXY: &str = "queue-proxy";
pub(crate) const ACTIVATOR: &str = "activator, 1 pod";

/// Starts everything there is, the app and the relay first.
pub(crate) async fn all(
    apps: &[u16],
    app: &Process,
    endpoints: &Endpoints,
) -> anyhow::Result<Vec<Candidate>> {
    let mut candidates = vec![
        Candidate::ready("app, no proxy", apps[0], "app", app.meter()).await?,
        relay(apps[0]).await?,
        queue_proxy(QUEUE_PROXY, apps[0], 0).await?,
        queue_proxy("queue-proxy, 10 at a time", apps[0], 10).await?,
        activator(ACTIVATOR, "one", endpoints).await?,
        activator("activator, 8 pods", "eight", endpoints).await?,
    ];
    match nginx(apps[0]).await? {
        Some(nginx) => candidates.push(nginx),
        None => eprintln!("no nginx in PATH: measuring without it"),
    }
    if let Ok(peer) = env::var("PEER") {
        candidates.push(named_peer(&peer).await.with_context(|| format!("PEER={peer}: want name=port:pid"))?);
    }
    Ok(candidates)
}

impl Candidate {
    /// Waits for the first answer.
    async fn ready(name: &str, port: u16, host: &str, meter: Meter) -> anyhow::Result<Candidate> {
        first_answer(name, port, host).await;
        Ok(Candidate {
            name: name.to_owned(),
            port,
            host: host.to_owned(),
            meter,
            idle_mib: meter.resident_mib(),
            most_requests: u32::MAX,
            speaks_http2: true,
            _process: None,
            _folder: None,
        })
    }

    /// Whether it can be asked so.
    pub(crate) fn takes(&self, shape: Shape) -> bool {
        shape.requests() <= self.most_requests && (self.speaks_http2 || !shape.is_http2())
    }

    fn of(self, process: Process) -> Self {
        Candidate { _process: Some(process), ..self }
    }
}

/// Waits until a proxy that was just started has brought a request to the app and back.
pub(crate) async fn first_answer(name: &str, port: u16, host: &str) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    eventually(name, Duration::from_secs(10), async || {
        http::get(address, host, "/0").await.ok().filter(|answer| answer.status == 200)
    })
    .await;
}

async fn relay(app: u16) -> anyhow::Result<Candidate> {
    let (process, ports) = Process::start_role(crate::RELAY_ROLE, &app.to_string())?;
    Ok(Candidate::ready("bare relay", ports[0], "app", process.meter()).await?.of(process))
}

/// Idle memory, in MiB, of a queue-proxy that is the subcommand of the whole command.
pub(crate) async fn idle_subcommand(app: u16) -> anyhow::Result<f64> {
    let ports = free_ports()?;
    let process = Process::start(in_pod(subcommand(), app, 0, ports))?;
    first_answer("pilotlight queue-proxy", ports[0], "app").await;
    Ok(process.meter().resident_mib())
}

async fn queue_proxy(name: &str, app: u16, concurrency: u32) -> anyhow::Result<Candidate> {
    let ports = free_ports()?;
    let process = Process::start(queue_proxy_command(app, concurrency, ports))?;
    let candidate = Candidate::ready(name, ports[0], "app", process.meter()).await?;
    // Ten wait for each that runs; what is beyond is answered 503.
    let most_requests = if concurrency == 0 { u32::MAX } else { concurrency * 11 };
    Ok(Candidate { most_requests, ..candidate }.of(process))
}

/// The queue-proxy that a pod runs: the small executable beside the command, or its subcommand where there is none. The
/// first port is where it takes requests.
pub(crate) fn queue_proxy_command(app: u16, concurrency: u32, ports: [u16; 4]) -> Command {
    let small = binary().with_file_name("pilotlight-queue-proxy");
    in_pod(if small.is_file() { Command::new(small) } else { subcommand() }, app, concurrency, ports)
}

fn subcommand() -> Command {
    let mut command = Command::new(binary());
    command.arg("queue-proxy");
    command
}

/// Puts everything in the environment of a queue-proxy that a controller would put there.
fn in_pod(mut command: Command, app: u16, concurrency: u32, ports: [u16; 4]) -> Command {
    let [port, stats, metrics, admin] = ports;
    let probe = json!({ "tcpSocket": { "host": "127.0.0.1", "port": app }, "successThreshold": 1 });
    command.envs([
        ("CONTAINER_CONCURRENCY", concurrency.to_string()),
        ("QUEUE_SERVING_PORT", port.to_string()),
        ("QUEUE_SERVING_TLS_PORT", "8112".to_owned()),
        ("USER_PORT", app.to_string()),
        ("REVISION_TIMEOUT_SECONDS", "300".to_owned()),
        ("REVISION_RESPONSE_START_TIMEOUT_SECONDS", "300".to_owned()),
        ("REVISION_IDLE_TIMEOUT_SECONDS", "60".to_owned()),
        ("SERVING_READINESS_PROBE", probe.to_string()),
        ("SERVING_LOGGING_CONFIG", String::new()),
        ("SERVING_LOGGING_LEVEL", String::new()),
        ("SERVING_NAMESPACE", "bench".to_owned()),
        ("SERVING_CONFIGURATION", "app".to_owned()),
        ("SERVING_REVISION", "app-00001".to_owned()),
        ("SERVING_SERVICE", "app".to_owned()),
        ("SERVING_POD", "app-00001-0".to_owned()),
        ("SERVING_POD_IP", "127.0.0.1".to_owned()),
        ("PILOTLIGHT_BIND_ADDRESS", "127.0.0.1".to_owned()),
        ("PILOTLIGHT_METRICS_PORT", stats.to_string()),
        ("PILOTLIGHT_USER_METRICS_PORT", metrics.to_string()),
        ("PILOTLIGHT_ADMIN_PORT", admin.to_string()),
    ]);
    command
}

async fn activator(name: &str, revision: &str, endpoints: &Endpoints) -> anyhow::Result<Candidate> {
    let [port, admin] = free_ports()?;
    let process = Process::start(activator_command(port, admin, endpoints))?;
    let host = format!("{revision}.bench.svc.cluster.local");
    Ok(Candidate::ready(name, port, &host, process.meter()).await?.of(process))
}

/// An activator that follows our table. Its autoscaler is away, which it takes calmly.
pub(crate) fn activator_command(port: u16, admin: u16, endpoints: &Endpoints) -> Command {
    let mut command = Command::new(binary());
    command.arg("activator").args([
        "--listen",
        &format!("127.0.0.1:{port}"),
        "--admin",
        &format!("127.0.0.1:{admin}"),
        "--endpoints",
        &endpoints.url(),
        // The discard port: nobody listens there.
        "--autoscaler",
        "ws://127.0.0.1:9",
    ]);
    command
}

async fn nginx(app: u16) -> anyhow::Result<Option<Candidate>> {
    let in_path = |folder: &Path| folder.join("nginx").is_file();
    if !env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| in_path(&folder))) {
        return Ok(None);
    }
    let [port] = free_ports()?;
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("nginx.conf");
    fs::write(&config, nginx_config(port, app))?;
    let mut command = Command::new("nginx");
    command.arg("-e").arg("stderr").arg("-p").arg(folder.path()).arg("-c").arg(config);
    let process = Process::start(command)?;
    let candidate = Candidate::ready("nginx", port, "app", process.meter()).await?;
    Ok(Some(Candidate { _folder: Some(folder), speaks_http2: false, ..candidate }.of(process)))
}

/// A proxy of one process that keeps its connections and writes nothing to disk.
fn nginx_config(port: u16, app: u16) -> String {
    let scratch = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("    {kind}_temp_path {kind};\n"))
        .concat();
    format!(
        "daemon off;
worker_processes 1;
pid nginx.pid;
events {{ worker_connections 4096; }}
http {{
    access_log off;
{scratch}    keepalive_requests 1000000000;
    upstream app {{
        server 127.0.0.1:{app};
        keepalive 1000;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_max_temp_file_size 0;
            proxy_set_header Connection \"\";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
}}
"
    )
}

/// `name=port:pid`: somebody else's proxy, already in front of an app that serves what ours does.
async fn named_peer(peer: &str) -> anyhow::Result<Candidate> {
    let (name, place) = peer.split_once('=').context("no `=`")?;
    let (port, pid) = place.split_once(':').context("no `:`")?;
    let candidate = Candidate::ready(name, port.parse()?, "app", Meter::of(pid.parse()?)).await?;
    Ok(Candidate { speaks_http2: false, ..candidate })
}
