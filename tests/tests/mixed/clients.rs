//! The clients of the mixed test. Each says what became of everything it did.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use pilotlight_tests::eventually;
use pilotlight_tests::talk::{H2, Talk};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// The clients' present task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Requests one after the other, each of half a second; half of the conversations are short.
    Busy,
    /// A request now and then; the conversations under way go on.
    Calm,
    /// Requests under way are brought to their end.
    Over,
}

/// Kinds that are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Http1,
    Http2,
    WebSocket,
    Grpc,
}

/// Clients at work.
pub(crate) struct Clients {
    phase: watch::Sender<Phase>,
    done: Arc<Mutex<Done>>,
    tasks: JoinSet<()>,
}

/// The clients' count so far.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Requests answered and words said back.
    exchanges: BTreeMap<Kind, u64>,
    /// Conversations brought to their proper end.
    conversations: BTreeMap<Kind, u64>,
    /// How many are under way with each pod.
    talking: BTreeMap<String, u64>,
    /// The pods whose conversations lasted from before the calm to the end.
    pub(crate) pods_held: BTreeSet<String>,
    /// Everything that was lost or cut.
    pub(crate) failures: Vec<String>,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Done { exchanges, conversations, pods_held, failures, .. } = self;
        let failures = failures.len();
        write!(
            f,
            "exchanges {exchanges:?}, conversations ended {conversations:?}, held at {pods_held:?}, {failures} failures"
        )
    }
}

impl Clients {
    /// Opens every connection, then begins.
    pub(crate) async fn start(to: SocketAddr) -> Clients {
        let phase = watch::Sender::new(Phase::Busy);
        let done = Arc::<Mutex<Done>>::default();
        let mut tasks = JoinSet::new();
        let mut started = 0;
        let mut start = |kind, work: Work| {
            started += 1;
            // In turn, rather than all at once.
            let first_pause = CALM_PAUSE * (started * 37 % 100) / 100;
            let phase = phase.subscribe();
            let client = Client { kind, phase, calm_pause: first_pause, done: Arc::clone(&done) };
            tasks.spawn(client.run(work));
        };
        for _ in 0..HTTP1_CONNECTIONS {
            let stream = TcpStream::connect(to).await.expect("a connection");
            stream.set_nodelay(true).expect("a connection");
            let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.expect("a connection");
            tokio::spawn(driver);
            start(Kind::Http1, Work::Http1(sender));
        }
        for _ in 0..HTTP2_CONNECTIONS {
            let connection = H2::connect(to).await.expect("a connection");
            for _ in 0..STREAMS_A_CONNECTION {
                start(Kind::Http2, Work::Http2(connection.clone()));
            }
        }
        for number in 0..WEBSOCKETS {
            start(Kind::WebSocket, Work::Talk { way: Way::WebSocket(to), is_short: number % 2 == 0 });
        }
        for _ in 0..GRPC_CONNECTIONS {
            let connection = H2::connect(to).await.expect("a connection");
            for number in 0..GRPC_STREAMS / GRPC_CONNECTIONS {
                let way = Way::Grpc(connection.clone());
                start(Kind::Grpc, Work::Talk { way, is_short: number % 2 == 0 });
            }
        }
        Clients { phase, done, tasks }
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Fails the test now, rather than after the last deadline.
    pub(crate) fn fail_early(&self) {
        let failures = &self.done.lock().failures;
        assert!(failures.is_empty(), "{failures:#?}");
    }

    /// Waits until every kind of client has done so much more that each single one, on the average, has done
    /// something.
    pub(crate) async fn every_kind_goes_on(&self) {
        let before = self.done.lock().exchanges.clone();
        let more = |kind, clients: usize| {
            let count = |exchanges: &BTreeMap<Kind, u64>| exchanges.get(&kind).copied().unwrap_or_default();
            count(&self.done.lock().exchanges) >= count(&before) + clients as u64
        };
        eventually("everybody goes on", PATIENCE, async || {
            self.fail_early();
            let all = more(Kind::Http1, HTTP1_CONNECTIONS)
                && more(Kind::Http2, HTTP2_CONNECTIONS * STREAMS_A_CONNECTION)
                && more(Kind::WebSocket, WEBSOCKETS)
                && more(Kind::Grpc, GRPC_STREAMS);
            all.then_some(())
        })
        .await;
    }

    /// Waits until those who talk briefly have begun again, on the average, with whichever pods there are now.
    pub(crate) async fn short_conversations_begin_anew(&self) {
        let count = |kind| self.done.lock().conversations.get(&kind).copied().unwrap_or_default();
        let kinds = [(Kind::WebSocket, WEBSOCKETS), (Kind::Grpc, GRPC_STREAMS)];
        let enough = kinds.map(|(kind, clients)| (kind, count(kind) + clients as u64));
        eventually("new conversations", PATIENCE, async || {
            self.fail_early();
            enough.iter().all(|(kind, enough)| count(*kind) >= *enough).then_some(())
        })
        .await;
    }

    /// Waits until several pods have conversations. Where one begins is a matter of who has least to do at the moment.
    pub(crate) async fn several_pods_talk(&self) {
        eventually("conversations with several pods", PATIENCE, async || {
            self.fail_early();
            (self.done.lock().talking.values().filter(|talks| **talks > 0).count() >= 3).then_some(())
        })
        .await;
    }

    /// Brings everything to its end.
    pub(crate) async fn finish(&mut self) -> Done {
        self.enter(Phase::Over);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("no client panics");
        }
        std::mem::take(&mut *self.done.lock())
    }
}

