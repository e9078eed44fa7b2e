//! Whether the app is ready: asked when somebody asks us, never on our own account.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use parking_lot::Mutex;
use pilotlight_config::process::{ProbeAction, ProbePace, ReadinessProbe};
use pilotlight_net::probe::{ProbeError, connect, probe};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

/// The app's readiness probes. Concurrent questions share one run and its answer.
#[derive(Debug)]
pub(crate) struct Readiness {
    probes: Arc<Vec<Prober>>,
    run: Mutex<Option<watch::Receiver<Option<bool>>>>,
}

impl Readiness {
    /// Without probes the app is always ready.
    pub(crate) fn new(probes: &[ReadinessProbe]) -> Self {
        Readiness { probes: Arc::new(probes.iter().map(Prober::new).collect()), run: Mutex::default() }
    }

    /// Runs all probes side by side; all must succeed. With the aggressive pace this waits up to ten seconds for the
    /// app, and answers the moment it is ready. A run goes on when the one who asked has left: the next one who asks
    /// gets its answer.
    pub(crate) async fn is_ready(&self) -> bool {
        if self.probes.is_empty() {
            return true;
        }
        let mut run = self.join_run();
        // The error is a run that panicked.
        run.wait_for(Option::is_some).await.is_ok_and(|answer| *answer == Some(true))
    }

    fn join_run(&self) -> watch::Receiver<Option<bool>> {
        let mut current = self.run.lock();
        if let Some(run) = &*current
            && run.borrow().is_none()
            && run.has_changed().is_ok()
        {
            return run.clone();
        }
        let (answer, run) = watch::channel(None);
        let probes = Arc::clone(&self.probes);
        tokio::spawn(async move {
            let answers = join_all(probes.iter().map(Prober::run)).await;
            answer.send_replace(Some(answers.into_iter().all(|ready| ready)));
        });
        *current = Some(run.clone());
        run
    }
}

#[derive(Debug)]
struct Prober {
    action: Action,
    success_threshold: u32,
    pace: ProbePace,
    // How long one aggressive run keeps trying.
    patience: Duration,
    // In a row, over all runs.
    successes: AtomicU32,
    // So that a probe that keeps failing is logged once.
    failing: AtomicBool,
}

#[derive(Debug)]
enum Action {
    Http { to: SocketAddr, path: String, headers: HeaderMap },
    Tcp { to: SocketAddr },
    Unsupported(&'static str),
}

impl Prober {
    fn new(probe: &ReadinessProbe) -> Self {
        let action = match &probe.action {
            ProbeAction::Http { https: true, .. } => {
                Action::Unsupported("probes over https are not supported yet")
            }
            ProbeAction::Http { host, port, path, headers, .. } => {
                let to = SocketAddr::new(*host, *port);
                Action::Http { to, path: path.clone(), headers: probe_headers(headers) }
            }
            ProbeAction::Tcp { host, port } => Action::Tcp { to: SocketAddr::new(*host, *port) },
            ProbeAction::Grpc { .. } => Action::Unsupported("gRPC probes are not supported yet"),
            ProbeAction::Exec => Action::Unsupported("exec probe not supported"),
            ProbeAction::Nothing => Action::Unsupported("no probe found"),
        };
        Prober {
            action,
            success_threshold: probe.success_threshold,
            pace: probe.pace,
            patience: AGGRESSIVE_PATIENCE,
            successes: AtomicU32::new(0),
            failing: AtomicBool::new(false),
        }
    }

    async fn run(&self) -> bool {
        match self.pace {
            ProbePace::Once(limit) => match self.action.attempt(limit).await {
                Ok(()) => self.succeeded(),
                Err(error) => self.failed(format_args!("{error}")),
            },
            ProbePace::Aggressive => self.run_until_ready().await,
        }
    }

