//! Well-behaved clients beside a flood.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pilotlight_tests::proxies::HOST;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Two clients, one over each protocol, that send one request after the other.
pub(crate) struct Others {
    is_over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: JoinSet<Calls>,
}

/// Calls of well-behaved clients, and their outcomes.
#[derive(Default)]
pub(crate) struct Calls {
    pub(crate) answered: usize,
    pub(crate) failed: usize,
    pub(crate) slowest: Duration,
}

impl Others {
    pub(crate) fn start(to: SocketAddr) -> Others {
        let (is_over, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut clients = JoinSet::new();
        clients.spawn(over_http_1(to, Arc::clone(&is_over), Arc::clone(&answered)));
        clients.spawn(over_http_2(to, Arc::clone(&is_over), Arc::clone(&answered)));
        Others { is_over, answered, clients }
    }

    /// Calls answered so far.
    pub(crate) fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    pub(crate) async fn finish(self) -> Calls {
        self.is_over.store(true, Ordering::Relaxed);
        let mut all = Calls::default();
        for calls in self.clients.join_all().await {
            all.answered += calls.answered;
            all.failed += calls.failed;
            all.slowest = all.slowest.max(calls.slowest);
        }
        all
    }
}

async fn over_http_1(to: SocketAddr, is_over: Arc<AtomicBool>, answered: Arc<AtomicUsize>) -> Calls {
    let stream = TcpStream::connect(to).await.expect("a connection");
    let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await.expect("a connection");
    tokio::spawn(driver);
    let mut calls = Calls::default();
    while !is_over.load(Ordering::Relaxed) {
        let request = Request::post("/").header("host", HOST).body(Full::new(Bytes::from_static(b"1234")));
        calls.count(sender.send_request(request.expect("a request"))).await;
        answered.fetch_add(1, Ordering::Relaxed);
    }
    calls
}

async fn over_http_2(to: SocketAddr, is_over: Arc<AtomicBool>, answered: Arc<AtomicUsize>) -> Calls {
    let stream = TcpStream::connect(to).await.expect("a connection");
    let (mut sender, driver) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("a connection");
    tokio::spawn(driver);
    let mut calls = Calls::default();
    while !is_over.load(Ordering::Relaxed) {
        let request = Request::post(format!("http://{HOST}/")).body(Full::new(Bytes::from_static(b"1234")));
        calls.count(sender.send_request(request.expect("a request"))).await;
        answered.fetch_add(1, Ordering::Relaxed);
    }
    calls
}

impl Calls {
    async fn count(
        &mut self,
        call: impl Future<Output = hyper::Result<http::Response<hyper::body::Incoming>>>,
    ) {
        let began = Instant::now();
        let answer = async { hyper::Result::Ok(call.await?.into_body().collect().await?.to_bytes()) };
        match timeout(Duration::from_secs(10), answer).await {
            Ok(Ok(body)) if body == "4" => self.answered += 1,
            other => {
                eprintln!("a call of others failed: {other:?}");
                self.failed += 1;
            }
        }
        self.slowest = self.slowest.max(began.elapsed());
        // A pause, so that these clients are no load of their own.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
