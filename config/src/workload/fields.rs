//! The fields that each kind of object has. Whatever else is written in one is told: it has no effect, and most
//! likely it was meant to have one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::OnceLock;

use serde_json::Value;

use super::manifest::{Node, shown};
use crate::fault::Findings;
use crate::keys::annotation::PREFIX;
use crate::keys::config_map;
use crate::spelling::nearest;

/// Warns of each field of an object, at any depth, that its type does not have.
pub(super) fn check(root: &Node<'_>, of_type: &'static str, findings: &mut Findings) {
    Check { root, root_type: of_type }.object(root, of_type, findings);
}

/// A field of a type.
struct Field {
    name: &'static str,
    /// The type of its value; nothing where it holds anything.
    of_type: Option<&'static str>,
    /// The type that declares it.
    owner: &'static str,
}

struct Check<'a> {
    root: &'a Node<'a>,
    root_type: &'static str,
}

impl Check<'_> {
    fn object(&self, node: &Node<'_>, of_type: &'static str, findings: &mut Findings) {
        match node.value {
            Some(Value::Array(_)) => {
                for item in node.items(findings) {
                    self.object(&item, of_type, findings);
                }
            }
            Some(Value::Object(written)) => {
                let fields = fields(of_type);
                for name in written.keys() {
                    let child = node.child(name);
                    match fields.iter().find(|field| field.name == name) {
                        Some(Field { of_type: Some(inner), .. }) => self.object(&child, inner, findings),
                        Some(_) => {}
                        None => findings.warn(&child.path, self.advice(node, name, fields)),
                    }
                }
            }
            _ => {}
        }
    }

    /// The place or the name that was meant, and what is in force instead.
    fn advice(&self, node: &Node<'_>, name: &str, fields: &[Field]) -> String {
        if self.root_type == "ConfigMap" && config_map::named(name).is_some() {
            let data = self.root.child("data");
            let in_force = key_in_force(name, &data.strings(&mut Findings::default()));
            return format!("no effect here: keys belong below {}{in_force}", data.path);
        }
        if name.starts_with(PREFIX) {
            return format!("no effect here: it is an annotation, and belongs below {}", self.annotations());
        }
        if name == "annotations" {
            let lost = lost(node.child(name).value);
            return format!("no effect here; annotations belong below {}{lost}", self.annotations());
        }
        let near = nearest(name, fields.iter().map(|field| field.name));
        if let Some(meant) = near.and_then(|near| fields.iter().find(|field| field.name == near)) {
            return did_you_mean(node, meant);
        }
        if let Some((home, field)) = self.home(name) {
            let at = self.root.at(&home);
            let in_force = in_force(&at, field);
            return format!("unknown field here; it belongs below {}{}", display(&at), sentence(&in_force));
        }
        let begun = fields.iter().find(|field| is_begun(field.name, name));
        begun.map_or("unknown field; it has no effect".to_owned(), |meant| did_you_mean(node, meant))
    }

    /// The place of the annotations that are read.
    fn annotations(&self) -> String {
        let keys: &[&str] = match self.root_type {
            "KnativeRevision" | "PodAutoscaler" | "InferenceService" | "InferenceServiceV1alpha2" => {
                &["metadata", "annotations"]
            }
            _ => &["spec", "template", "metadata", "annotations"],
        };
        self.root.at(keys).path
    }

    /// The nearest place in the kind that has a field of this name.
    fn home(&self, name: &str) -> Option<(Vec<&'static str>, &'static Field)> {
        if EVERYWHERE.contains(&name) {
            return None;
        }
        let mut queue = VecDeque::from([(Vec::new(), self.root_type)]);
        while let Some((path, of_type)) = queue.pop_front() {
            // Deeper than a container's ports every name is somewhere.
            if path.len() > DEEPEST_HOME {
                return None;
            }
            for field in fields(of_type) {
                if field.name == name && path.first() != Some(&"metadata") {
                    return Some((path, field));
                }
                if let Some(inner) = field.of_type.filter(|_| !NO_HOMES.contains(&field.name)) {
                    queue.push_back((path.iter().copied().chain([field.name]).collect(), inner));
                }
            }
        }
        None
    }
}

/// The same behind a sentence that has no full stop yet.
fn sentence(in_force: &str) -> String {
    if in_force.is_empty() { String::new() } else { format!(".{in_force}") }
}

/// Whether one of two names begins the other, which may be a plural: `minReplicas` for `minReplicaCount`.
fn is_begun(field: &str, written: &str) -> bool {
    let singular = written.strip_suffix('s').unwrap_or(written);
    singular.len() >= 6 && field.starts_with(singular) || field.len() >= 6 && written.starts_with(field)
}

/// ` In force: ...`, for annotations about scaling that nobody reads where they are.
fn lost(annotations: Option<&Value>) -> String {
    let Some(Value::Object(fields)) = annotations else { return String::new() };
    let settings = fields.iter().filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value)));
    let lost: Vec<String> = settings.map(|(key, value)| format!("{key} {}", shown(value))).collect();
    if lost.is_empty() {
        String::new()
    } else {
        format!(". In force: the defaults, and not {}", lost.join(", "))
    }
}

const DEEPEST_HOME: usize = 4;
/// Parts that have fields of common names and are seldom meant.
const NO_HOMES: &[&str] = &[
    "affinity",
    "canary",
    "ephemeralContainers",
    "explainer",
    "initContainers",
    "lifecycle",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "transformer",
    "volumes",
    "workerSpec",
];
/// Names that so many types have that none of them is meant in particular.
const EVERYWHERE: &[&str] = &["key", "kind", "name", "operator", "path", "port", "type", "value"];

