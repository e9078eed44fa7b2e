//! The rules by which a number of pods may be lowered, and when.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::leader::foreign::{Foreign, Raise};
use crate::leader::pretend::{NOW, seen};
use crate::peers::WorkloadActivity;
use crate::refusal::{HpaFact, Refusal};
use crate::settings::Accepted;

fn step(seen: &Seen) -> ScaleStep {
    scale_step(NOW, seen)
}

fn ago(seconds: u64) -> Time {
    Time::from_nanos(NOW.as_nanos() - seconds * 1_000_000_000)
}

fn with(seen: Seen, change: impl FnOnce(&mut Accepted)) -> Seen {
    let mut accepted = Accepted::clone(seen.accepted.as_deref().unwrap());
    change(&mut accepted);
    Seen { accepted: Some(Arc::new(accepted)), ..seen }
}

#[test]
fn what_was_decided_is_written_and_once() {
    assert_eq!(step(&seen(0, 2)), ScaleStep::Raise(2));
    assert_eq!(step(&seen(2, 5)), ScaleStep::Raise(5));
    assert_eq!(step(&seen(5, 2)), ScaleStep::Lower(2));
    assert_eq!(step(&seen(1, 0)), ScaleStep::Lower(0));
    assert_eq!(step(&seen(2, 2)), KEEP);
    assert_eq!(step(&Seen { evaluation: None, ..seen(2, 5) }), KEEP, "nothing is known of what is wanted");
    assert_eq!(step(&Seen { scale: None, ..seen(2, 5) }), KEEP, "the target is not there");
}

#[test]
fn nothing_is_lowered_in_the_first_stable_window() {
    let new = |wanted| Seen { since: ago(59), ..seen(2, wanted) };
    let until = ScaleStep::Keep { until: Some(ago(59) + Duration::from_secs(60)) };
    assert_eq!(step(&new(1)), until);
    assert_eq!(step(&new(0)), until);
    assert_eq!(step(&new(3)), ScaleStep::Raise(3));
    assert_eq!(step(&Seen { since: ago(60), ..seen(2, 1) }), ScaleStep::Lower(1));
}

#[test]
fn observing_and_pausing_patch_nothing() {
    for mode in [Mode::Observe, Mode::Paused] {
        for (replicas, wanted) in [(0, 2), (2, 5), (5, 2), (1, 0)] {
            assert_eq!(step(&with(seen(replicas, wanted), |accepted| accepted.mode = mode)), KEEP);
        }
    }
}

#[test]
fn a_raise_by_somebody_else_is_respected_for_a_stable_window() {
    let raised = |at| Seen { raise: Some(Raise { to: 5, at }), ..seen(5, 2) };
    assert_eq!(step(&raised(ago(10))), ScaleStep::Keep { until: Some(ago(10) + Duration::from_secs(60)) });
    assert_eq!(step(&Seen { raise: None, ..raised(ago(70)) }), ScaleStep::Lower(2));
}

#[test]
fn whoever_contests_the_number_has_the_last_word() {
    let mut foreign = Foreign::default();
    for seconds in [30, 20, 10] {
        foreign.changed(ago(seconds), (2, 5), "argocd", 1);
    }
    let contested = |wanted| Seen { contest: foreign.contest(NOW, 1).cloned(), ..seen(5, wanted) };
    assert_eq!(step(&contested(2)), KEEP);
    assert_eq!(step(&contested(7)), ScaleStep::Raise(7));
}

#[test]
fn the_last_pod_goes_only_when_the_path_is_there_and_no_request_is() {
    let mut blocked = seen(1, 0);
    blocked.path.may_sleep = false;
    assert_eq!(step(&blocked), KEEP);
    let waiting = WorkloadActivity { waiting: 1, ..WorkloadActivity::default() };
    assert_eq!(step(&Seen { activity: waiting, ..seen(1, 0) }), KEEP);
    let at_a_pod = WorkloadActivity { pods: [("web-0".to_owned(), 1)].into(), ..WorkloadActivity::default() };
    assert_eq!(step(&Seen { activity: at_a_pod.clone(), ..seen(1, 0) }), KEEP);
    assert_eq!(step(&Seen { activity: at_a_pod, ..seen(3, 1) }), ScaleStep::Lower(1));
}