    async fn run_until_ready(&self) -> bool {
        let give_up_at = Instant::now() + self.patience;
        let mut failures = 0u32;
        loop {
            let pause = match self.action.attempt(ATTEMPT_LIMIT).await {
                Ok(()) => {
                    let in_a_row = self.successes.fetch_add(1, Ordering::Relaxed).saturating_add(1);
                    if in_a_row >= self.success_threshold {
                        return self.succeeded();
                    }
                    RETRY_PAUSE
                }
                Err(error) => {
                    failures += 1;
                    self.successes.store(0, Ordering::Relaxed);
                    if matches!(error, AttemptError::Unsupported(_)) {
                        return self.failed(format_args!("{error}"));
                    }
                    let pause = if error.is_refused() { KNOCK_PAUSE } else { RETRY_PAUSE };
                    if Instant::now() + pause >= give_up_at {
                        warn!("aggressive probe error (failed {failures} times): {error}");
                        self.failing.store(true, Ordering::Relaxed);
                        return false;
                    }
                    pause
                }
            };
            sleep(pause).await;
        }
    }

    fn succeeded(&self) -> bool {
        if self.failing.swap(false, Ordering::Relaxed) {
            info!("The app is ready again");
        }
        true
    }

    fn failed(&self, error: fmt::Arguments<'_>) -> bool {
        if !self.failing.swap(true, Ordering::Relaxed) {
            warn!(%error, "The app is not ready");
        }
        false
    }
}

impl Action {
    async fn attempt(&self, limit: Duration) -> Result<(), AttemptError> {
        match self {
            Action::Http { to, path, headers } => {
                let answer = probe(*to, path, headers.clone(), limit).await?;
                if answer.is_success() { Ok(()) } else { Err(AttemptError::Status(answer.status)) }
            }
            Action::Tcp { to } => match timeout(limit, connect(*to)).await {
                Ok(connected) => connected.map(drop).map_err(|error| ProbeError::Failed(error).into()),
                Err(_) => Err(ProbeError::TimedOut(limit).into()),
            },
            Action::Unsupported(reason) => Err(AttemptError::Unsupported(reason)),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error("HTTP probe did not respond Ready, got status code: {}", .0.as_u16())]
    Status(StatusCode),
    #[error("{0}")]
    Unsupported(&'static str),
}

impl AttemptError {
    fn is_refused(&self) -> bool {
        matches!(self, AttemptError::Probe(ProbeError::Failed(error)) if error.is_refused())
    }
}

/// What Knative's probe sends: its own user agent and host win over those configured.
fn probe_headers(configured: &[(String, String)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in configured {
        match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            (Ok(name), Ok(value)) if name != header::HOST && name != header::USER_AGENT => {
                headers.append(name, value);
            }
            (Ok(_), Ok(_)) => {}
            _ => warn!(name, value, "Leaving out a header of the readiness probe that is not legal"),
        }
    }
    // Knative's never sets the version that belongs between and after the slashes.
    headers.insert(header::USER_AGENT, HeaderValue::from_static("kube-probe//"));
    headers
}

/// How long one aggressive run keeps trying, as in Knative.
const AGGRESSIVE_PATIENCE: Duration = Duration::from_secs(10);
/// How long one of its attempts may take.
const ATTEMPT_LIMIT: Duration = Duration::from_millis(100);
/// Between attempts, while the app answers but is not ready.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Between attempts, while the app does not even listen. A refused connection costs next to nothing, so this is
/// ten times as often as Knative asks: of a cold start, we add no more than this.
const KNOCK_PAUSE: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::atomic::AtomicUsize;

    use pilotlight_net::{Body, Client, Drain, Handler, Request, Response, serve};
    use tokio::net::TcpListener;

    /// An app that answers its requests with these statuses, the last one over and over.
    struct App {
        address: SocketAddr,
        asked: Arc<AtomicUsize>,
        last: Arc<Mutex<Option<Request>>>,
    }

    struct Script {
        statuses: Vec<u16>,
        asked: Arc<AtomicUsize>,
        last: Arc<Mutex<Option<Request>>>,
        delay: Duration,
    }

    impl Handler for Script {
        async fn handle(&self, _: &Client, request: Request) -> Response {
            *self.last.lock() = Some(request);
            let nth = self.asked.fetch_add(1, Ordering::SeqCst);
            sleep(self.delay).await;
            let mut response = Response::new(Body::empty());
            *response.status_mut() =
                StatusCode::from_u16(self.statuses[nth.min(self.statuses.len() - 1)]).unwrap();
            response
        }
    }

    async fn app_that_takes(delay: Duration, statuses: &[u16]) -> App {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, last) = (Arc::default(), Arc::default());
        let app = App { address, asked: Arc::clone(&asked), last: Arc::clone(&last) };
        let script = Script { statuses: statuses.to_vec(), asked, last, delay };
        tokio::spawn(serve(listener, Arc::new(script), Drain::default()));
        app
    }

