//! The activator's surroundings: pods that do as they are told, an autoscaler that writes down what it
//! hears, clients, and endpoints to publish.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use http::{Method, Request as HttpRequest, StatusCode};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use pilotlight_activator::{Activator, ActivatorParams, PortIdentity, PortSettings};
use pilotlight_core::{
    PodEndpoint, PodTimeline, RevisionEndpoints, RevisionId, Stat, Timeouts, Trouble, TroubleReason,
};
use pilotlight_feed::Feed;
use pilotlight_net::{
    Body, Client, Clock, Drain, Handler, Request, Response, Target, UpstreamParams, Upstreams, wire,
};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

/// The host that leads to the revision `default/hello`.
pub(crate) const HOST: &str = "hello.example";

/// Waits until `condition` holds; fails the test if it does not within five seconds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < deadline, "not within five seconds: {what}");
        sleep(Duration::from_millis(1)).await;
    }
}

/// Fails the test if the future takes longer than ten seconds.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), future).await.expect("done within ten seconds")
}

pub(crate) fn target(url: &str) -> Target {
    Target::ws(url).expect("a URL")
}

pub(crate) fn hello() -> RevisionId {
    RevisionId::new("default", "hello")
}

/// A revision without pods, for [`HOST`].
pub(crate) fn revision(container_concurrency: u32) -> RevisionEndpoints {
    RevisionEndpoints {
        hosts: vec![HOST.to_owned()],
        container_concurrency: container_concurrency.into(),
        timeouts: Timeouts::total(Duration::from_secs(30)),
        ..RevisionEndpoints::default()
    }
}

pub(crate) fn trouble(give_up: bool) -> Trouble {
    Trouble {
        reason: TroubleReason::Exited,
        message: "`./app` exited".to_owned(),
        exit_code: Some(3),
        log_tail: vec!["no database".to_owned()],
        failures: 3,
        retry_at: None,
        on_demand_at: None,
        give_up,
    }
}

pub(crate) fn pod_at(address: SocketAddr) -> PodEndpoint {
    PodEndpoint {
        name: format!("pod-{}", address.port()),
        address,
        tls_address: None,
        ports: Arc::default(),
        timeline: PodTimeline::default(),
    }
}

/// An activator with its front door open.
pub(crate) struct World {
    pub(crate) activator: Activator,
    pub(crate) address: SocketAddr,
    pub(crate) drain: Drain,
    pub(crate) serving: JoinHandle<()>,
    feed: Feed<RevisionId, RevisionEndpoints>,
    client: Upstreams,
}

impl World {
    /// With no autoscaler to talk to.
    pub(crate) async fn start(revision: RevisionEndpoints) -> World {
        World::start_with(revision, |_| {}).await
    }

    pub(crate) async fn start_with(
        revision: RevisionEndpoints,
        adjust: impl FnOnce(&mut ActivatorParams),
    ) -> World {
        let feed = Feed::default();
        feed.replace([(hello(), revision)].into());
        World::start_at(feed, adjust).await
    }

    /// Before anybody has said what there is.
    pub(crate) async fn start_uninformed() -> World {
        World::start_at(Feed::default(), |_| {}).await
    }

    async fn start_at(
        feed: Feed<RevisionId, RevisionEndpoints>,
        adjust: impl FnOnce(&mut ActivatorParams),
    ) -> World {
        let mut params = ActivatorParams::new("act", Clock::start(), target("ws://127.0.0.1:1"));
        params.drain_wait = Duration::ZERO;
        adjust(&mut params);
        let activator = Activator::start(params, feed.follow());
        let (drain, (address, listener)) = (Drain::default(), listen().await);
        let serving = tokio::spawn({
            let (activator, drain) = (activator.clone(), drain.clone());
            async move { activator.serve(listener, drain).await }
        });
        World { activator, address, drain, serving, feed, client: client() }
    }

    /// Opens a port of the revision's own, by the name `hello/http`.
    pub(crate) async fn open_port(&self, settings: PortSettings) -> OpenPort {
        self.open_port_at(listen().await.1, settings)
    }

    /// The same at this listener's address.
    pub(crate) fn open_port_at(&self, listener: TcpListener, settings: PortSettings) -> OpenPort {
        let (drain, address) = (Drain::default(), listener.local_addr().expect("an address"));
        let settings = watch::Sender::new(Arc::new(settings));
        let identity = PortIdentity { revision: hello(), port: PORT.to_owned() };
        let serving = self.activator.serve_port(listener, identity, settings.subscribe(), drain.clone());
        OpenPort { address, settings, drain, serving: tokio::spawn(serving) }
    }

