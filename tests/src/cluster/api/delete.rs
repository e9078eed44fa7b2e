//! Deletions: at once, after a grace period, or when the last finalizer is gone.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::failure::{Failure, Result};
use super::store::{self, Key, Object};
use super::write::{Writing, has_finalizers};

/// What a client asks for with a deletion.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) grace_seconds: Option<i64>,
    /// `Background`, `Foreground` or `Orphan`.
    pub(crate) propagation: Option<String>,
    pub(crate) uid: Option<String>,
    pub(crate) version: Option<String>,
}

pub(crate) enum Deleted {
    /// It is gone.
    Gone(Arc<Object>),
    /// It has a deletion timestamp.
    Begun(Arc<Object>),
}

impl DeleteOptions {
    /// Reads a `DeleteOptions` object.
    pub(crate) fn read(body: &Value) -> Self {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let orphans = (body["orphanDependents"] == true).then(|| "Orphan".to_owned());
        Self {
            grace_seconds: body["gracePeriodSeconds"].as_i64(),
            propagation: text(&body["propagationPolicy"]).or(orphans),
            uid: text(&body["preconditions"]["uid"]),
            version: text(&body["preconditions"]["resourceVersion"]),
        }
    }
}

impl Writing<'_> {
    pub(crate) fn delete(&mut self, key: &Key, options: &DeleteOptions) -> Result<Deleted> {
        let before = self.existing(key)?;
        self.check_preconditions(key, &before, options)?;
        let mut object = before.value.clone();
        self.mark_propagation(&mut object, options);
        let grace = self.grace(&object, options);
        let metadata = &object["metadata"];
        let is_shorter = metadata["deletionGracePeriodSeconds"].as_i64().is_none_or(|left| grace < left);
        let is_ending = store::is_ending(&object);
        if grace == 0 && !has_finalizers(&object) && !self.has_content(&object) {
            if self.is_dry_run {
                return Ok(Deleted::Gone(before));
            }
            // Kinds with a grace are told to be ending first, even if they end at once.
            if self.id == "pods" && is_shorter {
                mark_ending(&mut object, grace);
                self.store.put(&self.id, key.clone(), object);
            }
            return Ok(Deleted::Gone(self.removed(key)?));
        }
        if !is_ending || is_shorter {
            mark_ending(&mut object, grace);
        }
        if !is_ending && let Some(generation) = object["metadata"]["generation"].as_i64() {
            object["metadata"]["generation"] = (generation + 1).into();
        }
        if self.id == "namespaces" {
            object["status"]["phase"] = "Terminating".into();
        }
        if object == before.value || self.is_dry_run {
            return Ok(Deleted::Begun(before));
        }
        Ok(Deleted::Begun(self.store.put(&self.id, key.clone(), object)))
    }

    fn check_preconditions(&self, key: &Key, before: &Object, options: &DeleteOptions) -> Result<()> {
        let live = store::uid(&before.value);
        if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != live) {
            let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {live}");
            return Err(Failure::conflict(&self.definition, &key.name, &why));
        }
        let live = before.revision.to_string();
        if let Some(version) = options.version.as_deref().filter(|version| *version != live) {
            let why = format!(
                "Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: {live}"
            );
            return Err(Failure::conflict(&self.definition, &key.name, &why));
        }
        Ok(())
    }

    /// Finalizers stand for what has to happen to dependents first.
    fn mark_propagation(&self, object: &mut Value, options: &DeleteOptions) {
        let Some(policy) = options.propagation.as_deref() else { return };
        let wanted = match policy {
            "Foreground" => Some(FOREGROUND),
            "Orphan" => Some(ORPHAN),
            _ => None,
        };
        let mut finalizers = super::definition::strings(&object["metadata"]["finalizers"]);
        finalizers
            .retain(|name| Some(name.as_str()) == wanted || ![FOREGROUND, ORPHAN].contains(&name.as_str()));
        if let Some(wanted) = wanted
            && !finalizers.iter().any(|name| name == wanted)
        {
            finalizers.push(wanted.into());
        }
        if finalizers.is_empty() {
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.remove("finalizers");
            }
        } else {
            object["metadata"]["finalizers"] = finalizers.into();
        }
    }

    /// Seconds that a pod has left to stop. A pod that no node runs has none.
    fn grace(&self, object: &Value, options: &DeleteOptions) -> i64 {
        let is_run = object["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
        let has_ended = ["Succeeded", "Failed"].iter().any(|phase| object["status"]["phase"] == *phase);
        if self.id != "pods" || !is_run || has_ended {
            return 0;
        }
        let default = || object["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
        options.grace_seconds.unwrap_or_else(default).max(0)
    }

    /// Whether a namespace has to be emptied first.
    fn has_content(&self, object: &Value) -> bool {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        self.id == "namespaces"
            && self
                .store
                .tables()
                .any(|table| table.definition.is_namespaced && table.objects(name, None).next().is_some())
    }
}

fn mark_ending(object: &mut Value, grace: i64) {
    let end = Timestamp::now() + SignedDuration::from_secs(grace);
    object["metadata"]["deletionTimestamp"] = store::timestamp(end).into();
    object["metadata"]["deletionGracePeriodSeconds"] = grace.into();
}

/// The finalizer of an owner that waits for its dependents' end.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an owner whose dependents are to stay.
pub(crate) const ORPHAN: &str = "orphan";
