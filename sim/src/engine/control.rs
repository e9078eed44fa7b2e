//! The autoscaler's inputs, its decisions, and their effects.

use std::time::Duration;

use pilotlight_core::pods;
use pilotlight_core::{
    ActivatorPath, Candidate, Evaluation, History, Input, Plan, PodCounts, Revision, RevisionSpec,
    ScalingMode, ServingMode, Stat, Time, ask_order, extrapolate, sample_size,
};

use super::pod::{Phase, PodId};
use super::{Engine, Event};
use crate::hpa::{CpuMeter, CpuReading, Hpa, PodSample, PodState};
use crate::scenario::{Path, Scaler, Scenario, Settings, Victim};

/// The scaler, and what it was told last.
pub(super) struct Control {
    scaler: ScalerState,
    /// The autoscaler does not run.
    away: bool,
    /// The pod counts it was told, and whether they may have changed.
    told: PodCounts,
    pods_changed: bool,
    path: ActivatorPath,
    mode: ServingMode,
    mode_version: u32,
    wake_at: Option<Time>,
    wake_version: u32,
}

enum ScalerState {
    Requests(Box<Revision>),
    Hpa(Box<HpaState>),
    Fixed(u32),
}

/// A HorizontalPodAutoscaler, and what metrics-server tells it.
struct HpaState {
    hpa: Hpa,
    meter: CpuMeter,
}

impl Control {
    pub(super) fn new(now: Time, scenario: &Scenario, settings: &Settings) -> Self {
        let scaler = match &settings.scaler {
            Scaler::Requests(spec) => {
                let revision = Revision::new(now, (**spec).clone(), PodCounts::default());
                ScalerState::Requests(Box::new(revision))
            }
            Scaler::Hpa(spec) => {
                let millicores = (scenario.app.slowdown.cores.unwrap_or(1.0) * 1e3).round() as u32;
                let hpa = Hpa::new((**spec).clone(), millicores);
                ScalerState::Hpa(Box::new(HpaState { hpa, meter: CpuMeter::default() }))
            }
            Scaler::Fixed(pods) => ScalerState::Fixed(*pods),
        };
        // Traffic goes through the activator until a plan says otherwise.
        let in_path = settings.path(&scenario.platform) != Path::Never;
        Control {
            scaler,
            away: false,
            told: PodCounts::default(),
            pods_changed: false,
            path: ActivatorPath { populated_since: in_path.then_some(now), probed: in_path },
            mode: ServingMode::Proxy,
            mode_version: 0,
            wake_at: None,
            wake_version: 0,
        }
    }

    pub(super) fn is_hpa(&self) -> bool {
        matches!(self.scaler, ScalerState::Hpa(_))
    }

    /// How long anything is remembered that can lead to a decision of its own accord.
    pub(super) fn memory(&self) -> Duration {
        match &self.scaler {
            ScalerState::Requests(revision) => {
                let RevisionSpec { stable_window, scale_down_delay, .. } = revision.spec();
                *stable_window * 2 + *scale_down_delay + MARGIN
            }
            // The controller remembers more than one window, and decides rarely.
            ScalerState::Hpa(_) => Duration::MAX,
            ScalerState::Fixed(_) => MARGIN,
        }
    }

    /// The target per pod, of whatever is measured.
    pub(super) fn target_per_pod(&self) -> f64 {
        match &self.scaler {
            ScalerState::Requests(revision) => revision.spec().target,
            ScalerState::Hpa(_) | ScalerState::Fixed(_) => 0.0,
        }
    }

    /// The pods that are wanted without any request.
    pub(super) fn minimum(&self) -> u32 {
        match &self.scaler {
            ScalerState::Requests(revision) => revision.spec().standing_pods(),
            ScalerState::Hpa(state) => state.hpa.spec().min_replicas,
            ScalerState::Fixed(pods) => *pods,
        }
    }

    /// The pods there are before anything is known of the load.
    fn initial_scale(&self) -> u32 {
        match &self.scaler {
            ScalerState::Requests(revision) => revision.spec().initial_scale.max(revision.spec().min_scale),
            ScalerState::Hpa(state) => state.hpa.spec().min_replicas,
            ScalerState::Fixed(pods) => *pods,
        }
    }
}

