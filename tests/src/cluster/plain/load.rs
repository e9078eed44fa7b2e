//! Clients of a workload, from within the cluster: by its Service's name, each request once, and every outcome counted.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::{AppPort, PlainCluster, WorkloadSpec};
use crate::cluster::Names;

/// The way in which a client sends its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// HTTP/1.1, a connection for each request.
    Once,
    /// HTTP/1.1 over a kept connection. A request on a connection that ends before the first byte of a response is sent
    /// again over a new one, as by every client (RFC 9112, section 9.3.1).
    Kept,
    /// HTTP/2 by prior knowledge over a kept connection.
    Http2,
    /// A line over a TCP connection of its own.
    Line,
}

/// The outcome of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests that were sent.
    pub sent: u64,
    /// Requests that a pod of the workload answered.
    pub answered: u64,
    /// Requests that were sent again, since their kept connection had ended.
    pub repeated: u64,
    /// Requests without an answer, or with another than 200: when, and what came instead.
    pub lost: Vec<String>,
    /// Answers of somebody else's pod.
    pub wrong: Vec<String>,
}

/// A load under way. Dropping it cuts its requests.
pub struct PlainLoad {
    tally: Arc<Mutex<Tally>>,
    stop: watch::Sender<bool>,
    clients: JoinSet<()>,
}

impl PlainCluster {
    /// Lets so many clients send requests to this port of a workload, each again and again, until the load is
    /// [finished](PlainLoad::finish). With the path `/?sleep=200` a request takes so many milliseconds.
    pub fn load(&self, workload: &str, port: &AppPort, way: Way, clients: usize, path: &str) -> PlainLoad {
        let mut load =
            PlainLoad { tally: Arc::default(), stop: watch::Sender::new(false), clients: JoinSet::new() };
        for _ in 0..clients {
            let mut client = self.client_of(workload, port, way, path);
            client.tally = Arc::clone(&load.tally);
            let stop = load.stop.subscribe();
            load.clients.spawn(async move {
                while !*stop.borrow() {
                    client.ask().await;
                }
            });
        }
        load
    }

    /// Sends one request.
    pub async fn ask(&self, workload: &str, port: &AppPort, way: Way, path: &str) -> Tally {
        self.begin(workload, port, way, path).await.expect("a client does not panic")
    }

    /// Sends one request, and goes on meanwhile.
    pub fn begin(&self, workload: &str, port: &AppPort, way: Way, path: &str) -> JoinHandle<Tally> {
        let mut client = self.client_of(workload, port, way, path);
        tokio::spawn(async move {
            client.ask().await;
            client.tally.lock().clone()
        })
    }

    /// Where a port of a workload's Service is.
    pub fn address(&self, workload: &str, port: &AppPort) -> Option<SocketAddr> {
        self.small.names.resolve(&host_of(workload, &self.namespace), port.port)
    }

    fn client_of(&self, workload: &str, port: &AppPort, way: Way, path: &str) -> LoadClient {
        LoadClient {
            names: self.small.names.clone(),
            workload: workload.to_owned(),
            host: host_of(workload, &self.namespace),
            port: port.port,
            way,
            path: path.to_owned(),
            tally: Arc::default(),
            kept: None,
        }
    }
}

impl PlainLoad {
    /// The outcome of the requests that have ended.
    pub fn so_far(&self) -> Tally {
        self.tally.lock().clone()
    }

    /// Sends no more requests, and waits for those under way.
    pub async fn finish(mut self) -> Tally {
        self.stop.send_replace(true);
        while self.clients.join_next().await.is_some() {}
        self.so_far()
    }
}

impl Tally {
    /// Adds what another has counted.
    pub fn add(&mut self, other: Tally) {
        self.sent += other.sent;
        self.answered += other.answered;
        self.repeated += other.repeated;
        self.lost.extend(other.lost);
        self.wrong.extend(other.wrong);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { sent, answered, repeated, lost, wrong } = self;
        let (lost, wrong) = (lost.len(), wrong.len());
        write!(
            f,
            "{sent} sent, {answered} answered, {repeated} repeated, {lost} lost, {wrong} by a wrong pod"
        )
    }
}

