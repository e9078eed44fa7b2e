//! Readiness of the app: probed when the queue-proxy is asked, never on its own account.

mod action;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use pilotlight_config::process::{ProbePace, ReadinessProbe};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use self::action::{Action, AttemptError};

/// The app's readiness probes. Concurrent questions share one run and its answer.
#[derive(Debug)]
pub(crate) struct Readiness {
    probes: Arc<Vec<Prober>>,
    run: Mutex<Option<watch::Receiver<Option<bool>>>>,
}

impl Readiness {
    /// Without probes the app is always ready. `detects_http2`: HTTP probes in the clear try HTTP/2 first.
    pub(crate) fn new(probes: &[ReadinessProbe], detects_http2: bool) -> Self {
        let probers = probes.iter().map(|probe| Prober::new(probe, detects_http2)).collect();
        Readiness { probes: Arc::new(probers), run: Mutex::default() }
    }

    /// Runs all probes side by side; all must succeed. With the aggressive pace this waits up to ten seconds for the
    /// app, and answers the moment it is ready. A run goes on when the one who asked has left: the next one who asks
    /// gets its answer.
    pub(crate) async fn is_ready(&self) -> bool {
        if self.probes.is_empty() {
            return true;
        }
        let mut run = self.join_run();
        // Err: the run panicked.
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
    // Time limit of one aggressive run.
    patience: Duration,
    // Successes in a row, over all runs.
    successes: AtomicU32,
    // The last verdict, so that a probe that keeps failing is logged once.
    failing: AtomicBool,
}

impl Prober {
    fn new(probe: &ReadinessProbe, detects_http2: bool) -> Self {
        Prober {
            action: Action::new(&probe.action, detects_http2),
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

/// Time limit of one aggressive run, as in Knative.
const AGGRESSIVE_PATIENCE: Duration = Duration::from_secs(10);
/// Time limit of one attempt in it.
const ATTEMPT_LIMIT: Duration = Duration::from_millis(100);
/// Pause between attempts while the app answers but is not ready.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Pause between attempts while the app does not listen yet. A refused connection costs next to nothing, so the pause
/// is a tenth of Knative's: it is the most that a probe adds to a cold start.
const KNOCK_PAUSE: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests;
