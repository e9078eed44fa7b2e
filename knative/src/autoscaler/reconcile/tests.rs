use std::sync::Arc;
use std::time::Duration;

use pilotlight_core::{
    Activity, Evaluation, Input, PodCounts, Reachability, Revision, RevisionSpec, ServingMode, Stat,
    TargetBurstCapacity, Time,
};
use pilotlight_kubernetes::knative::{Condition, PodAutoscalerStatus};

use super::super::facts::{MetricFact, ServiceFact, condition, time};
use super::super::history::history;
use super::super::pretend::{
    NOW, autoscaler, evaluation, history_of, is, mode, seen, service, since, step, target, with_activity,
    written,
};
use super::super::scraping::ScrapeOutcome;
use super::super::seen::{METRIC, SERVICE, Seen};
use super::*;

fn with(spec: &RevisionSpec, evaluation: Evaluation) -> Seen {
    Seen { evaluation: Some(Box::new(evaluation)), ..seen(spec.clone()) }
}

/// The writes by their names.
fn names(writes: &[Write]) -> Vec<&'static str> {
    let name = |write: &Write| match write {
        Write::CreateService(_) => "create service",
        Write::ChangeService(_) => "change service",
        Write::CreateMetric(_) => "create metric",
        Write::ChangeMetric(_) => "change metric",
        Write::Scale => "scale",
        Write::Status(_) => "status",
        Write::MetricStatus(_) => "metric status",
    };
    writes.iter().map(name).collect()
}

fn status(writes: &[Write]) -> &PodAutoscalerStatus {
    let mut writes = writes.iter();
    writes.find_map(|write| if let Write::Status(status) = write { Some(&**status) } else { None }).unwrap()
}

/// Status, reason and message of a condition.
fn told<'a>(conditions: &'a [Condition], type_: &str) -> (&'a str, &'a str, &'a str) {
    let condition = condition(conditions, type_).unwrap();
    (&condition.status, &condition.reason, &condition.message)
}

const QUEUED: &str = "Requests to the target are being buffered as resources are provisioned.";
const NO_TRAFFIC: &str = "The target is not receiving traffic.";

#[test]
fn a_new_revision_gets_its_service_before_anything_is_known() {
    let new = Seen { service: None, ..seen(RevisionSpec::default()) };
    let writes = reconcile(NOW, &new);
    let [Write::CreateService(created)] = &writes[..] else { panic!("{writes:?}") };
    assert_eq!((created.spec.mode.as_str(), created.spec.num_activators), ("Proxy", 2));
    assert_eq!((&created.spec.object_ref, created.spec.protocol_type.as_str()), (&target(), "http1"));
    let meta = &created.metadata;
    assert_eq!((meta.namespace.as_deref(), meta.name.as_deref()), (Some("ns"), Some("hello-1")));
    assert_eq!(meta.labels, Some(autoscaler().labels));
    let annotations: Vec<_> = meta.annotations.as_ref().unwrap().keys().map(String::as_str).collect();
    assert_eq!(annotations, ["autoscaling.knative.dev/class", "example.com/note"]);
    let [owner] = &meta.owner_references.as_ref().unwrap()[..] else { panic!("one owner") };
    assert_eq!(
        (owner.api_version.as_str(), owner.kind.as_str(), owner.name.as_str(), owner.uid.as_str()),
        ("autoscaling.internal.knative.dev/v1alpha1", "PodAutoscaler", "hello-1", "pa-uid")
    );
    assert_eq!((owner.controller, owner.block_owner_deletion), (Some(true), Some(true)));
}

#[test]
fn without_a_private_service_nothing_is_scaled_and_the_status_says_so() {
    let spec = RevisionSpec { min_scale: 3, ..RevisionSpec::default() };
    let bare = ServiceFact { private_service_name: String::new(), ..service("Proxy", 2) };
    for service in [None, Some(Arc::new(bare))] {
        let is_there = service.is_some();
        let seen = Seen {
            service,
            ..with(&spec, step(&history_of(&PodAutoscalerStatus::default(), &spec), &spec, 0))
        };
        let writes = reconcile(NOW, &seen);
        assert_eq!(names(&writes), if is_there { vec!["status"] } else { vec!["create service", "status"] });
        let status = status(&writes);
        assert_eq!(told(&status.conditions, "SKSReady"), ("Unknown", "NotReady", "No Private Service Name"));
        assert_eq!(told(&status.conditions, "Active"), ("Unknown", "Queued", QUEUED));
        assert_eq!(told(&status.conditions, "Ready"), ("Unknown", "Queued", QUEUED));
        assert_eq!((status.desired_scale, status.actual_scale), (Some(-1), Some(0)));
        assert_eq!(status.observed_generation, Some(1));
    }
}

