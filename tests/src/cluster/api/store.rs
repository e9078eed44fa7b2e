//! The objects of all kinds, their versions, and the last changes of each kind. One counter numbers every change.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;

use super::definition::Definition;
use super::failure::{Failure, Result};
use crate::cluster::addresses::AddressRange;

/// Everything that is stored.
pub(crate) struct Store {
    revision: u64,
    uids: u64,
    addresses: AddressRange,
    tables: BTreeMap<String, Table>,
    /// Objects by uid.
    live: BTreeMap<String, Place>,
    /// Objects by the uids of their owners.
    dependents: BTreeMap<String, BTreeSet<Place>>,
    /// Objects that a garbage collector has to look at.
    litter: BTreeSet<Place>,
    changed: watch::Sender<u64>,
}

/// An object's kind ([`Definition::id`]) and name.
pub(crate) type Place = (String, Key);

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// Empty for kinds without namespaces.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// An object as it was at one version.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) value: Value,
    pub(crate) json: Bytes,
    pub(crate) revision: u64,
}

/// One change of one object.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) before: Option<Arc<Object>>,
    /// The object after the change; the last state of it if it was deleted.
    pub(crate) object: Arc<Object>,
    pub(crate) is_deletion: bool,
}

/// The objects of one kind.
pub(crate) struct Table {
    pub(crate) definition: Arc<Definition>,
    objects: BTreeMap<Key, Arc<Object>>,
    /// The last changes, at most [`HISTORY`].
    changes: VecDeque<Arc<Change>>,
    /// How many changes came before those of `changes`.
    forgotten: u64,
    /// The last version before `changes`.
    compacted: u64,
    changed: watch::Sender<u64>,
}

impl Store {
    pub(crate) fn new(definitions: Vec<Definition>, addresses: AddressRange) -> Self {
        let mut store = Self {
            revision: 1,
            uids: 0,
            addresses,
            tables: BTreeMap::new(),
            live: BTreeMap::new(),
            dependents: BTreeMap::new(),
            litter: BTreeSet::new(),
            changed: watch::Sender::new(1),
        };
        for definition in definitions {
            store.define(definition);
        }
        store
    }

    /// Serves a kind. One that is there keeps its objects and gets the new definition.
    pub(crate) fn define(&mut self, definition: Definition) {
        let definition = Arc::new(definition);
        let table = self.tables.entry(definition.id()).or_insert_with(|| Table {
            definition: Arc::clone(&definition),
            objects: BTreeMap::new(),
            changes: VecDeque::new(),
            forgotten: 0,
            compacted: self.revision,
            changed: watch::Sender::new(0),
        });
        table.definition = definition;
    }

    /// Serves a kind no longer. Watches of it end.
    pub(crate) fn undefine(&mut self, id: &str) {
        if let Some(table) = self.tables.remove(id) {
            for object in table.objects.values() {
                self.live.remove(uid(&object.value));
            }
        }
    }

    pub(crate) fn table(&self, id: &str) -> Result<&Table> {
        self.tables.get(id).ok_or_else(Failure::no_such_page)
    }

    pub(crate) fn tables(&self) -> impl Iterator<Item = &Table> {
        self.tables.values()
    }

