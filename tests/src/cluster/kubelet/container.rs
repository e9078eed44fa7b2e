//! The life of one container: image, process, probes, end; and again, later after each failure.

use std::collections::VecDeque;
use std::future::pending;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use kube::ResourceExt;
use parking_lot::Mutex;
use pilotlight_local::guard::Child;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::command::{Places, command};
use super::node::{Image, Node};
use super::probe::{Prober, get};
use super::status::{Ended, State, View};
use crate::cluster::objects::now;

/// Whether a pod is to end, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    No,
    /// With its hooks, and until this time.
    Until(Instant),
    Now,
}

/// A container of a pod on a node.
pub(super) struct ContainerTask {
    pub(super) node: Arc<Node>,
    pub(super) pod: Arc<Pod>,
    pub(super) container: Container,
    pub(super) places: Places,
    /// The views of all containers of the pod, and which of them is this one's.
    pub(super) views: Arc<watch::Sender<Vec<View>>>,
    pub(super) index: usize,
    pub(super) stop: watch::Receiver<Stop>,
}

impl ContainerTask {
    /// Runs the container until it is told to stop, or has ended for good.
    pub(super) async fn run(mut self) {
        let policy = self.pod.spec.as_ref().and_then(|spec| spec.restart_policy.clone());
        let mut failures = 0;
        while let Some(image) = self.pull().await {
            let start = self.node.pace.lock().start;
            if self.is_told_within(start).await {
                return;
            }
            let ended = self.run_once(&image).await;
            self.see(|view| {
                view.state = State::Ended(ended.clone());
                (view.is_started, view.is_ready, view.pid) = (false, false, None);
            });
            let is_over = match policy.as_deref() {
                Some("Never") => true,
                Some("OnFailure") => ended.code == 0,
                _ => false,
            };
            if is_over || *self.stop.borrow() != Stop::No {
                return;
            }
            failures += 1;
            self.see(|view| {
                view.last = Some(ended);
                view.restarts += 1;
            });
            // The first time it is restarted at once, as by a real kubelet, which begins to count then.
            if failures > 1 && self.is_told_in_crash_loop(failures - 1).await {
                return;
            }
        }
    }

    async fn is_told_in_crash_loop(&mut self, failures: u32) -> bool {
        let (pause, name) = (self.node.pause(failures), self.container.name.clone());
        let message =
            format!("back-off {pause:?} restarting failed container={name} pod={}", self.pod.name_any());
        self.see(|view| view.state = State::Waiting { reason: "CrashLoopBackOff", message });
        let text = format!("Back-off restarting failed container {name} in pod {}", self.pod.name_any());
        self.node.tell(&self.pod, "Warning", "BackOff", &text).await;
        self.is_told_within(pause).await
    }

    /// The image, however long that takes; `None`: the pod ends.
    async fn pull(&mut self) -> Option<Image> {
        let name = self.container.image.clone().unwrap_or_default();
        let mut failures = 0;
        loop {
            let time = self.node.pull_time(&name);
            if self.is_told_within(time).await {
                return None;
            }
            let error = match self.node.image(&name) {
                Ok(image) => {
                    self.node.has_pulled(&name);
                    return Some(image);
                }
                Err(error) => error,
            };
            failures += 1;
            let message = error.clone();
            self.see(|view| view.state = State::Waiting { reason: "ErrImagePull", message });
            let text = format!("Failed to pull image \"{name}\": {error}");
            self.node.tell(&self.pod, "Warning", "Failed", &text).await;
            let pause = self.node.pause(failures);
            let message = format!("Back-off pulling image \"{name}\": ErrImagePull: {error}");
            self.see(|view| view.state = State::Waiting { reason: "ImagePullBackOff", message });
            if self.is_told_within(pause).await {
                return None;
            }
        }
    }

    async fn run_once(&mut self, image: &Image) -> Ended {
        let started = now();
        let host = (self.node.name.as_str(), self.node.ip);
        let spawn = command(&self.pod, &self.container, image, &self.places, host);
        let mut child = match self.node.spawn(spawn).await {
            Ok(child) => child,
            Err(error) => {
                let message = error.to_string();
                return Ended { code: 128, reason: "StartError", message, started, finished: now() };
            }
        };
        let output = Output::follow(
            &mut child,
            &self.node,
            &format!("{}/{}", self.pod.name_any(), self.container.name),
        );
        let since = started.clone();
        self.see(|view| {
            view.state = State::Running { since };
            view.pid = Some(child.pid());
        });
        let mut stop = self.stop.clone();
        let status = tokio::select! {
            status = child.wait() => status,
            () = told(&mut stop) => self.end(&child).await,
            reason = self.watch_over() => {
                let text = format!("Container {} failed {reason}, will be restarted", self.container.name);
                self.node.tell(&self.pod, "Normal", "Killing", &text).await;
                let seconds = self.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
                let deadline = Instant::now() + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
                self.end_by(&child, deadline).await
            }
        };
        let code = status.code().or_else(|| Some(128 + status.signal()?)).unwrap_or(255);
        let message = if code == 0 { String::new() } else { output.tail() };
        let reason = if code == 0 { "Completed" } else { "Error" };
        Ended { code, reason, message, started, finished: now() }
    }

