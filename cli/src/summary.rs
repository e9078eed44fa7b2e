//! Summary of a run, in the fields people know from load tools; printed when it ends.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use pilotlight_activator::{ColdStart, Latencies, RevisionLedger};
use pilotlight_local::Usage;
use serde::Serialize;

use crate::latency::for_people;
use crate::stack::Stack;

/// A whole run in numbers. Durations are in seconds.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// From start to end.
    pub duration_s: f64,
    /// Requests that arrived.
    pub requests: u64,
    /// Requests a second.
    pub rate: f64,
    /// The share of 2xx and 101 (a protocol was switched) among the responses; `None` without any.
    pub success_fraction: Option<f64>,
    /// Responses by status code.
    pub status_codes: BTreeMap<u16, u64>,
    /// From arrival to the end of the response; `None` without requests.
    pub latency: Option<Quantiles>,
    /// Requests whose client left first.
    pub abandoned: u64,
    /// Requests that a pod took and did not answer, or not to the end.
    pub lost: u64,
    /// Requests that were still in flight when everything was ended at once.
    pub cut: u64,
    /// Times that a request had to wait for the first pod.
    pub cold_starts: u64,
    /// From the request's arrival at zero to each step, over all cold starts; `None` without any.
    pub cold_start_steps: Option<ColdStartSteps>,
    /// The latest cold starts with their steps, the latest first.
    pub recent_cold_starts: Vec<ColdStartSummary>,
    /// Time all pods together existed.
    pub pod_seconds: f64,
    /// Pods that were started.
    pub pods_started: u32,
    /// Pods that ended by themselves, or never came up.
    pub pods_failed: u32,
    /// The most pods of one workload at once.
    pub peak_pods: u32,
}

/// Time from the request's arrival to the end of each step of a cold start, in seconds, over the latest cold starts.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ColdStartSteps {
    /// The decision was made.
    decide: Quantiles,
    /// The process had been started.
    spawned: Quantiles,
    /// The pod was ready.
    ready: Quantiles,
    /// The request was sent to it.
    forwarded: Quantiles,
}

/// A distribution, in seconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Quantiles {
    mean: f64,
    p50: f64,
    p90: f64,
    p95: f64,
    p99: f64,
    max: f64,
}

/// A cold start and its steps, in seconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ColdStartSummary {
    /// All steps together.
    total: f64,
    /// From the request's arrival to the decision.
    decide: f64,
    /// To the process.
    start: f64,
    /// To its readiness.
    ready: f64,
    /// To the request's departure to it.
    forward: f64,
}

impl Summary {
    /// The numbers of a stack so far.
    pub fn of(stack: &Stack) -> Summary {
        let ledger = stack.activator.ledger().total;
        let usage: Vec<Usage> = stack.cluster.usage().into_values().collect();
        Summary::new(stack.clock.now() - stack.started, &ledger, stack.before_cut(), &usage)
    }

    /// `before_cut`: the books as they were before everything was ended at once. Requests that ended badly since then
    /// were ended by us, neither by their clients nor by pods.
    fn new(
        duration: Duration,
        ledger: &RevisionLedger,
        before_cut: Option<&RevisionLedger>,
        usage: &[Usage],
    ) -> Summary {
        let answered: u64 = ledger.statuses.values().sum();
        let is_success = |status: u16| status == 101 || (200..300).contains(&status);
        let succeeded: u64 =
            ledger.statuses.iter().filter(|(status, _)| is_success(**status)).map(|(_, count)| count).sum();
        let ended_badly = |ledger: &RevisionLedger| ledger.abandoned + ledger.lost + ledger.broken;
        let judged = before_cut.unwrap_or(ledger);
        Summary {
            duration_s: duration.as_secs_f64(),
            requests: ledger.requests,
            rate: ledger.requests as f64 / duration.as_secs_f64().max(f64::MIN_POSITIVE),
            success_fraction: (answered > 0).then(|| succeeded as f64 / answered as f64),
            status_codes: ledger.statuses.clone(),
            latency: Quantiles::of(&ledger.latency),
            abandoned: judged.abandoned,
            lost: judged.lost + judged.broken,
            cut: ended_badly(ledger) - ended_badly(judged),
            cold_starts: ledger.cold_starts.count,
            cold_start_steps: ColdStartSteps::of(&ledger.cold_starts.recent),
            recent_cold_starts: ledger
                .cold_starts
                .recent
                .iter()
                .rev()
                .take(COLD_STARTS_LISTED)
                .map(ColdStartSummary::of)
                .collect(),
            pod_seconds: usage.iter().map(|usage| usage.pod_time.as_secs_f64()).sum(),
            pods_started: usage.iter().map(|usage| usage.started).sum(),
            pods_failed: usage.iter().map(|usage| usage.failed).sum(),
            peak_pods: usage.iter().map(|usage| usage.peak).max().unwrap_or_default(),
        }
    }
}

impl ColdStartSteps {
    fn of(starts: &VecDeque<ColdStart>) -> Option<ColdStartSteps> {
        let until = |step: fn(&ColdStart) -> Duration| Quantiles::of_few(starts.iter().map(step).collect());
        Some(ColdStartSteps {
            decide: until(|it| it.decide)?,
            spawned: until(|it| it.decide + it.start)?,
            ready: until(|it| it.decide + it.start + it.ready)?,
            forwarded: until(ColdStart::total)?,
        })
    }
}

