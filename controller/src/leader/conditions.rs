//! Conditions of a RequestAutoscaler: their types, and the rule by which they change.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time as ObjectTime};
use k8s_openapi::jiff::Timestamp;
use pilotlight_core::Time;

/// Whether the settings are in force.
pub(crate) const ACCEPTED: &str = "Accepted";
/// Whether traffic takes the way that was asked for.
pub(crate) const INTERCEPTING: &str = "Intercepting";
/// Whether the workload is served as it should be.
pub(crate) const READY: &str = "Ready";
/// Whether it has its pods.
pub(crate) const ACTIVE: &str = "Active";
/// Whether something keeps the last pods from going.
pub(crate) const ZERO_BLOCKED: &str = "ZeroBlocked";

/// The state of a condition: status, reason, message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConditionState {
    pub(crate) status: &'static str,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl ConditionState {
    pub(crate) fn is_true(reason: &str, message: impl Into<String>) -> Self {
        ConditionState { status: "True", reason: reason.to_owned(), message: message.into() }
    }

    pub(crate) fn is_false(reason: &str, message: impl Into<String>) -> Self {
        ConditionState { status: "False", reason: reason.to_owned(), message: message.into() }
    }

    pub(crate) fn is_unknown(reason: &str, message: impl Into<String>) -> Self {
        ConditionState { status: "Unknown", reason: reason.to_owned(), message: message.into() }
    }
}

/// The condition of a type.
pub(crate) fn condition<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Gives a condition a state. Its time changes with its status alone, as Kubernetes' conventions say. All conditions are
/// then in the order of their types.
pub(crate) fn set(
    conditions: &mut Vec<Condition>,
    at: Time,
    generation: i64,
    type_: &str,
    state: ConditionState,
) {
    let ConditionState { status, reason, message } = state;
    let before = condition(conditions, type_);
    let since = before.filter(|before| before.status == status).map(|it| it.last_transition_time.clone());
    conditions.retain(|condition| condition.type_ != type_);
    conditions.push(Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        observed_generation: Some(generation),
        last_transition_time: since.unwrap_or_else(|| object_time(at)),
        reason,
        message,
    });
    conditions.sort_by(|one, other| one.type_.cmp(&other.type_));
}

/// A time as objects have it: in whole seconds.
pub(crate) fn object_time(time: Time) -> ObjectTime {
    let seconds = i64::try_from(time.whole_seconds()).unwrap_or(i64::MAX);
    ObjectTime(Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX))
}

/// A time of an object as ours.
pub(crate) fn since_1970(time: &ObjectTime) -> Time {
    Time::from_nanos(u64::try_from(time.0.as_nanosecond()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_condition_changes_with_its_status_alone() {
        let mut conditions = Vec::new();
        let mut at = |seconds, state| {
            set(&mut conditions, Time::from_secs(seconds), 1, READY, state);
            since_1970(&condition(&conditions, READY).unwrap().last_transition_time).whole_seconds()
        };
        assert_eq!(at(10, ConditionState::is_unknown("Starting", "")), 10);
        assert_eq!(at(20, ConditionState::is_unknown("Waiting", "for a pod")), 10);
        assert_eq!(at(30, ConditionState::is_true("Ready", "")), 30);
    }
}
