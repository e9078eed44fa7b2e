//! A small HTTP/1.1 load generator that hides nothing.
//!
//! Every request is sent once, never retried, and counted with what became of it. Latency counts from the moment a
//! request was due, not from when a connection was free for it: a server that stalls is not excused from the
//! requests that could not be sent meanwhile ("coordinated omission").

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::latency::{Outcome, RequestSummary, Tally};

/// A load to put on one address: `GET` requests over kept connections.
///
/// ```no_run
/// # async fn example() -> Result<(), pilotlight_cli::load::BadLoad> {
/// use pilotlight_cli::load::{End, Load, Mode};
/// use std::time::Duration;
/// let mut load = Load::new(([127, 0, 0, 1], 8080).into());
/// load.connections = 50;
/// load.mode = Mode::Open { rate_per_second: 1000.0 };
/// load.end = End::After(Duration::from_secs(10));
/// println!("{}", load.run().await?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Load {
    /// The address to connect to.
    pub address: SocketAddr,
    /// The path and query of every request.
    pub path: String,
    /// The `Host` header; `None`: the address.
    pub host: Option<String>,
    /// Number of connections. Each carries one request at a time (no pipelining) and is kept alive.
    pub connections: u32,
    /// The times at which requests are due.
    pub mode: Mode,
    /// The end of the load. Requests in flight are waited for.
    pub end: End,
    /// The longest a request may take, from when it is sent.
    pub timeout: Duration,
}

/// The times at which requests are due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// Closed loop: on each connection as soon as the request before has ended.
    Closed,
    /// Open loop: at even intervals, whatever became of the requests before. A request waits if all connections are
    /// busy, and the wait counts.
    Open {
        /// Requests a second over all connections.
        rate_per_second: f64,
    },
}

/// The end of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// After this time.
    After(Duration),
    /// After this many requests.
    Requests(u64),
}

/// A load that makes no sense.
#[derive(Debug, PartialEq, Eq)]
pub struct BadLoad(String);

impl fmt::Display for BadLoad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for BadLoad {}

impl Load {
    /// `GET /` on one connection, again and again for ten seconds, each within 30 s.
    pub fn new(address: SocketAddr) -> Self {
        Load {
            address,
            path: "/".to_owned(),
            host: None,
            connections: 1,
            mode: Mode::Closed,
            end: End::After(Duration::from_secs(10)),
            timeout: Duration::from_secs(30),
        }
    }

    /// Puts the load on and waits for the last response.
    pub async fn run(self) -> Result<RequestSummary, BadLoad> {
        Ok(self.start()?.finish().await)
    }

    /// Puts the load on in the background of the current runtime.
    pub fn start(self) -> Result<RunningLoad, BadLoad> {
        let state = Arc::new(LoadState::new(self)?);
        let mut workers = JoinSet::new();
        for _ in 0..state.load.connections {
            workers.spawn(work(Arc::clone(&state)));
        }
        Ok(RunningLoad { state, workers })
    }
}

/// A load under way. Dropping it cuts its connections.
#[derive(Debug)]
pub struct RunningLoad {
    state: Arc<LoadState>,
    workers: JoinSet<()>,
}

impl RunningLoad {
    /// Outcome of the requests that have ended so far.
    pub fn so_far(&self) -> RequestSummary {
        self.state.tally.lock().summary()
    }

    /// Requests sent and not ended.
    pub fn in_flight(&self) -> u32 {
        self.state.in_flight.load(Ordering::Relaxed)
    }

    /// Whether every request has ended.
    pub fn is_finished(&mut self) -> bool {
        while self.workers.try_join_next().is_some() {}
        self.workers.is_empty()
    }

    /// Sends no more requests; those in flight go on.
    pub fn stop(&self) {
        self.state.stopped.send_replace(true);
    }

    /// Waits until the load has ended and every request with it.
    pub async fn finish(mut self) -> RequestSummary {
        while let Some(worker) = self.workers.join_next().await {
            if let Err(error) = worker
                && let Ok(panic) = error.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        }
        self.so_far()
    }
}

