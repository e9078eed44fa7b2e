//! The writes that are missing, and their order.

use std::sync::Arc;

use super::*;
use crate::leader::pretend::{NOW, seen};
use crate::leader::restore::RESTORE;
use crate::leader::status::status;
use crate::path::{EndpointsDeletion, Restored};
use crate::refusal::Refusal;
use crate::slices::SliceWrite;

fn slice() -> PathWrite {
    PathWrite::Slice(SliceWrite::Delete {
        name: "web-a".to_owned(),
        uid: "u".to_owned(),
        resource_version: "3".to_owned(),
    })
}

fn endpoints() -> PathWrite {
    PathWrite::DeleteEndpoints(EndpointsDeletion {
        name: "web".to_owned(),
        uid: "u".to_owned(),
        resource_version: "3".to_owned(),
    })
}

/// The same, with the finalizer, and after its status was written.
fn settled(mut seen: Seen) -> Seen {
    let written = status(NOW, &seen);
    let fact = Arc::make_mut(&mut seen.workload.autoscaler);
    fact.status = written;
    fact.finalizers.push(RESTORE.to_owned());
    seen
}

fn kinds(seen: &Seen) -> Vec<&'static str> {
    let kind = |write: &Write| match write {
        Write::AddFinalizer => "add finalizer",
        Write::Path(PathWrite::Slice(_)) => "slice",
        Write::Path(PathWrite::DeleteEndpoints(_)) => "endpoints",
        Write::ReadEndpoints(_) => "read",
        Write::DeletionCost(_, true) => "cost",
        Write::DeletionCost(_, false) => "no cost",
        Write::Scale => "scale",
        Write::Status(_) => "status",
        Write::RemoveFinalizer => "remove finalizer",
    };
    reconcile(NOW, seen).writes.iter().map(kind).collect()
}

#[test]
fn nothing_is_missing_where_everything_is_written() {
    assert_eq!(reconcile(NOW, &settled(seen(2, 2))), Work::default());
}

#[test]
fn the_finalizer_comes_first_then_the_path_then_the_scale_then_the_status() {
    let mut seen = seen(1, 2);
    seen.path.ask_endpoints = ["web".to_owned()].into();
    seen.path.writes = vec![slice(), endpoints()];
    assert_eq!(kinds(&seen), ["add finalizer", "read", "slice", "endpoints", "scale", "status"]);
}

#[test]
fn nothing_but_the_status_is_written_before_the_first_decision() {
    let mut new = Seen { evaluation: None, ..seen(1, 2) };
    new.path.writes = vec![slice()];
    assert_eq!(kinds(&new), ["status"]);
}

#[test]
fn settings_that_were_never_legal_leave_the_path_as_it_is() {
    let mut faulty = Seen { faults: ["wrong".to_owned()].into(), accepted: None, ..seen(1, 2) };
    faulty.way = Err(Refusal { reason: "SharedService", message: String::new() });
    faulty.path.writes = vec![slice()];
    assert_eq!(kinds(&faulty), ["status"]);
    faulty.faults = Arc::default();
    assert_eq!(kinds(&faulty), ["slice", "status"], "what is refused is put back");
}

#[test]
fn the_finalizer_goes_last_and_only_when_everything_is_as_it_was() {
    let mut leaving = Seen { restoring: Some(NOW), ..settled(seen(0, 0)) };
    leaving.path.writes = vec![slice()];
    assert_eq!(kinds(&leaving), ["slice", "scale"]);
    let mut waking = Seen { restoring: Some(NOW), ..settled(seen(1, 1)) };
    assert_eq!(kinds(&waking), [""; 0], "our slices still stand");
    waking.path.restored = Restored::Yes;
    assert_eq!(kinds(&waking), ["remove finalizer"]);
    waking.path.restored = Restored::ByOurSlices;
    assert_eq!(kinds(&waking), ["remove finalizer"]);
}

#[test]
fn the_next_look_is_the_first_of_all_that_wait() {
    let mut seen = settled(seen(2, 2));
    let at = |seconds| NOW + std::time::Duration::from_secs(seconds);
    seen.path.wake_at = Some(at(9));
    seen.since = NOW;
    seen.evaluation.as_mut().unwrap().plan.scale = Some(1);
    assert_eq!(reconcile(NOW, &seen).again, Some(at(9)));
    seen.path.wake_at = Some(at(90));
    assert_eq!(reconcile(NOW, &seen).again, Some(at(60)), "the stable window is over");
}

#[test]
fn pods_that_leave_are_told_then_emptied_then_chosen_and_then_go() {
    let mut seen = Seen { sets_deletion_cost: true, ..settled(seen(2, 2)) };
    seen.evaluation.as_mut().unwrap().plan.scale = Some(1);
    assert_eq!(kinds(&seen), ["status"]);
    let leaving = status(NOW, &seen).leaving;
    assert_eq!(leaving.len(), 1);
    let mut told = Seen { leaving_since: Some(NOW), ..settled(seen) };
    assert_eq!(kinds(&told), [""; 0], "an activator may have sent it a request");
    told.leaving_since = Some(Time::from_secs(90_000));
    assert_eq!(kinds(&told), ["cost", "scale"]);
    told.costed = leaving.into_iter().collect();
    assert_eq!(kinds(&told), ["scale"]);
    told.evaluation.as_mut().unwrap().plan.scale = Some(2);
    assert_eq!(kinds(&told), ["status"], "load has come back");
    assert_eq!(kinds(&settled(told)), ["no cost"]);
}