    /// Changes the revision.
    pub(crate) fn set(&self, change: impl FnOnce(&mut RevisionEndpoints)) {
        let before = self.feed.get(&hello()).expect("the revision is there");
        let mut revision = RevisionEndpoints::clone(&before);
        change(&mut revision);
        self.feed.set(hello(), revision);
    }

    /// Adds a revision of the namespace `default`.
    pub(crate) fn publish(&self, name: &str, revision: RevisionEndpoints) {
        self.feed.set(RevisionId::new("default", name), revision);
    }

    pub(crate) fn delete_revision(&self) {
        self.feed.remove(&hello());
    }

    /// Says for the first time what there is: the revision, and nothing else.
    pub(crate) fn inform(&self, revision: RevisionEndpoints) {
        self.feed.replace([(hello(), revision)].into());
    }

    pub(crate) fn queued(&self) -> usize {
        self.activator.activity()[&hello()].queued
    }

    pub(crate) fn active(&self) -> u32 {
        self.activator.activity()[&hello()].active
    }

    /// The pods in use, by name.
    pub(crate) fn pods(&self) -> Vec<String> {
        self.activator.activity()[&hello()].pods.keys().cloned().collect()
    }

    /// Sends a request in the background.
    pub(crate) fn send(&self, mut request: Request) -> JoinHandle<Response> {
        let (client, address) = (self.client.clone(), self.address);
        tokio::spawn(async move {
            client.send(&Client::ourselves(), address, &mut request).await.expect("the activator answers")
        })
    }

    /// Sends `GET /` in the background.
    pub(crate) fn get(&self) -> JoinHandle<Response> {
        self.send(get("/"))
    }

    /// Sends a request in the background and waits until it is in the queue.
    pub(crate) async fn get_queued(&self, path: &str) -> JoinHandle<Response> {
        let before = self.queued();
        let sent = self.send(get(path));
        eventually("the request waits", || self.queued() == before + 1).await;
        sent
    }

    /// Sends raw bytes over a connection of their own.
    pub(crate) async fn send_raw(&self, bytes: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.expect("the activator listens");
        stream.write_all(bytes.as_bytes()).await.expect("the activator reads");
        stream
    }
}

/// The name of the port of [`World::open_port`].
pub(crate) const PORT: &str = "hello/http";

/// A port of the revision's own.
pub(crate) struct OpenPort {
    pub(crate) address: SocketAddr,
    pub(crate) settings: watch::Sender<Arc<PortSettings>>,
    pub(crate) drain: Drain,
    pub(crate) serving: JoinHandle<()>,
}

impl OpenPort {
    /// Sends a request in the background, over a connection of its own.
    pub(crate) fn send(&self, mut request: Request) -> JoinHandle<Response> {
        let address = self.address;
        tokio::spawn(async move {
            client().send(&Client::ourselves(), address, &mut request).await.expect("the activator answers")
        })
    }

    /// Opens a connection.
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("the activator listens")
    }
}

/// A pod with this port for [`PORT`]. Nobody listens at its first address.
pub(crate) fn pod_with_port(address: SocketAddr) -> PodEndpoint {
    let ports = Arc::new([(PORT.to_owned(), address.port())].into());
    // The discard port: nobody listens there.
    PodEndpoint { ports, ..pod_at(SocketAddr::new(address.ip(), 9)) }
}

pub(crate) fn client() -> Upstreams {
    Upstreams::new(UpstreamParams {
        max_idle_per_host: 100,
        idle_timeout: Duration::from_secs(60),
        connect_timeout: Duration::from_secs(5),
    })
}

pub(crate) fn get(path: &str) -> Request {
    HttpRequest::builder().uri(path).header("host", HOST).body(Body::empty()).expect("a request")
}

pub(crate) fn post(path: &str, body: &'static str) -> Request {
    let request = HttpRequest::builder().method(Method::POST).uri(path).header("host", HOST);
    request.body(Body::full(body)).expect("a request")
}

/// A finished response, as something to compare.
pub(crate) async fn outcome(response: JoinHandle<Response>) -> (u16, String) {
    let (parts, body) = soon(response).await.expect("no panic").into_parts();
    let bytes = soon(body.collect()).await.expect("the whole body").to_bytes();
    (parts.status.as_u16(), String::from_utf8(bytes.to_vec()).expect("text"))
}

pub(crate) async fn listen() -> (SocketAddr, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    (listener.local_addr().expect("an address"), listener)
}

/// A pod: it notes what it gets, answers when it may, and says how many requests it had at once.
#[derive(Clone)]
pub(crate) struct FakePod {
    pub(crate) address: SocketAddr,
    /// One permit, one answer.
    pub(crate) may_answer: Arc<Semaphore>,
    notes: Arc<Mutex<Notes>>,
}

