//! The parts of a scenario apart from cluster and settings: load, app, pods, clients, platform.

use std::path::Path as FilePath;
use std::time::Duration;

use pilotlight_config::workload::manifest::Node;
use pilotlight_config::{Findings, duration as go};
use pilotlight_core::{Time, TroubleReason};

use super::fields;
use crate::dist::Distribution;
use crate::read::{distribution, millicores, number, positive_time, scalar, share, time, whole, word};
use crate::scenario::{
    App, Balancing, Clients, FailingStarts, Load, Outage, Path, Platform, Pods, Slowdown, UserStep, Users,
    Victim,
};
use crate::traffic::TrafficSpec;

pub(super) fn load(node: &Node<'_>, base_dir: &FilePath, findings: &mut Findings) -> Option<Load> {
    if !node.is_present() {
        node.fault("is missing: the source of requests, such as `constant: {rate: 10, for: 5m}`", findings);
        return None;
    }
    if node.child("users").is_present() {
        fields::LOAD.check(node, findings);
        return users(&node.child("users"), base_dir, findings).map(Load::Closed);
    }
    let before = findings.faults.len();
    let spec = TrafficSpec::read_beside(node, &["users"], findings)?;
    // Faulty traffic is not loaded: loading would tell the same faults once more.
    if findings.faults.len() > before {
        return None;
    }
    match spec.load(base_dir) {
        Ok(traffic) => {
            for loaded in traffic.loaded() {
                for warning in loaded.warnings.iter().chain(&loaded.left_out) {
                    findings.warn(&node.path, format!("{}: {warning}", loaded.file));
                }
            }
            Some(Load::Open(traffic))
        }
        Err(error) => {
            findings.faults.push(error.at(&node.path));
            None
        }
    }
}

fn users(node: &Node<'_>, base_dir: &FilePath, findings: &mut Findings) -> Option<Users> {
    fields::USERS.check(node, findings);
    let think = distribution(&node.child("think"), base_dir, findings);
    let list = node.child("steps");
    let steps: Vec<UserStep> =
        list.items(findings).iter().filter_map(|item| user_step(item, findings)).collect();
    if !list.is_present() || list.value.and_then(|value| value.as_array()).is_some_and(Vec::is_empty) {
        list.fault("is missing: the number of users, and from which time on", findings);
        return None;
    }
    for (at, pair) in steps.windows(2).enumerate() {
        if pair[1].at <= pair[0].at {
            let path = format!("{}[{}].at", list.path, at + 1);
            let shown = go::format(pair[1].at - Time::EPOCH);
            findings.fault(&path, &shown, "is not after the step before it");
        }
    }
    Some(Users { steps, think: think.unwrap_or_else(|| Duration::ZERO.into()) })
}

fn user_step(node: &Node<'_>, findings: &mut Findings) -> Option<UserStep> {
    fields::STEP.check(node, findings);
    let number_of = node.child("users");
    if !number_of.is_present() {
        number_of.fault("is missing", findings);
    }
    let at = time(&node.child("at"), findings).unwrap_or_default();
    let spawn_rate = number(&node.child("spawn-rate"), 1e-6, 1e9, findings);
    Some(UserStep { at: Time::EPOCH + at, users: whole(&number_of, 0, MOST_USERS, findings)?, spawn_rate })
}

/// The duration; the load's where none is written.
pub(super) fn duration(root: &Node<'_>, load: Option<&Load>, findings: &mut Findings) -> Option<Duration> {
    let node = root.child("duration");
    match (node.is_present(), load) {
        (true, _) => positive_time(&node, findings),
        (false, Some(Load::Open(traffic))) => Some(traffic.duration()),
        (false, Some(Load::Closed(_))) => {
            node.fault("is missing: a load of users has no duration of its own", findings);
            None
        }
        (false, None) => None,
    }
}

pub(super) fn app(
    node: &Node<'_>,
    load: Option<&Load>,
    base_dir: &FilePath,
    findings: &mut Findings,
) -> Option<App> {
    fields::APP.check(node, findings);
    let service = node.child("service-time");
    let service_time = if service.is_present() {
        distribution(&service, base_dir, findings)
    } else if load.is_none_or(says_service_times) {
        Some(Duration::ZERO.into())
    } else {
        service.fault("is missing: how long a request takes that is alone on a pod", findings);
        None
    };
    let cores = millicores(&node.child("cores"), findings).map(|milli| f64::from(milli) / 1e3);
    let cores_per_request = number(&node.child("cores-per-request"), 0.0, 1e6, findings);
    let slowdown = Slowdown {
        contention: number(&node.child("contention"), 0.0, 1e6, findings).unwrap_or_default(),
        coherency: number(&node.child("coherency"), 0.0, 1e6, findings).unwrap_or_default(),
        cores,
        cores_per_request: cores_per_request.unwrap_or(if cores.is_some() { 1.0 } else { 0.0 }),
    };
    let error_fraction = share(&node.child("errors"), findings).unwrap_or_default();
    Some(App { service_time: service_time?, slowdown, error_fraction })
}

/// Whether every request brings its service time along, as those of most traces do.
fn says_service_times(load: &Load) -> bool {
    match load {
        // Arrivals of a pattern are alike: the first of them settles it, and a trace is read anyway.
        Load::Open(traffic) => traffic.arrivals(1).all(|arrival| arrival.service.is_some()),
        Load::Closed(_) => false,
    }
}

