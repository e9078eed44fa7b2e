//! One pod through its life: spawn, wait until ready, watch, drain, stop.

use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use parking_lot::Mutex;
use pilotlight_core::{RevisionId, TroubleReason};
use pilotlight_net::probe::probe;
use pilotlight_net::{Clock, headers};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use crate::address::Lease;
use crate::app_logs::{AppLogs, PodLog};
use crate::diagnose::{listening_ports, out_of_reach};
use crate::guard::{Child, Guard, Spawn};
use crate::sidecar::Sidecar;
use crate::workload::LocalWorkload;

/// Settings of a local cluster.
pub struct LocalParams {
    /// The process's clock.
    pub clock: Clock,
    /// Starts the processes, and answers for their end.
    pub guard: Guard,
    /// The queue-proxy that stands in front of each pod.
    pub sidecar: Sidecar,
    /// For how long nothing must have arrived at a leaving pod before it stops.
    pub drain_quiet: Duration,
    /// Where the lines of apps go.
    pub app_logs: AppLogs,
    /// How long an app may take to stop after SIGTERM before it is killed.
    pub termination_grace: Duration,
}

impl LocalParams {
    /// Time for a request that an activator had given to a pod before it learned that the pod leaves.
    pub const DRAIN_QUIET: Duration = Duration::from_millis(500);
    /// The default of `docker stop`.
    pub const TERMINATION_GRACE: Duration = Duration::from_secs(10);
}

/// The name of a pod, among those of its workload.
pub(crate) type PodName = Arc<str>;

/// A change in the life of a pod.
#[derive(Debug)]
pub(super) enum Event {
    /// The process of the app has been started.
    Spawned,
    /// The pod is not ready after a while, for this reason.
    Waits(String),
    /// The pod takes requests.
    Ready,
    /// The pod failed while it took requests. Its queue-proxy answers those that are on their way.
    Failed(Failure),
    /// Both processes have ended.
    Ended(Ending),
}

/// How a pod ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// The pod was told to end, or had [failed](Event::Failed).
    Stopped,
    /// The pod ended by itself, or never came up.
    Failed(Failure),
}

/// The cause of a pod's failure.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) reason: TroubleReason,
    pub(super) message: String,
    pub(super) exit_code: Option<i32>,
    pub(super) log_tail: Vec<String>,
}

/// A pod whose task is to be started.
pub(crate) struct Launch {
    pub(crate) name: PodName,
    pub(crate) stop: watch::Receiver<Stop>,
    pub(crate) events: mpsc::UnboundedSender<(PodName, Event)>,
}

/// Whether a pod is to stop, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stop {
    No,
    /// Drain: finish the requests in flight.
    Gently,
    /// At once.
    Now,
}

pub(super) struct PodTask {
    params: Arc<LocalParams>,
    workload: Arc<LocalWorkload>,
    name: PodName,
    lease: Lease,
    events: mpsc::UnboundedSender<(PodName, Event)>,
}

/// How the watch over a pod ended, unless it failed.
enum Watched {
    /// The pod was told to end, and has.
    Stopped,
    /// The app listens on this port, and its queue-proxy has to be told.
    Moved(u16),
}

/// What came of a start.
enum StartUp {
    Ready,
    /// The app listens on this port, where it can stay.
    Moved(u16),
    /// The app listens on other ports, where it cannot stay.
    Elsewhere,
}

/// The two processes of a pod, and their last lines.
struct Processes {
    app: Child,
    app_log: Log,
    proxy: Child,
    proxy_log: Log,
}

impl PodTask {
    /// Starts the task, on the current runtime.
    pub(super) fn start(
        params: Arc<LocalParams>,
        workload: Arc<LocalWorkload>,
        lease: Lease,
        launch: Launch,
    ) {
        let Launch { name, stop, events } = launch;
        tokio::spawn(PodTask { params, workload, name, lease, events }.run(stop));
    }

    async fn run(self, mut stop: watch::Receiver<Stop>) {
        let ending = match self.live(&mut stop).await {
            Ok(()) => Ending::Stopped,
            Err(failure) => Ending::Failed(failure),
        };
        // The lease ends first: the address is free before the keeper hears that the pod has ended.
        let PodTask { name, lease, events, .. } = self;
        drop(lease);
        let _ = events.send((name, Event::Ended(ending)));
    }