impl Quantiles {
    /// Exact quantiles of values that are all at hand.
    fn of_few(mut values: Vec<Duration>) -> Option<Quantiles> {
        values.sort_unstable();
        let at = |fraction: f64| {
            let rank = (values.len() as f64 * fraction).ceil() as usize;
            values.get(rank.saturating_sub(1)).map(Duration::as_secs_f64)
        };
        Some(Quantiles {
            p50: at(0.5)?,
            p90: at(0.9)?,
            p95: at(0.95)?,
            p99: at(0.99)?,
            max: at(1.0)?,
            mean: values.iter().sum::<Duration>().as_secs_f64() / values.len() as f64,
        })
    }

    fn of(latencies: &Latencies) -> Option<Quantiles> {
        let at = |fraction| latencies.quantile(fraction).map(|it| it.as_secs_f64());
        Some(Quantiles {
            mean: latencies.mean()?.as_secs_f64(),
            p50: at(0.5)?,
            p90: at(0.9)?,
            p95: at(0.95)?,
            p99: at(0.99)?,
            max: latencies.max()?.as_secs_f64(),
        })
    }
}

impl ColdStartSummary {
    fn of(it: &ColdStart) -> ColdStartSummary {
        ColdStartSummary {
            total: it.total().as_secs_f64(),
            decide: it.decide.as_secs_f64(),
            start: it.start.as_secs_f64(),
            ready: it.ready.as_secs_f64(),
            forward: it.forward.as_secs_f64(),
        }
    }
}

impl ColdStartSummary {
    /// The steps one by one.
    pub fn in_words(&self) -> String {
        let time = |seconds: f64| for_people(Duration::from_secs_f64(seconds));
        let [total, decide, start, ready, forward] =
            [self.total, self.decide, self.start, self.ready, self.forward].map(time);
        format!("{total} (decide {decide}, start {start}, ready {ready}, forward {forward})")
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |seconds: f64| for_people(Duration::from_secs_f64(seconds.max(0.0)));
        let codes: Vec<String> =
            self.status_codes.iter().map(|(code, count)| format!("{code}:{count}")).collect();
        writeln!(f, "Requests      [total, rate]                 {}, {:.2}/s", self.requests, self.rate)?;
        writeln!(f, "Duration      [total]                       {}", time(self.duration_s))?;
        if let Some(Quantiles { mean, p50, p90, p95, p99, max }) = self.latency {
            let all = [mean, p50, p90, p95, p99, max].map(time).join(", ");
            writeln!(f, "Latencies     [mean, 50, 90, 95, 99, max]   {all}")?;
        }
        if let Some(fraction) = self.success_fraction {
            writeln!(f, "Success       [ratio]                       {:.2}%", fraction * 100.0)?;
        }
        writeln!(f, "Status Codes  [code:count]                  {}", codes.join("  "))?;
        writeln!(f, "Cold starts   [count]                       {}", self.cold_starts)?;
        for it in self.recent_cold_starts.iter().take(COLD_STARTS_SHOWN) {
            writeln!(f, "                                            {}", it.in_words())?;
        }
        let Summary { pods_started, pods_failed, peak_pods, .. } = self;
        writeln!(
            f,
            "Pods          [started, failed, peak]       {pods_started}, {pods_failed}, {peak_pods}"
        )?;
        writeln!(f, "Pod-seconds   [total]                       {:.1}", self.pod_seconds)?;
        if self.abandoned > 0 {
            writeln!(f, "Abandoned     [by their clients]            {}", self.abandoned)?;
        }
        if self.cut > 0 {
            writeln!(f, "Cut           [by the second signal]        {}", self.cut)?;
        }
        write!(f, "Lost          [a pod took, did not answer]  {}", self.lost)
    }
}

/// Cold starts that are listed in JSON.
const COLD_STARTS_LISTED: usize = 20;
/// Cold starts that are shown to people.
const COLD_STARTS_SHOWN: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(abandoned: u64, lost: u64, broken: u64) -> RevisionLedger {
        RevisionLedger { requests: 30, abandoned, lost, broken, ..RevisionLedger::default() }
    }

    #[test]
    fn a_switched_protocol_is_a_success() {
        let statuses = [(101, 26), (200, 2), (304, 1), (503, 3)].into();
        let summary =
            Summary::new(Duration::from_secs(1), &RevisionLedger { statuses, ..ledger(0, 0, 0) }, None, &[]);
        assert_eq!(summary.success_fraction, Some(28.0 / 32.0));
    }

    #[test]
    fn what_we_cut_off_was_not_abandoned_by_its_client_nor_lost_by_a_pod() {
        let (before, after) = (ledger(1, 2, 3), ledger(4, 4, 4));
        let summary = Summary::new(Duration::from_secs(1), &after, Some(&before), &[]);
        assert_eq!((summary.abandoned, summary.lost, summary.cut), (1, 5, 6));
        let text = summary.to_string();
        assert!(text.contains("\nCut           [by the second signal]        6\n"), "{text}");
        assert!(text.ends_with("\nLost          [a pod took, did not answer]  5"), "{text}");
        let whole = Summary::new(Duration::from_secs(1), &after, None, &[]);
        assert_eq!((whole.abandoned, whole.lost, whole.cut), (4, 8, 0));
    }
}
