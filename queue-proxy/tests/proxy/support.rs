//! A queue-proxy on free ports, an app made of a closure, and a client that speaks by the byte.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pilotlight_config::process::QueueProxyEnv;
use pilotlight_core::Stat;
use pilotlight_net::{Body, Drain, Handler, Request, Response, serve, wire};
use pilotlight_queue_proxy::{Addresses, QueueProxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Nothing here takes long; what takes longer hangs.
pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), work).await.unwrap_or_else(|_| panic!("never came: {what}"))
}

pub(crate) async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    soon(what, async {
        while !condition().await {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

pub(crate) fn env(app: SocketAddr, changes: &[(&str, &str)]) -> QueueProxyEnv {
    let user_port = app.port().to_string();
    let mut all = BTreeMap::from([
        ("CONTAINER_CONCURRENCY", "0"),
        ("QUEUE_SERVING_PORT", "0"),
        ("QUEUE_SERVING_TLS_PORT", "8112"),
        ("USER_PORT", &user_port),
        ("REVISION_TIMEOUT_SECONDS", "300"),
        ("SERVING_LOGGING_CONFIG", ""),
        ("SERVING_LOGGING_LEVEL", ""),
        ("SERVING_NAMESPACE", "default"),
        ("SERVING_CONFIGURATION", "hello"),
        ("SERVING_REVISION", "hello-00001"),
        ("SERVING_POD", "pod-1"),
        ("SERVING_POD_IP", "127.0.0.1"),
        ("PILOTLIGHT_BIND_ADDRESS", "127.0.0.1"),
        ("PILOTLIGHT_METRICS_PORT", "0"),
        ("PILOTLIGHT_ADMIN_PORT", "0"),
        ("PILOTLIGHT_USER_METRICS_PORT", "0"),
        ("PILOTLIGHT_DRAIN_QUIET_PERIOD", "100ms"),
        ("OBSERVABILITY_CONFIG", r#"{"requestMetrics":{"protocol":"prometheus"}}"#),
    ]);
    all.extend(changes.iter().copied());
    QueueProxyEnv::from_env(|name| all.get(name).map(|&value| value.to_owned())).unwrap()
}

/// A queue-proxy that has not been told to stop.
pub(crate) struct Running {
    pub(crate) at: Addresses,
    pub(crate) task: JoinHandle<()>,
    stop: Option<oneshot::Sender<()>>,
}

impl Running {
    pub(crate) async fn start(env: QueueProxyEnv) -> Self {
        let proxy = QueueProxy::bind(env).await.unwrap();
        let at = proxy.addresses().unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(proxy.serve(async move {
            let _ = stopped.await;
        }));
        Running { at, task, stop: Some(stop) }
    }

    /// Asks it to stop, as SIGTERM does.
    pub(crate) fn terminate(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    pub(crate) async fn ask(&self, head: &str) -> String {
        ask(self.at.requests, head).await
    }

    /// The page that Prometheus would see.
    pub(crate) async fn metrics(&self) -> String {
        ask(self.at.user_metrics.unwrap(), "GET /metrics HTTP/1.1").await
    }

    /// The next report after this moment.
    pub(crate) async fn next_report(&self) -> Stat {
        let before = self.report().await.process_uptime;
        let mut next = Stat::default();
        soon("a report", async {
            while next.process_uptime <= before {
                sleep(Duration::from_millis(5)).await;
                next = self.report().await;
            }
        })
        .await;
        next
    }

    async fn report(&self) -> Stat {
        let (_, body) = ask_bytes(self.at.stats, "GET /metrics HTTP/1.1").await;
        wire::decode_stat(&body).unwrap()
    }
}

/// An app made of a closure, at its address until the test ends.
pub(crate) async fn app<R>(answer: impl Fn(Request) -> R + Send + Sync + 'static) -> SocketAddr
where
    R: Future<Output = Response> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    app_on(listener, answer);
    address
}

/// The same, behind this listener.
pub(crate) fn app_on<R>(listener: TcpListener, answer: impl Fn(Request) -> R + Send + Sync + 'static)
where
    R: Future<Output = Response> + Send + 'static,
{
    struct Answer<F>(F);
    impl<F: Fn(Request) -> R + Send + Sync + 'static, R: Future<Output = Response> + Send + 'static> Handler
        for Answer<F>
    {
        fn handle(
            &self,
            _: &pilotlight_net::Client,
            request: Request,
        ) -> impl Future<Output = Response> + Send {
            (self.0)(request)
        }
    }
    tokio::spawn(serve(listener, Arc::new(Answer(answer)), Drain::default()));
}

/// An app that answers with the lines of the head it saw, lower case and sorted.
pub(crate) async fn mirror() -> SocketAddr {
    app(|request: Request| async move {
        let line = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            format!("{name}: {}", value.to_str().unwrap())
        };
        let mut lines: Vec<String> = request.headers().iter().map(line).collect();
        lines.push(format!("{} {}", request.method(), request.uri()));
        lines.sort();
        Response::new(Body::full(lines.join("\n")))
    })
    .await
}

/// An app whose requests stay until they are let go.
pub(crate) struct Gate {
    pub(crate) address: SocketAddr,
    pub(crate) inside: Arc<AtomicUsize>,
    pub(crate) most: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

struct Leaving(Arc<AtomicUsize>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Gate {
    pub(crate) async fn closed() -> Self {
        let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let gate = Arc::new(Semaphore::new(0));
        let shared = (Arc::clone(&inside), Arc::clone(&most), Arc::clone(&gate));
        let address = app(move |_| {
            let (inside, most, gate) = shared.clone();
            async move {
                let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                // Also when whoever asked has left.
                let _leaving = Leaving(inside);
                gate.acquire().await.unwrap().forget();
                Response::new(Body::full("through"))
            }
        })
        .await;
        Gate { address, inside, most, gate }
    }

    pub(crate) fn let_through(&self, requests: usize) {
        self.gate.add_permits(requests);
    }

    pub(crate) async fn holds(&self, requests: usize) {
        until("requests in the app", async || self.inside.load(Ordering::SeqCst) == requests).await;
    }
}

/// Sends a head (lines separated by `\n`, Host and the end are added) and reads until the connection closes.
pub(crate) async fn ask(to: SocketAddr, head: &str) -> String {
    let (mut text, body) = ask_bytes(to, head).await;
    text.push_str(&String::from_utf8(body).unwrap());
    text
}

pub(crate) async fn ask_bytes(to: SocketAddr, head: &str) -> (String, Vec<u8>) {
    let mut stream = send(to, head).await;
    let mut all = Vec::new();
    // A reset is an end, too.
    let _ = soon("the response", stream.read_to_end(&mut all)).await;
    let end = all.windows(4).position(|window| window == b"\r\n\r\n").map_or(all.len(), |at| at + 4);
    let body = all.split_off(end);
    (String::from_utf8(all).unwrap(), body)
}

pub(crate) async fn send(to: SocketAddr, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let host = if head.to_ascii_lowercase().contains("\nhost:") { "" } else { "\nHost: h" };
    let text = format!("{head}{host}\nConnection: close\n\n").replace('\n', "\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

pub(crate) fn status(response: &str) -> u16 {
    response
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("{response:?}"))
}

pub(crate) fn body(response: &str) -> &str {
    response.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{response:?}")).1
}

pub(crate) const GET: &str = "GET / HTTP/1.1";

/// An address where nobody listens, now or later.
pub(crate) fn nobody() -> SocketAddr {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    // Bound for as long as the tests run, so that nobody else gets it; and it never listens.
    std::mem::forget(socket);
    address
}
