//! Creates, updates and patches: what a client sends becomes what is stored, or is refused.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::defaults;
use super::definition::Definition;
use super::failure::{Failure, Result};
use super::merge::apply;
use super::merge::managers::{Managers, Writer};
use super::patch::{self, Patch};
use super::scale;
use super::store::{self, Key, Object, Store};
use super::validate;

/// What is written to, and by whom.
pub(crate) struct Writing<'a> {
    pub(crate) store: &'a mut Store,
    pub(crate) definition: Arc<Definition>,
    /// [`Definition::id`].
    pub(crate) id: String,
    pub(crate) writer: Writer<'a>,
    /// Nothing is stored; the answer is as if it were.
    pub(crate) is_dry_run: bool,
}

/// What became of an object that was written.
pub(crate) enum Written {
    Created(Arc<Object>),
    Updated(Arc<Object>),
    /// Its last finalizer was taken off.
    Removed(Arc<Object>),
}

impl Written {
    pub(crate) fn object(&self) -> &Arc<Object> {
        let (Self::Created(object) | Self::Updated(object) | Self::Removed(object)) = self;
        object
    }
}

impl Writing<'_> {
    pub(crate) fn create(&mut self, namespace: &str, mut object: Value) -> Result<Written> {
        self.check_shape(namespace, &mut object)?;
        remove(&mut object["metadata"], "managedFields");
        self.insert(namespace, object)
    }

    /// Stores a new object. One without managers belongs to the writer.
    fn insert(&mut self, namespace: &str, mut object: Value) -> Result<Written> {
        let metadata = &object["metadata"];
        if metadata["resourceVersion"].as_str().is_some_and(|version| !matches!(version, "" | "0")) {
            return Err(Failure::bad_request("resourceVersion should not be set on objects to be created"));
        }
        let prefix = metadata["generateName"].as_str().unwrap_or_default().to_owned();
        if metadata["name"].as_str().is_none_or(str::is_empty) && !prefix.is_empty() {
            let number = self.store.revision() + 1;
            object["metadata"]["name"] = format!("{prefix}{}", suffix(number)).into();
        }
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        self.check_namespace(namespace, &name)?;
        let key = Key::new(namespace, &name);
        if self.store.get(&self.id, &key).is_some() {
            return Err(Failure::already_exists(&self.definition, &name));
        }
        if self.definition.has_status && self.writer.subresource.is_empty() {
            remove(&mut object, "status");
        }
        if let Some(status) = defaults::first_status(&self.definition, &object) {
            object["status"] = status;
        }
        let is_applied = object["metadata"].get("managedFields").is_some();
        self.fill_service(None, &mut object);
        defaults::fill(&self.definition, &mut object);
        validate::check(&self.definition, None, &object)?;
        let uid = self.store.new_uid();
        let Some(metadata) = object["metadata"].as_object_mut() else { return Err(no_object("metadata")) };
        for name in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"] {
            metadata.remove(name);
        }
        metadata.insert("uid".into(), uid.into());
        metadata.insert("creationTimestamp".into(), store::timestamp(Timestamp::now()).into());
        if self.definition.has_generation {
            metadata.insert("generation".into(), 1.into());
        }
        if !is_applied {
            let mut managers = Managers::of(&Value::Null);
            managers.update(&self.definition, self.writer, None, &owned(&self.definition, &object));
            managers.write(&mut object);
        }
        if self.is_dry_run {
            return Ok(Written::Created(Arc::new(Object::unstored(object))));
        }
        let object = self.store.put(&self.id, key, object);
        if self.id == CRDS
            && let Some(definition) = Definition::of_crd(&object.value)
        {
            self.store.define(definition);
        }
        Ok(Written::Created(object))
    }

    pub(crate) fn update(&mut self, key: &Key, mut object: Value) -> Result<Written> {
        let before = self.existing(key)?;
        if self.writer.subresource == "scale" {
            let object = scale::set(&self.definition, &before.value, &object)?;
            return self.replace(key, &before, object, true);
        }
        self.check_shape(&key.namespace, &mut object)?;
        let has_version =
            object["metadata"]["resourceVersion"].as_str().is_some_and(|version| !version.is_empty());
        if !has_version && !self.definition.allows_unconditional_update {
            let message = "Invalid value: 0x0: must be specified for an update".to_owned();
            let causes = [("metadata.resourceVersion", "FieldValueInvalid", message)];
            return Err(Failure::invalid(&self.definition, &key.name, &causes));
        }
        self.replace(key, &before, object, true)
    }

    pub(crate) fn patch(&mut self, key: &Key, patch: Patch) -> Result<Written> {
        let before = match (self.existing(key), &patch) {
            (Err(failure), Patch::Apply { .. })
                if failure.code() == 404 && self.writer.subresource.is_empty() =>
            {
                None
            }
            (before, _) => Some(before?),
        };
        let live = before.as_ref().map_or(Value::Object(Map::new()), |before| before.value.clone());
        if self.writer.subresource == "scale" {
            let scale = scale::of(&self.definition, &live).ok_or_else(Failure::no_such_page)?;
            let scale = match patch {
                // A Scale has no lists, so each kind of merge is the same.
                Patch::Apply { object, .. } | Patch::Strategic(object) => {
                    patch::changed(scale, Patch::Merge(object), &self.definition)?
                }
                patch => patch::changed(scale, patch, &self.definition)?,
            };
            let object = scale::set(&self.definition, &live, &scale)?;
            return self.replace(key, &before.ok_or_else(Failure::no_such_page)?, object, true);
        }
        let Patch::Apply { object: mut applied, is_forced } = patch else {
            let before = before.ok_or_else(|| Failure::not_found(&self.definition, &key.name))?;
            let object = patch::changed(live, patch, &self.definition)?;
            return self.replace(key, &before, object, true);
        };
        self.check_shape(&key.namespace, &mut applied)?;
        if applied["metadata"].get("managedFields").is_some() {
            return Err(Failure::bad_request("metadata.managedFields must be nil"));
        }
        if applied["metadata"]["name"].as_str().is_some_and(|name| name != key.name) {
            return Err(other_name(&applied, key));
        }
        check_version(&self.definition, key, before.as_deref(), &applied)?;
        let applied = owned_by(&self.definition, self.writer, &applied);
        let mut object = apply::apply(&self.definition, self.writer, &live, &applied, is_forced)?;
        for name in ["kind", "apiVersion"] {
            object[name] = applied[name].clone();
        }
        match before {
            Some(before) => self.replace(key, &before, object, false),
            None => {
                object["metadata"]["name"] = key.name.as_str().into();
                if !key.namespace.is_empty() {
                    object["metadata"]["namespace"] = key.namespace.as_str().into();
                }
                self.insert(&key.namespace, object)
            }
        }
    }

    /// Stores `object` in the place of `before`, unless they are alike.
    pub(crate) fn replace(
        &mut self,
        key: &Key,
        before: &Arc<Object>,
        mut object: Value,
        is_update: bool,
    ) -> Result<Written> {
        check_version(&self.definition, key, Some(before), &object)?;
        self.check_identity(key, before, &object)?;
        let old = &before.value;
        match self.writer.subresource {
            "status" => {
                let status = object.get("status").cloned();
                let managers = object["metadata"].get("managedFields").cloned();
                object = old.clone();
                set(&mut object, "status", status.as_ref());
                set(&mut object["metadata"], "managedFields", managers.as_ref());
            }
            _ if self.definition.has_status => set(&mut object, "status", old.get("status")),
            _ => {}
        }
        for name in SYSTEM_FIELDS {
            set(&mut object["metadata"], name, old["metadata"].get(*name));
        }
        if is_update {
            set(&mut object["metadata"], "managedFields", old["metadata"].get("managedFields"));
        }
        self.check_finalizers(key, old, &object)?;
        self.fill_service(Some(old), &mut object);
        defaults::fill(&self.definition, &mut object);
        validate::check(&self.definition, Some(old), &object)?;
        if self.definition.has_generation && !is_same_spec(old, &object) {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            object["metadata"]["generation"] = generation.into();
        }
        if is_update && object != *old {
            let mut managers = Managers::of(&object);
            managers.update(&self.definition, self.writer, Some(old), &object);
            managers.write(&mut object);
        }
        if object == *old {
            return Ok(Written::Updated(Arc::clone(before)));
        }
        if self.is_dry_run {
            return Ok(Written::Updated(Arc::new(Object::unstored(object))));
        }
        let metadata = &object["metadata"];
        if store::is_ending(&object)
            && !has_finalizers(&object)
            && metadata["deletionGracePeriodSeconds"] == 0
        {
            return Ok(Written::Removed(self.removed(key)?));
        }
        let object = self.store.put(&self.id, key.clone(), object);
        if self.id == CRDS
            && let Some(definition) = Definition::of_crd(&object.value)
        {
            self.store.define(definition);
        }
        Ok(Written::Updated(object))
    }

    /// Gives a pod to a node, which nothing else can change.
    pub(crate) fn bind(&mut self, key: &Key, before: &Object, node: &Value) {
        let mut pod = before.value.clone();
        pod["spec"]["nodeName"] = node.clone();
        self.store.put(&self.id, key.clone(), pod);
    }

    pub(crate) fn existing(&self, key: &Key) -> Result<Arc<Object>> {
        self.store.get(&self.id, key).ok_or_else(|| Failure::not_found(&self.definition, &key.name))
    }

    /// Takes an object out; a kind goes with its CustomResourceDefinition.
    pub(crate) fn removed(&mut self, key: &Key) -> Result<Arc<Object>> {
        let object = self
            .store
            .remove(&self.id, key)
            .ok_or_else(|| Failure::not_found(&self.definition, &key.name))?;
        if self.id == CRDS {
            self.store.undefine(&key.name);
        }
        Ok(object)
    }

    /// Refuses what is not an object of this kind and namespace, and names kind and namespace where they are left out.
    fn check_shape(&self, namespace: &str, object: &mut Value) -> Result<()> {
        let definition = &self.definition;
        let Some(fields) = object.as_object_mut() else { return Err(no_object(&definition.kind)) };
        for (name, expected) in [("kind", definition.kind.clone()), ("apiVersion", definition.api_version())]
        {
            let given = fields.entry(name).or_insert_with(|| expected.clone().into());
            if *given != expected.as_str() {
                let message = format!(
                    "the {name} of the object ({given}) does not match the one of the URL ({expected})"
                );
                return Err(Failure::bad_request(message));
            }
        }
        for name in ["metadata", "spec", "status"] {
            if fields.get(name).is_some_and(Value::is_null) {
                fields.remove(name);
            }
            if fields.get(name).is_some_and(|value| !value.is_object()) {
                return Err(no_object(name));
            }
        }
        let metadata = fields.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
        let given = metadata["namespace"].as_str().unwrap_or(namespace);
        if given != namespace {
            let message = format!(
                "the namespace of the provided object does not match the namespace sent on the request ({given}, {namespace})"
            );
            return Err(Failure::bad_request(message));
        }
        if !namespace.is_empty() {
            metadata["namespace"] = namespace.into();
        }
        Ok(())
    }

    fn check_namespace(&self, namespace: &str, name: &str) -> Result<()> {
        if !self.definition.is_namespaced {
            return Ok(());
        }
        let namespaces = &self.store.table("namespaces")?;
        let Some(object) = namespaces.get(&Key::new("", namespace)) else {
            return Err(Failure::not_found(&namespaces.definition, namespace));
        };
        if store::is_ending(&object.value) {
            let why = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            return Err(Failure::forbidden(&self.definition, name, &why));
        }
        Ok(())
    }

    fn check_identity(&self, key: &Key, before: &Object, object: &Value) -> Result<()> {
        let metadata = &object["metadata"];
        let name = metadata["name"].as_str().unwrap_or_default();
        if name != key.name {
            return Err(other_name(object, key));
        }
        let (uid, live) = (metadata["uid"].as_str().unwrap_or_default(), store::uid(&before.value));
        if !uid.is_empty() && uid != live {
            let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {live}");
            return Err(Failure::conflict(&self.definition, name, &why));
        }
        Ok(())
    }

    fn check_finalizers(&self, key: &Key, before: &Value, object: &Value) -> Result<()> {
        if !store::is_ending(before) {
            return Ok(());
        }
        let old = super::definition::strings(&before["metadata"]["finalizers"]);
        let new = super::definition::strings(&object["metadata"]["finalizers"]);
        let added: Vec<_> = new.into_iter().filter(|name| !old.contains(name)).collect();
        if added.is_empty() {
            return Ok(());
        }
        let message = format!(
            "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
        );
        Err(Failure::invalid(
            &self.definition,
            &key.name,
            &[("metadata.finalizers", "FieldValueForbidden", message)],
        ))
    }

    /// Gives a Service its address, or the one it had.
    fn fill_service(&mut self, before: Option<&Value>, service: &mut Value) {
        let spec = &mut service["spec"];
        if self.id != "services"
            || spec["type"] == "ExternalName"
            || spec["clusterIP"].as_str().is_some_and(|ip| !ip.is_empty())
        {
            if self.id == "services" && spec["clusterIP"].is_string() {
                spec["clusterIPs"] = vec![spec["clusterIP"].clone()].into();
            }
            if spec.is_null() {
                remove(service, "spec");
            }
            return;
        }
        let before =
            before.and_then(|before| before["spec"]["clusterIP"].as_str()).filter(|ip| !ip.is_empty());
        let address = before.map_or_else(|| self.store.new_address(), str::to_owned);
        spec["clusterIPs"] = vec![address.clone()].into();
        spec["clusterIP"] = address.into();
    }
}

