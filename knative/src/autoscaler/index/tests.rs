use std::collections::BTreeSet;
use std::time::Duration;

use pilotlight_autoscaler::cluster::PodPhase;
use pilotlight_core::{Activity, PodCounts, RevisionSpec};
use pilotlight_kubernetes::knative::PodAutoscalerStatus;

use super::super::pretend::{NOW, autoscaler, evaluation, id, is, service, since, with_activity};
use super::*;

/// An index that holds the only bucket there is.
fn index() -> Index {
    let mut index = Index::new(Arc::default(), holding(&["b"]));
    index.complete();
    index
}

fn holding(held: &[&str]) -> Arc<Buckets> {
    let held: BTreeSet<String> = held.iter().map(|&name| name.to_owned()).collect();
    Arc::new(Buckets { all: vec!["b".to_owned()].into(), held })
}

fn target(kind: TargetKind) -> Arc<TargetId> {
    Arc::new(TargetId { kind, name: RevisionId::new("ns", "hello-1-deployment") })
}

fn deployment() -> Arc<TargetId> {
    target(TargetKind::Deployment)
}

fn replicas(version: &str, replicas: u32) -> Option<Arc<ScaleFact>> {
    Some(Arc::new(ScaleFact { resource_version: version.to_owned(), replicas }))
}

fn pod(phase: PodPhase) -> PodFact {
    let ip = Some("10.1.2.3".parse().unwrap());
    PodFact { phase, ip, started: since(100), waits_for: None, trouble: None }
}

fn troubled(word: &str) -> PodFact {
    let trouble = PodTrouble {
        word: word.to_owned(),
        message: "no such image".to_owned(),
        exit_code: None,
        last_line: None,
        restarts: 0,
    };
    PodFact { trouble: Some(Box::new(trouble)), ..pod(PodPhase::Starting) }
}

fn pod_named(name: &str, fact: Option<PodFact>) -> Fact {
    Fact::Pod(Arc::new(((*id()).clone(), name.to_owned())), fact.map(Arc::new))
}

/// The revision as one learns of it from its PodAutoscaler, with what else is known.
fn learn(index: &mut Index, facts: impl IntoIterator<Item = Fact>) -> Option<RevisionView> {
    for fact in facts {
        assert_eq!(index.learn(fact), Some(id()));
    }
    index.look(NOW, &id()).0
}

fn of_autoscaler(fact: AutoscalerFact) -> Fact {
    Fact::Autoscaler(id(), Some(Arc::new(fact)))
}

#[test]
fn facts_make_a_view() {
    let mut index = index();
    let proxied = ServiceFact { activator_since: Some(since(7)), ..service("Proxy", 2) };
    let facts = [
        pod_named("p-1", Some(pod(PodPhase::Ready))),
        pod_named("p-2", Some(PodFact { ip: None, ..pod(PodPhase::Pending) })),
        pod_named("p-3", Some(pod(PodPhase::Starting))),
        Fact::Service(id(), Some(Arc::new(proxied))),
    ];
    assert_eq!(learn(&mut index, facts), None, "without a PodAutoscaler it is nobody's");
    let view = learn(&mut index, [of_autoscaler(autoscaler())]).unwrap();
    assert_eq!(*view.spec, RevisionSpec::default());
    assert_eq!(view.path, ActivatorPath { populated_since: Some(since(7)), probed: false });
    assert_eq!(view.counts(), PodCounts { ready: 1, starting: 2, pending: 1, terminating: 0 });
    let pod = &view.pods[0];
    assert_eq!((pod.name.as_str(), pod.started), ("p-1", since(100)));
    assert_eq!(pod.stats_address, "10.1.2.3:9090".parse().unwrap());
    assert_eq!(pod.metrics_address, "10.1.2.3:9091".parse().unwrap());
    assert_eq!(view.trouble, None);
}

#[test]
fn nothing_is_shown_before_everything_has_been_listed() {
    let mut index = Index::new(Arc::default(), holding(&["b"]));
    assert_eq!(learn(&mut index, [of_autoscaler(autoscaler())]), None);
    index.complete();
    assert!(index.look(NOW, &id()).0.is_some());
}