fn did_you_mean(parent: &Node<'_>, meant: &Field) -> String {
    format!("unknown field; did you mean `{}`?{}", meant.name, in_force(parent, meant))
}

fn display(node: &Node<'_>) -> String {
    if node.path.is_empty() { "the object itself".to_owned() } else { node.path.clone() }
}

/// ` In force: ...`, where the field that was meant is written after all, or has a default worth telling.
fn in_force(parent: &Node<'_>, field: &Field) -> String {
    match parent.child(field.name).value {
        Some(value) if !value.is_object() && !value.is_array() => {
            return format!(" In force: {}, from {}", shown(value), parent.child(field.name).path);
        }
        Some(_) => return String::new(),
        None => {}
    }
    let default = DEFAULTS.iter().find(|(owner, name, _)| *owner == field.owner && *name == field.name);
    default.map_or(String::new(), |(.., value)| format!(" In force: {value}"))
}

/// ` In force: ...`: the value of a key that is written, or its default.
pub(super) fn key_in_force(key: &str, data: &BTreeMap<String, String>) -> String {
    let default = || config_map::named(key).map(|entry| entry.default().to_owned());
    let value = data.get(key).cloned().or_else(default);
    value.map_or(String::new(), |value| format!(". In force: {value}"))
}

/// Defaults of fields that are not written.
const DEFAULTS: &[(&str, &str, &str)] = &[
    ("Container", "args", "none"),
    ("Container", "command", "the image's own"),
    ("Container", "env", "no variables"),
    ("Container", "ports", "8080"),
    ("Container", "readinessProbe", "a TCP connect"),
    ("Container", "workingDir", "the image's own"),
    ("ContainerPort", "containerPort", "8080"),
    ("DeploymentSpec", "progressDeadlineSeconds", "600 s"),
    ("EnvVar", "value", "an empty text"),
    ("HorizontalPodAutoscalerSpec", "behavior", "up at once, down after 5 min"),
    ("HorizontalPodAutoscalerSpec", "metrics", "cpu at 80 %"),
    ("HorizontalPodAutoscalerSpec", "minReplicas", "1"),
    ("HorizontalPodAutoscalerV1Spec", "minReplicas", "1"),
    ("HorizontalPodAutoscalerV1Spec", "targetCPUUtilizationPercentage", "80"),
    ("KFServingDeploymentSpec", "maxReplicas", "no limit"),
    ("KFServingDeploymentSpec", "minReplicas", "1"),
    ("KFServingDeploymentSpec", "parallelism", "0, no limit"),
    ("KServeComponentExtensionSpec", "containerConcurrency", "0, no limit"),
    ("KServeComponentExtensionSpec", "maxReplicas", "no limit"),
    ("KServeComponentExtensionSpec", "minReplicas", "1"),
    ("KServeComponentExtensionSpec", "timeout", "300 s"),
    ("KnativeRevisionSpec", "containerConcurrency", "0, no limit"),
    ("KnativeRevisionSpec", "idleTimeoutSeconds", "no limit"),
    ("KnativeRevisionSpec", "responseStartTimeoutSeconds", "300 s, or timeoutSeconds if that is less"),
    ("KnativeRevisionSpec", "timeoutSeconds", "300 s"),
    ("ObjectMeta", "annotations", "none"),
    ("ObjectMeta", "namespace", "default"),
    ("PodAutoscalerSpec", "containerConcurrency", "0, no limit"),
    ("ScaledObjectSpec", "cooldownPeriod", "300 s"),
    ("ScaledObjectSpec", "maxReplicaCount", "100"),
    ("ScaledObjectSpec", "minReplicaCount", "0"),
];

/// All fields of a type, with those that it takes from others.
fn fields(of_type: &str) -> &'static [Field] {
    static TYPES: OnceLock<BTreeMap<&'static str, Vec<Field>>> = OnceLock::new();
    TYPES.get_or_init(types).get(of_type).map_or(&[], Vec::as_slice)
}

fn types() -> BTreeMap<&'static str, Vec<Field>> {
    let mut own: BTreeMap<&'static str, Vec<&'static str>> = BTreeMap::new();
    let mut name = "";
    for line in include_str!("fields.txt").lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        if !line.starts_with(' ') {
            name = words.next().unwrap_or_default();
        }
        own.entry(name).or_default().extend(words);
    }
    own.keys().map(|name| (*name, flattened(name, &own))).collect()
}

fn flattened(of_type: &'static str, own: &BTreeMap<&'static str, Vec<&'static str>>) -> Vec<Field> {
    let words = own.get(of_type).into_iter().flatten();
    let fields = words.flat_map(|word| match (word.strip_prefix('+'), word.split_once(':')) {
        (Some(other), _) => flattened(other, own),
        (None, Some((name, inner))) => vec![Field { name, of_type: Some(inner), owner: of_type }],
        (None, None) => vec![Field { name: word, of_type: None, owner: of_type }],
    });
    fields.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_that_a_field_names_is_there() {
        let types = types();
        for field in types.values().flatten() {
            assert!(field.of_type.is_none_or(|of_type| types.contains_key(of_type)), "{}", field.name);
            assert!(types.contains_key(field.owner), "{}", field.owner);
        }
        for (owner, name, _) in DEFAULTS {
            let is_there = types[owner].iter().any(|field| field.name == *name && field.owner == *owner);
            assert!(is_there, "{owner} {name}");
        }
    }
}