    /// The version of the last change of anything.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// The version of the last change of anything, to wait for.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(crate) fn get(&self, id: &str, key: &Key) -> Option<Arc<Object>> {
        self.tables.get(id)?.objects.get(key).cloned()
    }

    /// The place of the object with this uid.
    pub(crate) fn find(&self, uid: &str) -> Option<&Place> {
        self.live.get(uid)
    }

    /// Objects that name `uid` as an owner.
    pub(crate) fn dependents(&self, uid: &str) -> Vec<Place> {
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }

    /// Objects whose owners, finalizers or contents ask for a look. They are told once.
    pub(crate) fn take_litter(&mut self) -> BTreeSet<Place> {
        std::mem::take(&mut self.litter)
    }

    /// A uid that nothing else has.
    pub(crate) fn new_uid(&mut self) -> String {
        self.uids += 1;
        let number = self.uids;
        format!("{:08x}-0000-4000-8000-{:012x}", number >> 48, number & 0xffff_ffff_ffff)
    }

    /// An IPv4 address that nothing else has.
    pub(crate) fn new_address(&self) -> String {
        self.addresses.take().expect("an address for a Service").to_string()
    }

    /// Makes `value` the object's new state, under a new version. The kind has to be there.
    pub(crate) fn put(&mut self, id: &str, key: Key, mut value: Value) -> Arc<Object> {
        self.revision += 1;
        value["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let object = Arc::new(Object::new(value, self.revision));
        let table = self.tables.get_mut(id).expect("a kind that is served");
        let before = table.objects.insert(key.clone(), Arc::clone(&object));
        self.index((id.into(), key), before.as_deref(), Some(&object));
        self.tell(id, before, Arc::clone(&object), false);
        object
    }

    /// Removes an object, and returns its last state under the version of its end.
    pub(crate) fn remove(&mut self, id: &str, key: &Key) -> Option<Arc<Object>> {
        let before = self.tables.get_mut(id)?.objects.remove(key)?;
        self.revision += 1;
        let object = Arc::new(before.at(self.revision));
        self.index((id.into(), key.clone()), Some(&before), None);
        self.tell(id, Some(before), Arc::clone(&object), true);
        Some(object)
    }

    /// Forgets the changes of all kinds that match: older versions are expired.
    pub(crate) fn compact(&mut self, is_meant: impl Fn(&Definition) -> bool) {
        for table in self.tables.values_mut().filter(|table| is_meant(&table.definition)) {
            table.forgotten += table.changes.len() as u64;
            table.changes.clear();
            table.compacted = self.revision;
        }
    }

    fn tell(&mut self, id: &str, before: Option<Arc<Object>>, object: Arc<Object>, is_deletion: bool) {
        let change = Change { revision: self.revision, before, object, is_deletion };
        self.tables.get_mut(id).expect("a kind that is served").push(change);
        self.changed.send_replace(self.revision);
    }

    fn index(&mut self, place: Place, before: Option<&Object>, after: Option<&Object>) {
        let owners_before = before.map(|object| owners(&object.value)).unwrap_or_default();
        let owners_after = after.map(|object| owners(&object.value)).unwrap_or_default();
        if owners_before != owners_after {
            for owner in owners_before {
                if let Some(dependents) = self.dependents.get_mut(owner) {
                    dependents.remove(&place);
                    if dependents.is_empty() {
                        self.dependents.remove(owner);
                    }
                }
                // A dependent that is gone may have been what its owner's end waited for.
                self.litter.extend(self.live.get(owner).cloned());
            }
            for owner in owners_after {
                self.dependents.entry(owner.into()).or_default().insert(place.clone());
                if !self.live.contains_key(owner) {
                    self.litter.insert(place.clone());
                }
            }
        }
        if let Some(object) = after {
            if object.value["metadata"].get("deletionTimestamp").is_some() {
                self.litter.insert(place.clone());
            }
            if before.is_none() {
                self.live.insert(uid(&object.value).into(), place);
            }
            return;
        }
        let Some(before) = before else { return };
        let uid = uid(&before.value);
        self.live.remove(uid);
        self.litter.extend(self.dependents.get(uid).into_iter().flatten().cloned());
        let namespace = Key { namespace: String::new(), name: place.1.namespace };
        if let Some(table) = self.tables.get("namespaces")
            && table.objects.get(&namespace).is_some_and(|object| is_ending(&object.value))
        {
            self.litter.insert(("namespaces".into(), namespace));
        }
    }
}

impl Table {
    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Object>> {
        self.objects.get(key)
    }

    /// Objects in the order of their names: all, or those of a namespace, behind `after` if it is given.
    pub(crate) fn objects<'a>(
        &'a self,
        namespace: &'a str,
        after: Option<&Key>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Object>)> {
        let first = Key { namespace: namespace.into(), name: String::new() };
        let start = after.map_or(Bound::Included(&first), Bound::Excluded);
        let objects = self.objects.range((start, Bound::Unbounded));
        objects.take_while(move |(key, _)| namespace.is_empty() || key.namespace == namespace)
    }

    /// The table as it was at a version, if that is still known.
    pub(crate) fn at(&self, revision: u64) -> Option<BTreeMap<Key, Arc<Object>>> {
        if revision < self.compacted {
            return None;
        }
        let mut objects = self.objects.clone();
        for change in self.changes.iter().rev().take_while(|change| change.revision > revision) {
            let key = Key::of(&change.object.value);
            match &change.before {
                Some(before) => objects.insert(key, Arc::clone(before)),
                None => objects.remove(&key),
            };
        }
        Some(objects)
    }

    /// Whether anything has changed since a version; unknown if that is too long ago.
    pub(crate) fn has_changed_since(&self, revision: u64) -> Option<bool> {
        (revision >= self.compacted)
            .then(|| self.changes.back().is_some_and(|change| change.revision > revision))
    }

    /// Where to go on with [`changes_from`](Self::changes_from) for what came after a version; unknown if that is too
    /// long ago.
    pub(crate) fn position_after(&self, revision: u64) -> Option<u64> {
        if revision < self.compacted {
            return None;
        }
        let older = self.changes.partition_point(|change| change.revision <= revision);
        Some(self.forgotten + older as u64)
    }

    /// The position behind the last change.
    pub(crate) fn end(&self) -> u64 {
        self.forgotten + self.changes.len() as u64
    }

    /// At most `most` changes from a position on; none if they are forgotten.
    pub(crate) fn changes_from(&self, position: u64, most: usize) -> Option<Vec<Arc<Change>>> {
        let skipped = usize::try_from(position.checked_sub(self.forgotten)?).ok()?;
        Some(self.changes.iter().skip(skipped).take(most).cloned().collect())
    }

    /// The position behind the last change, to wait for.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn push(&mut self, change: Change) {
        self.changes.push_back(Arc::new(change));
        if self.changes.len() > HISTORY
            && let Some(oldest) = self.changes.pop_front()
        {
            self.forgotten += 1;
            self.compacted = oldest.revision;
        }
        self.changed.send_replace(self.end());
    }
}

