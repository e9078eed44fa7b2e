//! Memory of the proxies while clients do their worst: `cargo bench -p pilotlight-tests --bench memory`, about two minutes.
//!
//! Each recipe has a process of its own, the real binary. Its peak is the largest resident memory so far (`VmHWM`); "after"
//! is what is resident once all clients have left. While a recipe runs, well-behaved clients of another revision send
//! requests, all of which must be answered. Goals are checked; the exit code says whether all were met. With arguments,
//! only the recipes whose names contain one of them run.

mod app;
mod frames;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pilotlight_tests::eventually;
use pilotlight_tests::proxies::Proxy;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::frames::Frames;

fn main() -> ExitCode {
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut missed = false;
    println!("{:<62} {:>7} {:>7} {:>7} {:>7}   others", "MiB", "idle", "peak", "held", "after");
    for recipe in RECIPES
        .iter()
        .filter(|recipe| asked.is_empty() || asked.iter().any(|word| recipe.name.contains(word.as_str())))
    {
        let figures = runtime.block_on(recipe.measure()).expect(recipe.name);
        let met = figures.peak <= MAX_PEAK_MIB && figures.after <= MAX_AFTER_MIB && figures.failed == 0;
        missed |= !met;
        println!(
            "{:<62} {:>7.1} {:>7.1} {:>7.1} {:>7.1}   {} served, {} failed {}",
            recipe.name,
            figures.idle,
            figures.peak,
            figures.held,
            figures.after,
            figures.served,
            figures.failed,
            if met { "" } else { "MISSED" }
        );
    }
    println!("goals: peak <= {MAX_PEAK_MIB} MiB, after <= {MAX_AFTER_MIB} MiB, no failed request of others");
    if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

const MAX_PEAK_MIB: f64 = 160.0;
const MAX_AFTER_MIB: f64 = 40.0;

struct Recipe {
    name: &'static str,
    proxy: Kind,
    attack: Attack,
}

#[derive(Clone, Copy)]
enum Kind {
    Activator,
    QueueProxy,
}

#[derive(Clone, Copy)]
enum Attack {
    /// Connections, each with 250 POSTs of so many bytes to a revision at zero.
    ParkedPosts { connections: usize, bytes: usize },
    /// Connections, each with a GET and a head of 1 MB, to a revision at zero.
    ParkedHeads { connections: usize },
    /// The same over HTTP/2: connections, each with so many streams.
    ParkedHeads2 { connections: usize, streams: usize },
    /// Heads over HTTP/1.1 that never end.
    UnfinishedHeads { connections: usize },
    /// Connections, each with so many GETs of 50 MB, windows open, sockets not read.
    Unread { connections: usize, streams: usize },
    /// Connections, each with so many GETs whose cookie comes in 16,000 crumbs, to a revision at zero.
    Crumbs { connections: usize, streams: usize },
    /// The same with a field that is no cookie.
    Fields { connections: usize, streams: usize },
}

const RECIPES: &[Recipe] = &[
    Recipe {
        name: "activator: 40 HTTP/2 clients park 250 POSTs of 64 KiB each",
        proxy: Kind::Activator,
        attack: Attack::ParkedPosts { connections: 40, bytes: 64 << 10 },
    },
    Recipe {
        name: "activator: 40 HTTP/2 clients park 250 POSTs of 1 MiB each",
        proxy: Kind::Activator,
        attack: Attack::ParkedPosts { connections: 40, bytes: 1 << 20 },
    },
    Recipe {
        name: "activator: 400 HTTP/1.1 clients park a head of 1 MB",
        proxy: Kind::Activator,
        attack: Attack::ParkedHeads { connections: 400 },
    },
    Recipe {
        name: "activator: 4 HTTP/2 clients park 100 heads of 1 MB each",
        proxy: Kind::Activator,
        attack: Attack::ParkedHeads2 { connections: 4, streams: 100 },
    },
    Recipe {
        name: "activator: 400 HTTP/1.1 clients do not finish a head of 1 MB",
        proxy: Kind::Activator,
        attack: Attack::UnfinishedHeads { connections: 400 },
    },
    Recipe {
        name: "activator: 40 HTTP/2 clients do not read 250 x 50 MB each",
        proxy: Kind::Activator,
        attack: Attack::Unread { connections: 40, streams: 250 },
    },
    Recipe {
        name: "queue-proxy: 40 HTTP/2 clients do not read 250 x 50 MB each",
        proxy: Kind::QueueProxy,
        attack: Attack::Unread { connections: 40, streams: 250 },
    },
    Recipe {
        name: "activator: 10 HTTP/2 clients park 100 cookies of 16,000 crumbs",
        proxy: Kind::Activator,
        attack: Attack::Crumbs { connections: 10, streams: 100 },
    },
    Recipe {
        name: "activator: 10 HTTP/2 clients send 100 heads of 16,000 fields",
        proxy: Kind::Activator,
        attack: Attack::Fields { connections: 10, streams: 100 },
    },
];

struct Figures {
    idle: f64,
    peak: f64,
    /// While the clients are still there, and nothing changes any more.
    held: f64,
    after: f64,
    served: usize,
    failed: usize,
}

impl Recipe {
    async fn measure(&self) -> anyhow::Result<Figures> {
        let app = app::start().await?;
        let proxy = match self.proxy {
            Kind::Activator => Proxy::activator(&[("app", &[WARM], &[app]), ("cold", &[COLD], &[])]).await,
            Kind::QueueProxy => Proxy::queue_proxy(app, &[]).await,
        };
        let pid = proxy.pid();
        post(proxy.address, 1000).await?;
        let idle = memory_mib(pid, "VmRSS:");
        let others = Others::start(proxy.address);
        let held = self.attack.run(pid, proxy.address).await?;
        let (served, failed) = others.finish().await;
        let peak = memory_mib(pid, "VmHWM:");
        // The clients have left: what is resident after a while stays so.
        let until = Instant::now() + AFTER;
        while memory_mib(pid, "VmRSS:") > MAX_AFTER_MIB && Instant::now() < until {
            pause().await;
        }
        Ok(Figures { idle, peak, held, after: memory_mib(pid, "VmRSS:"), served, failed })
    }
}

impl Attack {
    /// Attacks until the memory of the process does not change any more, which is returned; all connections are closed
    /// then.
    async fn run(self, pid: u32, to: SocketAddr) -> anyhow::Result<f64> {
        let mut clients = JoinSet::new();
        match self {
            Attack::ParkedPosts { connections, bytes } => {
                let body = Bytes::from(vec![0; bytes]);
                for _ in 0..connections {
                    clients.spawn(park_posts(to, body.clone()));
                }
            }
            Attack::ParkedHeads { connections } => {
                for _ in 0..connections {
                    clients.spawn(send_and_stay(to, large_head("\r\n")));
                }
            }
            Attack::UnfinishedHeads { connections } => {
                for _ in 0..connections {
                    clients.spawn(send_and_stay(to, large_head("")));
                }
            }
            Attack::ParkedHeads2 { connections, streams } => {
                let mut block = frames::get(COLD, "/");
                let value = "x".repeat(100_000);
                (0..10).for_each(|at| frames::add_field(&mut block, &format!("x-{at}"), &value));
                spawn_frames(&mut clients, to, connections, streams, block);
            }
            Attack::Unread { connections, streams } => {
                spawn_frames(&mut clients, to, connections, streams, frames::get(WARM, "/huge"));
            }
            Attack::Crumbs { connections, streams } => {
                let mut block = frames::get(COLD, "/");
                frames::add_field_again_and_again(&mut block, "cookie", "a=b", 16_000);
                spawn_frames(&mut clients, to, connections, streams, block);
            }
            Attack::Fields { connections, streams } => {
                let mut block = frames::get(COLD, "/");
                frames::add_field_again_and_again(&mut block, "x-a", "b", 16_000);
                spawn_frames(&mut clients, to, connections, streams, block);
            }
        }
        wait_for_calm(pid).await;
        let held = memory_mib(pid, "VmRSS:");
        clients.shutdown().await;
        Ok(held)
    }
}

fn spawn_frames(
    clients: &mut JoinSet<anyhow::Result<()>>,
    to: SocketAddr,
    connections: usize,
    streams: usize,
    block: Vec<u8>,
) {
    let block: Arc<[u8]> = block.into();
    for _ in 0..connections {
        let block = Arc::clone(&block);
        clients.spawn(async move {
            let mut client = Frames::connect(to).await?;
            for _ in 0..streams {
                if client.request(&block).await.is_err() {
                    break;
                }
            }
            std::future::pending().await
        });
    }
}

/// A client that waits for the answers to 250 requests at a time.
async fn park_posts(to: SocketAddr, body: Bytes) -> anyhow::Result<()> {
    let stream = TcpStream::connect(to).await?;
    let (sender, connection) =
        http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream)).await?;
    let calls = (0..250).map(|_| {
        let (mut sender, body) = (sender.clone(), Full::new(body.clone()));
        async move {
            sender.ready().await?;
            let request = Request::post(format!("http://{COLD}/")).body(body).expect("a request");
            sender.send_request(request).await?.into_body().collect().await
        }
    });
    let (_, answers) = tokio::join!(connection, join_all(calls));
    anyhow::ensure!(answers.is_empty(), "the connection has ended");
    Ok(())
}

