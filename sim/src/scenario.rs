//! Simulated worlds: load, app, cluster and control plane ([`Scenario`]), and the settings under trial
//! ([`Settings`]). Everything here is loaded and legal; [`mod@file`] reads it from what people write.

pub mod file;

use std::time::Duration;

use pilotlight_core::{ConcurrencyLimit, RevisionSpec, ScalingMetric, Time, TroubleReason};

use crate::cluster::ClusterSpec;
use crate::dist::Distribution;
use crate::hpa::HpaSpec;
use crate::traffic::Traffic;

/// The world a service lives in: everything but its settings. Cheap to clone; many runs share it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The name.
    pub name: String,
    /// The source of requests.
    pub load: Load,
    /// For how long they are sent. What is under way then is still answered.
    pub duration: Duration,
    /// The clients' reaction to bad answers.
    pub clients: Clients,
    /// The app's work for a request.
    pub app: App,
    /// How pods come and go.
    pub pods: Pods,
    /// The cluster that pods run in.
    pub cluster: ClusterSpec,
    /// The platform between clients, pods and the autoscaler.
    pub platform: Platform,
    /// Answers later than this miss the objective; `None`: no objective is set.
    pub objective: Option<Duration>,
}

/// The source of requests.
#[derive(Clone, Debug)]
pub enum Load {
    /// Requests come whether earlier ones were answered or not.
    Open(Traffic),
    /// Each of a number of users waits for an answer, thinks, and sends the next request.
    Closed(Users),
}

/// Users of a closed loop.
#[derive(Clone, Debug)]
pub struct Users {
    /// How many there are from when on; in order of time.
    pub steps: Vec<UserStep>,
    /// How long a user waits between an answer and the next request.
    pub think: Distribution,
}

/// From a time on, so many users.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UserStep {
    /// The time at which they begin to come, or to go.
    pub at: Time,
    /// How many there are to be.
    pub users: u32,
    /// How many come per second; `None`: all at once.
    pub spawn_rate: Option<f64>,
}

/// The clients' reaction to bad answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clients {
    /// How long they wait for one attempt; `None`: for ever.
    pub timeout: Option<Duration>,
    /// How often they try again after 502, 503, 504 or their timeout.
    pub retries: u32,
    /// How long they pause before the first retry; doubled with each.
    pub backoff: Duration,
}

/// The app's work for a request.
#[derive(Clone, Debug)]
pub struct App {
    /// The time a request takes alone on a pod, where the load does not say.
    pub service_time: Distribution,
    /// The slowdown of several requests at once.
    pub slowdown: Slowdown,
    /// The share of requests that the app answers with status 500.
    pub error_fraction: f64,
}

/// The slowdown of requests on the same pod: the universal scalability law, and a number of cores.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Slowdown {
    /// The share of the work that only one request can do at a time (sigma).
    pub contention: f64,
    /// The cost of keeping in step with each other (kappa).
    pub coherency: f64,
    /// The pod's cores; `None`: as many as are needed.
    pub cores: Option<f64>,
    /// The share of a core that a request keeps busy while it is worked on alone.
    pub cores_per_request: f64,
}

/// How pods come and go.
#[derive(Clone, Debug)]
pub struct Pods {
    /// From the wish for a pod to its place on a node.
    pub schedule: Distribution,
    /// From the wish for a node to the node, in a cluster that grows.
    pub provision: Distribution,
    /// Loading the image on a node that does not have it.
    pub pull: Distribution,
    /// Loading it on a node that does.
    pub cached_pull: Distribution,
    /// Starting the container and whatever it does first: a model is loaded here.
    pub init: Distribution,
    /// From then to being ready.
    pub ready: Distribution,
    /// How many are there, and ready, when the load begins; `None`: as many as the settings say.
    pub warm: Option<u32>,
    /// How long a pod that is ready lives before it crashes; `None`: for ever.
    pub crash_after: Option<Distribution>,
    /// Starts that fail; `None`: none do.
    pub failing_starts: Option<FailingStarts>,
    /// How long nothing must have arrived at a leaving pod before it ends.
    pub drain_quiet: Duration,
    /// How long a leaving pod may take altogether; what it has not answered then is lost.
    pub termination_grace: Duration,
}