    async fn app(statuses: &[u16]) -> App {
        app_that_takes(Duration::ZERO, statuses).await
    }

    /// An address where nobody listens, now or later: bound for as long as the tests run.
    async fn nobody() -> SocketAddr {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        std::mem::forget(socket);
        address
    }

    fn http(to: SocketAddr, path: &str) -> ProbeAction {
        let headers = vec![("X-Mine".to_owned(), "1".to_owned()), ("Host".to_owned(), "other".to_owned())];
        ProbeAction::Http { host: to.ip(), port: to.port(), path: path.to_owned(), https: false, headers }
    }

    fn tcp(to: SocketAddr) -> ProbeAction {
        ProbeAction::Tcp { host: to.ip(), port: to.port() }
    }

    const ONCE: ProbePace = ProbePace::Once(Duration::from_secs(1));

    fn readiness(
        actions: impl IntoIterator<Item = ProbeAction>,
        pace: ProbePace,
        success_threshold: u32,
    ) -> Readiness {
        let probes = actions.into_iter().map(|action| ReadinessProbe { action, success_threshold, pace });
        Readiness::new(&probes.collect::<Vec<_>>())
    }

    fn impatient(action: ProbeAction, patience: Duration) -> Readiness {
        let mut prober =
            Prober::new(&ReadinessProbe { action, success_threshold: 1, pace: ProbePace::Aggressive });
        prober.patience = patience;
        Readiness { probes: Arc::new(vec![prober]), run: Mutex::default() }
    }

