//! Usage of pods: how long they existed, how many there were.

use std::time::Duration;

use pilotlight_core::Time;

/// Usage of a workload's pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Usage {
    /// Time all pods together have existed, from start to end.
    pub pod_time: Duration,
    /// Pods that were started.
    pub started: u32,
    /// Pods that ended by themselves, or never came up.
    pub failed: u32,
    /// The most pods there were at once.
    pub peak: u32,
}

/// Adds up usage between changes of the number of pods.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meter {
    usage: Usage,
    pods: u32,
    since: Time,
}

impl Meter {
    pub(crate) fn new(now: Time) -> Self {
        Meter { usage: Usage::default(), pods: 0, since: now }
    }

    pub(crate) fn read(&self, now: Time) -> Usage {
        Usage { pod_time: self.usage.pod_time + (now - self.since) * self.pods, ..self.usage }
    }

    pub(crate) fn set_pods(&mut self, now: Time, pods: u32) {
        self.usage = self.read(now);
        self.usage.peak = self.usage.peak.max(pods);
        (self.pods, self.since) = (pods, now);
    }

    pub(crate) fn add_started(&mut self) {
        self.usage.started += 1;
    }

    pub(crate) fn add_failed(&mut self) {
        self.usage.failed += 1;
    }
}
