//! The garbage collector: objects without owners, contents of namespaces that end, and owners that wait for dependents.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use super::definition::strings;
use super::delete::{DeleteOptions, FOREGROUND, ORPHAN};
use super::failure::Result;
use super::merge::managers::Writer;
use super::store::{self, Key, Object, Place, Store};
use super::write::Writing;

/// Cleans up whenever something has changed, until the store is gone.
pub(crate) async fn run(store: Arc<Mutex<Store>>) {
    let mut changes = store.lock().changes();
    let store = Arc::downgrade(&store);
    while let Some(store) = store.upgrade() {
        clean(&mut store.lock());
        drop(store);
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn clean(store: &mut Store) {
    loop {
        let litter = store.take_litter();
        if litter.is_empty() {
            return;
        }
        for (id, key) in litter {
            if let Some(object) = store.get(&id, &key) {
                // An object that cannot be changed now comes again with its next change.
                let _ = look_at(store, &id, &key, &object);
            }
        }
    }
}

fn look_at(store: &mut Store, id: &str, key: &Key, object: &Arc<Object>) -> Result<()> {
    if store::is_ending(&object.value) {
        if id == "namespaces" {
            return empty_namespace(store, key);
        }
        let finalizers = strings(&object.value["metadata"]["finalizers"]);
        if finalizers.iter().any(|name| name == ORPHAN) {
            for place in store.dependents(store::uid(&object.value)) {
                disown(store, &place, |uid| uid == store::uid(&object.value))?;
            }
            return finish(store, id, key, object, ORPHAN);
        }
        if finalizers.iter().any(|name| name == FOREGROUND) {
            return delete_dependents(store, id, key, object);
        }
    }
    let owners = store::owners(&object.value);
    let gone: Vec<_> = owners.iter().copied().filter(|uid| store.find(uid).is_none()).collect();
    if gone.is_empty() || store::is_ending(&object.value) {
        return Ok(());
    }
    if gone.len() == owners.len() {
        return delete(store, &(id.into(), key.clone()), "Background");
    }
    disown(store, &(id.into(), key.clone()), |uid| gone.contains(&uid))
}

/// Deletes what an owner owns; the owner goes when nothing is left that blocks its end.
fn delete_dependents(store: &mut Store, id: &str, key: &Key, owner: &Arc<Object>) -> Result<()> {
    let uid = store::uid(&owner.value);
    let mut is_blocked = false;
    for place in store.dependents(uid) {
        let Some(dependent) = store.get(&place.0, &place.1) else { continue };
        let references = dependent.value["metadata"]["ownerReferences"].as_array();
        let mut references = references.into_iter().flatten();
        let is_blocking = references.any(|each| each["uid"] == uid && each["blockOwnerDeletion"] == true);
        let others: Vec<_> =
            store::owners(&dependent.value).into_iter().filter(|other| *other != uid).collect();
        if others.iter().any(|other| store.find(other).is_some()) {
            disown(store, &place, |each| each == uid)?;
            continue;
        }
        if !store::is_ending(&dependent.value) {
            delete(store, &place, "Foreground")?;
        }
        is_blocked |= is_blocking && store.get(&place.0, &place.1).is_some();
    }
    if is_blocked { Ok(()) } else { finish(store, id, key, owner, FOREGROUND) }
}

fn empty_namespace(store: &mut Store, key: &Key) -> Result<()> {
    let mut content = Vec::new();
    for table in store.tables().filter(|table| table.definition.is_namespaced) {
        let id = table.definition.id();
        content.extend(
            table
                .objects(&key.name, None)
                .map(|(key, object)| ((id.clone(), key.clone()), Arc::clone(object))),
        );
    }
    for (place, object) in &content {
        if !store::is_ending(&object.value) {
            delete(store, place, "Background")?;
        }
    }
    let is_left = |(id, key): &Place| store.get(id, key).is_some();
    if !content.iter().any(|(place, _)| is_left(place)) {
        writing(store, "namespaces")?.removed(key)?;
    }
    Ok(())
}

fn delete(store: &mut Store, (id, key): &Place, propagation: &str) -> Result<()> {
    let options = DeleteOptions { propagation: Some(propagation.into()), ..DeleteOptions::default() };
    writing(store, id)?.delete(key, &options).map(|_| ())
}

/// Takes references to owners off an object.
fn disown(store: &mut Store, (id, key): &Place, is_gone: impl Fn(&str) -> bool) -> Result<()> {
    let Some(before) = store.get(id, key) else { return Ok(()) };
    let mut object = before.value.clone();
    if let Some(owners) = object["metadata"]["ownerReferences"].as_array_mut() {
        owners.retain(|owner| !owner["uid"].as_str().is_some_and(&is_gone));
    }
    drop_if_empty(&mut object["metadata"], "ownerReferences");
    writing(store, id)?.replace(key, &before, object, true).map(|_| ())
}

/// Takes the finalizer off an owner whose dependents are dealt with.
fn finish(store: &mut Store, id: &str, key: &Key, before: &Arc<Object>, finalizer: &str) -> Result<()> {
    let mut object = before.value.clone();
    if let Some(finalizers) = object["metadata"]["finalizers"].as_array_mut() {
        finalizers.retain(|name| name != finalizer);
    }
    drop_if_empty(&mut object["metadata"], "finalizers");
    writing(store, id)?.replace(key, before, object, true).map(|_| ())
}

fn drop_if_empty(metadata: &mut Value, name: &str) {
    if metadata[name].as_array().is_none_or(Vec::is_empty)
        && let Some(fields) = metadata.as_object_mut()
    {
        fields.remove(name);
    }
}

fn writing<'a>(store: &'a mut Store, id: &str) -> Result<Writing<'a>> {
    let definition = Arc::clone(&store.table(id)?.definition);
    let writer = Writer { manager: "kube-controller-manager", subresource: "" };
    Ok(Writing { store, definition, id: id.into(), writer, is_dry_run: false })
}
