//! What is known of workloads, one fact after the other.

use super::*;
use crate::leader::foreign::Raise;
use crate::leader::pretend::{NOW, workload};
use crate::refusal::TargetFact;

fn id() -> RevisionId {
    RevisionId::new("shop", "web")
}

fn target(replicas: u32, version: &str, manager: &str) -> WorkloadFact {
    let name = ScaledName {
        namespace: "shop".to_owned(),
        target: workload(&[]).autoscaler.spec.scale_target_ref.clone(),
    };
    let fact = ScaledFact {
        scale: ScaleFact { resource_version: version.to_owned(), replicas },
        selector: "app=web".to_owned(),
        last_manager: Some(manager.to_owned()),
        around: Arc::new(TargetFact::default()),
        ..ScaledFact::default()
    };
    WorkloadFact::Target(Arc::new(name), Some(Arc::new(fact)))
}

/// All workloads with `web` and its Service, whose target asks for two pods.
fn with_two() -> Workloads {
    let mut all = Workloads::new("pilotlight-system".to_owned(), Duration::from_secs(5), false);
    let workload = workload(&[]);
    all.learn(NOW, WorkloadFact::Autoscaler(Arc::new(id()), Some(Arc::clone(&workload.autoscaler))));
    for (name, service) in &workload.services {
        all.learn(NOW, WorkloadFact::Service(Arc::new(Name::new("shop", name)), Some(Arc::clone(service))));
    }
    all.learn(NOW, target(2, "5", "kubectl"));
    all
}

fn seen(all: &mut Workloads) -> Option<Seen> {
    all.seen(NOW, &id(), WorkloadActivity::default())
}

#[test]
fn a_new_workload_is_seen_once_everything_is_listed_and_its_namespace_was_looked_at() {
    let mut all = with_two();
    assert!(seen(&mut all).is_none());
    all.complete();
    assert!(seen(&mut all).is_none());
    assert_eq!(all.unsurveyed(), ["shop".to_owned()].into());
    assert_eq!(all.set_namespace("shop", NamespaceFacts::default()), [id()].into());
    let seen = seen(&mut all).unwrap();
    assert_eq!((seen.replicas(), seen.is_settled()), (Some(2), true));
    assert_eq!(all.wanted_ports(), [PortOwner::new("shop", "web", "http")].into());
}

#[test]
fn a_number_that_somebody_else_wrote_is_respected_and_one_of_ours_is_not_theirs() {
    let mut all = with_two();
    all.complete();
    all.set_namespace("shop", NamespaceFacts::default());
    seen(&mut all);
    all.setting(&id(), Some(3));
    all.learn(NOW, target(3, "6", "kubectl"));
    all.setting(&id(), None);
    assert_eq!(seen(&mut all).unwrap().raise, None, "the watch was faster than the answer");
    all.learn(NOW, target(7, "8", "kubectl"));
    assert_eq!(seen(&mut all).unwrap().raise, Some(Raise { to: 7, at: NOW }));
    all.learn(NOW, target(0, "9", "kubectl"));
    let asleep = seen(&mut all).unwrap();
    assert!(asleep.is_put_to_sleep && asleep.raise.is_none());
    all.learn(NOW, target(1, "10", "pilotlight-activator"));
    assert!(!seen(&mut all).unwrap().is_put_to_sleep, "an activator has woken it");
}

#[test]
fn whatever_is_gone_is_forgotten() {
    let mut all = with_two();
    all.complete();
    all.set_namespace("shop", NamespaceFacts::default());
    seen(&mut all);
    all.learn(NOW, WorkloadFact::Autoscaler(Arc::new(id()), None));
    assert!(seen(&mut all).is_none());
    assert!(all.entries.is_empty() && all.wanting.is_empty() && all.sharing.is_empty());
}