/// A load under way, as all its connections share it.
#[derive(Debug)]
struct LoadState {
    load: Load,
    uri: Uri,
    host: HeaderValue,
    start: Instant,
    /// Requests given out to connections so far.
    next: AtomicU64,
    in_flight: AtomicU32,
    stopped: watch::Sender<bool>,
    tally: Mutex<Tally>,
}

impl LoadState {
    fn new(load: Load) -> Result<LoadState, BadLoad> {
        if load.connections == 0 {
            return Err(BadLoad("a load needs at least one connection".to_owned()));
        }
        if let Mode::Open { rate_per_second: rate } = load.mode
            && !(rate.is_finite() && rate > 0.0)
        {
            return Err(BadLoad(format!("{rate} is not a rate: more than 0 requests a second are needed")));
        }
        // Without the slash the text would be read as a host name.
        if !load.path.starts_with('/') {
            return Err(BadLoad(format!("path {:?} does not begin with a slash", load.path)));
        }
        let uri = load.path.parse().map_err(|error| BadLoad(format!("path {:?}: {error}", load.path)))?;
        let host = load.host.clone().unwrap_or_else(|| load.address.to_string());
        let host = host.try_into().map_err(|error| BadLoad(format!("host {:?}: {error}", load.host)))?;
        Ok(LoadState {
            load,
            uri,
            host,
            start: Instant::now(),
            next: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            stopped: watch::Sender::new(false),
            tally: Mutex::default(),
        })
    }

    /// Takes the next request: when it is due, or `None` if the load has ended.
    fn take(&self) -> Option<Instant> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let due = match self.load.mode {
            Mode::Closed => Instant::now(),
            Mode::Open { rate_per_second } => {
                let offset = Duration::try_from_secs_f64(number as f64 / rate_per_second).ok()?;
                self.start.checked_add(offset)?
            }
        };
        let within = match self.load.end {
            End::After(time) => due.duration_since(self.start) < time,
            End::Requests(count) => number < count,
        };
        (within && !*self.stopped.borrow()).then_some(due)
    }

    fn request(&self) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.uri.clone();
        request.headers_mut().insert(header::HOST, self.host.clone());
        request
    }
}

/// One connection's share of the load. It takes the next request before that is due and sleeps until then; if it
/// comes late, because the one before took long, the delay is part of the latency.
async fn work(state: Arc<LoadState>) {
    let mut connection = None;
    let mut stopped = state.stopped.subscribe();
    while let Some(due) = state.take() {
        let is_early = due > Instant::now();
        if is_early {
            tokio::select! {
                () = sleep_until(due) => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
        }
        let sent = Instant::now();
        // The timer wakes up to a millisecond late, which is not the server's latency.
        let counts_from = if is_early { sent.min(due + TIMER_RESOLUTION) } else { due };
        let in_flight = InFlight::new(&state.in_flight);
        let outcome = match timeout(state.load.timeout, send(&state, &mut connection)).await {
            Ok(Ok((status, bytes))) => Outcome::Answered { status, bytes },
            Ok(Err(error)) => Outcome::Failed { error },
            Err(_) => Outcome::Failed { error: "timed out".to_owned() },
        };
        drop(in_flight);
        let ended = Instant::now();
        let start = state.start;
        state.tally.lock().record(sent - start, ended - start, ended - counts_from, outcome);
    }
}

/// Sends one request over the kept connection, or a new one if there is none, and reads the whole response. Only
/// after that is the connection kept for another.
async fn send(
    state: &LoadState,
    connection: &mut Option<SendRequest<Empty<Bytes>>>,
) -> Result<(u16, u64), String> {
    // A connection that the server has closed meanwhile is not used: nothing was sent, so nothing is retried.
    let kept = match connection.take() {
        Some(mut kept) => kept.ready().await.is_ok().then_some(kept),
        None => None,
    };
    let mut sender = match kept {
        Some(kept) => kept,
        None => connect(state.load.address).await.map_err(|error| name_error("connect", error.as_ref()))?,
    };
    let response = sender.send_request(state.request()).await.map_err(|error| name_error("send", &error))?;
    let status = response.status().as_u16();
    let bytes = drain(response.into_body()).await.map_err(|error| name_error("body", &error))?;
    *connection = Some(sender);
    Ok((status, bytes))
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Empty<Bytes>>, Box<dyn Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
    // The driver ends when the sender is dropped; its errors also come out of the sender.
    tokio::spawn(driver);
    Ok(sender)
}

async fn drain(mut body: Incoming) -> Result<u64, hyper::Error> {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame?.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(bytes)
}

/// Names a failure: the same words for the same kind, without ports or numbers that would tell them apart.
fn name_error<'a>(step: &str, error: &'a (dyn Error + 'static)) -> String {
    let mut source: Option<&'a (dyn Error + 'static)> = Some(error);
    let mut name = None;
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            name = Some(error.kind().to_string());
        } else if let Some(error) = error.downcast_ref::<hyper::Error>() {
            if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
                name = Some("connection closed before the response was whole".to_owned());
            } else if error.is_parse() {
                name = Some("malformed response".to_owned());
            }
        }
        source = error.source();
    }
    format!("{step}: {}", name.unwrap_or_else(|| error.to_string()))
}