#[test]
fn a_revision_of_a_bucket_that_is_lost_is_gone_and_comes_back_with_the_history_of_then() {
    let mut index = index();
    let status = |active, desired| PodAutoscalerStatus {
        conditions: vec![is("Active", active, Duration::from_secs(50))],
        desired_scale: Some(desired),
        ..PodAutoscalerStatus::default()
    };
    let before = AutoscalerFact { status: status("True", 3), ..autoscaler() };
    let view = learn(&mut index, [of_autoscaler(before)]).unwrap();
    let history = view.history.unwrap();
    assert_eq!(history.activity, Some(Activity::Active { since: since(50) }));
    assert_eq!(history.decision.as_ref().unwrap().desired, 3);
    index.decided(&id(), &evaluation(&RevisionSpec::default(), 3));
    assert!(index.seen(&id()).unwrap().evaluation.is_some());

    index.buckets(holding(&[]));
    index.resolve_again(&id());
    assert!(index.is_shown(&id()), "not before it has been looked at");
    assert_eq!(index.look(NOW, &id()).0, None);
    assert!(!index.is_shown(&id()) && index.seen(&id()).is_none());
    assert!(index.decided(&id(), &evaluation(&RevisionSpec::default(), 9)).is_nothing(), "too late");

    let after =
        AutoscalerFact { status: status("False", 0), resource_version: "11".to_owned(), ..autoscaler() };
    assert_eq!(learn(&mut index, [of_autoscaler(after)]), None);
    index.buckets(holding(&["b"]));
    index.resolve_again(&id());
    let history = index.look(NOW, &id()).0.unwrap().history.unwrap();
    assert_eq!(history.activity, Some(Activity::Inactive { since: since(50), timed_out: false }));
    assert!(index.seen(&id()).unwrap().evaluation.is_none());
}

#[test]
fn another_revision_of_the_same_name_begins_anew() {
    let mut index = index();
    learn(&mut index, [of_autoscaler(autoscaler())]);
    index.decided(&id(), &evaluation(&RevisionSpec::default(), 3));
    let other = AutoscalerFact { uid: "other".to_owned(), ..autoscaler() };
    assert!(learn(&mut index, [of_autoscaler(other)]).is_some());
    assert!(index.seen(&id()).unwrap().evaluation.is_none());
}

#[test]
fn a_change_touches_one_revision_and_settings_reach_all() {
    let mut index = index();
    let other = Arc::new(RevisionId::new("ns", "other-1"));
    learn(&mut index, [of_autoscaler(autoscaler())]);
    index.learn(Fact::Autoscaler(Arc::clone(&other), Some(Arc::new(autoscaler()))));
    assert_eq!(index.revisions().len(), 2);
    let config =
        [("stable-window".to_owned(), "30s".to_owned()), ("min-scale".to_owned(), "1".to_owned())].into();
    let autoscaler = pilotlight_config::AutoscalerConfig::from_map(&config).value.unwrap();
    index.settings(Arc::new(Settings { autoscaler, ..Settings::default() }));
    for id in index.revisions() {
        index.resolve_again(&id);
        let spec = index.look(NOW, &id).0.unwrap().spec;
        assert_eq!((spec.stable_window, spec.min_scale), (Duration::from_secs(30), 1));
    }
}