    async fn live(&self, stop: &mut watch::Receiver<Stop>) -> Result<(), Failure> {
        // The app first: it is what takes long.
        let mut app = self.spawn(self.workload.app(&self.name, self.lease.app_port)).await?;
        self.tell(Event::Spawned);
        let app_log = Log::follow(&mut app, self.speaker(self.app_lines()));
        let mut port = self.workload.own_port().unwrap_or(self.lease.app_port);
        let (proxy, proxy_log) = self.start_queue_proxy(port).await?;
        let mut processes = Processes { app, app_log, proxy, proxy_log };
        let ending = loop {
            match self.watch(&processes, port, stop).await {
                Ok(Watched::Stopped) => break Ok(()),
                Err(failure) => break Err(failure),
                Ok(Watched::Moved(to)) => {
                    processes.end_queue_proxy().await;
                    match self.start_queue_proxy(to).await {
                        Ok((proxy, log)) => (processes.proxy, processes.proxy_log, port) = (proxy, log, to),
                        Err(failure) => break Err(failure),
                    }
                }
            }
        };
        processes.end().await;
        ending
    }

    async fn start_queue_proxy(&self, port: u16) -> Result<(Child, Log), Failure> {
        let mut proxy = self.spawn(self.queue_proxy(port)).await?;
        let log = Log::follow(&mut proxy, self.speaker(Source::QueueProxy));
        Ok((proxy, log))
    }

    async fn watch(
        &self,
        processes: &Processes,
        port: u16,
        stop: &mut watch::Receiver<Stop>,
    ) -> Result<Watched, Failure> {
        tokio::select! {
            biased;
            () = told(stop, Stop::Gently) => {
                self.stop(processes, stop, false).await;
                return Ok(Watched::Stopped);
            }
            failure = processes.failure(port) => return Err(failure),
            came_up = timeout(self.workload.startup_timeout, self.start_up(port, processes.app.pid())) => {
                match came_up {
                    Ok(StartUp::Ready) => {}
                    Ok(StartUp::Moved(to)) => return Ok(Watched::Moved(to)),
                    Ok(StartUp::Elsewhere) => return Err(self.elsewhere(port, processes).await),
                    Err(_) => return Err(self.never_ready(port, processes).await),
                }
            }
        }
        self.tell(Event::Ready);
        tokio::select! {
            biased;
            () = told(stop, Stop::Gently) => self.stop(processes, stop, true).await,
            failure = processes.failure(port) => {
                self.tell(Event::Failed(failure));
                self.drain_without_app(processes, stop).await;
            }
        }
        Ok(Watched::Stopped)
    }

    /// Returns when the app is ready, or listens elsewhere than on `port`.
    async fn start_up(&self, port: u16, app: u32) -> StartUp {
        tokio::select! {
            biased;
            () = self.until_ready() => StartUp::Ready,
            elsewhere = self.until_elsewhere(port, app) => elsewhere,
        }
    }