/// A head of 1 MB, with this end.
fn large_head(end: &str) -> String {
    let field = format!("x-{}: {}\r\n", "a", "x".repeat(100_000));
    format!("GET / HTTP/1.1\r\nHost: {COLD}\r\n{}{end}", field.repeat(10))
}

async fn send_and_stay(to: SocketAddr, bytes: String) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(to).await?;
    stream.write_all(bytes.as_bytes()).await?;
    std::future::pending().await
}

/// Well-behaved clients: one after the other, a GET or a POST to the revision that has a pod.
struct Others {
    is_over: Arc<AtomicBool>,
    counts: Arc<[AtomicUsize; 2]>,
    task: tokio::task::JoinHandle<()>,
}

impl Others {
    fn start(to: SocketAddr) -> Others {
        let (is_over, counts) = (Arc::<AtomicBool>::default(), Arc::<[AtomicUsize; 2]>::default());
        let (over, counted) = (Arc::clone(&is_over), Arc::clone(&counts));
        let task = tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                for bytes in [0, 300_000] {
                    let answered = tokio::time::timeout(Duration::from_secs(10), post(to, bytes)).await;
                    let failed = !matches!(&answered, Ok(Ok(())));
                    if failed {
                        eprintln!("a request of others failed: {answered:?}");
                    }
                    counted[usize::from(failed)].fetch_add(1, Ordering::Relaxed);
                }
                pause().await;
            }
        });
        Others { is_over, counts, task }
    }

    async fn finish(self) -> (usize, usize) {
        self.is_over.store(true, Ordering::Relaxed);
        // Err: a panic, which has been printed.
        let _ = self.task.await;
        (self.counts[0].load(Ordering::Relaxed), self.counts[1].load(Ordering::Relaxed))
    }
}

