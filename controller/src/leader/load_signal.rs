//! The load of a workload whose requests do not pass the activators, as a report. Pure.

use std::sync::Arc;

use pilotlight_core::{RevisionSpec, ScalingMetric, Stat};

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

/// The name that reports for pods which do not report by themselves.
const REPORTER: &str = "pilotlight-signal";

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
}