#[test]
fn nothing_is_lowered_on_a_number_that_leaves_requests_out() {
    let mut partly = seen(3, 1);
    partly.path.sees_all = false;
    assert_eq!(step(&partly), KEEP);
    let scraped = Seen { way: Ok(Way::AtZero(AtZeroSignal::QueueProxy)), ..partly };
    assert_eq!(step(&scraped), ScaleStep::Lower(1), "queue-proxies see all of them");
}

#[test]
fn beside_an_hpa_a_target_is_woken_to_its_minimum_and_put_to_sleep_and_no_more() {
    let hpa = HpaFact { min_replicas: 3, max_replicas: 9, ..HpaFact::default() };
    let beside = |replicas, wanted| Seen {
        way: Ok(Way::AtZero(AtZeroSignal::Autoscaler)),
        hpa: Some(hpa.clone()),
        is_quiet: true,
        ..seen(replicas, wanted)
    };
    assert_eq!(step(&beside(0, 1)), ScaleStep::Raise(3));
    assert_eq!(step(&beside(3, 7)), KEEP);
    assert_eq!(step(&beside(7, 3)), KEEP);
    assert_eq!(step(&beside(3, 0)), ScaleStep::Lower(0));
    assert_eq!(step(&Seen { is_quiet: false, ..beside(3, 0) }), KEEP, "its metrics show load");
}

#[test]
fn a_target_that_nobody_sees_into_is_woken_and_no_more() {
    let blind = |replicas, wanted| Seen { way: Ok(Way::WakeOnly), ..seen(replicas, wanted) };
    assert_eq!(step(&blind(0, 2)), ScaleStep::Raise(2));
    for (replicas, wanted) in [(1, 0), (1, 3), (3, 1)] {
        assert_eq!(step(&blind(replicas, wanted)), KEEP);
    }
}

#[test]
fn a_target_that_somebody_put_to_sleep_is_woken_by_demand_alone() {
    let mut asleep = Seen { is_put_to_sleep: true, ..seen(0, 1) };
    assert_eq!(step(&asleep), ScaleStep::Raise(1));
    asleep.evaluation.as_mut().unwrap().outcome.bound = Some(Bound::RecentlyActive);
    assert_eq!(step(&asleep), KEEP);
}

#[test]
fn without_activators_and_before_we_go_what_sleeps_is_woken() {
    let mut alone = with(seen(0, 0), |accepted| accepted.spec.min_scale = 2);
    alone.path.must_wake = true;
    assert_eq!(step(&alone), ScaleStep::Raise(2));
    let mut leaving = Seen { restoring: Some(NOW), ..seen(0, 0) };
    assert_eq!(step(&leaving), ScaleStep::Raise(1));
    leaving.path.restored = Restored::Yes;
    assert_eq!(step(&leaving), ScaleStep::Raise(1), "its slices are gone, and it sleeps still");
    assert_eq!(step(&Seen { restoring: Some(NOW), ..seen(3, 0) }), KEEP);
}

#[test]
fn what_is_refused_is_left_alone_but_for_what_sleeps_behind_our_slices() {
    let refused = |replicas, wanted| Seen {
        way: Err(Refusal { reason: "SharedService", message: String::new() }),
        ..seen(replicas, wanted)
    };
    assert_eq!(step(&refused(2, 5)), KEEP);
    assert_eq!(step(&refused(0, 0)), ScaleStep::Raise(1));
    let second = Seen { is_second: true, ..refused(0, 0) };
    assert_eq!(step(&second), KEEP, "the slices are those of the one that came first");
}