    /// Probes a container that has been started. Returns when a probe has failed for which it has to be restarted.
    async fn watch_over(&self) -> &'static str {
        let relist = self.node.pace.lock().relist;
        // Nothing else happens in this time but the end, which drops this.
        let _ = timeout(relist, pending::<()>()).await;
        if let Some(probe) = &self.container.startup_probe {
            let mut is_started = false;
            let tell = |result: bool, _: &str| {
                is_started = result;
                false
            };
            self.prober(probe).run(self.views.subscribe(), tell).await;
            if !is_started {
                return "startup probe";
            }
        }
        let has_readiness = self.container.readiness_probe.is_some();
        self.see(|view| (view.is_started, view.is_ready) = (true, !has_readiness));
        let readiness = async {
            if let Some(probe) = &self.container.readiness_probe {
                let tell = |result, error: &str| {
                    self.see(|view| view.is_ready = result);
                    if !result {
                        self.node
                            .log
                            .say(format!("probe {}/{}", self.pod.name_any(), self.container.name), error);
                    }
                    true
                };
                self.prober(probe).run(self.views.subscribe(), tell).await;
            }
            pending::<()>().await;
        };
        let liveness = async {
            if let Some(probe) = &self.container.liveness_probe {
                self.prober(probe).run(self.views.subscribe(), |result, _| result).await;
            } else {
                pending::<()>().await;
            }
        };
        tokio::select! {
            () = readiness => unreachable!("readiness is probed for ever"),
            () = liveness => "liveness probe",
        }
    }

    fn prober(&self, probe: &Probe) -> Prober {
        Prober::new(&self.container, probe, &self.places)
    }

    /// Ends a container as its pod has been told.
    async fn end(&self, child: &Child) -> ExitStatus {
        let mut stop = self.stop.clone();
        let stop_is = *stop.borrow_and_update();
        match stop_is {
            Stop::Until(deadline) => {
                let politely = self.end_by(child, deadline);
                tokio::select! {
                    status = politely => status,
                    () = told_at_once(&mut stop) => kill(child).await,
                }
            }
            Stop::Now | Stop::No => kill(child).await,
        }
    }

    /// Ends a container: its hook, SIGTERM, and SIGKILL at the deadline. Readiness goes on being probed meanwhile.
    async fn end_by(&self, child: &Child, deadline: Instant) -> ExitStatus {
        let politely = async {
            let hook = self.container.lifecycle.as_ref().and_then(|each| each.pre_stop.as_ref());
            if let Some(pause) = hook.and_then(|hook| hook.sleep.as_ref()) {
                let pause = Duration::from_secs(u64::try_from(pause.seconds).unwrap_or(0));
                let _ = timeout_at(deadline.min(Instant::now() + pause), pending::<()>()).await;
            }
            if let Some(action) = hook.and_then(|hook| hook.http_get.as_ref()) {
                let left = deadline.saturating_duration_since(Instant::now());
                if let Err(error) = get(&self.container, action, &self.places, left).await {
                    self.node.tell(&self.pod, "Warning", "FailedPreStopHook", &error).await;
                }
            }
            child.terminate();
            // The least that is left after a hook that took all the time there was.
            let deadline = deadline.max(Instant::now() + LEAST_GRACE);
            timeout_at(deadline, child.wait()).await
        };
        let readiness = async {
            if let Some(probe) = &self.container.readiness_probe {
                let tell = |result, _: &str| {
                    self.see(|view| view.is_ready = result);
                    true
                };
                self.prober(probe).run(self.views.subscribe(), tell).await;
            }
            pending::<()>().await;
        };
        tokio::select! {
            status = politely => match status {
                Ok(status) => status,
                Err(_) => kill(child).await,
            },
            status = child.wait() => status,
            () = readiness => unreachable!("readiness is probed for ever"),
        }
    }

    fn see(&self, change: impl FnOnce(&mut View)) {
        self.views.send_if_modified(|views| {
            let view = &mut views[self.index];
            let before = view.clone();
            change(view);
            *view != before
        });
    }

    async fn is_told_within(&mut self, time: Duration) -> bool {
        timeout(time, told(&mut self.stop)).await.is_ok()
    }
}

/// Waits until the pod has been told to end.
async fn told(stop: &mut watch::Receiver<Stop>) {
    // A pod task that has gone has aborted this one as well.
    let _ = stop.wait_for(|stop| *stop != Stop::No).await;
}

async fn told_at_once(stop: &mut watch::Receiver<Stop>) {
    let _ = stop.wait_for(|stop| *stop == Stop::Now).await;
}

async fn kill(child: &Child) -> ExitStatus {
    child.kill();
    child.wait().await
}

/// The output of a process, which goes to the log, and its last lines, which go into the status.
struct Output(Arc<Mutex<VecDeque<String>>>);

impl Output {
    fn follow(child: &mut Child, node: &Node, who: &str) -> Output {
        let tail = Arc::<Mutex<VecDeque<String>>>::default();
        let (stdout, stderr) = (child.take_stdout(), child.take_stderr());
        tokio::spawn(read(stdout, Arc::clone(&tail), node.log.clone(), who.to_owned()));
        tokio::spawn(read(stderr, Arc::clone(&tail), node.log.clone(), who.to_owned()));
        Output(tail)
    }

    fn tail(&self) -> String {
        self.0.lock().iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

async fn read(
    pipe: Option<impl AsyncRead + Unpin>,
    tail: Arc<Mutex<VecDeque<String>>>,
    log: crate::cluster::log::Log,
    who: String,
) {
    let Some(pipe) = pipe else { return };
    let mut lines = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut tail = tail.lock();
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(line.clone());
        drop(tail);
        log.say(who.clone(), line);
    }
}

const TAIL_LINES: usize = 10;
const LEAST_GRACE: Duration = Duration::from_secs(2);