#[test]
fn a_target_is_its_revisions_by_kind_and_name() {
    let mut index = index();
    assert_eq!(
        index.learn(Fact::Target(deployment(), replicas("5", 2))),
        None,
        "whose it is is not known yet"
    );
    learn(&mut index, [of_autoscaler(autoscaler())]);
    assert_eq!(index.seen(&id()).unwrap().replicas, Some(2));
    assert_eq!(index.learn(Fact::Target(deployment(), replicas("6", 3))), Some(id()));
    assert_eq!(index.seen(&id()).unwrap().replicas, Some(3));

    let mut elsewhere = autoscaler();
    elsewhere.spec.scale_target_ref.kind = "StatefulSet".to_owned();
    learn(&mut index, [of_autoscaler(elsewhere)]);
    assert_eq!(index.seen(&id()).unwrap().replicas, None, "another object of the same name");
    assert!(index.names(&TargetKind::StatefulSet) && !index.names(&TargetKind::Deployment));
    assert_eq!(index.learn(Fact::Target(deployment(), replicas("7", 3))), None);
    assert_eq!(index.learn(Fact::Target(target(TargetKind::StatefulSet), replicas("8", 4))), Some(id()));
    assert_eq!(index.seen(&id()).unwrap().replicas, Some(4));
}

#[test]
fn a_target_that_no_watch_shows_is_known_until_the_plan_changes() {
    let mut index = index();
    let mut of_a_bus = autoscaler();
    of_a_bus.spec.scale_target_ref.kind = "Bus".to_owned();
    learn(&mut index, [of_autoscaler(of_a_bus)]);
    assert!(index.unwatched().is_empty(), "nobody has decided anything yet");
    let spec = RevisionSpec::default();
    assert!(index.decided(&id(), &evaluation(&spec, 2)).is_urgent, "it may have fewer");
    index.wrote(&id(), Written::Target(ScaleFact { resource_version: "8".to_owned(), replicas: 2 }));
    assert!(index.decided(&id(), &evaluation(&spec, 2)).is_nothing());
    assert_eq!((index.seen(&id()).unwrap().replicas, index.unwatched()), (Some(2), vec![id()]));
    assert!(index.decided(&id(), &evaluation(&spec, 1)).is_urgent, "fewer may be more than there are now");
    assert_eq!(index.seen(&id()).unwrap().replicas, None);
}

#[test]
fn what_was_written_counts_at_once() {
    let mut index = index();
    learn(&mut index, [of_autoscaler(autoscaler()), Fact::Target(deployment(), replicas("5", 0))]);
    index.wrote(&id(), Written::Target(ScaleFact { resource_version: "8".to_owned(), replicas: 4 }));
    index.wrote(&id(), Written::Service(service("Proxy", 2)));
    let seen = index.seen(&id()).unwrap();
    assert_eq!((seen.replicas, seen.service.is_some()), (Some(4), true));
    index.missing(&id());
    let seen = index.seen(&id()).unwrap();
    assert_eq!((seen.replicas, seen.service.is_some()), (Some(0), false));
}

#[test]
fn only_an_evaluation_that_is_written_differently_calls_for_something() {
    let mut index = index();
    let spec = RevisionSpec::default();
    learn(&mut index, [of_autoscaler(autoscaler()), Fact::Target(deployment(), replicas("5", 2))]);
    let first = index.decided(&id(), &evaluation(&spec, 2));
    assert!(first.is_dirty && !first.is_urgent, "two pods are there: {first:?}");
    let mut later = evaluation(&spec, 2);
    (later.at, later.plan.wake_at) = (NOW + Duration::from_secs(2), Some(NOW + Duration::from_secs(99)));
    assert!(index.decided(&id(), &later).is_nothing());
    assert!(index.decided(&id(), &evaluation(&spec, 5)).is_urgent, "more pods");
    let fewer = index.decided(&id(), &evaluation(&spec, 1));
    assert!(fewer.is_dirty && !fewer.is_urgent, "fewer can wait");
    let why = index.seen(&id()).unwrap().why.unwrap();
    assert_eq!(why.reason, evaluation(&spec, 1).reason());
}

