//! The CPU usage of pods as metrics-server knows it: averages between its last two looks at each.

use std::collections::BTreeMap;
use std::time::Duration;

use pilotlight_core::Time;

/// How often metrics-server looks, unless told otherwise.
pub const CPU_RESOLUTION: Duration = Duration::from_secs(15);

/// A container this young is not told of from its start on: the share would be too inexact.
const FRESH_CONTAINER: Duration = Duration::from_secs(10);

/// The CPU that pods use, as metrics-server tells it: the average over the last [`CPU_RESOLUTION`], and so as old as
/// its last look. A pod is known after its second look, or after its first if that fell 10 to 15 s after its start.
///
/// ```
/// use pilotlight_core::Time;
/// use pilotlight_sim::hpa::{CpuMeter, CpuReading};
/// use std::time::Duration;
///
/// let mut meter = CpuMeter::default();
/// let used = |millis| CpuReading { running_since: Time::EPOCH, used: Duration::from_millis(millis) };
/// meter.scrape(Time::from_secs(15), [(1, used(3_000))]);
/// meter.scrape(Time::from_secs(30), [(1, used(9_000))]);
/// let usage = meter.usage(1).unwrap();
/// assert_eq!((usage.millicores, usage.window), (400, Duration::from_secs(15)));
/// ```
#[derive(Clone, Debug, Default)]
pub struct CpuMeter {
    pods: BTreeMap<u32, Looks>,
}

/// One look at a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuReading {
    /// The start of its container.
    pub running_since: Time,
    /// The CPU time it has used since.
    pub used: Duration,
}

/// The CPU a pod used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuUsage {
    /// In thousandths of a core; the rest of one counts as a whole, as everywhere in Kubernetes.
    pub millicores: u64,
    /// The end of the time it is the average of.
    pub at: Time,
    /// The length of that time.
    pub window: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Looks {
    previous: Option<Look>,
    last: Look,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    at: Time,
    used: Duration,
}

impl CpuMeter {
    /// Looks at all pods whose containers run, in any order. To be called every [`CPU_RESOLUTION`]; who is not
    /// looked at is forgotten.
    pub fn scrape(&mut self, now: Time, readings: impl IntoIterator<Item = (u32, CpuReading)>) {
        let before = std::mem::take(&mut self.pods);
        for (pod, CpuReading { running_since, used }) in readings {
            let age = now.since(running_since);
            let previous = if (FRESH_CONTAINER..CPU_RESOLUTION).contains(&age) {
                Some(Look { at: running_since, used: Duration::ZERO })
            } else {
                let has_restarted = |look: &Look| running_since >= look.at;
                before.get(&pod).map(|looks| looks.last).filter(|look| !has_restarted(look) && look.at < now)
            };
            self.pods.insert(pod, Looks { previous, last: Look { at: now, used } });
        }
    }

    /// The usage of a pod; `None`: not known (yet).
    pub fn usage(&self, pod: u32) -> Option<CpuUsage> {
        let &Looks { previous, last } = self.pods.get(&pod)?;
        let previous = previous?;
        let window = last.at - previous.at;
        let used_nanos = last.used.saturating_sub(previous.used).as_nanos();
        // Counted in billionths of a core first, rounded down, and those in thousandths, rounded up.
        let nanocores = (used_nanos * 1_000_000_000).checked_div(window.as_nanos())?;
        let millicores = u64::try_from(nanocores.div_ceil(1_000_000)).ok()?;
        Some(CpuUsage { millicores, at: last.at, window })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(started: u64, used_millis: u64) -> CpuReading {
        CpuReading { running_since: Time::from_secs(started), used: Duration::from_millis(used_millis) }
    }

    fn millicores(meter: &CpuMeter, pod: u32) -> Option<u64> {
        meter.usage(pod).map(|usage| usage.millicores)
    }

    #[test]
    fn usage_is_the_average_between_the_last_two_looks() {
        let mut meter = CpuMeter::default();
        let looks =
            [(100, 0, None), (115, 7_500, Some(500)), (130, 7_500, Some(0)), (145, 37_500, Some(2_000))];
        for (at, used_millis, expected) in looks {
            meter.scrape(Time::from_secs(at), [(7, reading(0, used_millis))]);
            assert_eq!(millicores(&meter, 7), expected, "at {at} s");
        }
        assert_eq!(meter.usage(7).unwrap().at, Time::from_secs(145));
    }

    #[test]
    fn part_of_a_thousandth_counts_as_a_whole_one() {
        let mut meter = CpuMeter::default();
        meter.scrape(Time::from_secs(100), [(7, reading(0, 0))]);
        meter.scrape(Time::from_secs(115), [(7, reading(0, 1))]);
        assert_eq!(millicores(&meter, 7), Some(1));
    }

    #[test]
    fn a_new_pod_is_known_after_one_look_if_that_is_10_to_15_seconds_after_its_start() {
        for (started, expected) in [(91, None), (90, Some(100)), (86, Some(72)), (85, None)] {
            let mut meter = CpuMeter::default();
            meter.scrape(Time::from_secs(100), [(7, reading(started, 1_000))]);
            assert_eq!(millicores(&meter, 7), expected, "started at {started} s");
        }
    }

    #[test]
    fn a_restart_and_an_absence_begin_anew() {
        let mut meter = CpuMeter::default();
        meter.scrape(Time::from_secs(100), [(7, reading(0, 9_000)), (8, reading(0, 9_000))]);
        meter.scrape(Time::from_secs(115), [(7, reading(110, 100))]);
        assert_eq!((meter.usage(7), meter.usage(8)), (None, None));
        meter.scrape(Time::from_secs(130), [(7, reading(110, 1_600)), (8, reading(0, 9_000))]);
        assert_eq!((millicores(&meter, 7), millicores(&meter, 8)), (Some(100), None));
    }
}
