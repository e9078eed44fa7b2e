//! Refusals, as the `Status` objects that clients know.

use kube::core::Status;
use kube::core::response::{StatusCause, StatusDetails};
use serde_json::{Value, json};

use super::definition::Definition;

pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// A request that was refused.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) status: Box<Status>,
}

impl Failure {
    pub(crate) fn new(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self { status: Status::failure(&message.into(), reason).with_code(code).boxed() }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(crate) fn not_found(definition: &Definition, name: &str) -> Self {
        Self::of(definition, name, 404, "NotFound", "not found")
    }

    /// No kind is served there.
    pub(crate) fn no_such_page() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    pub(crate) fn already_exists(definition: &Definition, name: &str) -> Self {
        Self::of(definition, name, 409, "AlreadyExists", "already exists")
    }

    pub(crate) fn conflict(definition: &Definition, name: &str, why: &str) -> Self {
        let mut failure = Self::of(definition, name, 409, "Conflict", "");
        failure.status.message =
            format!("Operation cannot be fulfilled on {} \"{name}\": {why}", definition.id());
        failure
    }

    pub(crate) fn modified(definition: &Definition, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(definition, name, why)
    }

    pub(crate) fn forbidden(definition: &Definition, name: &str, why: &str) -> Self {
        Self::of(definition, name, 403, "Forbidden", &format!("is forbidden: {why}"))
    }

    /// The object breaks rules: the field, the reason such as `FieldValueRequired`, and what is wrong.
    pub(crate) fn invalid(definition: &Definition, name: &str, causes: &[(&str, &str, String)]) -> Self {
        let mut failure = Self::of(definition, name, 422, "Invalid", "");
        let faults: Vec<_> = causes.iter().map(|(field, _, message)| format!("{field}: {message}")).collect();
        let faults = match &faults[..] {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        failure.status.message = format!("{} \"{name}\" is invalid: {faults}", kind_of(definition));
        if let Some(details) = &mut failure.status.details {
            details.kind = definition.kind.clone();
            details.causes =
                causes.iter().map(|(field, reason, message)| cause(field, reason, message)).collect();
        }
        failure
    }

    /// Field managers that own what another wants to apply.
    pub(crate) fn owned(message: String, causes: Vec<StatusCause>) -> Self {
        let mut failure = Self::new(409, "Conflict", message);
        failure.status.details = Some(details("", "", "", causes));
        failure
    }

    /// The version asked for is not kept any more.
    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// The version asked for has not been given to anything yet.
    pub(crate) fn too_large(wanted: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {wanted}, current: {current}");
        let mut failure = Self::new(504, "Timeout", message);
        let cause = cause("", "ResourceVersionTooLarge", "Too large resource version");
        failure.status.details =
            Some(StatusDetails { retry_after_seconds: 1, ..details("", "", "", vec![cause]) });
        failure
    }

    pub(crate) fn with_retry_after(mut self, seconds: u32) -> Self {
        let details = self.status.details.get_or_insert_with(|| details("", "", "", Vec::new()));
        details.retry_after_seconds = seconds;
        self
    }

    pub(crate) fn code(&self) -> u16 {
        self.status.code
    }

    /// The whole `Status` object.
    pub(crate) fn to_value(&self) -> Value {
        let mut value = json!(self.status);
        value["kind"] = "Status".into();
        value["apiVersion"] = "v1".into();
        value["metadata"] = json!({});
        value
    }

    fn of(definition: &Definition, name: &str, code: u16, reason: &str, what: &str) -> Self {
        let mut failure = Self::new(code, reason, format!("{} \"{name}\" {what}", definition.id()));
        failure.status.details = Some(details(&definition.group, &definition.plural, name, Vec::new()));
        failure
    }
}

/// One of the causes of a refusal.
pub(crate) fn cause(field: &str, reason: &str, message: &str) -> StatusCause {
    StatusCause { reason: reason.into(), message: message.into(), field: field.into() }
}

/// `Deployment.apps`; `Pod` for the core group.
fn kind_of(definition: &Definition) -> String {
    if definition.group.is_empty() {
        definition.kind.clone()
    } else {
        format!("{}.{}", definition.kind, definition.group)
    }
}

fn details(group: &str, kind: &str, name: &str, causes: Vec<StatusCause>) -> StatusDetails {
    StatusDetails {
        name: name.into(),
        group: group.into(),
        kind: kind.into(),
        uid: String::new(),
        causes,
        retry_after_seconds: 0,
    }
}
