//! Patches, as clients send them.

use json_patch::{AddOperation, PatchOperation, ReplaceOperation};
use serde_json::Value;

use super::definition::Definition;
use super::failure::{Failure, Result};
use super::merge::strategic;

/// A change of a part of an object.
pub(crate) enum Patch {
    /// RFC 6902.
    Json(json_patch::Patch),
    /// RFC 7386.
    Merge(Value),
    Strategic(Value),
    Apply {
        object: Value,
        is_forced: bool,
    },
}

/// Applies a patch; server-side apply is none of them.
pub(crate) fn changed(mut object: Value, patch: Patch, definition: &Definition) -> Result<Value> {
    match patch {
        Patch::Json(patch) => {
            for operation in patch.0 {
                let operation = as_kubernetes(operation, &object);
                json_patch::patch(&mut object, &[operation]).map_err(|error| {
                    // Kubernetes does not tell which operation failed; tests are better off knowing.
                    let message =
                        format!("the server rejected our request due to an error in our request: {error}");
                    Failure::new(422, "Invalid", message)
                })?;
            }
        }
        Patch::Merge(patch) | Patch::Apply { object: patch, .. } => json_patch::merge(&mut object, &patch),
        Patch::Strategic(_) if definition.is_custom => {
            let message = "the body of the request was in an unknown format - accepted media types include: \
                           application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
            return Err(Failure::new(415, "UnsupportedMediaType", message));
        }
        Patch::Strategic(patch) => strategic::merge(definition, &mut object, &patch)?,
    }
    Ok(object)
}

/// Kubernetes lets `replace` add a field that an object has not got, against RFC 6902, section 4.3.
fn as_kubernetes(operation: PatchOperation, object: &Value) -> PatchOperation {
    match operation {
        PatchOperation::Replace(ReplaceOperation { path, value })
            if path
                .parent()
                .and_then(|parent| object.pointer(parent.as_str()))
                .is_some_and(Value::is_object) =>
        {
            PatchOperation::Add(AddOperation { path, value })
        }
        other => other,
    }
}