    /// Asks the queue-proxy, which asks the app: its answer comes at the moment the app is ready.
    async fn until_ready(&self) {
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, HeaderValue::from_static("kube-probe/pilotlight"));
        headers.insert(headers::NETWORK_PROBE, HeaderValue::from_static(headers::QUEUE));
        let address = self.lease.address.serving();
        loop {
            match probe(address, headers::HEALTH_PATH, headers.clone(), PROBE_PATIENCE).await {
                Ok(answer) if answer.is_success() => return,
                Ok(_) | Err(_) => sleep(PROBE_PAUSE).await,
            }
        }
    }

    /// Looks again and again where the app listens, tells why it is not ready once that takes long, and returns when it
    /// has listened for a while, but not on `port`.
    async fn until_elsewhere(&self, port: u16, app: u32) -> StartUp {
        let began = Instant::now();
        let (mut since, mut told) = (None, None);
        loop {
            sleep(LOOK_EVERY).await;
            let ports = listening_ports(app);
            let within_reach: Vec<u16> =
                ports.iter().copied().filter(|&port| out_of_reach(app, port).is_none()).collect();
            if ports.is_empty() || within_reach.contains(&port) {
                since = None;
            } else {
                let elsewhere = since.get_or_insert_with(Instant::now).elapsed();
                if elsewhere >= MOVED_AFTER
                    && let Some(to) = self.workload.port_to_use(self.lease.app_port, &within_reach)
                {
                    self.tell_of_own_port(to);
                    return StartUp::Moved(to);
                }
                if elsewhere >= ELSEWHERE_FOR {
                    return StartUp::Elsewhere;
                }
            }
            if began.elapsed() >= HINT_AFTER {
                let hint = what_it_does(port, app);
                if told.is_none() {
                    info!(revision = %self.workload.id, pod = &*self.name, hint, "Pod is not ready yet");
                }
                if told.as_ref() != Some(&hint) {
                    self.tell(Event::Waits(hint.clone()));
                    told = Some(hint);
                }
            }
        }
    }

    fn tell_of_own_port(&self, port: u16) {
        let (revision, pod) = (&self.workload.id, &*self.name);
        if self.workload.spec.max_scale == Some(1) || port == self.lease.app_port {
            info!(%revision, pod, port, "App listens on a port of its own");
        } else {
            warn!(%revision, pod, port, "App listens on a port of its own, which no second pod can have: set max-scale 1");
        }
    }

    async fn elsewhere(&self, port: u16, processes: &Processes) -> Failure {
        let hint = what_it_does(port, processes.app.pid());
        self.not_ready(format!("the app does not become ready: {hint}"), processes).await
    }

    async fn never_ready(&self, port: u16, processes: &Processes) -> Failure {
        let (limit, hint) = (self.workload.startup_timeout, what_it_does(port, processes.app.pid()));
        self.not_ready(format!("the app did not become ready within {limit:?}: {hint}"), processes).await
    }

    async fn not_ready(&self, message: String, processes: &Processes) -> Failure {
        processes.app.kill();
        Failure {
            reason: TroubleReason::NeverReady,
            message,
            exit_code: None,
            log_tail: processes.app_log.last_words().await,
        }
    }

    /// Drains the queue-proxy, which also waits for requests still on their way to it, then ends the app.
    async fn stop(&self, processes: &Processes, stop: &mut watch::Receiver<Stop>, drain: bool) {
        let orderly = async {
            let Processes { app, proxy, .. } = processes;
            if drain {
                proxy.terminate();
                let patience = self.workload.timeouts.total + self.params.drain_quiet + DRAIN_MARGIN;
                if timeout(patience, proxy.wait()).await.is_err() {
                    warn!(revision = %self.workload.id, pod = &*self.name, ?patience, "Queue-proxy did not drain in time");
                }
            }
            proxy.kill();
            app.terminate();
            let grace = self.params.termination_grace;
            if timeout(grace, app.wait()).await.is_err() {
                warn!(revision = %self.workload.id, pod = &*self.name, ?grace, "App ignored SIGTERM and is killed");
            }
        };
        tokio::select! {
            () = told(stop, Stop::Now) => {}
            () = orderly => {}
        }
    }

    /// Drains the queue-proxy of an app that is gone: it answers what was inside the app, and has the activator send all
    /// else to other pods.
    async fn drain_without_app(&self, processes: &Processes, stop: &mut watch::Receiver<Stop>) {
        let proxy = &processes.proxy;
        proxy.terminate();
        tokio::select! {
            () = told(stop, Stop::Now) => {}
            _ = timeout(self.params.drain_quiet + DRAIN_MARGIN, proxy.wait()) => {}
        }
    }

    async fn spawn(&self, command: Spawn) -> Result<Child, Failure> {
        let program = command.program.clone();
        let spawned = self.params.guard.spawn(command).await;
        spawned.map_err(|error| {
            Failure::cannot_start(format!("{} cannot be started: {error}", program.display()))
        })
    }

    fn queue_proxy(&self, port: u16) -> Spawn {
        let params = &self.params;
        let address = self.lease.address;
        let env = [
            ("PILOTLIGHT_BIND_ADDRESS", address.ip.to_string()),
            ("PILOTLIGHT_METRICS_PORT", address.stats.to_string()),
            ("PILOTLIGHT_USER_METRICS_PORT", address.metrics.to_string()),
            ("PILOTLIGHT_ADMIN_PORT", address.admin.to_string()),
            ("PILOTLIGHT_DRAIN_QUIET_PERIOD", format!("{}ms", params.drain_quiet.as_millis())),
            ("QUEUE_SERVING_PORT", address.serving.to_string()),
            ("SERVING_POD", self.name.to_string()),
            ("SERVING_POD_IP", address.ip.to_string()),
        ];
        let spawn = params.sidecar.spawn();
        // A setting in our own environment is inherited: it may ask for request logs or traces.
        let told = std::env::var_os("OBSERVABILITY_CONFIG").is_none();
        let told = told.then(|| ("OBSERVABILITY_CONFIG", REQUEST_METRICS.to_owned()));
        let fixed = env.into_iter().chain(told).chain(self.workload.queue_proxy_env(port));
        fixed.fold(spawn, |spawn, (name, value)| spawn.env(name, value))
    }

    fn app_lines(&self) -> Source {
        match &self.params.app_logs {
            AppLogs::Screen => Source::App,
            AppLogs::Off => Source::Unheard,
            AppLogs::Folder(folder) => match PodLog::open(folder, &self.workload.id, &self.name) {
                Ok(log) => Source::AppInFile(log),
                Err(error) => {
                    let (revision, pod) = (&self.workload.id, &*self.name);
                    warn!(%revision, pod, %error, folder = %folder.display(), "Cannot write the file of a pod's lines");
                    Source::App
                }
            },
        }
    }

    fn speaker(&self, source: Source) -> Speaker {
        Speaker { revision: self.workload.id.clone(), pod: Arc::clone(&self.name), source }
    }

    fn tell(&self, event: Event) {
        let _ = self.events.send((Arc::clone(&self.name), event));
    }
}