#[test]
fn a_probe_is_asked_for_while_pods_are_there_and_its_answer_lasts_until_the_revision_is_active_again() {
    let mut index = index();
    let spec = RevisionSpec::default();
    let status = PodAutoscalerStatus { service_name: "hello-1".to_owned(), ..PodAutoscalerStatus::default() };
    let mut fact = AutoscalerFact { status, ..autoscaler() };
    fact.spec.protocol_type = "h2c".to_owned();
    learn(&mut index, [of_autoscaler(fact), Fact::Target(deployment(), replicas("5", 1))]);
    let mut waiting =
        with_activity(evaluation(&spec, 1), Activity::Inactive { since: NOW, timed_out: false });
    waiting.plan.probe_path = true;
    assert!(!index.probed(&id()), "nobody has asked");
    let due = index.decided(&id(), &waiting);
    assert_eq!(due.probe, Some(ProbeTarget { service: "hello-1".to_owned(), port: 81 }));
    assert!(index.probed(&id()));
    assert!(!index.probed(&id()), "once is enough");
    assert!(index.look(NOW, &id()).0.unwrap().path.probed);

    assert!(!index.decided(&id(), &waiting).is_seen_otherwise);
    assert!(index.decided(&id(), &evaluation(&spec, 1)).is_seen_otherwise, "active again");
    assert!(!index.look(NOW, &id()).0.unwrap().path.probed);

    learn(&mut index, []);
    index.learn(Fact::Target(deployment(), replicas("6", 0)));
    assert_eq!(index.decided(&id(), &waiting).probe, None, "no pod is left that could go");
}

#[test]
fn a_revision_at_rest_comes_back_as_one_whose_activator_has_answered() {
    let mut index = index();
    let status = PodAutoscalerStatus {
        conditions: vec![is("Active", "False", Duration::from_secs(500))],
        desired_scale: Some(0),
        ..PodAutoscalerStatus::default()
    };
    let at_rest = AutoscalerFact { status, ..autoscaler() };
    index.learn(Fact::Target(deployment(), replicas("5", 0)));
    let view = learn(&mut index, [of_autoscaler(at_rest)]).unwrap();
    assert!(view.path.probed && view.history.unwrap().path == view.path);
}

#[test]
fn trouble_is_news_once_for_as_long_as_it_lasts() {
    let mut index = index();
    learn(&mut index, [of_autoscaler(autoscaler())]);
    let mut after = |fact: PodFact| {
        index.learn(pod_named("p-1", Some(fact)));
        let (view, news) = index.look(NOW, &id());
        (view.unwrap().trouble.map(|trouble| trouble.message.clone()), news.len())
    };
    let told = Some("pod p-1: ImagePullBackOff: no such image".to_owned());
    assert_eq!(after(troubled("ImagePullBackOff")), (told.clone(), 1));
    assert_eq!(
        after(PodFact { waits_for: Some("x".to_owned()), ..troubled("ImagePullBackOff") }),
        (told.clone(), 0)
    );
    assert_eq!(after(troubled("OOMKilled")).1, 1);
    assert_eq!(after(pod(PodPhase::Ready)), (None, 0));
    assert_eq!(after(troubled("ImagePullBackOff")), (told, 1));
}

#[test]
fn illegal_annotations_are_news_and_the_rest_of_them_counts() {
    let mut index = index();
    let mut fact = autoscaler();
    fact.annotations.insert("autoscaling.knative.dev/window".to_owned(), "1s".to_owned());
    fact.annotations.insert("autoscaling.knative.dev/target".to_owned(), "20".to_owned());
    index.learn(of_autoscaler(fact.clone()));
    let (view, news) = index.look(NOW, &id());
    assert_eq!(view.unwrap().spec.total, 20.0);
    let [News::IllegalSettings(told)] = &news[..] else { panic!("{news:?}") };
    assert!(told.contains("window"), "{told}");
    assert_eq!(index.look(NOW, &id()).1, []);
}

#[test]
fn a_revision_of_which_nothing_is_left_is_forgotten() {
    let mut index = index();
    learn(&mut index, [of_autoscaler(autoscaler()), pod_named("p-1", Some(pod(PodPhase::Ready)))]);
    assert_eq!(learn(&mut index, [Fact::Autoscaler(id(), None)]), None);
    assert_eq!(index.revisions().len(), 1, "a pod is left");
    assert_eq!(learn(&mut index, [pod_named("p-1", None)]), None);
    assert_eq!(index.revisions().len(), 0);
}