impl Object {
    fn new(value: Value, revision: u64) -> Self {
        let json = serde_json::to_vec(&value).expect("JSON can be written").into();
        Self { value, json, revision }
    }

    /// An object that is only shown, not stored.
    pub(crate) fn unstored(value: Value) -> Self {
        Self::new(value, 0)
    }

    /// The same object under the version of another change.
    pub(crate) fn at(&self, revision: u64) -> Self {
        let mut value = self.value.clone();
        value["metadata"]["resourceVersion"] = revision.to_string().into();
        Self::new(value, revision)
    }
}

impl Key {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    pub(crate) fn of(object: &Value) -> Self {
        let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
        Self::new(text("namespace"), text("name"))
    }
}

pub(crate) fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

/// Whether deletion has begun.
pub(crate) fn is_ending(object: &Value) -> bool {
    object["metadata"].get("deletionTimestamp").is_some()
}

/// The uids of an object's owners.
pub(crate) fn owners(object: &Value) -> Vec<&str> {
    let owners = object["metadata"]["ownerReferences"].as_array();
    owners.into_iter().flatten().filter_map(|owner| owner["uid"].as_str()).collect()
}

/// A time as Kubernetes writes it: to the second.
pub(crate) fn timestamp(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Changes of one kind that are kept.
pub(crate) const HISTORY: usize = 20_000;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn put(store: &mut Store, name: &str, number: u32) {
        let value = json!({"metadata": {"name": name, "namespace": "n", "uid": name}, "number": number});
        store.put("birds", Key::new("n", name), value);
    }

    fn numbers(objects: &BTreeMap<Key, Arc<Object>>) -> Vec<(&str, u64)> {
        let number = |object: &Arc<Object>| object.value["number"].as_u64().expect("a number");
        objects.iter().map(|(key, object)| (key.name.as_str(), number(object))).collect()
    }

    #[test]
    fn a_table_tells_what_it_held_at_an_earlier_version() {
        let mut store =
            Store::new(vec![Definition::new("", "v1", "Bird", "birds")], AddressRange::from_env().unwrap());
        put(&mut store, "a", 1);
        put(&mut store, "b", 2);
        let then = store.revision();
        put(&mut store, "a", 3);
        put(&mut store, "c", 4);
        store.remove("birds", &Key::new("n", "b"));
        let table = store.table("birds").expect("a table");
        assert_eq!(numbers(&table.at(then).expect("known")), [("a", 1), ("b", 2)]);
        assert_eq!(numbers(&table.at(store.revision()).expect("known")), [("a", 3), ("c", 4)]);
        let position = table.position_after(then).expect("known");
        let changes = table.changes_from(position, 10).expect("known");
        let told: Vec<_> =
            changes.iter().map(|each| (each.object.value["number"].clone(), each.is_deletion)).collect();
        assert_eq!(told, [(json!(3), false), (json!(4), false), (json!(2), true)]);
        store.compact(|_| true);
        let table = store.table("birds").expect("a table");
        assert!(table.at(then).is_none() && table.position_after(then).is_none());
        assert!(table.changes_from(position, 10).is_none());
        assert_eq!(table.position_after(store.revision()), Some(table.end()));
    }

    #[test]
    fn objects_without_their_owner_are_litter() {
        let mut store =
            Store::new(vec![Definition::new("", "v1", "Bird", "birds")], AddressRange::from_env().unwrap());
        put(&mut store, "owner", 1);
        let owned = json!({"metadata": {"name": "x", "uid": "x", "ownerReferences": [{"uid": "owner"}]}});
        store.put("birds", Key::new("", "x"), owned);
        assert!(store.take_litter().is_empty());
        store.remove("birds", &Key::new("n", "owner"));
        assert_eq!(
            store.take_litter().into_iter().collect::<Vec<_>>(),
            [("birds".into(), Key::new("", "x"))]
        );
    }
}