impl Processes {
    /// Kills both processes. When this returns, they are gone and their last lines have been passed on.
    async fn end(&self) {
        for (child, log) in [(&self.proxy, &self.proxy_log), (&self.app, &self.app_log)] {
            child.kill();
            child.wait().await;
            log.last_words().await;
        }
    }

    async fn end_queue_proxy(&self) {
        self.proxy.kill();
        self.proxy.wait().await;
        self.proxy_log.last_words().await;
    }

    /// Returns when one of the two ends by itself, with its exit code and last lines.
    async fn failure(&self, port: u16) -> Failure {
        tokio::select! {
            biased;
            status = self.app.wait() => {
                let (reason, message) = match status.code() {
                    // Exit codes of a shell, and of our shim, for a program that cannot be executed.
                    Some(126 | 127) => (TroubleReason::CannotStart, format!("the app cannot be run (exit code {})", status.code().unwrap_or_default())),
                    Some(0) => (TroubleReason::Exited, format!("the app {}: it has to stay in the foreground", describe(status))),
                    _ => (TroubleReason::Exited, format!("the app {}", describe(status))),
                };
                Failure { reason, message, exit_code: status.code(), log_tail: self.app_log.last_words().await }
            }
            status = self.proxy.wait() => {
                let message = format!("the queue-proxy for port {port} {}", describe(status));
                Failure { reason: TroubleReason::Exited, message, exit_code: status.code(), log_tail: self.proxy_log.last_words().await }
            }
        }
    }
}

impl Failure {
    pub(super) fn cannot_start(message: String) -> Self {
        Failure { reason: TroubleReason::CannotStart, message, exit_code: None, log_tail: Vec::new() }
    }
}

/// Returns once the pod is to stop, this firmly at least.
async fn told(stop: &mut watch::Receiver<Stop>, at_least: Stop) {
    // The keeper drops its end only with everything else.
    let _ = stop.wait_for(|stop| *stop >= at_least).await;
}

/// Passes on what a process writes, and remembers its last lines.
struct Log {
    tail: Arc<Mutex<VecDeque<String>>>,
    readers: Mutex<JoinSet<()>>,
}

/// The process whose lines are passed on.
#[derive(Clone)]
struct Speaker {
    revision: RevisionId,
    pod: PodName,
    source: Source,
}