/// A client, which asks one thing after the other.
struct LoadClient {
    names: Names,
    workload: String,
    host: String,
    port: u16,
    way: Way,
    path: String,
    tally: Arc<Mutex<Tally>>,
    kept: Option<Kept>,
}

enum Kept {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

impl LoadClient {
    async fn ask(&mut self) {
        self.tally.lock().sent += 1;
        let begun = Timestamp::now();
        let outcome = match timeout(PATIENCE, self.exchange()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(anyhow::anyhow!("no answer within {PATIENCE:?}")),
        };
        let mut tally = self.tally.lock();
        match outcome {
            Ok(answer) if WorkloadSpec::is_of(&self.workload, &answer) => tally.answered += 1,
            Ok(answer) => tally.wrong.push(format!("{begun:.3} {}: {}", self.workload, answer.trim())),
            Err(error) => {
                self.kept = None;
                let ended = Timestamp::now();
                tally
                    .lost
                    .push(format!("{begun:.3} to {ended:.3} {} {:?}: {error:#}", self.workload, self.way));
            }
        }
    }

    async fn exchange(&mut self) -> anyhow::Result<String> {
        if self.way == Way::Line {
            return self.line().await;
        }
        let request = || {
            Request::get(format!("http://{}{}", self.host, self.path))
                .header(header::HOST, &self.host)
                .body(Empty::<Bytes>::new())
        };
        let mut kept = self.kept.take().filter(Kept::is_open);
        let is_reused = kept.is_some();
        let mut connection = match kept.take() {
            Some(kept) => kept,
            None => self.connect().await?,
        };
        let response = match connection.send(request()?).await {
            Err(_) if is_reused => {
                self.tally.lock().repeated += 1;
                connection = self.connect().await?;
                connection.send(request()?).await
            }
            other => other,
        };
        let (head, body) = response.context("send")?.into_parts();
        let body = body.collect().await.context("body")?.to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        ensure!(head.status == StatusCode::OK, "{}: {}", head.status, body.trim());
        if self.way != Way::Once {
            self.kept = Some(connection);
        }
        Ok(body)
    }

    async fn connect(&self) -> anyhow::Result<Kept> {
        let stream = self.stream().await?;
        Ok(match self.way {
            Way::Http2 => {
                let (sender, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
                tokio::spawn(driver);
                Kept::Http2(sender)
            }
            _ => {
                let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
                tokio::spawn(driver);
                Kept::Http1(sender)
            }
        })
    }

    async fn line(&self) -> anyhow::Result<String> {
        let mut stream = BufReader::new(self.stream().await?);
        let said = self.path.trim_start_matches("/?");
        stream.write_all(format!("{said}\n").as_bytes()).await.context("write")?;
        let mut line = String::new();
        stream.read_line(&mut line).await.context("read")?;
        ensure!(line.ends_with(&format!(": {said}\n")), "{line:?} instead of an answer");
        Ok(line)
    }

    async fn stream(&self) -> anyhow::Result<TcpStream> {
        let host = &self.host;
        let address =
            self.names.resolve(host, self.port).with_context(|| format!("{host} has no address"))?;
        let stream = TcpStream::connect(address).await.context("connect")?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Kept {
    fn is_open(&self) -> bool {
        match self {
            Kept::Http1(sender) => !sender.is_closed(),
            Kept::Http2(sender) => !sender.is_closed(),
        }
    }

    async fn send(&mut self, request: Request<Empty<Bytes>>) -> anyhow::Result<http::Response<Incoming>> {
        match self {
            Kept::Http1(sender) => {
                sender.ready().await?;
                let (mut head, body) = request.into_parts();
                head.uri = head.uri.path_and_query().context("a path")?.as_str().parse()?;
                Ok(sender.send_request(Request::from_parts(head, body)).await?)
            }
            Kept::Http2(sender) => {
                sender.ready().await?;
                let (mut head, body) = request.into_parts();
                head.headers.remove(header::HOST);
                Ok(sender.send_request(Request::from_parts(head, body)).await?)
            }
        }
    }
}

fn host_of(workload: &str, namespace: &str) -> String {
    format!("{workload}.{namespace}.svc.cluster.local")
}

const PATIENCE: Duration = Duration::from_secs(60);
