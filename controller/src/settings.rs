//! The settings of a workload, parsed once: the RequestAutoscaler, what annotations of its target fill in, and the cluster's
//! defaults.
//!
//! Scaling is Knative's, and so are the rules: each field of the spec becomes the annotation that it is named after, and is
//! read by the one table of keys that annotations are read by. A fault names the field.

mod checks;
mod written;

use std::collections::BTreeMap;
use std::time::Duration;

use pilotlight_config::keys::{Key, Time, annotation};
use pilotlight_config::{AutoscalerConfig, Fault, Parsed, Verdict, resolve};
use pilotlight_core::{ConcurrencyLimit, Reachability, RevisionSpec, TargetBurstCapacity, Timeouts};

use self::written::WrittenSettings;
use crate::Workload;
use crate::crd::{IgnoreRule, Interception, Mode};
use crate::refusal::{AtZeroSignal, Way};

/// The settings of a workload, all of them legal.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// The settings that decisions are made by, before it is known how the load is seen: see
    /// [`for_path`](Accepted::for_path).
    pub spec: RevisionSpec,
    /// The most requests that a pod is given at once.
    pub limit: ConcurrencyLimit,
    /// The limits of each request's time.
    pub timeouts: Timeouts,
    /// Whether anything is scaled.
    pub mode: Mode,
    /// How traffic is to reach the activators.
    pub interception: Interception,
    /// The longest time that a pod which is to go may take over the requests it has.
    pub scale_in_drain: Duration,
    /// How long a TCP connection without a byte counts as in flight.
    pub tcp_idle: Duration,
    /// How long a TCP connection without a byte is kept; `None`: for ever.
    pub tcp_idle_timeout: Option<Duration>,
    /// Requests that are no demand. Each rule has a path or a part of a User-Agent.
    pub ignore: Vec<IgnoreRule>,
    /// Names of ports on which connections begin with a header of the PROXY protocol.
    pub proxy_protocol: Vec<String>,
    /// Settings that are legal and without effect, or that are written twice: a sentence each.
    pub warnings: Vec<String>,
}

impl Accepted {
    /// The settings that decisions are made by, once it is known how the load is seen. Where the activators see every
    /// request they stay in the path, and nobody asks the pods; elsewhere they leave it as soon as there are pods.
    pub fn for_path(&self, way: Way) -> RevisionSpec {
        let (target_burst_capacity, scraped) = match way {
            Way::Always => (TargetBurstCapacity::Unlimited, false),
            Way::AtZero(AtZeroSignal::QueueProxy) => (TargetBurstCapacity::Off, true),
            Way::AtZero(AtZeroSignal::Autoscaler | AtZeroSignal::Cpu) | Way::WakeOnly => {
                (TargetBurstCapacity::Off, false)
            }
        };
        RevisionSpec { target_burst_capacity, scraped, ..self.spec.clone() }
    }
}

/// The settings of a workload; or everything that is wrong, one sentence each, that names the field or the annotation.
///
/// `target_annotations` are those of the object that is scaled. They fill what the spec leaves open.
pub fn accept(
    workload: &Workload,
    target_annotations: &BTreeMap<String, String>,
    config: &AutoscalerConfig,
) -> Result<Accepted, Vec<String>> {
    let spec = &workload.autoscaler.spec;
    let written = WrittenSettings::of(spec, target_annotations, config);
    let limit = ConcurrencyLimit::from(spec.container_concurrency.unwrap_or(0));
    let Parsed { value, warnings } = resolve(config, &written.annotations, limit, Reachability::Reachable);
    let mut faults = Vec::new();
    let resolved = match value {
        Ok(Verdict::Resolved(resolved)) => Some(resolved.spec),
        Ok(Verdict::OtherClass(class)) => {
            faults.push(format!("{}: {class} is another autoscaler's", annotation::CLASS.name));
            None
        }
        Err(wrong) => {
            faults.extend(wrong.into_vec().into_iter().map(|fault| written.fault(fault).to_string()));
            None
        }
    };
    let mut warnings: Vec<String> =
        warnings.into_iter().map(|warning| written.warning(warning).to_string()).collect();
    warnings.extend(written.overruled.iter().cloned());

    let mut time = |key: &'static Key<Time>, text: &Option<String>| {
        let text = text.as_deref()?;
        key.read(text).map_err(|rule| faults.push(Fault::new(key.name, text, rule).to_string())).ok()
    };
    let scale_in_drain = time(&SCALE_IN_DRAIN, &spec.scale_in_drain);
    let tcp_idle = time(&TCP_IDLE, &spec.tcp_idle);
    let tcp_idle_timeout = time(&TCP_IDLE_TIMEOUT, &spec.tcp_idle_timeout);
    if spec.timeout_seconds == Some(0) {
        faults.push("timeoutSeconds: \"0\" is not a whole number of at least 1".to_owned());
    }
    faults.extend(checks::references(spec));
    faults.extend(checks::ignore_rules(&spec.ignore));
    faults.extend(checks::proxy_protocol(workload));
    match resolved {
        Some(resolved) if faults.is_empty() => Ok(Accepted {
            spec: resolved,
            limit,
            timeouts: spec.timeout_seconds.map_or_else(Timeouts::default, |seconds| {
                Timeouts::total(Duration::from_secs(seconds.into()))
            }),
            mode: spec.mode,
            interception: spec.interception,
            scale_in_drain: scale_in_drain.unwrap_or(DEFAULT_SCALE_IN_DRAIN),
            tcp_idle: tcp_idle.unwrap_or(DEFAULT_TCP_IDLE),
            tcp_idle_timeout,
            ignore: spec.ignore.clone(),
            proxy_protocol: spec.proxy_protocol.clone(),
            warnings,
        }),
        _ => Err(faults),
    }
}

static SCALE_IN_DRAIN: Key<Time> = Key {
    name: "scaleInDrain",
    alias: None,
    rule: Time { min: Duration::ZERO, max: Some(HOUR), whole_seconds: false },
    default: "30s",
    counterpart: None,
    doc: "The longest time that a pod which is to go may take over the requests it has.",
    example: "2m",
};

static TCP_IDLE: Key<Time> = Key {
    name: "tcpIdle",
    alias: None,
    rule: Time { min: LEAST_TIME, max: None, whole_seconds: false },
    default: "60s",
    counterpart: None,
    doc: "How long a TCP connection without a byte counts as a request in flight.",
    example: "5m",
};

static TCP_IDLE_TIMEOUT: Key<Time> = Key {
    name: "tcpIdleTimeout",
    alias: None,
    rule: Time { min: LEAST_TIME, max: None, whole_seconds: false },
    default: "",
    counterpart: None,
    doc: "How long a TCP connection without a byte is kept.",
    example: "1h",
};

const DEFAULT_SCALE_IN_DRAIN: Duration = Duration::from_secs(30);
const DEFAULT_TCP_IDLE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
/// The least time above zero.
const LEAST_TIME: Duration = Duration::from_nanos(1);

#[cfg(test)]
mod tests;