/// Most that tokio's timer is late.
const TIMER_RESOLUTION: Duration = Duration::from_millis(1);

/// Counts one request in flight until it is dropped, also when its other end has left.
pub(crate) struct InFlight<'a>(&'a AtomicU32);

impl<'a> InFlight<'a> {
    pub(crate) fn new(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        InFlight(count)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

    /// A server that answers each request with what `answer` says for its number. What is no whole response with
    /// two bytes of body, or none, is the last thing on its connection; `None` never answers.
    async fn server(answer: impl Fn(u64) -> Option<&'static [u8]> + Clone + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let requests = Arc::new(AtomicU64::new(0));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (answer, requests) = (answer.clone(), Arc::clone(&requests));
                tokio::spawn(async move {
                    let mut seen = Vec::new();
                    while stream.read_buf(&mut seen).await.is_ok_and(|bytes| bytes > 0) {
                        if seen.ends_with(b"\r\n\r\n") {
                            seen.clear();
                            let number = requests.fetch_add(1, Ordering::Relaxed);
                            let Some(bytes) = answer(number) else { continue };
                            stream.write_all(bytes).await.expect("client reads");
                            if !bytes.ends_with(b"\r\n\r\n") && bytes != OK {
                                return;
                            }
                        }
                    }
                });
            }
        });
        address
    }

    fn load(address: SocketAddr, requests: u64) -> Load {
        Load { end: End::Requests(requests), timeout: Duration::from_secs(5), ..Load::new(address) }
    }

    #[tokio::test]
    async fn a_closed_loop_sends_exactly_what_was_asked() {
        let address = server(|_| Some(OK)).await;
        let summary = Load { connections: 7, ..load(address, 100) }.run().await.expect("a legal load");
        assert_eq!((summary.requests, summary.succeeded(), summary.bytes_in), (100, 100, 200));
        assert!(summary.errors.is_empty());
    }

    #[tokio::test]
    async fn an_answer_that_is_not_2xx_counts_as_failed() {
        let address = server(|number| {
            let busy = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
            Some(if number % 10 == 0 { busy } else { OK })
        });
        let summary = load(address.await, 50).run().await.expect("a legal load");
        assert_eq!((summary.succeeded(), summary.failed()), (45, 5));
        assert_eq!(summary.status_codes[&503], 5);
    }

    #[tokio::test]
    async fn a_connection_cut_is_recorded_and_not_retried() {
        let address = server(|number| Some(if number == 3 { b"" } else { OK })).await;
        let summary = load(address, 10).run().await.expect("a legal load");
        assert_eq!((summary.requests, summary.succeeded()), (10, 9));
        assert_eq!(summary.errors["send: connection closed before the response was whole"], 1);
    }

    #[tokio::test]
    async fn a_body_cut_short_is_a_failure_even_with_status_200() {
        let address = server(|_| Some(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nshort")).await;
        let summary = load(address, 1).run().await.expect("a legal load");
        assert_eq!((summary.succeeded(), summary.status_codes[&0]), (0, 1), "{:?}", summary.errors);
        assert_eq!(summary.errors["body: unexpected end of file"], 1);
    }

    #[tokio::test]
    async fn a_refused_connection_has_its_own_name() {
        let address =
            TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("bound");
        let summary = load(address, 3).run().await.expect("a legal load");
        assert_eq!(summary.errors["connect: connection refused"], 3);
        assert_eq!(summary.status_codes[&0], 3);
    }

    #[tokio::test]
    async fn nonsense_is_an_error_and_not_an_answer() {
        let address = server(|_| Some(b"220 mail.example.org ESMTP\r\n\r\n")).await;
        let summary = load(address, 1).run().await.expect("a legal load");
        assert_eq!(summary.errors["send: malformed response"], 1);
    }

    #[tokio::test]
    async fn an_open_loop_counts_latency_from_when_a_request_was_due() {
        // The first request is never answered and times out after 300 ms on the only connection. Those that
        // were due meanwhile (one each 10 ms) have waited for it.
        let address = server(|number| (number > 0).then_some(OK)).await;
        let mode = Mode::Open { rate_per_second: 100.0 };
        let load = Load { mode, timeout: Duration::from_millis(300), ..load(address, 30) };
        let summary = load.run().await.expect("a legal load");
        assert_eq!(summary.errors["timed out"], 1);
        assert_eq!(summary.succeeded(), 29);
        // The wait shrinks from 290 ms in steps of 10 ms, so half of the requests waited for about 150 ms.
        assert!(summary.latency.p50 >= Duration::from_millis(140), "{:?}", summary.latency);
    }

    #[tokio::test]
    async fn an_open_loop_keeps_its_rate() {
        let address = server(|_| Some(OK)).await;
        let mode = Mode::Open { rate_per_second: 500.0 };
        let load = Load { mode, connections: 5, ..load(address, 100) };
        let summary = load.run().await.expect("a legal load");
        assert_eq!(summary.succeeded(), 100);
        // 100 requests at 500 a second: the last is due after 198 ms, not before.
        assert!(summary.duration >= Duration::from_millis(198), "{:?}", summary.duration);
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_request_of_a_closed_loop_is_due_at_once_so_no_timer_is_set() {
        let nowhere = ([127, 0, 0, 1], 1).into();
        let state = LoadState::new(load(nowhere, 500)).expect("a legal load");
        for _ in 0..500 {
            assert_eq!(state.take(), Some(Instant::now()));
        }
        assert_eq!(state.take(), None);
    }

    #[tokio::test]
    async fn a_running_load_can_be_watched_and_stopped() {
        let address = server(|_| Some(OK)).await;
        let load = Load { end: End::After(Duration::from_secs(3600)), ..load(address, 0) };
        let mut running = load.start().expect("a legal load");
        while running.so_far().requests < 10 {
            tokio::task::yield_now().await;
        }
        assert!(!running.is_finished());
        running.stop();
        let summary = running.finish().await;
        assert_eq!(summary.requests, summary.succeeded());
    }

    #[tokio::test]
    async fn stopping_does_not_wait_for_requests_that_were_not_due_yet() {
        let address = server(|_| Some(OK)).await;
        let mode = Mode::Open { rate_per_second: 0.001 };
        let running = Load { mode, connections: 3, ..load(address, 10) }.start().expect("a legal load");
        while running.so_far().requests < 1 {
            tokio::task::yield_now().await;
        }
        running.stop();
        let summary = timeout(Duration::from_secs(5), running.finish()).await.expect("it ends at once");
        assert_eq!(summary.requests, 1);
    }

    #[test]
    fn loads_that_make_no_sense_are_refused() {
        let good = Load::new(([127, 0, 0, 1], 80).into());
        let nan = Mode::Open { rate_per_second: f64::NAN };
        for bad in [
            Load { connections: 0, ..good.clone() },
            Load { mode: nan, ..good.clone() },
            Load { path: "no path".to_owned(), ..good.clone() },
            Load { host: Some("a\nb".to_owned()), ..good },
        ] {
            assert!(LoadState::new(bad).is_err());
        }
    }
}