#[derive(Default)]
struct Notes {
    heads: Vec<http::request::Parts>,
    bodies: Vec<String>,
    now: usize,
    most: usize,
}

impl FakePod {
    /// A pod that answers at once.
    pub(crate) async fn start() -> FakePod {
        FakePod::start_at(listen().await.1)
    }

    /// A pod that answers at once, at this listener's address.
    pub(crate) fn start_at(listener: TcpListener) -> FakePod {
        let pod = FakePod::blocked_at(listener);
        pod.may_answer.add_permits(1_000_000);
        pod
    }

    /// A pod that answers only as it is permitted to.
    pub(crate) async fn start_blocked() -> FakePod {
        FakePod::blocked_at(listen().await.1)
    }

    /// The same at this listener's address.
    pub(crate) fn blocked_at(listener: TcpListener) -> FakePod {
        let address = listener.local_addr().expect("an address");
        let pod = FakePod { address, may_answer: Arc::new(Semaphore::new(0)), notes: Arc::default() };
        tokio::spawn(pilotlight_net::serve(listener, Arc::new(pod.clone()), Drain::default()));
        pod
    }

    pub(crate) fn endpoint(&self) -> PodEndpoint {
        pod_at(self.address)
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.notes.lock().heads.iter().map(|head| head.uri.to_string()).collect()
    }

    pub(crate) fn versions(&self) -> Vec<http::Version> {
        self.notes.lock().heads.iter().map(|head| head.version).collect()
    }

    pub(crate) fn bodies(&self) -> Vec<String> {
        self.notes.lock().bodies.clone()
    }

    pub(crate) fn most_at_once(&self) -> usize {
        self.notes.lock().most
    }

    /// A header of the first request; empty if it was not there.
    pub(crate) fn header(&self, name: &str) -> String {
        let notes = self.notes.lock();
        let value = notes.heads[0].headers.get(name).map(|value| value.to_str().expect("text"));
        value.unwrap_or_default().to_owned()
    }
}

impl Handler for FakePod {
    async fn handle(&self, _client: &Client, request: Request) -> Response {
        let (head, body) = request.into_parts();
        {
            let mut notes = self.notes.lock();
            notes.heads.push(head);
            notes.now += 1;
            notes.most = notes.most.max(notes.now);
        }
        let body = body.collect().await.expect("the whole body").to_bytes();
        self.notes.lock().bodies.push(String::from_utf8_lossy(&body).into_owned());
        self.may_answer.acquire().await.expect("never closed").forget();
        self.notes.lock().now -= 1;
        Response::new(Body::full("pod"))
    }
}

/// An autoscaler that writes down every stat it is sent.
pub(crate) struct FakeAutoscaler {
    pub(crate) address: SocketAddr,
    heard: Arc<Mutex<Vec<Stat>>>,
    task: JoinHandle<()>,
}

impl FakeAutoscaler {
    pub(crate) async fn start() -> FakeAutoscaler {
        let (_, listener) = listen().await;
        FakeAutoscaler::on(listener)
    }

    pub(crate) fn on(listener: TcpListener) -> FakeAutoscaler {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let address = listener.local_addr().expect("an address");
        let task = tokio::spawn({
            let heard = Arc::clone(&heard);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let mut socket = tokio_tungstenite::accept_async(stream).await.expect("a handshake");
                    while let Some(Ok(message)) = socket.next().await {
                        let Message::Binary(bytes) = message else { continue };
                        let stats = wire::decode_stats(&bytes).expect("a batch of stats");
                        heard.lock().extend(stats.into_iter().map(|(id, stat)| {
                            assert_eq!(id, hello());
                            stat
                        }));
                    }
                }
            }
        });
        FakeAutoscaler { address, heard, task }
    }

    pub(crate) fn target(&self) -> Target {
        target(&format!("ws://{}", self.address))
    }

    /// Concurrency and count of every stat so far.
    pub(crate) fn heard(&self) -> Vec<(f64, f64)> {
        let pair = |stat: &Stat| (stat.average_concurrent_requests, stat.request_count);
        self.heard.lock().iter().map(pair).collect()
    }

    pub(crate) fn reporters(&self) -> Vec<String> {
        self.heard.lock().iter().map(|stat| stat.pod_name.clone()).collect()
    }

    /// Dies, connections and all, and frees its port.
    pub(crate) async fn kill(self) {
        self.task.abort();
        // Err: it was aborted, which is what was wanted.
        let _ = self.task.await;
    }
}

/// A status as a number, for short assertions.
pub(crate) fn code(response: &Response) -> u16 {
    StatusCode::as_u16(&response.status())
}