impl Engine<'_> {
    /// Pods that are there already, and an autoscaler that has brought them up, as under `pilotlight run`.
    pub(super) fn begin_control(&mut self) {
        let warm = self.scenario.pods.warm.unwrap_or(self.control.initial_scale());
        self.meter.levels.wanted.set(self.now, f64::from(warm));
        self.meter.levels.proxied.set(self.now, f64::from(u8::from(self.front.proxied)));
        self.begin_fleet(warm);
        self.start_autoscaler(PodCounts::default(), History::default());
    }

    /// Starts an autoscaler that finds `pods` when it first sees the revision, and this history of it.
    fn start_autoscaler(&mut self, pods: PodCounts, history: History) {
        let now = self.now;
        if let (ScalerState::Requests(revision), Scaler::Requests(spec)) =
            (&mut self.control.scaler, &self.settings.scaler)
        {
            **revision = Revision::resume(now, (**spec).clone(), pods, history);
        }
        (self.control.told, self.control.pods_changed) = (pods, true);
        self.control.wake_at = None;
        self.settle();
        let path = self.control.path;
        self.tell(Input::Path(path));
        if let ScalerState::Fixed(pods) = self.control.scaler {
            self.scale(pods);
        }
    }

    /// An activator pushes what it measured.
    pub(super) fn push(&mut self, stat: Stat) {
        let calls_for_a_pod = stat.average_concurrent_requests > 0.0 && self.control.told.ready == 0;
        self.tell(Input::Pushed(stat));
        if calls_for_a_pod && !self.control.away {
            self.keep(pods::Event::Demand);
        }
    }

    /// Proxies measure what the last second was like; activators send it right away.
    pub(super) fn report(&mut self) {
        let now = self.now;
        for pod in self.fleet.running_mut() {
            pod.report = pod.stats.report(now);
        }
        self.report_of_activators(false);
    }

    /// The autoscaler asks a sample of the pods.
    pub(super) fn scrape(&mut self) {
        let ScalerState::Requests(revision) = &self.control.scaler else { return };
        if self.control.away || !revision.spec().scraped {
            return;
        }
        let window = revision.spec().stable_window;
        let pods: Vec<_> = self
            .fleet
            .ready()
            .map(|(id, pod)| Candidate { pod: (id, &pod.report), started: pod.started })
            .collect();
        let (number, wanted) = (pods.len(), sample_size(pods.len()));
        let loss = self.scenario.platform.scrape_loss_fraction;
        let rng = &mut self.random.scrape;
        let order = ask_order(self.now, window, pods, rng);
        let answers = order.into_iter().filter(|_| loss == 0.0 || rng.unit() >= loss).take(wanted);
        let (ids, answers): (Vec<PodId>, Vec<Stat>) = answers.map(|(id, stat)| (id, stat.clone())).unzip();
        if self.scenario.platform.victim == Victim::LeastBusy {
            for (&id, stat) in ids.iter().zip(&answers) {
                self.keep(pods::Event::Load(id, stat.average_concurrent_requests));
            }
        }
        if let Some(stat) = extrapolate(&answers, number) {
            self.tell(Input::Scraped(stat));
        }
    }

    pub(super) fn tick(&mut self) {
        self.tell(Input::Tick);
    }

    /// metrics-server looks at the pods, and the HorizontalPodAutoscaler at what it saw.
    pub(super) fn sync_hpa(&mut self) {
        let ScalerState::Hpa(state) = &mut self.control.scaler else { return };
        let now = self.now;
        if self.control.away {
            return;
        }
        let pods = (0..).zip(&self.fleet.pods);
        let readings = pods.clone().filter(|(_, pod)| pod.runs()).map(|(index, pod)| {
            let used = Duration::from_secs_f64(pod.busy_cores.integral(now));
            (index, CpuReading { running_since: pod.started, used })
        });
        state.meter.scrape(now, readings);
        let samples = pods.filter(|(_, pod)| pod.phase != Phase::Gone).map(|(index, pod)| PodSample {
            state: match pod.phase {
                Phase::Pending | Phase::Gone => PodState::Pending,
                Phase::Leaving => PodState::Terminating,
                Phase::Starting | Phase::Ready => PodState::Running {
                    started_at: pod.started,
                    is_ready: pod.phase == Phase::Ready,
                    since: pod.ready_since.unwrap_or(pod.started),
                },
            },
            cpu: state.meter.usage(index),
            requests_per_second: pod.runs().then_some(pod.report.request_count),
            in_flight: pod.runs().then_some(pod.report.average_concurrent_requests),
        });
        let samples: Vec<PodSample> = samples.collect();
        let desired = state.hpa.sync(now, self.fleet.wanted(), &samples).desired;
        self.meter.outcome.scaling.decisions += 1;
        self.scale(desired);
    }

    pub(super) fn wake(&mut self, version: u32) {
        if version == self.control.wake_version {
            self.control.wake_at = None;
            self.tell(Input::Wake);
        }
    }

    /// The request path is now as planned.
    pub(super) fn follow_mode(&mut self, version: u32) {
        let control = &mut self.control;
        if version != control.mode_version {
            return;
        }
        let proxied = control.mode == ServingMode::Proxy;
        self.front.proxied = proxied;
        self.meter.levels.proxied.set(self.now, f64::from(u8::from(proxied)));
        control.path = ActivatorPath { populated_since: proxied.then_some(self.now), probed: proxied };
        let path = control.path;
        self.tell(Input::Path(path));
    }

    pub(super) fn begin_outage(&mut self, until: Time) {
        self.control.away = true;
        self.events.push(until, Event::OutageEnds);
    }

    pub(super) fn end_outage(&mut self) {
        self.control.away = false;
        // What a status holds survives; the load of the last window does not.
        let history = match &self.control.scaler {
            ScalerState::Requests(revision) => revision.evaluation().map(Evaluation::history),
            ScalerState::Hpa(_) | ScalerState::Fixed(_) => None,
        };
        self.start_autoscaler(self.fleet.counts(), history.unwrap_or_default());
        self.report_of_activators(true);
    }

    /// Notes that pods may have changed; [`Engine::settle`] tells.
    pub(super) fn tell_pods(&mut self) {
        self.control.pods_changed = true;
    }

    /// Tells the autoscaler how many pods there are, until that does not change them any more.
    pub(super) fn settle(&mut self) {
        while std::mem::take(&mut self.control.pods_changed) {
            let counts = self.fleet.counts();
            if counts != self.control.told && !self.control.away {
                self.control.told = counts;
                self.tell(Input::Pods(counts));
            }
        }
    }

    fn tell(&mut self, input: Input) {
        let ScalerState::Requests(revision) = &mut self.control.scaler else { return };
        if self.control.away {
            return;
        }
        let Some(plan) = revision.step(self.now, input) else { return };
        if let Some(decision) = revision.evaluation().and_then(|evaluation| evaluation.new_decision()) {
            let panicking = f64::from(u8::from(matches!(decision.mode, ScalingMode::Panic { .. })));
            let begins = panicking > self.meter.levels.panicking.value();
            self.meter.levels.panicking.set(self.now, panicking);
            self.meter.outcome.scaling.decisions += 1;
            self.meter.outcome.scaling.panics += u64::from(begins);
        }
        self.apply(plan);
    }

    fn apply(&mut self, plan: Plan) {
        if let Some(pods) = plan.scale {
            self.scale(pods);
        }
        self.use_activators(plan.activators);
        let control = &mut self.control;
        if self.scenario.platform.path == Path::ByPlan && plan.mode != control.mode {
            control.mode = plan.mode;
            control.mode_version += 1;
            let version = control.mode_version;
            self.events.push(self.now + self.scenario.platform.endpoint_delay, Event::Mode { version });
        }
        let control = &mut self.control;
        if plan.wake_at != control.wake_at {
            control.wake_at = plan.wake_at;
            control.wake_version += 1;
            let version = control.wake_version;
            if let Some(at) = plan.wake_at {
                self.events.push(at.max(self.now), Event::Wake { version });
            }
        }
    }

    /// Wants so many pods.
    pub(super) fn scale(&mut self, pods: u32) {
        let before = self.fleet.wanted();
        if pods != before {
            self.meter.outcome.scaling.ups += u64::from(pods > before);
            self.meter.outcome.scaling.downs += u64::from(pods < before);
            self.meter.levels.wanted.set(self.now, f64::from(pods));
            self.keep(pods::Event::Scale(pods));
        }
    }
}

/// More than any delay between a decision and its effects being reported.
const MARGIN: Duration = Duration::from_secs(10);