/// Starts of pods that fail.
#[derive(Clone, Debug)]
pub struct FailingStarts {
    /// The share of starts that fail.
    pub fraction: f64,
    /// How long after its image was pulled a pod fails.
    pub after: Distribution,
    /// From then on, none does; `None`: they never stop failing.
    pub until: Option<Time>,
    /// How it fails: what may pass is given up after three failures in a row, what lasts at once.
    pub reason: TroubleReason,
}

/// The platform between clients, pods and the autoscaler.
#[derive(Clone, Debug)]
pub struct Platform {
    /// Whether the activator may leave the request path.
    pub path: Path,
    /// How many activators there are.
    pub activators: u32,
    /// How many requests may wait in one activator; more are answered with 503.
    pub activator_queue: u32,
    /// How long an attempt may take altogether, before it is answered with 504.
    pub request_timeout: Duration,
    /// From a change of pods to everybody knowing of it.
    pub endpoint_delay: Duration,
    /// The share of scrapes that fail.
    pub scrape_loss_fraction: f64,
    /// Times at which the autoscaler goes away, and for how long.
    pub autoscaler_outages: Vec<Outage>,
    /// The pod that goes when there are too many.
    pub victim: Victim,
    /// How an activator chooses among pods.
    pub balancing: Balancing,
}

/// How an activator chooses among pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balancing {
    /// As Pilotlight's does: it knows its own load on each.
    Pilotlight,
    /// As Knative's does.
    Knative,
}

/// Whether the activator may leave the request path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Always in the path, as under `pilotlight run`.
    Always,
    /// Out of the path when the plan says so, as in Knative.
    ByPlan,
    /// No activator, as under a HorizontalPodAutoscaler: without a ready pod, requests fail.
    Never,
}

/// The pod that goes when there are too many. One that is not ready yet goes before all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The one with the fewest requests by the latest scrape, as under `pilotlight run`.
    LeastBusy,
    /// The one that was started last, as a ReplicaSet does it.
    Youngest,
}

/// The autoscaler goes away, and comes back without its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// The beginning.
    pub at: Time,
    /// For how long.
    pub lasts: Duration,
}

/// The settings under trial.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name.
    pub name: String,
    /// The scaler, which decides on the number of pods.
    pub scaler: Scaler,
    /// How many requests a pod works on at once.
    pub container_concurrency: ConcurrencyLimit,
}

/// The scaler, which decides on the number of pods.
#[derive(Clone, Debug)]
pub enum Scaler {
    /// Requests do: Knative's algorithm.
    Requests(Box<RevisionSpec>),
    /// A HorizontalPodAutoscaler does.
    Hpa(Box<HpaSpec>),
    /// No scaler: there are always this many pods.
    Fixed(u32),
}

impl Scenario {
    /// A load on an app that takes always equally long, under `pilotlight run`: pods are up in a moment, and there
    /// is room for all.
    pub fn new(load: Load, duration: Duration, service_time: Duration) -> Self {
        Scenario {
            name: "scenario".to_owned(),
            load,
            duration,
            clients: Clients::default(),
            app: App {
                service_time: service_time.into(),
                slowdown: Slowdown::default(),
                error_fraction: 0.0,
            },
            pods: Pods::default(),
            cluster: ClusterSpec::default(),
            platform: Platform::local(),
            objective: None,
        }
    }
}

impl Settings {
    /// Knative's algorithm.
    pub fn requests(name: &str, spec: RevisionSpec, limit: impl Into<ConcurrencyLimit>) -> Self {
        Settings {
            name: name.to_owned(),
            scaler: Scaler::Requests(Box::new(spec)),
            container_concurrency: limit.into(),
        }
    }

    /// A HorizontalPodAutoscaler.
    pub fn hpa(name: &str, spec: HpaSpec, limit: impl Into<ConcurrencyLimit>) -> Self {
        Settings {
            name: name.to_owned(),
            scaler: Scaler::Hpa(Box::new(spec)),
            container_concurrency: limit.into(),
        }
    }

    /// Always the same number of pods.
    pub fn fixed(name: &str, pods: u32, limit: impl Into<ConcurrencyLimit>) -> Self {
        Settings { name: name.to_owned(), scaler: Scaler::Fixed(pods), container_concurrency: limit.into() }
    }

