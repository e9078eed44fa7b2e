//! An ingress in small: requests to a revision's public Service, with the headers by which an activator knows them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::names::Names;
use crate::http::Answer;

/// The way to one revision. Clones lead to the same.
#[derive(Clone)]
pub struct Ingress {
    names: Names,
    namespace: String,
    revision: String,
}

impl Ingress {
    /// The way to a revision of this namespace.
    pub fn new(names: &Names, namespace: &str, revision: &str) -> Ingress {
        Ingress { names: names.clone(), namespace: namespace.to_owned(), revision: revision.to_owned() }
    }

    /// Sends `GET path` over a connection of its own, once, and reads the whole response within a minute. An ingress like
    /// Envoy chooses an endpoint for each request; a kept connection to a Service would stay with one.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        let exchange = async {
            let host = format!("{}.{}.svc.cluster.local", self.revision, self.namespace);
            let address = self.names.resolve(&host, 80).with_context(|| format!("{host} has no address"))?;
            let stream = TcpStream::connect(address).await.context("connect")?;
            let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await.context("handshake")?;
            let driver = tokio::spawn(driver);
            let request = Request::get(path)
                .header(header::HOST, format!("{}.example.com", self.revision))
                .header("Knative-Serving-Namespace", &self.namespace)
                .header("Knative-Serving-Revision", &self.revision)
                .body(Empty::<Bytes>::new())?;
            let (head, body) = sender.send_request(request).await.context("send")?.into_parts();
            let body = body.collect().await.context("body")?.to_bytes();
            driver.abort();
            let body = String::from_utf8_lossy(&body).into_owned();
            Ok(Answer { status: head.status, headers: head.headers, body })
        };
        timeout(PATIENCE, exchange).await.with_context(|| format!("no answer within {PATIENCE:?}"))?
    }

    /// Lets so many clients send `GET path`, each again and again, until the load is [finished](IngressLoad::finish).
    pub fn load(&self, clients: usize, path: &str) -> IngressLoad {
        let load =
            IngressLoad { tally: Arc::default(), stop: watch::Sender::new(false), clients: JoinSet::new() };
        let mut load = load;
        for _ in 0..clients {
            let (ingress, path, tally) = (self.clone(), path.to_owned(), Arc::clone(&load.tally));
            let stop = load.stop.subscribe();
            load.clients.spawn(async move {
                while !*stop.borrow() {
                    let outcome = ingress.get(&path).await;
                    tally.lock().note(outcome);
                }
            });
        }
        load
    }
}

/// A load under way. Dropping it cuts its requests.
pub struct IngressLoad {
    tally: Arc<Mutex<Outcomes>>,
    stop: watch::Sender<bool>,
    clients: JoinSet<()>,
}

/// What became of requests.
#[derive(Clone, Debug, Default)]
pub struct Outcomes {
    /// Requests that were answered with 200.
    pub answered: u64,
    /// What became of the others.
    pub lost: Vec<String>,
}

impl IngressLoad {
    /// What became of the requests that have ended.
    pub fn so_far(&self) -> Outcomes {
        self.tally.lock().clone()
    }

    /// Sends no more requests, and waits for those under way.
    pub async fn finish(mut self) -> Outcomes {
        self.stop.send_replace(true);
        while self.clients.join_next().await.is_some() {}
        self.so_far()
    }
}

impl Outcomes {
    fn note(&mut self, outcome: anyhow::Result<Answer>) {
        match outcome {
            Ok(answer) if answer.status == StatusCode::OK => self.answered += 1,
            Ok(answer) => self.lost.push(format!("{}: {}", answer.status, answer.body.trim())),
            Err(error) => self.lost.push(format!("{error:#}")),
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(60);