#[derive(Clone)]
enum Source {
    App,
    /// The app, whose lines go into a file.
    AppInFile(PodLog),
    /// The app, whose lines go nowhere.
    Unheard,
    QueueProxy,
}

impl Log {
    fn follow(child: &mut Child, speaker: Speaker) -> Log {
        let tail = Arc::new(Mutex::new(VecDeque::with_capacity(TAIL_LINES)));
        let mut readers = JoinSet::new();
        if let Some(stdout) = child.take_stdout() {
            readers.spawn(read_lines(stdout, speaker.clone(), None));
        }
        if let Some(stderr) = child.take_stderr() {
            readers.spawn(read_lines(stderr, speaker, Some(Arc::clone(&tail))));
        }
        Log { tail, readers: Mutex::new(readers) }
    }

    /// The last lines of standard error, once the process has ended. Does not wait long for a descendant that
    /// still holds the pipe, and does not listen to it any more.
    async fn last_words(&self) -> Vec<String> {
        let mut readers = std::mem::take(&mut *self.readers.lock());
        let _ = timeout(LAST_WORDS_PATIENCE, async { while readers.join_next().await.is_some() {} }).await;
        self.tail.lock().iter().cloned().collect()
    }
}

async fn read_lines(
    pipe: impl AsyncRead + Unpin,
    speaker: Speaker,
    tail: Option<Arc<Mutex<VecDeque<String>>>>,
) {
    let Speaker { revision, pod, source } = speaker;
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        line.clear();
        // A line without end must not fill the memory: it is cut into pieces.
        let mut piece = tokio::io::AsyncReadExt::take(&mut pipe, MAX_LINE_BYTES);
        match piece.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        match &source {
            Source::AppInFile(log) => log.push(text),
            Source::Unheard => {}
            Source::App => info!(target: "app", %revision, pod = &*pod, "{text}"),
            Source::QueueProxy => debug!(target: "queue-proxy", %revision, pod = &*pod, "{text}"),
        }
        if let Some(tail) = &tail {
            let mut tail = tail.lock();
            if tail.len() == TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(text.to_owned());
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// A hint for somebody whose app does not answer where it should.
fn what_it_does(port: u16, app: u32) -> String {
    let ports = listening_ports(app);
    match ports.as_slice() {
        [] => format!(
            "nothing listens on port {port} (the app is told by {{port}} on its command line and by PORT)"
        ),
        ports if ports.contains(&port) => match out_of_reach(app, port) {
            Some(address) => format!("it listens on {address}, not on 127.0.0.1"),
            None => format!("it listens on port {port} but its readiness probe fails"),
        },
        ports => {
            let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
            format!(
                "it listens on port {}, not on {port} (pass {{port}} on its command line, or have it read PORT; with max-scale 1, \
                 or as containerPort, it may have a port of its own)",
                ports.join(", ")
            )
        }
    }
}

/// Requests of a pod are told on its page of metrics.
const REQUEST_METRICS: &str = r#"{"requestMetrics":{"protocol":"prometheus"}}"#;
/// One probe may take as long as the queue-proxy tries (10 s), and a little more.
const PROBE_PATIENCE: Duration = Duration::from_secs(12);
/// Pause between two probes, while the queue-proxy itself is starting.
const PROBE_PAUSE: Duration = Duration::from_millis(2);
/// When to say that a pod takes long, and why that may be.
const HINT_AFTER: Duration = Duration::from_secs(3);
/// Pause between two looks at where an app listens that is not ready.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long an app must have listened elsewhere before its port is taken for the one it has.
const MOVED_AFTER: Duration = Duration::from_millis(500);
/// How long an app must have listened elsewhere before it is given up.
const ELSEWHERE_FOR: Duration = Duration::from_secs(3);
/// Time a drain may take beyond the longest request and the quiet period.
const DRAIN_MARGIN: Duration = Duration::from_secs(5);
/// Lines of standard error that are remembered.
const TAIL_LINES: usize = 20;
/// The longest line that is passed on whole.
const MAX_LINE_BYTES: u64 = 8192;
/// How long to wait for the end of a pipe after its process has ended.
const LAST_WORDS_PATIENCE: Duration = Duration::from_millis(250);
