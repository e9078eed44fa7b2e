//! The loop under a clock that stands still until everything waits: what it tells a revision, and when.

use std::net::SocketAddr;
use std::time::Duration;

use pilotlight_core::{Activity, Bound, Evaluation, History, Stat, Trigger};
use tokio::time::{sleep, timeout};

use super::*;
use crate::pretend::{PretendCluster, at_rest, id, spec, with_pods};
use crate::report::Owner;

struct Script {
    cluster: Arc<PretendCluster>,
    autoscaler: Autoscaler,
    clock: Clock,
}

impl Script {
    fn start(params: impl FnOnce(AutoscalerParams) -> AutoscalerParams) -> Script {
        let (clock, cluster) = (Clock::start(), Arc::new(PretendCluster::default()));
        let autoscaler = Autoscaler::start(params(AutoscalerParams::new(clock)), Arc::clone(&cluster));
        Script { cluster, autoscaler, clock }
    }

    fn alone() -> Script {
        Script::start(|params| params)
    }

    /// An activator says that so many requests are in flight.
    async fn pushed(&self, name: &str, in_flight: f64) {
        let stat = Stat { average_concurrent_requests: in_flight, ..Stat::default() };
        self.autoscaler.intake().push(id(name), stat).await;
    }

    /// The evaluation that the condition asks for, or the deadline of an hour of pretended time.
    async fn until(&self, name: &str, holds: impl Fn(&Evaluation) -> bool) -> Evaluation {
        let wait = async {
            loop {
                if let Some(evaluation) = self.cluster.last(name).filter(&holds) {
                    return evaluation;
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(Duration::from_secs(3600), wait).await.expect("within the hour")
    }

    /// Stops in real time, from here on: a thread writes the journal, and the clock would run ahead of it.
    async fn stop(&self) {
        tokio::time::resume();
        self.autoscaler.stop().await;
    }
}

/// Addresses of pods that are not asked: these revisions are not scraped.
fn unasked(pods: u32) -> impl Iterator<Item = SocketAddr> {
    (0..pods).map(|_| SocketAddr::from(([127, 0, 0, 1], 1)))
}

#[tokio::test(start_paused = true)]
async fn a_request_at_zero_is_acted_on_before_the_next_tick() {
    let script = Script::alone();
    script.cluster.revisions.set(id("hello"), at_rest(spec()));
    script.until("hello", |evaluation| evaluation.trigger == Trigger::Tick).await;
    let pushed_at = script.clock.now();
    script.pushed("hello", 25.0).await;
    let woken = script.until("hello", |evaluation| evaluation.plan.scale == Some(4)).await;
    assert_eq!((woken.trigger, woken.at), (Trigger::Demand, pushed_at));
}

#[tokio::test(start_paused = true)]
async fn a_lost_report_is_made_up_for_by_the_next() {
    let script = Script::alone();
    script.cluster.revisions.set(id("hello"), at_rest(spec()));
    // The report of a revision that nobody has seen yet is lost.
    script.pushed("other", 25.0).await;
    script.until("hello", |evaluation| evaluation.trigger == Trigger::Tick).await;
    script.cluster.revisions.set(id("other"), at_rest(spec()));
    script.until("other", |evaluation| evaluation.trigger == Trigger::Tick).await;
    assert_eq!(script.cluster.scale("other"), Some(0));
    script.pushed("other", 25.0).await;
    script.until("other", |evaluation| evaluation.plan.scale == Some(4)).await;
}

#[tokio::test(start_paused = true)]
async fn settings_that_change_in_mid_activation_count_at_once_and_do_not_begin_it_anew() {
    let script = Script::alone();
    script.cluster.revisions.set(id("hello"), at_rest(spec()));
    script.until("hello", |evaluation| evaluation.trigger == Trigger::Tick).await;
    script.pushed("hello", 25.0).await;
    let activating = script.until("hello", |evaluation| evaluation.plan.scale == Some(4)).await;
    let Activity::Activating { since } = activating.activity else { panic!("{activating:?}") };
    sleep(Duration::from_secs(1)).await;
    script.cluster.revisions.set(id("hello"), at_rest(RevisionSpec { max_scale: Some(2), ..spec() }));
    let changed = script.until("hello", |evaluation| evaluation.plan.scale == Some(2)).await;
    assert_eq!(changed.outcome.bound, Some(Bound::MaxScale));
    assert_eq!(changed.activity, Activity::Activating { since });
}

#[tokio::test(start_paused = true)]
async fn a_wake_comes_when_it_was_asked_for_and_only_to_who_asked() {
    let script = Script::alone();
    for name in ["one", "other"] {
        script.cluster.revisions.set(id(name), at_rest(RevisionSpec { initial_scale: 1, ..spec() }));
    }
    // Coming up: given up at a deadline that lies between two ticks for nobody else.
    let short = Duration::from_millis(4_300);
    let impatient = RevisionSpec { activation_timeout: short, initial_scale: 1, ..spec() };
    let before = script.clock.now();
    script.cluster.revisions.set(id("impatient"), at_rest(impatient));
    let given_up = script.until("impatient", |it| it.outcome.bound == Some(Bound::ActivationTimeout)).await;
    assert!(given_up.at - before <= short + Duration::from_millis(10), "{given_up:?}");
    assert_eq!(given_up.trigger, Trigger::Change);
    let others = |name| {
        script
            .cluster
            .applied
            .lock()
            .iter()
            .filter(|(it, evaluation)| {
                it.name == name && evaluation.trigger == Trigger::Change && evaluation.at == given_up.at
            })
            .count()
    };
    assert_eq!((others("one"), others("other")), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_is_gone_is_neither_woken_nor_shown() {
    let script = Script::alone();
    script.cluster.revisions.set(id("hello"), at_rest(RevisionSpec { initial_scale: 1, ..spec() }));
    script.until("hello", |evaluation| evaluation.plan.wake_at.is_some()).await;
    script.cluster.revisions.remove(&id("hello"));
    sleep(Duration::from_secs(1)).await;
    let evaluations = script.cluster.evaluations("hello");
    // Its activation would have been given up in the meantime.
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(script.cluster.evaluations("hello"), evaluations);
    assert!(script.autoscaler.board().snapshot().is_empty());
    // And it may come back.
    script.cluster.revisions.set(id("hello"), at_rest(spec()));
    script.until("hello", |evaluation| evaluation.trigger == Trigger::Tick).await;
}

#[tokio::test(start_paused = true)]
async fn the_change_of_one_revision_is_told_to_no_other() {
    let script = Script::alone();
    for name in ["one", "other"] {
        script.cluster.revisions.set(id(name), at_rest(spec()));
    }
    script.until("other", |evaluation| evaluation.trigger == Trigger::Tick).await;
    let before = script.cluster.evaluations("other");
    script.cluster.revisions.set(id("one"), with_pods(at_rest(spec()), unasked(3)));
    let changed = script.until("one", |evaluation| evaluation.pods.ready == 3).await;
    assert_eq!(changed.trigger, Trigger::Change);
    assert_eq!(script.cluster.evaluations("other"), before);
    // A view that differs in nothing the decision depends on is no occasion to think.
    let before = script.cluster.evaluations("one");
    script
        .cluster
        .revisions
        .set(id("one"), with_pods(at_rest(spec()), [SocketAddr::from(([127, 0, 0, 1], 2)); 3]));
    sleep(Duration::from_millis(10)).await;
    assert_eq!(script.cluster.evaluations("one"), before);
}

#[tokio::test(start_paused = true)]
async fn what_a_cluster_remembers_of_a_revision_counts_when_it_is_first_seen() {
    let script = Script::alone();
    let five = RevisionSpec { initial_scale: 5, ..spec() };
    let history = History {
        activity: Some(Activity::Active { since: Time::from_secs(9) }),
        initialized: true,
        ..History::default()
    };
    let one_pod = with_pods(at_rest(five), unasked(1));
    script
        .cluster
        .revisions
        .set(id("known"), RevisionView { history: Some(Arc::new(history)), ..one_pod.clone() });
    script.cluster.revisions.set(id("unknown"), one_pod);
    script.until("unknown", |evaluation| evaluation.trigger == Trigger::Tick).await;
    assert_eq!(script.cluster.scale("known"), Some(1));
    assert_eq!(script.cluster.scale("unknown"), Some(5));
}

#[tokio::test(start_paused = true)]
async fn the_last_pod_waits_for_the_probe_that_the_plan_asks_for() {
    let script = Script::alone();
    let awake = || with_pods(at_rest(spec()), unasked(1));
    let unproved = ActivatorPath { populated_since: None, probed: false };
    script.cluster.revisions.set(id("hello"), RevisionView { path: unproved, ..awake() });
    let asking = script.until("hello", |evaluation| evaluation.plan.probe_path).await;
    assert_eq!((asking.outcome.bound, asking.plan.scale), (Some(Bound::AwaitingActivator), None));
    sleep(Duration::from_secs(600)).await;
    assert!(script.cluster.last("hello").unwrap().plan.probe_path, "as long as nobody has answered");
    script.cluster.revisions.set(id("hello"), awake());
    let answered = script.until("hello", |evaluation| evaluation.plan.scale == Some(0)).await;
    assert!(!answered.plan.probe_path);
}

#[tokio::test(start_paused = true)]
async fn stats_go_to_the_autoscaler_that_decides_about_the_revision() {
    let owner = Script::alone();
    let (forward, mut forwarded) = mpsc::channel(8);
    let owners: Owners = Arc::new(move |revision: &RevisionId| match revision.name.as_str() {
        "ours" => Owner::Us,
        "theirs" => Owner::Other(forward.clone()),
        _ => Owner::Nobody,
    });
    let receiver = Script::start(|params| AutoscalerParams { owners: Some(owners), ..params });
    let taking = owner.autoscaler.clone();
    tokio::spawn(async move {
        while let Some(stat) = forwarded.recv().await {
            taking.take_in(stat).await;
        }
    });
    receiver.cluster.revisions.set(id("ours"), at_rest(spec()));
    owner.cluster.revisions.set(id("theirs"), at_rest(spec()));
    receiver.until("ours", |evaluation| evaluation.trigger == Trigger::Tick).await;
    owner.until("theirs", |evaluation| evaluation.trigger == Trigger::Tick).await;
    for name in ["ours", "theirs", "unowned"] {
        receiver.pushed(name, 25.0).await;
    }
    owner.until("theirs", |evaluation| evaluation.plan.scale == Some(4)).await;
    receiver.until("ours", |evaluation| evaluation.plan.scale == Some(4)).await;
    assert_eq!(receiver.cluster.evaluations("theirs"), 0);
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_takes_nothing_does_not_stop_what_is_ours() {
    let (forward, _never_read) = mpsc::channel(1);
    let owners: Owners = Arc::new(move |revision: &RevisionId| match revision.name.as_str() {
        "ours" => Owner::Us,
        _ => Owner::Other(forward.clone()),
    });
    let script = Script::start(|params| AutoscalerParams { owners: Some(owners), ..params });
    script.cluster.revisions.set(id("ours"), at_rest(spec()));
    script.until("ours", |evaluation| evaluation.trigger == Trigger::Tick).await;
    for _ in 0..100 {
        script.pushed("theirs", 1.0).await;
    }
    script.pushed("ours", 25.0).await;
    script.until("ours", |evaluation| evaluation.plan.scale == Some(4)).await;
}

#[tokio::test(start_paused = true)]
async fn reports_without_a_pause_do_not_put_off_a_tick() {
    let script = Script::alone();
    script.cluster.revisions.set(id("hello"), with_pods(at_rest(spec()), unasked(1)));
    script.until("hello", |evaluation| evaluation.trigger == Trigger::Tick).await;
    let intake = script.autoscaler.intake().clone();
    let flood = tokio::spawn(async move {
        loop {
            intake.push(id("hello"), Stat { average_concurrent_requests: 0.001, ..Stat::default() }).await;
            // The clock moves on only when somebody sleeps.
            sleep(Duration::from_millis(1)).await;
        }
    });
    let before = script.clock.now();
    script.until("hello", |evaluation| evaluation.at - before >= Duration::from_secs(4)).await;
    let applied = script.cluster.applied.lock();
    let ticks: Vec<Time> =
        applied.iter().filter(|(_, it)| it.trigger == Trigger::Tick).map(|(_, it)| it.at).collect();
    assert!(ticks.windows(2).all(|pair| pair[1] - pair[0] == Duration::from_secs(2)), "{ticks:?}");
    flood.abort();
}

#[tokio::test(start_paused = true)]
async fn the_journal_of_a_service_that_sleeps_for_a_day_has_no_long_lines() {
    let path = std::env::temp_dir().join(format!("pilotlight-asleep-{}.jsonl", std::process::id()));
    let journal = Some(Journal::create(&path).unwrap());
    let script = Script::start(|params| AutoscalerParams { journal, ..params });
    script.cluster.revisions.set(id("hello"), at_rest(spec()));
    sleep(Duration::from_secs(24 * 3600)).await;
    script.stop().await;
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let records: Vec<Record> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(records.iter().all(|record| record.inputs.len() <= MAX_INPUTS_HELD));
    // A tick every two seconds.
    let inputs: usize = records.iter().map(|record| record.inputs.len()).sum();
    assert!(inputs > 43_200 - MAX_INPUTS_HELD, "{inputs}");
}

#[tokio::test(start_paused = true)]
async fn a_journal_ends_with_what_was_heard_after_the_last_decision() {
    let path = std::env::temp_dir().join(format!("pilotlight-tail-{}.jsonl", std::process::id()));
    let journal = Some(Journal::create(&path).unwrap());
    let script = Script::start(|params| AutoscalerParams { journal, ..params });
    script.cluster.revisions.set(id("hello"), with_pods(at_rest(spec()), unasked(2)));
    let first = script.until("hello", |evaluation| evaluation.trigger == Trigger::Tick).await;
    for request_count in [7.0, 5.0] {
        let stat = Stat { request_count, average_concurrent_requests: 3.0, ..Stat::default() };
        script.autoscaler.intake().push(id("hello"), stat).await;
    }
    // Both are in before the next tick.
    sleep(Duration::from_millis(500)).await;
    assert_eq!(script.cluster.last("hello").map(|last| last.at), Some(first.at));
    script.stop().await;
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let records: Vec<Record> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let heard = |(_, input): &(Time, Input)| match input {
        Input::Pushed(stat) => stat.request_count,
        _ => 0.0,
    };
    assert_eq!(records.iter().flat_map(|record| &record.inputs).map(heard).sum::<f64>(), 12.0);
    let mut revision: Option<Revision> = None;
    for record in records {
        if let Some(start) = record.start {
            revision = Some(Revision::resume(start.at, start.spec, start.pods, start.history));
        }
        let revision = revision.as_mut().unwrap();
        for (at, input) in record.inputs {
            revision.step(at, input);
        }
        assert_eq!(revision.evaluation(), Some(&record.evaluation), "it replays");
    }
}
