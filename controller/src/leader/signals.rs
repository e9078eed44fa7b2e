//! The load above zero of workloads whose requests do not pass the activators: what an HPA's metrics or the pods' CPU show,
//! told to the autoscaler as if a pod had reported it. A quiet workload reports nothing in flight; any other one what its
//! pods are meant to carry, so that nothing is decided but whether the last of them may go.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::Client;
use pilotlight_autoscaler::Autoscaler;
use pilotlight_core::{RevisionId, RevisionSpec, ScalingMetric, Stat, Time};
use pilotlight_kubernetes::write::{WriteError, within};
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;

use super::hpa::amount;
use super::work::Worker;

/// The signal of one workload at a moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LoadSignal {
    pub(crate) spec: Arc<RevisionSpec>,
    pub(crate) replicas: u32,
    pub(crate) is_quiet: bool,
}

impl LoadSignal {
    /// The report that stands for it; `None`: it sleeps, and the activators see all that comes.
    pub(crate) fn stat(&self) -> Option<Stat> {
        if self.replicas == 0 {
            return None;
        }
        let load = if self.is_quiet { 0.0 } else { f64::from(self.replicas) * self.spec.target };
        let stat = Stat { pod_name: REPORTER.to_owned(), ..Stat::default() };
        Some(match self.spec.scaling_metric {
            ScalingMetric::Concurrency => Stat { average_concurrent_requests: load, ..stat },
            ScalingMetric::Rps => Stat { request_count: load, ..stat },
        })
    }
}

/// Reports for every workload whose load is seen by other means, once a second, for ever.
pub(crate) async fn report(worker: Arc<Worker>, autoscaler: Autoscaler) {
    let mut rounds = interval(BETWEEN_REPORTS);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let signals = worker.workloads.lock().load_signals();
        for (id, signal) in signals {
            if let Some(stat) = signal.stat() {
                autoscaler.take_in((id, stat)).await;
            }
        }
    }
}

/// The CPU of a workload's pods over the last hour. Pure.
#[derive(Debug, Default)]
pub(crate) struct CpuHistory {
    /// Cores of an average pod, oldest first.
    samples: VecDeque<(Time, f64)>,
}

impl CpuHistory {
    /// Takes in a sample. Returns whether the pods are quiet: their CPU lies where it lay at its lowest within an hour, all
    /// of which was seen.
    pub(crate) fn is_quiet(&mut self, now: Time, cores: f64) -> bool {
        self.samples.push_back((now, cores));
        let is_whole = self.samples.front().is_some_and(|(first, _)| now - *first >= HOUR);
        while self.samples.front().is_some_and(|(first, _)| now - *first > HOUR) {
            self.samples.pop_front();
        }
        let lowest = self.samples.iter().map(|(_, cores)| *cores).fold(f64::INFINITY, f64::min);
        is_whole && cores <= lowest + QUIET_CORES
    }
}

/// Asks for the CPU of the pods of workloads that are decided about by it, for ever.
pub(crate) async fn watch_cpu(client: Client, worker: Arc<Worker>) {
    let mut histories: BTreeMap<RevisionId, CpuHistory> = BTreeMap::new();
    let mut rounds = interval(BETWEEN_SAMPLES);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let pods = worker.workloads.lock().pods_by_cpu();
        histories.retain(|id, _| pods.contains_key(id));
        let namespaces: BTreeSet<&String> = pods.keys().map(|id| &id.namespace).collect();
        for namespace in namespaces {
            let cores = match pod_cores(&client, namespace).await {
                Ok(cores) => cores,
                Err(error) => {
                    debug!(namespace, %error, "The pods' CPU is not known");
                    continue;
                }
            };
            for (id, pods) in pods.iter().filter(|(id, _)| id.namespace == *namespace) {
                let known: Option<Vec<f64>> = pods.iter().map(|pod| cores.get(pod).copied()).collect();
                let Some(known) = known.filter(|known| !known.is_empty()) else { continue };
                let each = known.iter().sum::<f64>() / f64::from(u32::try_from(known.len()).unwrap_or(1));
                let is_quiet = histories.entry(id.clone()).or_default().is_quiet(worker.clock.now(), each);
                worker.workloads.lock().set_cpu_quiet(id, is_quiet);
            }
        }
    }
}

/// Cores that each pod of a namespace takes.
async fn pod_cores(client: &Client, namespace: &str) -> Result<BTreeMap<String, f64>, WriteError> {
    let request = Request::get(format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods"));
    let request = request.body(Vec::new());
    let request = request.map_err(|error| WriteError::Refused(format!("the namespace's name: {error}")))?;
    let list: Value = within(client.request(request)).await?;
    let cores_of =
        |container: &Value| amount(Some(&Quantity(container["usage"]["cpu"].as_str()?.to_owned())));
    let pod = |pod: &Value| {
        let containers: Option<Vec<f64>> = pod["containers"].as_array()?.iter().map(cores_of).collect();
        Some((pod["metadata"]["name"].as_str()?.to_owned(), containers?.iter().sum()))
    };
    Ok(list["items"].as_array().into_iter().flatten().filter_map(pod).collect())
}

/// The name that reports for pods which do not report by themselves.
const REPORTER: &str = "pilotlight-signal";
const BETWEEN_REPORTS: Duration = Duration::from_secs(1);
/// metrics-server's own period.
const BETWEEN_SAMPLES: Duration = Duration::from_secs(15);
const HOUR: Duration = Duration::from_secs(3_600);
/// 5 m: what an idle process takes more at one time than at another.
const QUIET_CORES: f64 = 0.005;

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(replicas: u32, is_quiet: bool) -> Option<f64> {
        let spec = Arc::new(RevisionSpec { target: 7.0, ..RevisionSpec::default() });
        LoadSignal { spec, replicas, is_quiet }.stat().map(|stat| stat.average_concurrent_requests)
    }

    #[test]
    fn pods_that_are_not_quiet_carry_what_they_are_meant_to() {
        assert_eq!(signal(3, false), Some(21.0));
        assert_eq!(signal(3, true), Some(0.0));
        assert_eq!(signal(0, false), None, "the activators see all that comes");
    }

    #[test]
    fn pods_are_quiet_at_the_lowest_of_an_hour_that_was_seen() {
        let mut history = CpuHistory::default();
        let mut at = |minutes: u64, cores| history.is_quiet(Time::from_secs(minutes * 60), cores);
        assert!(!at(0, 0.010), "the hour was not seen");
        assert!(!at(59, 0.010));
        assert!(at(60, 0.014));
        assert!(!at(61, 0.016), "6 m above the lowest");
        assert!(at(62, 0.009));
        assert!(!at(121, 0.015));
        assert!(at(125, 0.020), "the low hour is over");
    }
}