#[test]
fn a_service_without_a_private_one_is_brought_back_to_proxy() {
    let bare = ServiceFact { private_service_name: String::new(), ..service("Serve", 5) };
    let seen = Seen { service: Some(Arc::new(bare)), ..seen(RevisionSpec::default()) };
    let writes = reconcile(NOW, &seen);
    let [Write::ChangeService(spec)] = &writes[..] else { panic!("{writes:?}") };
    assert_eq!((spec.mode.as_str(), spec.num_activators), ("Proxy", 2));
}

#[test]
fn writes_come_in_knatives_order_and_once() {
    let spec = RevisionSpec::default();
    let seen = with(&spec, evaluation(&spec, 3));
    assert_eq!(
        names(&reconcile(NOW, &seen)),
        ["create metric", "scale", "change service", "status"],
        "three pods are wanted, one is asked for"
    );
    let (seen, writes) = written(NOW, seen);
    assert_eq!(names(&writes).last(), Some(&"metric status"));
    assert_eq!(reconcile(NOW + Duration::from_secs(100), &seen), []);
}

#[test]
fn a_metric_is_made_of_the_settings_and_only_its_spec_is_changed_later() {
    let spec = RevisionSpec::default();
    let seen = with(&spec, evaluation(&spec, 1));
    let writes = reconcile(NOW, &seen);
    let Write::CreateMetric(metric) = &writes[0] else { panic!("{writes:?}") };
    assert_eq!(metric.metadata.annotations, Some(autoscaler().annotations), "all of them");
    assert_eq!((metric.spec.stable_window, metric.spec.panic_window), (60_000_000_000, 6_000_000_000));
    assert_eq!(metric.spec.scrape_target, "hello-1-private");

    let (mut seen, _) = written(NOW, seen);
    let unscraped = RevisionSpec {
        target_burst_capacity: TargetBurstCapacity::Unlimited,
        scraped: false,
        ..RevisionSpec::default()
    };
    seen.spec = Arc::new(unscraped);
    let writes = reconcile(NOW, &seen);
    let [Write::ChangeMetric(changed)] = &writes[..] else { panic!("{writes:?}") };
    assert_eq!(changed.scrape_target, "");
    let (_, writes) = written(NOW, seen);
    assert_eq!(names(&writes), ["change metric", "metric status"]);
}

#[test]
fn a_metric_of_another_owner_stops_the_revision() {
    let spec = RevisionSpec::default();
    let mut seen = with(&spec, evaluation(&spec, 3));
    seen.metric = Some(Arc::new(MetricFact { owner: Some("other".to_owned()), ..MetricFact::default() }));
    let writes = reconcile(NOW, &seen);
    assert_eq!(names(&writes), ["status"]);
    let status = status(&writes);
    let message = r#"There is an existing Metric "hello-1" that we do not own."#;
    assert_eq!(told(&status.conditions, "Active"), ("False", "NotOwned", message));
    assert_eq!(told(&status.conditions, "Ready"), ("False", "NotOwned", message));
    assert_eq!(status.desired_scale, None, "nothing was compared with what is wanted");
    assert_eq!(seen.scale(), None);
    // The condition says nothing about pods, so it is no memory.
    assert_eq!(history_of(status, &spec).activity, None);
}

#[test]
fn a_service_of_another_owner_is_left_alone() {
    let spec = RevisionSpec::default();
    let mut seen = with(&spec, evaluation(&spec, 3));
    seen.service = Some(Arc::new(ServiceFact { owner: None, ..service("Serve", 9) }));
    let writes = reconcile(NOW, &seen);
    assert_eq!(names(&writes), ["create metric", "scale", "status"], "Knative scales before it looks");
    let message = r#"There is an existing ServerlessService "hello-1" that we do not own."#;
    assert_eq!(told(&status(&writes).conditions, "Active"), ("False", "NotOwned", message));
}

