//! The simulator and the real thing, side by side: the same load on `pilotlight run`, with real processes and real
//! HTTP, and in a simulation. They must tell the same story.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pilotlight_cli::load::{End, Load, RunningLoad};
use pilotlight_config::workload::{self, Manifest};
use pilotlight_core::{Input, PodCounts, Record, Time};
use pilotlight_sim::scenario::{Load as SimulatedLoad, Platform, Scenario, Settings, UserStep, Users};
use pilotlight_sim::{Outcome, Run, replay, simulate};
use pilotlight_tests::SOON;
use pilotlight_tests::manifest::{arg, config, file, service};
use pilotlight_tests::run::{Pilotlight, sample_command};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

/// Time of a request, alone on a pod; time of a pod to come up.
const WORK: Duration = Duration::from_millis(200);
const STARTUP: Duration = Duration::from_secs(1);
/// How long both are watched: the load, and the way back to nothing.
const WATCHED: Duration = Duration::from_secs(50);

/// Users who send one request after the other: how many, from when, until when, in seconds.
type Crowd = (u32, u64, u64);

#[tokio::test]
async fn a_step_is_simulated_as_it_is() {
    compare(&[(3, 0, 26), (15, 8, 20)]).await;
}

#[tokio::test]
async fn a_ramp_is_simulated_as_it_is() {
    let crowds: Vec<Crowd> = (0..12).map(|i| (1, 2 * i, 26)).collect();
    compare(&crowds).await;
}

#[tokio::test]
async fn a_burst_is_simulated_as_it_is() {
    compare(&[(2, 0, 26), (25, 8, 12)]).await;
}

/// Runs both and compares them. A machine that does something else for a moment is given another chance; three such
/// moments in a row are a difference.
async fn compare(crowds: &[Crowd]) {
    let simulated = simulated(crowds);
    let mut differences = Vec::new();
    for _ in 0..3 {
        let live = live(crowds).await;
        differences = live.differences(&simulated);
        if differences.is_empty() {
            return;
        }
        eprintln!("{differences:#?}");
    }
    panic!("{differences:#?}");
}

/// The settings of both, as people write them.
fn manifests() -> [Value; 2] {
    let startup = format!("{}ms", STARTUP.as_millis());
    let mut command = sample_command();
    command.extend(["--startup".to_owned(), startup]);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let mut service = service("app", &[("target", "4"), ("target-utilization-percentage", "75")], &command);
    service["spec"]["template"]["spec"]["containerConcurrency"] = 4.into();
    // An odd window: the end of an even one, and with it that of panic, would fall on a tick to the nanosecond, and then
    // how late each tick is decides whether it is over.
    [service, config(&[("stable-window", "11s"), ("scale-to-zero-grace-period", "6s")])]
}

/// Outcome of the live run.
struct Live {
    /// From when on there were which pods, since the load began.
    pods: Vec<(Duration, PodCounts)>,
    summary: Value,
}