pub(super) fn pods(node: &Node<'_>, base_dir: &FilePath, findings: &mut Findings) -> Pods {
    fields::PODS.check(node, findings);
    let defaults = Pods::default();
    let phase = |name: &str, default: Distribution, findings: &mut Findings| {
        distribution(&node.child(name), base_dir, findings).unwrap_or(default)
    };
    Pods {
        schedule: phase("schedule", defaults.schedule, findings),
        provision: phase("provision", defaults.provision, findings),
        pull: phase("pull", defaults.pull, findings),
        cached_pull: phase("cached-pull", defaults.cached_pull, findings),
        init: phase("init", defaults.init, findings),
        ready: phase("ready", defaults.ready, findings),
        warm: whole(&node.child("warm"), 0, MOST_PODS, findings),
        crash_after: distribution(&node.child("crash-after"), base_dir, findings),
        failing_starts: failing_starts(&node.child("failing-starts"), base_dir, findings),
        drain_quiet: time(&node.child("drain-quiet"), findings).unwrap_or(defaults.drain_quiet),
        termination_grace: time(&node.child("termination-grace"), findings)
            .unwrap_or(defaults.termination_grace),
    }
}

/// A share of starts that fail, or a map with the share and how they fail.
fn failing_starts(node: &Node<'_>, base_dir: &FilePath, findings: &mut Findings) -> Option<FailingStarts> {
    if !node.is_present() {
        return None;
    }
    let mut failing = FailingStarts {
        fraction: 1.0,
        after: Duration::ZERO.into(),
        until: None,
        reason: TroubleReason::Exited,
    };
    if !node.value.is_some_and(serde_json::Value::is_object) {
        failing.fraction = share(node, findings)?;
        return Some(failing);
    }
    fields::FAILING_STARTS.check(node, findings);
    failing.fraction = share(&node.child("share"), findings).unwrap_or(failing.fraction);
    failing.after = distribution(&node.child("after"), base_dir, findings).unwrap_or(failing.after);
    failing.until = time(&node.child("until"), findings).map(|until| Time::EPOCH + until);
    failing.reason = word(&node.child("reason"), REASONS, findings).unwrap_or(failing.reason);
    Some(failing)
}

pub(super) fn clients(node: &Node<'_>, findings: &mut Findings) -> Clients {
    fields::CLIENTS.check(node, findings);
    let defaults = Clients::default();
    Clients {
        timeout: positive_time(&node.child("timeout"), findings),
        retries: whole(&node.child("retries"), 0, 100, findings).unwrap_or(defaults.retries),
        backoff: time(&node.child("backoff"), findings).unwrap_or(defaults.backoff),
    }
}

/// A word, or a map with the word under `kind` and what is different.
pub(super) fn platform(node: &Node<'_>, findings: &mut Findings) -> Platform {
    if !node.value.is_some_and(serde_json::Value::is_object) {
        return word(node, PLATFORMS, findings).map_or_else(Platform::local, |platform| platform());
    }
    fields::PLATFORM.check(node, findings);
    let known = word(&node.child("kind"), PLATFORMS, findings);
    let platform = known.map_or_else(Platform::local, |platform| platform());
    let outages = node.child("outages");
    Platform {
        path: word(&node.child("activator"), PATHS, findings).unwrap_or(platform.path),
        activators: whole(&node.child("activators"), 1, 10_000, findings).unwrap_or(platform.activators),
        activator_queue: whole(&node.child("activator-queue"), 0, u32::MAX, findings)
            .unwrap_or(platform.activator_queue),
        request_timeout: positive_time(&node.child("request-timeout"), findings)
            .unwrap_or(platform.request_timeout),
        endpoint_delay: time(&node.child("endpoint-delay"), findings).unwrap_or(platform.endpoint_delay),
        scrape_loss_fraction: share(&node.child("scrape-loss"), findings)
            .unwrap_or(platform.scrape_loss_fraction),
        autoscaler_outages: outages
            .items(findings)
            .iter()
            .filter_map(|item| outage(item, findings))
            .collect(),
        victim: word(&node.child("victim"), VICTIMS, findings).unwrap_or(platform.victim),
        balancing: word(&node.child("balancing"), BALANCINGS, findings).unwrap_or(platform.balancing),
    }
}

fn outage(node: &Node<'_>, findings: &mut Findings) -> Option<Outage> {
    fields::OUTAGE.check(node, findings);
    let (at, lasts) = (node.child("at"), node.child("for"));
    for field in [&at, &lasts] {
        if scalar(field, findings).is_none() {
            field.fault("is missing", findings);
        }
    }
    Some(Outage { at: Time::EPOCH + time(&at, findings)?, lasts: positive_time(&lasts, findings)? })
}

/// A platform as it is where nothing else is written.
type Preset = fn() -> Platform;

const PLATFORMS: &[(&str, Preset)] =
    &[("local", Platform::local), ("knative", Platform::knative), ("kubernetes", Platform::knative)];
const PATHS: &[(&str, Path)] = &[("always", Path::Always), ("by-plan", Path::ByPlan), ("never", Path::Never)];
const VICTIMS: &[(&str, Victim)] = &[("least-busy", Victim::LeastBusy), ("youngest", Victim::Youngest)];
const REASONS: &[(&str, TroubleReason)] = &[
    ("exited", TroubleReason::Exited),
    ("never-ready", TroubleReason::NeverReady),
    ("cannot-start", TroubleReason::CannotStart),
];
const BALANCINGS: &[(&str, Balancing)] =
    &[("pilotlight", Balancing::Pilotlight), ("knative", Balancing::Knative)];

/// Each is in memory all the time.
const MOST_USERS: u32 = 10_000_000;
const MOST_PODS: u32 = 1_000_000;