    /// What is logged in this thread until the guard is dropped.
    fn logged() -> (Arc<Mutex<Vec<u8>>>, tracing::subscriber::DefaultGuard) {
        #[derive(Clone)]
        struct Log(Arc<Mutex<Vec<u8>>>);
        impl Write for Log {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let log = Arc::new(Mutex::new(Vec::new()));
        let writer = Log(Arc::clone(&log));
        let subscriber =
            tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn lines(log: &Mutex<Vec<u8>>) -> Vec<String> {
        String::from_utf8(log.lock().clone()).unwrap().lines().map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn a_failure_at_first_is_forgotten_and_not_logged_when_the_app_comes_up() {
        let (log, _guard) = logged();
        let app = app(&[503, 200]).await;
        assert!(readiness([http(app.address, "/")], ProbePace::Aggressive, 1).is_ready().await);
        assert_eq!((app.asked.load(Ordering::SeqCst), lines(&log)), (2, vec![]));
    }

    #[tokio::test]
    async fn an_app_that_never_comes_up_is_logged_once() {
        let (log, _guard) = logged();
        let app = app(&[500]).await;
        assert!(!impatient(http(app.address, "/"), Duration::from_millis(200)).is_ready().await);
        let [line] = &lines(&log)[..] else { panic!("{:?}", lines(&log)) };
        assert!(
            line.contains("aggressive probe error (failed ") && line.ends_with("status code: 500"),
            "{line}"
        );
    }

    #[tokio::test]
    async fn an_app_that_begins_to_listen_is_found_ready() {
        for action in [http as fn(SocketAddr, &str) -> ProbeAction, |to, _| tcp(to)] {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = socket.local_addr().unwrap();
            let readiness = impatient(action(address, "/"), Duration::from_secs(10));
            assert!(
                timeout(Duration::from_millis(30), readiness.is_ready()).await.is_err(),
                "nobody listens yet"
            );
            let listener = socket.listen(16).unwrap();
            let script = Script {
                statuses: vec![200],
                asked: Arc::default(),
                last: Arc::default(),
                delay: Duration::ZERO,
            };
            tokio::spawn(serve(listener, Arc::new(script), Drain::default()));
            assert!(readiness.is_ready().await);
        }
    }

    #[tokio::test]
    async fn successes_must_come_in_a_row() {
        let app = app(&[200, 500, 200]).await;
        assert!(readiness([http(app.address, "/")], ProbePace::Aggressive, 3).is_ready().await);
        assert_eq!(app.asked.load(Ordering::SeqCst), 5);
    }

    #[tokio::test]
    async fn with_a_period_one_answer_decides() {
        for (status, ready) in [(200, true), (302, true), (399, true), (400, false), (503, false)] {
            let app = app(&[status, 200]).await;
            assert_eq!(readiness([http(app.address, "/")], ONCE, 1).is_ready().await, ready, "{status}");
            assert_eq!(app.asked.load(Ordering::SeqCst), 1);
        }
        assert!(!readiness([tcp(nobody().await)], ONCE, 1).is_ready().await);
    }

    #[tokio::test]
    async fn with_a_period_the_timeout_is_the_probes_own() {
        let app = app_that_takes(Duration::from_secs(60), &[200]).await;
        let pace = ProbePace::Once(Duration::from_millis(30));
        assert!(!readiness([http(app.address, "/")], pace, 1).is_ready().await);
    }

    #[tokio::test]
    async fn those_who_ask_together_share_one_probe_and_later_ones_do_not() {
        let app = app_that_takes(Duration::from_millis(50), &[200]).await;
        let readiness = readiness([http(app.address, "/")], ONCE, 1);
        assert_eq!(tokio::join!(readiness.is_ready(), readiness.is_ready()), (true, true));
        assert_eq!(app.asked.load(Ordering::SeqCst), 1);
        assert!(readiness.is_ready().await);
        assert_eq!(app.asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_run_goes_on_when_the_one_who_asked_has_left() {
        let app = app_that_takes(Duration::from_millis(50), &[200]).await;
        let readiness = readiness([http(app.address, "/")], ONCE, 1);
        assert!(timeout(Duration::from_millis(20), readiness.is_ready()).await.is_err());
        assert!(readiness.is_ready().await);
        assert_eq!(app.asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn the_app_is_asked_as_knative_asks() {
        let app = app(&[200]).await;
        assert!(readiness([http(app.address, "/health?foo=bar")], ONCE, 1).is_ready().await);
        let request = app.last.lock().take().unwrap();
        assert_eq!(
            (request.method().as_str(), request.uri().to_string().as_str()),
            ("GET", "/health?foo=bar")
        );
        assert_eq!(request.headers()[header::USER_AGENT], "kube-probe//");
        assert_eq!(
            request.headers()[header::HOST],
            app.address.to_string().as_str(),
            "not the configured one"
        );
        assert_eq!(request.headers()["x-mine"], "1");
    }

    #[tokio::test]
    async fn of_several_probes_none_may_fail() {
        let (up, down) = (app(&[200]).await, app(&[500]).await);
        let ready = async |first: &App, second: &App| {
            readiness([http(first.address, "/"), http(second.address, "/")], ONCE, 1).is_ready().await
        };
        assert!(ready(&up, &up).await);
        assert!(!ready(&up, &down).await);
        assert!(!ready(&down, &up).await);
    }

    #[tokio::test]
    async fn what_cannot_be_asked_is_a_no_at_once() {
        let grpc = ProbeAction::Grpc { port: 1, service: String::new() };
        for action in [ProbeAction::Exec, ProbeAction::Nothing, grpc] {
            for pace in [ONCE, ProbePace::Aggressive] {
                let started = Instant::now();
                assert!(!readiness([action.clone()], pace, 1).is_ready().await);
                assert!(started.elapsed() < Duration::from_secs(1));
            }
        }
    }

    #[tokio::test]
    async fn a_probe_that_keeps_failing_is_logged_when_it_begins_and_when_it_ends() {
        let (log, _guard) = logged();
        let app = app(&[500, 500, 200, 200]).await;
        let readiness = readiness([http(app.address, "/")], ONCE, 1);
        for ready in [false, false, true, true] {
            assert_eq!(readiness.is_ready().await, ready);
        }
        let lines = lines(&log);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains("not ready") && lines[1].contains("ready again"));
    }
}