async fn live(crowds: &[Crowd]) -> Live {
    let [service, config] = manifests();
    let (service, config) = (file(&[service]), file(&[config]));
    let journal = tempfile::NamedTempFile::new().expect("a temporary file");
    let args = ["--journal", arg(journal.path()), "-f", arg(service.path())];
    let mut pilotlight = Pilotlight::run_with(arg(config.path()), args).await;

    // The autoscaler decides in every second second: the simulated clock begins at an even one.
    let (wall, start) = (SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970"), Instant::now());
    let wait = Duration::from_secs(2 - wall.as_secs() % 2) - Duration::from_nanos(wall.subsec_nanos().into());
    let (began, start) = (wall + wait, start + wait);
    let mut loads: Vec<RunningLoad> = Vec::new();
    for &(users, from, until) in &sorted(crowds) {
        sleep_until(start + Duration::from_secs(from)).await;
        let end = End::After(Duration::from_secs(until - from));
        let load =
            Load { connections: users, end, ..pilotlight.load(&format!("/?sleep={}", WORK.as_millis())) };
        loads.push(load.start().expect("a legal load"));
    }
    for load in loads {
        let summary = load.finish().await;
        assert_eq!(summary.failed(), 0, "{summary}");
    }
    sleep_until(start + WATCHED).await;
    pilotlight.signal(Signal::TERM);
    assert!(pilotlight.exit(SOON).await.success());

    let journal = fs::read_to_string(journal.path()).expect("the journal");
    let replayed = replay(journal.as_bytes()).expect("a whole journal");
    assert!(replayed.evaluations > 15 && replayed.differing == 0, "{replayed:?}");
    let records = journal.lines().map(|line| serde_json::from_str::<Record>(line).expect("a record"));
    let pods = records.flat_map(|record| record.inputs).filter_map(|(at, input)| match input {
        Input::Pods(pods) => Some((at - (Time::EPOCH + began), pods)),
        _ => None,
    });
    let pods = pods.collect();
    let said = pilotlight.said();
    let mut lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let summary = lines.rfind(|line| line["event"] == "summary").expect("a summary");
    Live { pods, summary }
}

fn sorted(crowds: &[Crowd]) -> Vec<Crowd> {
    let mut crowds = crowds.to_vec();
    crowds.sort_by_key(|&(_, from, _)| from);
    crowds
}

fn simulated(crowds: &[Crowd]) -> Outcome {
    let mut changes: Vec<u64> = crowds.iter().flat_map(|&(_, from, until)| [from, until]).collect();
    changes.sort_unstable();
    changes.dedup();
    let there = |at: u64| crowds.iter().filter(move |&&(_, from, until)| (from..until).contains(&at));
    let steps = changes.into_iter().map(|at| UserStep {
        at: Time::from_secs(at),
        users: there(at).map(|&(users, ..)| users).sum(),
        spawn_rate: None,
    });
    let load = SimulatedLoad::Closed(Users { steps: steps.collect(), think: Duration::ZERO.into() });
    let mut scenario = Scenario::new(load, WATCHED, WORK);
    scenario.pods.init = STARTUP.into();
    scenario.platform = Platform::local();

    let texts = manifests().map(|manifest| manifest.to_string());
    let files = texts.each_ref().map(|text| Manifest { file: "manifest", text });
    let workload = workload::read(&files, None).value.expect("legal manifests").workloads.remove(0);
    // A local service starts asleep.
    let spec = pilotlight_core::RevisionSpec { initial_scale: 0, ..workload.spec };
    let settings = Settings::requests("the same", spec, workload.container_concurrency);
    simulate(&scenario, &settings, Run { seed: 1, timeline: true })
}

impl Live {
    /// Differences from the simulation, in words.
    fn differences(&self, simulated: &Outcome) -> Vec<String> {
        let number = |path: &str| self.summary.pointer(path).and_then(Value::as_f64).expect("a number");
        let timeline = simulated.timeline.as_ref().expect("a timeline was asked for");
        let off: Vec<f64> = (0..)
            .zip(&timeline.points)
            .map(|(second, point)| (self.average(second, |pods| pods.ready) - point.ready).abs())
            .collect();
        let mean_off = off.iter().sum::<f64>() / off.len() as f64;
        let exist = |pods: PodCounts| pods.ready + pods.starting + pods.terminating;
        let pod_seconds: f64 = (0..WATCHED.as_secs()).map(|second| self.average(second, exist)).sum();
        let facts = [
            ("ready pods, off on average", mean_off, 0.0, mean_off <= 0.5),
            within("pod-seconds", pod_seconds, simulated.pods.pod_seconds, 0.10),
            within("p95 of latency", number("/latency/p95"), simulated.latency.p95, 0.15),
            within("cold starts", number("/cold_starts"), simulated.cold_starts as f64, 0.0),
        ];
        for (what, live, simulated, _) in facts {
            println!("{what}: live {live:.3}, simulated {simulated:.3}");
        }
        let wrong = facts.into_iter().filter(|&(.., holds)| !holds);
        wrong
            .map(|(what, live, simulated, _)| format!("{what}: live {live}, simulated {simulated}"))
            .collect()
    }

    /// The average of a number of pods over a second.
    fn average(&self, second: u64, number: impl Fn(PodCounts) -> u32) -> f64 {
        let (from, to) = (Duration::from_secs(second), Duration::from_secs(second + 1));
        let mut sum = 0.0;
        let (mut since, mut pods) = (Duration::ZERO, PodCounts::default());
        let end = (Duration::MAX, PodCounts::default());
        for &(at, next) in self.pods.iter().chain([&end]) {
            let overlap = at.min(to).saturating_sub(since.max(from));
            sum += overlap.as_secs_f64() * f64::from(number(pods));
            (since, pods) = (at, next);
        }
        sum
    }
}

/// A fact that may differ by a fraction.
fn within(what: &str, live: f64, simulated: f64, fraction: f64) -> (&str, f64, f64, bool) {
    (what, live, simulated, (live - simulated).abs() <= simulated * fraction)
}