fn other_name(object: &Value, key: &Key) -> Failure {
    let name = &object["metadata"]["name"];
    Failure::bad_request(format!(
        "the name of the object ({name}) does not match the name on the URL ({})",
        key.name
    ))
}

fn check_version(definition: &Definition, key: &Key, before: Option<&Object>, object: &Value) -> Result<()> {
    let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    if matches!(version, "" | "0") {
        return Ok(());
    }
    match before {
        Some(before) if before.revision.to_string() == version => Ok(()),
        _ => Err(Failure::modified(definition, &key.name)),
    }
}

/// The part of an applied object that this writer can write.
fn owned_by(definition: &Definition, writer: Writer<'_>, object: &Value) -> Value {
    let mut object = object.clone();
    if writer.subresource == "status" {
        if let Some(fields) = object.as_object_mut() {
            fields.retain(|name, _| ["kind", "apiVersion", "status"].contains(&name.as_str()));
        }
        return object;
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for name in SYSTEM_FIELDS {
            metadata.remove(*name);
        }
        metadata.remove("resourceVersion");
    }
    owned(definition, &object)
}

/// An object without the status that the main resource ignores.
fn owned(definition: &Definition, object: &Value) -> Value {
    let mut object = object.clone();
    if definition.has_status {
        remove(&mut object, "status");
    }
    object
}

