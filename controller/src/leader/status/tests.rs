//! What a status says, and when it is worth a write.

use serde_json::json;

use super::*;
use crate::leader::pretend::{NOW, evaluation, seen};
use crate::refusal::{Refusal, Warning};
use crate::settings::accept;

fn written(seen: &Seen) -> Option<RequestAutoscalerStatus> {
    match status_step(NOW, seen) {
        StatusStep::Write(status) => Some(*status),
        StatusStep::Same | StatusStep::Later(_) => None,
    }
}

/// The same, after its status was written.
fn after(seen: &Seen) -> Seen {
    let mut after = seen.clone();
    let fact = std::sync::Arc::make_mut(&mut after.workload.autoscaler);
    fact.status = status(NOW, seen);
    after
}

fn told(seen: &Seen, type_: &str) -> (String, String) {
    let status = status(NOW, seen);
    let condition = condition(&status.conditions, type_).unwrap();
    (condition.status.clone(), condition.reason.clone())
}

fn pair(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

#[test]
fn every_field_says_what_is_so() {
    let mut seen = seen(2, 3);
    seen.ports = [("web/http".to_owned(), 10_007)].into();
    let status = json!(written(&seen).unwrap());
    for (field, value) in [
        ("observedGeneration", json!(1)),
        ("replicas", json!(2)),
        ("readyReplicas", json!(2)),
        ("wantedReplicas", json!(3)),
        ("signal", json!("Activators")),
        ("path", json!("Activator")),
        ("selector", json!("app=web")),
        ("ports", json!({"web/http": 10_007})),
    ] {
        assert_eq!(status[field], value, "{field}");
    }
}

#[test]
fn the_same_state_again_is_not_written() {
    let seen = after(&seen(2, 2));
    assert_eq!(status_step(NOW + Duration::from_secs(3_600), &seen), StatusStep::Same);
}

#[test]
fn a_change_is_written_at_most_every_two_seconds() {
    let before = after(&seen(2, 2));
    let ago = |seconds: u64| Some(Time::from_nanos(NOW.as_nanos() - seconds * 1_000_000_000));
    let changed = Seen { evaluation: Some(Box::new(evaluation(2, 5))), ..before };
    let soon = Seen { status_written: ago(1), ..changed.clone() };
    assert_eq!(status_step(NOW, &soon), StatusStep::Later(NOW + Duration::from_secs(1)));
    assert!(written(&Seen { status_written: ago(2), ..changed }).is_some());
}

#[test]
fn pods_are_found_at_once() {
    let mut new = seen(1, 1);
    std::sync::Arc::make_mut(&mut new.workload.autoscaler).status.selector.clear();
    new.status_written = Some(NOW);
    assert_eq!(written(&new).map(|status| status.selector).as_deref(), Some("app=web"));
}

#[test]
fn loads_are_told_with_two_digits() {
    let loads = [0.0, 0.04, 0.26, 1.23, 9.96, 12.6, 123.4, 1_999.0];
    assert_eq!(loads.map(in_flight), [0.0, 0.0, 0.3, 1.2, 10.0, 13.0, 120.0, 2_000.0]);
}

#[test]
fn what_is_refused_says_why_and_the_ready_condition_says_it_as_well() {
    let refusal = Refusal { reason: "SharedService", message: "Two targets share it.".to_owned() };
    let refused = Seen { way: Err(refusal), ..seen(2, 2) };
    assert_eq!(told(&refused, ACCEPTED), pair("False", "SharedService"));
    assert_eq!(told(&refused, READY), pair("False", "SharedService"));
    let faulty = Seen { faults: ["a".to_owned(), "b".to_owned()].into(), ..seen(2, 2) };
    let message = status(NOW, &faulty);
    let message = &condition(&message.conditions, ACCEPTED).unwrap().message;
    assert_eq!(message, "a; b; what was in force before stays in force");
    let missing = Seen { scale: None, selector: None, ..seen(2, 2) };
    assert_eq!(told(&missing, ACCEPTED), pair("False", "TargetNotFound"));
}

#[test]
fn warnings_are_told_where_all_is_accepted() {
    let warning = Warning { reason: "ReplicasInGit", message: "Take replicas out.".to_owned() };
    assert_eq!(
        told(&Seen { warnings: vec![warning], ..seen(2, 2) }, ACCEPTED),
        pair("True", "ReplicasInGit")
    );
    assert_eq!(told(&seen(2, 2), ACCEPTED), pair("True", "Accepted"));
}

#[test]
fn a_life_is_told_as_knative_tells_it() {
    let of = |ready, wanted| seen(ready, wanted);
    assert_eq!(told(&of(0, 1), ACTIVE), pair("Unknown", "Queued"));
    assert_eq!(told(&of(1, 1), ACTIVE), pair("True", "Active"));
    assert_eq!(told(&of(0, 0), ACTIVE), pair("False", "NoTraffic"));
    assert_eq!(told(&of(0, 0), READY), pair("True", "Asleep"));
    let mut first = of(0, 1);
    first.evaluation.as_mut().unwrap().initialized = false;
    assert_eq!(told(&first, ACTIVE), pair("Unknown", INITIALIZING));
}

#[test]
fn whatever_keeps_the_last_pod_is_named() {
    assert_eq!(told(&seen(1, 1), ZERO_BLOCKED), pair("False", "NotBlocked"));
    let blind = Seen { way: Ok(Way::WakeOnly), ..seen(1, 1) };
    assert_eq!(told(&blind, ZERO_BLOCKED), pair("True", "CannotSee"));
    let mut open = seen(1, 0);
    open.activity.pods.insert("web-0".to_owned(), 1);
    assert_eq!(told(&open, ZERO_BLOCKED), pair("True", "OpenConnections"));
    let mut stale = seen(1, 0);
    stale.path.intercepting.status = false;
    stale.path.intercepting.reason = "StaleEndpoints".to_owned();
    assert_eq!(told(&stale, ZERO_BLOCKED), pair("True", "StaleEndpoints"));
    let mut kept = seen(1, 1);
    std::sync::Arc::make_mut(&mut kept.workload.autoscaler).spec.min_replicas = Some(1);
    let accepted = accept(&kept.workload, &Default::default(), &Default::default()).unwrap();
    kept.accepted = Some(std::sync::Arc::new(accepted));
    assert_eq!(told(&kept, ZERO_BLOCKED), pair("False", "MinReplicas"));
}