/// A POST over HTTP/2, on a connection of its own, that the app answers with the number of bytes it got.
async fn post(to: SocketAddr, bytes: usize) -> anyhow::Result<()> {
    let stream = TcpStream::connect(to).await?;
    let (mut sender, connection) =
        http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::post(format!("http://{WARM}/")).body(Full::new(Bytes::from(vec![0; bytes])))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    anyhow::ensure!(body == bytes.to_string(), "{status}: {}", String::from_utf8_lossy(&body));
    connection.abort();
    Ok(())
}

/// Waits until resident memory has not changed by a MiB for two seconds.
async fn wait_for_calm(pid: u32) {
    let (mut last, mut since) = (0.0, Instant::now());
    eventually("calm", Duration::from_secs(60), async || {
        let now = memory_mib(pid, "VmRSS:");
        if (now - last).abs() > 1.0 {
            (last, since) = (now, Instant::now());
        }
        (since.elapsed() >= Duration::from_secs(2)).then_some(())
    })
    .await;
}

fn memory_mib(pid: u32, field: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let row = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    row.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or_default() / 1024.0
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Time in which memory must have been given back.
const AFTER: Duration = Duration::from_secs(10);

/// The host of a revision that has a pod, and of one that has none.
const WARM: &str = "warm.example";
const COLD: &str = "cold.example";