/// Whether nothing but metadata and status differs.
fn is_same_spec(before: &Value, after: &Value) -> bool {
    let spec = |object: &'_ Value| -> Vec<(String, Value)> {
        let fields = object.as_object().into_iter().flatten();
        let fields = fields.filter(|(name, _)| !["metadata", "status"].contains(&name.as_str()));
        fields.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    before["spec"] == after["spec"] && spec(before) == spec(after)
}

pub(crate) fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty())
}

fn set(object: &mut Value, name: &str, value: Option<&Value>) {
    match value {
        Some(value) => object[name] = value.clone(),
        None => remove(object, name),
    }
}

fn remove(object: &mut Value, name: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove(name);
    }
}

fn no_object(what: &str) -> Failure {
    Failure::bad_request(format!("{what} has to be an object"))
}

/// Five letters and digits for a number: none is given twice before all were.
fn suffix(number: u64) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    const ALL: u64 = 27_u64.pow(5);
    // A factor without a divisor in common with ALL spreads neighbours, and hits each number once.
    let mut rest = number.wrapping_mul(7_654_321) % ALL;
    let mut letters = String::new();
    for _ in 0..5 {
        letters.push(char::from(ALPHABET[(rest % 27) as usize]));
        rest /= 27;
    }
    letters
}

/// Metadata that only the server changes.
const SYSTEM_FIELDS: &[&str] = &[
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "namespace",
    "resourceVersion",
    "selfLink",
    "uid",
];

pub(crate) const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";
