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
        let give_up_at = Instant::now() + RUN_LIMIT;
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

/// How long one aggressive run keeps trying.
const RUN_LIMIT: Duration = Duration::from_secs(10);
/// How long one of its attempts may take.
const ATTEMPT_LIMIT: Duration = Duration::from_millis(100);
/// Between attempts, while the app answers but is not ready.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Between attempts, while the app does not even listen. A refused connection costs next to nothing, so this is
/// ten times as often as Knative asks: of a cold start, we add no more than this.
const KNOCK_PAUSE: Duration = Duration::from_millis(5);