#[test]
fn an_object_that_cannot_be_created_is_told() {
    let spec = RevisionSpec::default();
    for (kind, message) in [
        (METRIC, r#"Failed to create Metric "hello-1"."#),
        (SERVICE, r#"Failed to create ServerlessService "hello-1"."#),
    ] {
        let seen = Seen { failed_create: Some(kind), ..with(&spec, evaluation(&spec, 1)) };
        let writes = reconcile(NOW, &seen);
        assert_eq!(told(&status(&writes).conditions, "Active"), ("False", "FailedCreate", message));
        assert_eq!(seen.scale(), Some(1), "requests may wait: pods come all the same");
    }
}

#[test]
fn an_activity_is_told_with_its_reason_and_the_time_it_began() {
    let spec = RevisionSpec::default();
    let at = since(42);
    let table = [
        (Activity::Active { since: at }, ("True", "", "")),
        (Activity::Activating { since: at }, ("Unknown", "Queued", QUEUED)),
        (Activity::Inactive { since: at, timed_out: false }, ("False", "NoTraffic", NO_TRAFFIC)),
        (
            Activity::Inactive { since: at, timed_out: true },
            ("False", "TimedOut", "The target could not be activated."),
        ),
    ];
    for (activity, expected) in table {
        let seen = with(&spec, with_activity(evaluation(&spec, 1), activity));
        let writes = reconcile(NOW, &seen);
        let conditions = &status(&writes).conditions;
        assert_eq!(told(conditions, "Active"), expected);
        let began = condition(conditions, "Active").unwrap().last_transition_time.as_ref().unwrap();
        assert_eq!(time(began), at);
        assert_eq!(
            told(conditions, "Ready"),
            expected,
            "the service is ready, and the initial scale was had"
        );
        let types: Vec<_> = conditions.iter().map(|condition| condition.type_.as_str()).collect();
        assert_eq!(types, ["Active", "Ready", "SKSReady", "ScaleTargetInitialized"]);
    }
}

/// `Active` after a round that began with `before`, with this demand, these ready pods, and this minimum.
fn active_after(before: &str, demand: Option<i32>, ready: u32, spec: &RevisionSpec) -> (String, String) {
    let before = match before {
        "True" => is("Active", "True", Duration::from_secs(1000)),
        "False" => is("Active", "False", Duration::from_secs(1000)),
        _ => is("Active", "Unknown", Duration::from_secs(5)),
    };
    let before = PodAutoscalerStatus {
        conditions: vec![before],
        desired_scale: demand,
        ..PodAutoscalerStatus::default()
    };
    let mut seen = with(spec, step(&history_of(&before, spec), spec, ready));
    Arc::make_mut(&mut seen.autoscaler).status = before;
    let writes = reconcile(NOW, &seen);
    let (status, reason, _) = told(&status(&writes).conditions, "Active");
    (status.to_owned(), reason.to_owned())
}

#[test]
fn active_follows_knatives_table() {
    let one = RevisionSpec::default();
    let three = RevisionSpec { min_scale: 3, ..RevisionSpec::default() };
    let none = RevisionSpec { initial_scale: 0, ..RevisionSpec::default() };
    let off = RevisionSpec { enable_scale_to_zero: false, ..RevisionSpec::default() };
    let soon = RevisionSpec { activation_timeout: Duration::from_secs(4), ..RevisionSpec::default() };
    let table = [
        // Nothing is wanted: given up, or no traffic.
        ("Unknown", Some(0), 0, &soon, ("False", "TimedOut")),
        ("True", Some(0), 1, &one, ("False", "NoTraffic")),
        ("False", Some(0), 1, &one, ("False", "NoTraffic")),
        // No pod is needed: an initial scale of 0.
        ("Unknown", None, 0, &none, ("False", "NoTraffic")),
        // Too few are ready.
        ("Unknown", Some(2), 0, &one, ("Unknown", "Queued")),
        ("True", Some(5), 2, &three, ("Unknown", "Queued")),
        ("False", Some(2), 0, &one, ("Unknown", "Queued")),
        ("Unknown", None, 0, &one, ("Unknown", "Queued")),
        ("True", None, 0, &one, ("Unknown", "Queued")),
        ("False", None, 0, &one, ("False", "NoTraffic")),
        // Enough are ready.
        ("Unknown", Some(2), 1, &one, ("True", "")),
        ("True", Some(2), 1, &one, ("True", "")),
        ("False", Some(2), 1, &one, ("True", "")),
        ("True", None, 1, &one, ("True", "")),
        ("Unknown", None, 1, &one, ("True", "")),
        ("False", None, 1, &one, ("False", "NoTraffic")),
        ("True", Some(0), 1, &off, ("True", "")),
    ];
    for (before, demand, ready, spec, (status, reason)) in table {
        let after = active_after(before, demand, ready, spec);
        assert_eq!(
            (after.0.as_str(), after.1.as_str()),
            (status, reason),
            "{before}, demand {demand:?}, {ready} ready, min {}",
            spec.min_scale
        );
    }
}

#[test]
fn the_initial_scale_is_told_once_the_service_has_a_name_and_for_good() {
    let spec = RevisionSpec::default();
    let unnamed = ServiceFact { service_name: String::new(), ..service("Proxy", 3) };
    let seen = Seen { service: Some(Arc::new(unnamed)), ..with(&spec, evaluation(&spec, 1)) };
    let writes = reconcile(NOW, &seen);
    assert_eq!(told(&status(&writes).conditions, "ScaleTargetInitialized"), ("Unknown", "", ""));
    assert_eq!(told(&status(&writes).conditions, "Ready"), ("Unknown", "", ""));

    let named = with(&spec, evaluation(&spec, 1));
    let (mut seen, _) = written(NOW, named);
    let now = |seen: &Seen| told(&seen.autoscaler.status.conditions, "ScaleTargetInitialized").0.to_owned();
    assert_eq!(now(&seen), "True");
    // Another evaluation, of an autoscaler that has forgotten it.
    let mut forgetful = evaluation(&spec, 1);
    forgetful.initialized = false;
    seen.evaluation = Some(Box::new(forgetful));
    assert_eq!(reconcile(NOW, &seen), []);
}

#[test]
fn an_unknown_number_leaves_the_last_one_in_the_status() {
    let spec = RevisionSpec::default();
    let (mut seen, _) = written(NOW, with(&spec, evaluation(&spec, 4)));
    assert_eq!(seen.autoscaler.status.desired_scale, Some(4));
    let mut unknown = evaluation(&spec, 4);
    (unknown.outcome.want, unknown.plan.scale) = (None, None);
    seen.evaluation = Some(Box::new(unknown));
    assert_eq!(reconcile(NOW, &seen), []);
    Arc::make_mut(&mut seen.autoscaler).status.desired_scale = None;
    assert_eq!(status(&reconcile(NOW, &seen)).desired_scale, Some(-1));
}

#[test]
fn readiness_of_the_service_is_told_in_its_own_words() {
    let spec = RevisionSpec::default();
    let waiting = ServiceFact { is_ready: false, message: "no endpoints".to_owned(), ..service("Proxy", 3) };
    let seen = Seen { service: Some(Arc::new(waiting)), ..with(&spec, evaluation(&spec, 1)) };
    let writes = reconcile(NOW, &seen);
    let conditions = &status(&writes).conditions;
    assert_eq!(told(conditions, "SKSReady"), ("Unknown", "NotReady", "no endpoints"));
    assert_eq!(told(conditions, "Active"), ("True", "", ""));
    assert_eq!(told(conditions, "Ready"), ("Unknown", "NotReady", "no endpoints"));
    assert_eq!(status(&writes).metrics_service_name, "hello-1-private");
    assert_eq!(status(&writes).service_name, "hello-1");
}

#[test]
fn a_new_generation_is_told_even_if_nothing_else_is_new() {
    let spec = RevisionSpec::default();
    let (mut seen, _) = written(NOW, with(&spec, evaluation(&spec, 1)));
    Arc::make_mut(&mut seen.autoscaler).generation = 7;
    let writes = reconcile(NOW, &seen);
    assert_eq!(names(&writes), ["status"]);
    assert_eq!(status(&writes).observed_generation, Some(7));
    assert_eq!(status(&writes).conditions, seen.autoscaler.status.conditions, "and no time is changed");
}

#[test]
fn conditions_of_others_are_kept() {
    let spec = RevisionSpec::default();
    let mut seen = with(&spec, evaluation(&spec, 1));
    let other = is("Painted", "True", Duration::from_secs(5));
    Arc::make_mut(&mut seen.autoscaler).status.conditions.push(other.clone());
    let (seen, _) = written(NOW, seen);
    assert!(seen.autoscaler.status.conditions.contains(&other));
}

#[test]
fn a_scrape_is_told_in_the_metrics_status() {
    let spec = RevisionSpec::default();
    let (seen, _) = written(NOW, with(&spec, evaluation(&spec, 1)));
    let table = [
        (ScrapeOutcome::NoEndpoints, ("Unknown", "NoEndpoints", "failed to get endpoints")),
        (
            ScrapeOutcome::DidNotReceiveStat,
            ("False", "DidNotReceiveStat", "did not receive stat from an unscraped pod"),
        ),
        (
            ScrapeOutcome::Failed("pods exhausted".to_owned()),
            ("False", "CollectionFailed", "Failed to reconcile metric collection: pods exhausted"),
        ),
    ];
    for (scrape, expected) in table {
        let seen = Seen { scrape, ..seen.clone() };
        let writes = reconcile(NOW, &seen);
        let [Write::MetricStatus(status)] = &writes[..] else { panic!("{writes:?}") };
        assert_eq!(told(&status.conditions, "Ready"), expected);
        assert_eq!(status.observed_generation, Some(1));
    }
}

/// One row of Knative's table of the way to zero.
struct Row {
    active: &'static str,
    lasted: u64,
    demand: Option<u32>,
    replicas: u32,
    /// How long the activator has been in the path.
    proxied: Option<u64>,
    probed: bool,
    initialized: bool,
    spec: RevisionSpec,
}

impl Row {
    fn new(active: &'static str, lasted: u64, demand: Option<u32>, replicas: u32) -> Row {
        let spec = RevisionSpec {
            scale_to_zero_grace_period: GRACE,
            stable_window: STABLE,
            activation_timeout: Duration::from_secs(121 + 30),
            target_burst_capacity: TargetBurstCapacity::Of(200.0),
            ..RevisionSpec::default()
        };
        Row { active, lasted, demand, replicas, proxied: None, probed: true, initialized: false, spec }
    }

    fn with(mut self, change: impl FnOnce(&mut Row)) -> Row {
        change(&mut self);
        self
    }

    /// What is wanted, and the number that the scale target is told, if it is.
    fn run(&self) -> (Option<u32>, Option<u32>) {
        let initialized = if self.initialized { "True" } else { "Unknown" };
        let long = Duration::from_secs(9999);
        let status = PodAutoscalerStatus {
            conditions: vec![
                is("Active", self.active, Duration::from_secs(self.lasted)),
                is("ScaleTargetInitialized", initialized, long),
            ],
            desired_scale: Some(1),
            ..PodAutoscalerStatus::default()
        };
        let mut history = history_of(&status, &self.spec);
        history.decision = history.decision.filter(|_| self.demand.is_some());
        if let (Some(decision), Some(demand)) = (&mut history.decision, self.demand) {
            decision.desired = demand;
        }
        history.path.populated_since = self.proxied.map(since);
        history.path.probed = self.probed;
        let evaluation = step(&history, &self.spec, self.replicas);
        let seen = Seen { replicas: Some(self.replicas), ..with(&self.spec, evaluation) };
        let writes = reconcile(NOW, &seen);
        let patched = names(&writes).contains(&"scale").then(|| seen.scale().unwrap());
        (seen.evaluation.unwrap().outcome.want, patched)
    }
}

const GRACE: Duration = Duration::from_secs(60);
const STABLE: Duration = Duration::from_secs(300);

#[test]
fn the_scale_target_is_told_what_knatives_table_says() {
    let active = |lasted, replicas| Row::new("True", lasted, Some(0), replicas);
    let inactive = |lasted| Row::new("False", lasted, Some(0), 1);
    let double_grace = |row: &mut Row| row.spec.pod_retention = GRACE * 2;
    let table = [
        (active(299, 1), (Some(1), None)),
        (active(299, 10), (Some(1), Some(1))),
        (active(300, 1), (Some(0), None)),
        (active(300, 1).with(|row| row.proxied = Some(400)), (Some(0), None)),
        (inactive(60), (Some(0), Some(0))),
        (inactive(59), (Some(0), None)),
        (inactive(59).with(|row| row.proxied = Some(60)), (Some(0), Some(0))),
        (
            inactive(59)
                .with(|row| (row.proxied, row.spec.pod_retention) = (Some(60), Duration::from_secs(42))),
            (Some(0), Some(0)),
        ),
        (inactive(59).with(|row| row.proxied = Some(59)), (Some(0), None)),
        (inactive(60).with(double_grace), (Some(0), None)),
        (
            inactive(60).with(|row| {
                (row.spec.pod_retention, row.spec.reachability) = (GRACE * 10, Reachability::Unreachable);
            }),
            (Some(0), Some(0)),
        ),
        (inactive(60).with(|row| row.probed = false), (Some(0), None)),
        (
            inactive(60).with(|row| {
                (row.probed, row.spec.target_burst_capacity) = (false, TargetBurstCapacity::Unlimited);
            }),
            (Some(0), Some(0)),
        ),
        (Row::new("Unknown", 75, Some(0), 1), (None, None)),
        (Row::new("Unknown", 152, Some(0), 1), (Some(0), Some(0))),
        (
            Row::new("Unknown", 36, Some(0), 1)
                .with(|row| row.spec.activation_timeout = Duration::from_secs(35)),
            (Some(0), Some(0)),
        ),
        (Row::new("True", 500, Some(0), 10).with(|row| row.spec.min_scale = 2), (Some(2), Some(2))),
        (
            Row::new("False", 60, Some(0), 10).with(|row| row.spec.reachability = Reachability::Unreachable),
            (Some(0), Some(0)),
        ),
        (Row::new("True", 500, Some(10), 1).with(|row| row.spec.max_scale = Some(8)), (Some(8), Some(8))),
        (Row::new("True", 500, None, 1), (None, None)),
        (Row::new("False", 500, None, 1), (None, None)),
        (Row::new("Unknown", 5, Some(1), 0).with(|row| row.spec.initial_scale = 2), (Some(2), Some(2))),
        (Row::new("Unknown", 5, Some(1), 5).with(|row| row.spec.initial_scale = 5), (Some(5), None)),
        (
            active(120, 2).with(|row| (row.spec.initial_scale, row.initialized) = (2, true)),
            (Some(1), Some(1)),
        ),
        (active(500, 10).with(|row| row.spec.enable_scale_to_zero = false), (Some(1), Some(1))),
        (
            active(500, 10).with(|row| (row.spec.enable_scale_to_zero, row.spec.min_scale) = (false, 2)),
            (Some(2), Some(2)),
        ),
        (Row::new("True", 500, None, 1).with(|row| row.spec.enable_scale_to_zero = false), (None, None)),
    ];
    for (number, (row, expected)) in table.into_iter().enumerate() {
        assert_eq!(row.run(), expected, "row {number}: {} for {} s", row.active, row.lasted);
    }
}

/// A revision that has lived for a while, and the time. Statuses are written as it goes.
struct Life {
    now: Time,
    revision: Revision,
    seen: Seen,
    ready: u32,
}

impl Life {
    fn new(spec: &RevisionSpec) -> Life {
        let revision = Revision::new(NOW, spec.clone(), PodCounts::default());
        let seen = Seen { replicas: Some(spec.initial_scale), ..seen(spec.clone()) };
        Life { now: NOW, revision, seen, ready: 0 }
    }

    /// Load over some seconds: requests in flight, while this many pods are ready.
    fn lives(mut self, seconds: u64, load: f64, ready: u32) -> Life {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            if self.ready != ready {
                self.ready = ready;
                self.tell(Input::Pods(PodCounts { ready, ..PodCounts::default() }));
            }
            let stat = Stat { average_concurrent_requests: load, ..Stat::default() };
            self.tell(if ready == 0 && load > 0.0 { Input::Pushed(stat) } else { Input::Scraped(stat) });
            if self.now.whole_seconds().is_multiple_of(2) {
                self.tell(Input::Tick);
            }
        }
        self
    }

    /// The activator takes over and answers.
    fn activator_answers(mut self) -> Life {
        let path = pilotlight_core::ActivatorPath { populated_since: Some(self.now), probed: true };
        Arc::make_mut(self.seen.service.as_mut().unwrap()).activator_since = path.populated_since;
        self.tell(Input::Path(path));
        self
    }

    fn tell(&mut self, input: Input) {
        if self.revision.step(self.now, input).is_some() {
            self.seen.evaluation = Some(Box::new(self.revision.evaluation().unwrap().clone()));
            self.seen = written(self.now, self.seen.clone()).0;
        }
    }

    /// Another autoscaler takes over later, and knows only what is written. What it then writes, in a while without any
    /// report.
    fn after_a_restart(&self, later: Duration) -> Vec<Write> {
        let now = self.now + later;
        let Seen { autoscaler, service, replicas, spec, .. } = &self.seen;
        let history = history(now, &autoscaler.status, service.as_deref(), *replicas, spec);
        let pods = PodCounts { ready: self.ready, ..PodCounts::default() };
        let mut revision = Revision::resume(now, (**spec).clone(), pods, history.clone());
        let mut all = Vec::new();
        let path = Input::Path(history.path);
        for (second, input) in [path, Input::Tick, Input::Tick, Input::Tick].into_iter().enumerate() {
            let now = now + Duration::from_secs(2 * second as u64);
            revision.step(now, input);
            let evaluation = Some(Box::new(revision.evaluation().unwrap().clone()));
            all.extend(reconcile(now, &Seen { evaluation, ..self.seen.clone() }));
        }
        all
    }
}

#[test]
fn a_restart_of_the_autoscaler_changes_no_pod_count_and_writes_nothing() {
    let spec = RevisionSpec::default();
    let off = RevisionSpec { target_burst_capacity: TargetBurstCapacity::Off, ..RevisionSpec::default() };
    let served = Life::new(&spec).lives(100, 250.0, 4).lives(100, 150.0, 4);
    assert_eq!(served.seen.service.as_ref().unwrap().spec.mode, mode(ServingMode::Serve));
    let at_rest = || Life::new(&off).lives(100, 0.0, 1).activator_answers().lives(40, 0.0, 0);
    let lives = [
        ("starting", Life::new(&spec).lives(10, 0.0, 0), 1, "Queued"),
        ("one pod behind the activator", Life::new(&spec).lives(100, 20.0, 1), 1, ""),
        ("some pods that are served directly", served, 3, ""),
        ("no burst capacity", Life::new(&off).lives(100, 200.0, 3), 3, ""),
        ("waiting for the activator", Life::new(&off).lives(100, 0.0, 1), 1, "NoTraffic"),
        ("at rest", at_rest(), 0, "NoTraffic"),
        // At the last tick 300 were in flight in four of six seconds: 200, and 70 a pod.
        ("waking", at_rest().lives(5, 300.0, 0), 3, "Queued"),
        // Given up after 630 s, and from the next step on without traffic.
        ("never ready", Life::new(&spec).lives(640, 0.0, 0), 0, "NoTraffic"),
    ];
    for (name, life, replicas, reason) in lives {
        assert_eq!(life.seen.replicas, Some(replicas), "{name}");
        assert_eq!(told(&life.seen.autoscaler.status.conditions, "Active").1, reason, "{name}");
        let writes = life.after_a_restart(Duration::from_millis(1700));
        assert_eq!(writes, [], "{name}: {:?}", life.seen.evaluation);
    }
}

#[test]
fn a_history_is_what_the_objects_say() {
    let spec = RevisionSpec::default();
    let mut status = PodAutoscalerStatus {
        conditions: vec![
            is("Active", "False", Duration::from_secs(90)),
            is("ScaleTargetInitialized", "True", Duration::from_secs(900)),
        ],
        desired_scale: Some(0),
        actual_scale: Some(0),
        ..PodAutoscalerStatus::default()
    };
    let proxied = ServiceFact { activator_since: Some(since(80)), ..service("Proxy", 2) };
    let at_rest = history(NOW, &status, Some(&proxied), Some(0), &spec);
    assert_eq!(at_rest.activity, Some(Activity::Inactive { since: since(90), timed_out: false }));
    assert!(at_rest.initialized && at_rest.load.is_none());
    assert_eq!((at_rest.path.populated_since, at_rest.path.probed), (Some(since(80)), true));
    assert_eq!(at_rest.decision.unwrap().desired, 0);
    let waiting = history(NOW, &status, Some(&proxied), Some(1), &spec);
    assert!(!waiting.path.probed, "a pod is there still");

    status.conditions[0] = is("Active", "True", Duration::from_secs(5));
    status.desired_scale = Some(3);
    let serving = history(NOW, &status, Some(&service("Serve", 2)), Some(5), &spec).decision.unwrap();
    assert_eq!(
        (serving.desired, serving.excess_burst_capacity),
        (5, 0),
        "five are there: none is taken away"
    );
    let hidden = history(NOW, &status, Some(&service("Proxy", 2)), None, &spec).decision.unwrap();
    assert_eq!((hidden.desired, hidden.excess_burst_capacity), (3, -1));
    status.desired_scale = Some(-1);
    assert!(history(NOW, &status, None, None, &spec).decision.is_none());
    assert_eq!(history_of(&PodAutoscalerStatus::default(), &spec), pilotlight_core::History::default());
}