    /// Whether there is an activator: none where a HorizontalPodAutoscaler scales, nor where nobody does, because
    /// there is no plan that it could go by.
    pub(crate) fn path(&self, platform: &Platform) -> Path {
        match (&self.scaler, platform.path) {
            (Scaler::Hpa(_), _) | (Scaler::Fixed(_), Path::ByPlan) => Path::Never,
            (_, path) => path,
        }
    }

    /// The same for an oracle. Where neither cores, a limit nor a target says how many, a pod takes any number.
    pub(crate) fn oracle_capacity(&self, scenario: &Scenario) -> f64 {
        let Slowdown { cores, cores_per_request, .. } = scenario.app.slowdown;
        let is_bounded = (cores.is_some() && cores_per_request > 0.0)
            || self.container_concurrency.get().is_some()
            || matches!(self.scaler, Scaler::Requests(_));
        if is_bounded { self.capacity_per_pod(scenario) } else { f64::INFINITY }
    }

    /// How many requests a pod can work on at once without slowing down, or is meant to.
    pub(crate) fn capacity_per_pod(&self, scenario: &Scenario) -> f64 {
        let Slowdown { cores, cores_per_request, .. } = scenario.app.slowdown;
        let by_cores = cores.filter(|_| cores_per_request > 0.0).map(|cores| cores / cores_per_request);
        let by_limit = self.container_concurrency.get().map(f64::from);
        let by_target = || match &self.scaler {
            Scaler::Requests(spec) => match spec.scaling_metric {
                ScalingMetric::Concurrency => spec.total,
                ScalingMetric::Rps => spec.total * scenario.app.service_time.mean().as_secs_f64(),
            },
            Scaler::Hpa(_) | Scaler::Fixed(_) => 1.0,
        };
        match (by_cores, by_limit) {
            (Some(cores), Some(limit)) => cores.min(limit),
            (Some(capacity), None) | (None, Some(capacity)) => capacity,
            (None, None) => by_target().max(0.01),
        }
    }
}

impl Default for Pods {
    fn default() -> Self {
        let none = || Distribution::from(Duration::ZERO);
        Pods {
            schedule: none(),
            provision: none(),
            pull: none(),
            cached_pull: none(),
            init: none(),
            ready: none(),
            warm: None,
            crash_after: None,
            failing_starts: None,
            drain_quiet: Duration::from_millis(500),
            termination_grace: Duration::from_secs(300),
        }
    }
}

impl Slowdown {
    /// The speed of each of `running` requests, relative to being alone on enough cores.
    pub fn speed(self, running: u32) -> f64 {
        let others = f64::from(running.saturating_sub(1));
        let scalability = 1.0 + self.contention * others + self.coherency * others * f64::from(running);
        let wanted_cores = self.cores_per_request * f64::from(running);
        let share = match self.cores {
            Some(cores) if wanted_cores > cores => cores / wanted_cores,
            _ => 1.0,
        };
        share / scalability
    }

    /// The cores that `running` requests keep busy.
    pub fn busy_cores(self, running: u32) -> f64 {
        let wanted = self.cores_per_request * f64::from(running);
        self.cores.map_or(wanted, |cores| wanted.min(cores))
    }

    /// Whether requests on the same pod do nothing to each other.
    pub fn is_none(self) -> bool {
        let never_short = self.cores.is_none() || self.cores_per_request == 0.0;
        self.contention == 0.0 && self.coherency == 0.0 && never_short
    }
}

impl Default for Clients {
    fn default() -> Self {
        Clients { timeout: None, retries: 0, backoff: Duration::from_millis(100) }
    }
}

impl Platform {
    /// `pilotlight run` on one machine.
    pub fn local() -> Self {
        Platform {
            path: Path::Always,
            activators: 1,
            activator_queue: 10_000,
            request_timeout: Duration::from_secs(300),
            endpoint_delay: Duration::ZERO,
            scrape_loss_fraction: 0.0,
            autoscaler_outages: Vec::new(),
            victim: Victim::LeastBusy,
            balancing: Balancing::Pilotlight,
        }
    }

    /// Knative on a cluster.
    pub fn knative() -> Self {
        Platform {
            path: Path::ByPlan,
            endpoint_delay: Duration::from_millis(200),
            victim: Victim::Youngest,
            ..Platform::local()
        }
    }
}
