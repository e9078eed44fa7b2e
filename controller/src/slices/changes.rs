//! From the slices that are there to the writes that are missing.

use std::collections::BTreeMap;

use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::{OURS, SliceFact};

/// One write that is missing.
#[derive(Clone, Debug, PartialEq)]
pub enum SliceWrite {
    /// Create it; that it is there already is a conflict.
    Create(Box<EndpointSlice>),
    /// Replace it, if it still has the `resourceVersion` that the object carries.
    Replace(Box<EndpointSlice>),
    /// Delete it, if it is still this one at this version.
    Delete {
        /// The name.
        name: String,
        /// The UID.
        uid: String,
        /// The version.
        resource_version: String,
    },
}

impl SliceWrite {
    /// The deletion of a slice as it was seen.
    pub fn delete(fact: &SliceFact) -> SliceWrite {
        SliceWrite::Delete {
            name: fact.name.clone(),
            uid: fact.uid.clone(),
            resource_version: fact.resource_version.clone(),
        }
    }
}

/// The writes that make `wanted` all of our slices among `observed`, which may hold anybody's: first what adds or changes,
/// then what deletes. The same state again leads to no write.
pub fn changes(observed: &[SliceFact], wanted: &[EndpointSlice]) -> Vec<SliceWrite> {
    let mut before: BTreeMap<&str, &SliceFact> =
        observed.iter().map(|fact| (fact.name.as_str(), fact)).collect();
    let mut writes = Vec::new();
    for slice in wanted {
        let Some((name, new)) = SliceFact::read(slice) else { continue };
        match before.remove(name.name.as_str()) {
            None => writes.push(SliceWrite::Create(Box::new(slice.clone()))),
            Some(old) if old.says_the_same(&new) => {}
            Some(old) => {
                let mut slice = Box::new(slice.clone());
                slice.metadata.resource_version = Some(old.resource_version.clone());
                slice.metadata.uid = Some(old.uid.clone());
                writes.push(SliceWrite::Replace(slice));
            }
        }
    }
    let ours = before.into_values().filter(|fact| fact.managed_by == OURS);
    writes.extend(ours.map(SliceWrite::delete));
    writes
}