/// One client's task, and its tools.
enum Work {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(H2),
    Talk { way: Way, is_short: bool },
}

/// How a client begins a conversation.
enum Way {
    WebSocket(SocketAddr),
    Grpc(H2),
}

impl Way {
    async fn begin(&mut self) -> anyhow::Result<Talk> {
        match self {
            Way::WebSocket(to) => Talk::socket(*to, "localhost").await,
            Way::Grpc(over) => Talk::call(over, "localhost").await,
        }
    }
}

struct Client {
    kind: Kind,
    phase: watch::Receiver<Phase>,
    /// How long to wait for the next request in the calm.
    calm_pause: Duration,
    done: Arc<Mutex<Done>>,
}

impl Client {
    async fn run(mut self, work: Work) {
        let result = match work {
            Work::Http1(sender) => self.ask_over_http1(sender).await,
            Work::Http2(connection) => self.ask_over_http2(connection).await,
            Work::Talk { way, is_short } => self.talk(way, is_short).await,
        };
        if let Err(error) = result {
            let phase = *self.phase.borrow();
            self.done.lock().failures.push(format!("{:?}, {phase:?}: {error:#}", self.kind));
        }
    }

    async fn ask_over_http1(&mut self, mut sender: http1::SendRequest<Empty<Bytes>>) -> anyhow::Result<()> {
        while let Some(path) = self.next_request().await {
            sender.ready().await.context("the connection was cut")?;
            let request = Request::get(path).header(header::HOST, "localhost").body(Empty::new())?;
            let exchange = async { check(sender.send_request(request).await.context("send")?).await };
            timeout(PATIENCE, exchange).await.context("no answer")??;
            self.exchanged();
        }
        Ok(())
    }

    async fn ask_over_http2(&mut self, mut connection: H2) -> anyhow::Result<()> {
        while let Some(path) = self.next_request().await {
            let request = Request::get(format!("http://localhost{path}"));
            let request = request.body(Empty::new().map_err(|never| match never {}).boxed())?;
            let exchange = async { check(connection.send(request).await?).await };
            timeout(PATIENCE, exchange).await.context("no answer")??;
            self.exchanged();
        }
        Ok(())
    }

    /// The next thing to ask for, when it is time; `None`: no more.
    async fn next_request(&mut self) -> Option<&'static str> {
        let phase = *self.phase.borrow_and_update();
        match phase {
            Phase::Busy => Some("/?sleep=500"),
            Phase::Calm => {
                let pause = std::mem::replace(&mut self.calm_pause, CALM_PAUSE);
                tokio::select! {
                    () = sleep(pause) => Some("/?sleep=100"),
                    _ = self.phase.wait_for(|phase| *phase == Phase::Over) => None,
                }
            }
            Phase::Over => None,
        }
    }

    /// Talks. A short conversation is followed by the next one until the calm begins.
    async fn talk(&mut self, mut way: Way, is_short: bool) -> anyhow::Result<()> {
        loop {
            let mut talk = timeout(PATIENCE, way.begin()).await.context("no beginning")?.context("begin")?;
            let pod = talk.pod().to_owned();
            ensure!(!pod.is_empty(), "a pod without a name");
            *self.done.lock().talking.entry(pod.clone()).or_default() += 1;
            let mut words = 0_u32;
            let is_held = loop {
                let phase = *self.phase.borrow_and_update();
                if phase == Phase::Over {
                    break true;
                }
                if is_short && phase == Phase::Busy && words >= SHORT_WORDS {
                    break false;
                }
                words += 1;
                let word = format!("word {words}");
                timeout(PATIENCE, talk.say(&word)).await.context("no echo")?.with_context(|| word.clone())?;
                self.exchanged();
                sleep(BETWEEN_WORDS).await;
            };
            timeout(PATIENCE, talk.end()).await.context("no end")?.context("end")?;
            let mut done = self.done.lock();
            *done.conversations.entry(self.kind).or_default() += 1;
            *done.talking.entry(pod.clone()).or_default() -= 1;
            if is_held {
                done.pods_held.insert(pod);
                return Ok(());
            }
        }
    }

    fn exchanged(&self) {
        *self.done.lock().exchanges.entry(self.kind).or_default() += 1;
    }
}

async fn check(response: http::Response<Incoming>) -> anyhow::Result<()> {
    let (head, body) = response.into_parts();
    let body = body.collect().await.context("body")?.to_bytes();
    ensure!(head.status == StatusCode::OK, "{} {body:?}", head.status);
    ensure!(body.ends_with(b" in flight.\n"), "not what the app says: {body:?}");
    Ok(())
}

const HTTP1_CONNECTIONS: usize = 200;
const HTTP2_CONNECTIONS: usize = 20;
const STREAMS_A_CONNECTION: usize = 10;
const WEBSOCKETS: usize = 20;
const GRPC_CONNECTIONS: usize = 2;
const GRPC_STREAMS: usize = 10;

/// After so many words a short conversation ends.
const SHORT_WORDS: u32 = 10;
const BETWEEN_WORDS: Duration = Duration::from_millis(100);
/// Between two requests of one client in the calm.
const CALM_PAUSE: Duration = Duration::from_secs(4);
/// A request that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(30);
