//! Fewer pods without a request lost: those that are to go are told first, get nothing new, and go once they are empty. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use pilotlight_core::Time;

use super::seen::Seen;
use crate::facts::PodPhase;
use crate::refusal::Way;

/// Whether it is known which pods go when the number falls: the highest ordinals of a StatefulSet, or whichever cost least
/// where we may say so.
pub(crate) fn is_exact(seen: &Seen) -> bool {
    let target = &seen.workload.autoscaler.spec.scale_target_ref;
    let may_choose = seen.sets_deletion_cost && target.kind != "StatefulSet";
    seen.way == Ok(Way::Always) && (target.kind == "StatefulSet" || may_choose)
}

/// The pods that go when the number falls to this: those that were chosen before stay chosen, and otherwise the least
/// loaded; of a StatefulSet those with the highest ordinals.
pub(crate) fn leaving(seen: &Seen, to: u32) -> Vec<String> {
    let pods = seen.workload.pods.iter().filter(|(_, pod)| pod.phase != PodPhase::Terminating);
    let mut names: Vec<&String> = pods.map(|(name, _)| name).collect();
    let count = seen.replicas().unwrap_or(0).saturating_sub(to) as usize;
    let before = &seen.workload.autoscaler.status.leaving;
    match seen.workload.autoscaler.spec.scale_target_ref.kind == "StatefulSet" {
        true => names.sort_by_key(|name| std::cmp::Reverse(ordinal(name))),
        false => names.sort_by_key(|name| (!before.contains(name), requests(&seen.activity.pods, name))),
    }
    let mut chosen: Vec<String> = names.into_iter().take(count).cloned().collect();
    chosen.sort();
    chosen
}

/// When the pods that leave may go: `None`: now.
pub(crate) fn drained_at(now: Time, seen: &Seen, leaving: &[String]) -> Option<Time> {
    let drain = seen.accepted.as_ref().map_or(Duration::ZERO, |accepted| accepted.scale_in_drain);
    let deadline = seen.leaving_since.unwrap_or(now) + drain;
    // An activator hears of it by its watch, and says a second later what it still has.
    let told = seen.leaving_since.unwrap_or(now) + HEARD_AFTER;
    let is_empty = leaving.iter().all(|pod| requests(&seen.activity.pods, pod) == 0);
    let at = if is_empty { told } else { deadline };
    (now < at).then(|| at.min(now + BETWEEN_LOOKS))
}

fn requests(pods: &BTreeMap<String, u32>, pod: &str) -> u32 {
    pods.get(pod).copied().unwrap_or(0)
}

fn ordinal(pod: &str) -> u32 {
    pod.rsplit('-').next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Two rounds to the activators.
const HEARD_AFTER: Duration = Duration::from_secs(2);
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::leader::pretend::{NOW, seen};

    fn stateful(replicas: u32, wanted: u32) -> Seen {
        let mut seen = seen(replicas, wanted);
        let fact = Arc::make_mut(&mut seen.workload.autoscaler);
        fact.spec.scale_target_ref.kind = "StatefulSet".to_owned();
        seen
    }

    #[test]
    fn the_highest_ordinals_of_a_stateful_set_leave() {
        let seen = stateful(12, 3);
        assert!(is_exact(&seen));
        assert_eq!(leaving(&seen, 10), ["web-10", "web-11"]);
    }

    #[test]
    fn the_least_loaded_leave_and_stay_chosen() {
        let mut seen = Seen { sets_deletion_cost: true, ..seen(3, 2) };
        assert!(is_exact(&seen));
        seen.activity.pods =
            [("web-0".to_owned(), 4), ("web-1".to_owned(), 1), ("web-2".to_owned(), 2)].into();
        assert_eq!(leaving(&seen, 2), ["web-1"]);
        Arc::make_mut(&mut seen.workload.autoscaler).status.leaving = vec!["web-2".to_owned()];
        assert_eq!(leaving(&seen, 2), ["web-2"]);
        assert!(!is_exact(&Seen { sets_deletion_cost: false, ..seen }));
    }

    #[test]
    fn pods_go_when_they_are_empty_or_their_time_is_over() {
        let ago = |seconds: u64| Some(Time::from_nanos(NOW.as_nanos() - seconds * 1_000_000_000));
        let told = |seconds| Seen { leaving_since: ago(seconds), ..stateful(3, 2) };
        let gone = ["web-2".to_owned()];
        assert!(drained_at(NOW, &told(1), &gone).is_some(), "no activator may have heard");
        assert_eq!(drained_at(NOW, &told(2), &gone), None);
        let mut busy = told(29);
        busy.activity.pods.insert("web-2".to_owned(), 1);
        assert!(drained_at(NOW, &busy, &gone).is_some());
        assert_eq!(drained_at(NOW, &Seen { leaving_since: ago(30), ..busy }, &gone), None);
    }
}
