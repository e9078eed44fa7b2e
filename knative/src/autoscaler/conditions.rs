//! Conditions of Knative's objects: their types, reasons and messages, and the rule by which they change.

use pilotlight_core::Time;
use pilotlight_kubernetes::knative::Condition;

use super::facts::{condition, object_time};

/// Whether a revision has its pods.
pub(crate) const ACTIVE: &str = "Active";
/// Whether it had its initial number of pods once.
pub(crate) const INITIALIZED: &str = "ScaleTargetInitialized";
/// Whether its ServerlessService is ready.
pub(crate) const SERVICE_READY: &str = "SKSReady";
/// All of them together.
pub(crate) const READY: &str = "Ready";

/// Reasons of conditions.
pub(crate) const QUEUED: &str = "Queued";
pub(crate) const NO_TRAFFIC: &str = "NoTraffic";
pub(crate) const TIMED_OUT: &str = "TimedOut";
pub(crate) const NOT_READY: &str = "NotReady";
pub(crate) const NOT_OWNED: &str = "NotOwned";
pub(crate) const FAILED_CREATE: &str = "FailedCreate";

/// The state of a condition: status, reason, message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) status: &'static str,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl State {
    pub(crate) fn is_true() -> State {
        State { status: "True", reason: String::new(), message: String::new() }
    }

    pub(crate) fn is_false(reason: &str, message: impl Into<String>) -> State {
        State { status: "False", reason: reason.to_owned(), message: message.into() }
    }

    pub(crate) fn is_unknown(reason: &str, message: impl Into<String>) -> State {
        State { status: "Unknown", reason: reason.to_owned(), message: message.into() }
    }
}

/// Gives a condition a state. Its time changes with status, reason or message, and with nothing else. All conditions
/// are then in the order of their types.
pub(crate) fn set(conditions: &mut Vec<Condition>, at: Time, type_: &str, state: State) {
    let State { status, reason, message } = state;
    let is_so = condition(conditions, type_)
        .is_some_and(|it| it.status == status && it.reason == reason && it.message == message);
    if is_so {
        return;
    }
    conditions.retain(|condition| condition.type_ != type_);
    conditions.push(Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        severity: String::new(),
        last_transition_time: Some(object_time(at)),
        reason,
        message,
    });
    conditions.sort_by(|one, other| one.type_.cmp(&other.type_));
}
