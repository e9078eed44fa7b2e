//! The operator's defaults, wherever they are written: the ConfigMap `config-autoscaler`, the `spec.config` of the
//! operator's KnativeServing, or only the keys and values.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fields::{self, key_in_force};
use super::manifest::{self, Document, Node, shown};
use super::object;
use crate::autoscaler::AutoscalerConfig;
use crate::fault::{Fault, Findings, Parsed, Position, Warning};
use crate::keys::{Entry, config_map};
use crate::spelling::nearest;

/// The name of the ConfigMap.
const NAME: &str = "config-autoscaler";
/// The namespace in which Knative looks for it.
const NAMESPACE: &str = "knative-serving";
const EXAMPLE: &str = "_example";
const CHECKSUM: &str = "knative.dev/example-checksum";

/// Whether a ConfigMap is the autoscaler's.
pub(super) fn is_named_right(map: &Node<'_>) -> bool {
    map.at(&["metadata", "name"]).value.is_some_and(|name| name == NAME)
}

/// Whether an object holds the autoscaler's defaults.
pub(super) fn is_config(node: &Node<'_>) -> bool {
    match object::kind(node) {
        "ConfigMap" => is_named_right(node),
        "KnativeServing" => data(node).is_present(),
        _ => false,
    }
}

/// The keys and values of an object that holds defaults.
fn data<'a>(node: &Node<'a>) -> Node<'a> {
    if object::kind(node) != "KnativeServing" {
        return node.child("data");
    }
    // The operator takes the ConfigMap's whole name before the short one.
    let config = node.at(&["spec", "config"]);
    let (whole, short) = (config.child(NAME), config.child("autoscaler"));
    if whole.is_present() { whole } else { short }
}

/// Reads the defaults that an object holds.
pub(super) fn read(node: &Node<'_>, findings: &mut Findings) -> AutoscalerConfig {
    let data = data(node);
    let strings = data.strings(findings);
    advise(node, &strings, findings);
    absorb(AutoscalerConfig::from_map(&strings), &data.path, findings)
}

/// A ConfigMap of another name: only if it looks like this one there is something to say.
pub(super) fn advise_other(map: &Node<'_>, findings: &mut Findings) {
    let name = map.at(&["metadata", "name"]);
    let Some(text) = name.value.and_then(Value::as_str) else { return };
    let is_near = strsim::damerau_levenshtein(text, NAME) <= 3;
    if is_near || known_keys(&map.child("data")) > 0 {
        let advice = format!("{text} is not read: the autoscaler's defaults are in the ConfigMap {NAME}");
        findings.warn(&name.path, advice);
    }
}

fn known_keys(data: &Node<'_>) -> usize {
    let fields = data.value.and_then(Value::as_object);
    fields.map_or(0, |fields| fields.keys().filter(|key| config_map::named(key).is_some()).count())
}

/// Everything about the object around the keys that keeps them from having an effect.
fn advise(node: &Node<'_>, data: &BTreeMap<String, String>, findings: &mut Findings) {
    if object::kind(node) == "KnativeServing" {
        return advise_operator(node, data, findings);
    }
    let namespace = node.at(&["metadata", "namespace"]);
    if let Some(other) = namespace.value.map(shown).filter(|name| name != NAMESPACE) {
        findings
            .warn(&namespace.path, format!("Knative reads its own namespace, {NAMESPACE}, and not {other}"));
    }
    if let Some(example) = data.get(EXAMPLE) {
        let checksum = node.at(&["metadata", "annotations", CHECKSUM]).value.map(shown);
        let is_untouched = checksum.is_some_and(|written| written == example_checksum(example));
        if !is_untouched {
            let place = node.at(&["data", EXAMPLE]);
            advise_example(&place, example, data, findings);
        }
    }
}

/// Tells changes of the example, which is for people: nobody else reads it.
fn advise_example(place: &Node<'_>, example: &str, data: &BTreeMap<String, String>, findings: &mut Findings) {
    let Ok(documents) = manifest::documents(example) else { return };
    let Some(Value::Object(fields)) = documents.first().and_then(|document| document.root().value) else {
        return;
    };
    for (key, value) in fields {
        let Some(entry) = config_map::named(key).filter(|_| !data.contains_key(key)) else { continue };
        let text = shown(value);
        if is_default(entry, &text) {
            continue;
        }
        let advice = format!(
            "{key} {text:?} has no effect: {EXAMPLE} is not read; write it beside {EXAMPLE}, below data. In force: {}",
            entry.default()
        );
        findings.warn(&place.path, advice);
    }
}

/// Keys of a KnativeServing that are in the wrong place.
fn advise_operator(node: &Node<'_>, data: &BTreeMap<String, String>, findings: &mut Findings) {
    let config = node.at(&["spec", "config"]);
    let right = config.child("autoscaler").path;
    for parent in [node.clone(), node.child("spec"), config.clone()] {
        let Some(Value::Object(fields)) = parent.value else { continue };
        for key in fields.keys() {
            if config_map::named(key).is_some() {
                let advice = format!("no effect here: it belongs below {right}{}", key_in_force(key, data));
                findings.warn(&parent.child(key).path, advice);
            } else if parent.path == config.path
                && !["autoscaler", NAME].contains(&key.as_str())
                && ["autoscaler", NAME].iter().any(|name| strsim::damerau_levenshtein(key, name) <= 3)
            {
                let advice = format!("the operator knows no such ConfigMap; did you mean `{right}`?");
                findings.warn(&parent.child(key).path, advice);
            }
        }
    }
}

/// Whether a text means the default: `10.0` is `10`, `1m` is `60s`.
fn is_default(entry: &dyn Entry, text: &str) -> bool {
    let with = |text: &str| {
        let data = BTreeMap::from([(entry.name().to_owned(), text.to_owned())]);
        AutoscalerConfig::from_map(&data).value.ok()
    };
    text == entry.default() || with(text).is_some_and(|config| Some(config) == with(entry.default()))
}

/// The checksum that Knative writes beside its example (knative/pkg, configmap/example.go): each run of line breaks
/// counts as a backslash and an n.
fn example_checksum(example: &str) -> String {
    let lines: Vec<&str> = example.trim().lines().filter(|line| !line.is_empty()).collect();
    format!("{:08x}", crc32(&lines.join("\\n")))
}

/// CRC-32 with the polynomial of IEEE 802.3, bit by bit.
fn crc32(text: &str) -> u32 {
    let step = |crc: u32| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
    !text.bytes().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
}

impl AutoscalerConfig {
    /// Reads the defaults out of a file: an object that holds them, or the bare keys and values.
    pub fn from_yaml(text: &str) -> Parsed<Self> {
        let (documents, errors) = manifest::read(text);
        let mut all = Findings::default();
        all.faults.extend(
            errors
                .into_iter()
                .map(|error| Fault::without_value("", error.message).at(Position::line(error.line))),
        );
        let Some(document) = holder(&documents) else {
            if all.faults.is_empty() {
                all.faults.push(Fault::without_value("", nothing(&documents)));
            }
            return Parsed::new(AutoscalerConfig::default(), all);
        };
        let mut findings = Findings::default();
        let root = document.root();
        let config = if is_bare(&root) {
            absorb(AutoscalerConfig::from_map(&root.bare_strings(&mut findings)), "", &mut findings)
        } else {
            if object::kind(&root) == "ConfigMap" && !is_named_right(&root) {
                let name = root.at(&["metadata", "name"]);
                let advice = format!("is read as {NAME}; Knative reads a ConfigMap of this name only");
                findings.warn(&name.path, advice);
            }
            let of_type = if object::kind(&root) == "ConfigMap" { "ConfigMap" } else { "KnativeServing" };
            fields::check(&root, of_type, &mut findings);
            read(&root, &mut findings)
        };
        let lined = |key: &str| Position::line(document.line_of(key));
        all.faults.extend(findings.faults.into_iter().map(|it| {
            let place = lined(&it.key);
            it.at(place)
        }));
        all.warnings.extend(findings.warnings.into_iter().map(|it: Warning| {
            let place = lined(&it.key);
            it.at(place)
        }));
        Parsed::new(config, all)
    }
}

/// The keys and values of a file that [`AutoscalerConfig::from_yaml`] reads; empty if there are none.
pub fn data_in(text: &str) -> BTreeMap<String, String> {
    let (documents, _) = manifest::read(text);
    let mut ignored = Findings::default();
    match holder(&documents).map(Document::root) {
        Some(bare) if is_bare(&bare) => bare.bare_strings(&mut ignored),
        Some(node) => data(&node).strings(&mut ignored),
        None => BTreeMap::new(),
    }
}

/// The keys and values of the defaults that stand beside workloads; empty if there are none.
pub fn data_beside(text: &str) -> BTreeMap<String, String> {
    let (documents, _) = manifest::read(text);
    let beside = documents.iter().map(Document::root).find(is_config);
    beside.map_or_else(BTreeMap::new, |node| data(&node).strings(&mut Findings::default()))
}

/// The document with the defaults: the ConfigMap by its name, else a KnativeServing, else a ConfigMap that has one of
/// the keys, else the bare keys.
fn holder(documents: &[Document]) -> Option<&Document> {
    let find = |is: &dyn Fn(&Node<'_>) -> bool| documents.iter().find(|document| is(&document.root()));
    let is_map = |node: &Node<'_>| object::kind(node) == "ConfigMap";
    find(&|node| is_map(node) && is_named_right(node))
        .or_else(|| find(&is_config))
        .or_else(|| find(&|node| is_map(node) && known_keys(&node.child("data")) > 0))
        .or_else(|| documents.first().filter(|first| documents.len() == 1 && is_bare(&first.root())))
}

fn is_bare(node: &Node<'_>) -> bool {
    !node.child("kind").is_present()
}

/// Why a file holds no defaults.
fn nothing(documents: &[Document]) -> String {
    if documents.is_empty() {
        return "is empty".to_owned();
    }
    let names: Vec<String> = documents.iter().map(|document| object::name(&document.root())).collect();
    let only = object::some_of(&names);
    let near = names
        .iter()
        .filter_map(|name| name.strip_prefix("ConfigMap "))
        .find_map(|name| nearest(name, [NAME]));
    let hint = near.map_or(String::new(), |name| format!(" (did you mean {name:?}?)"));
    format!("holds no ConfigMap {NAME}, only {only}{hint}")
}

fn absorb(parsed: Parsed<AutoscalerConfig>, path: &str, findings: &mut Findings) -> AutoscalerConfig {
    findings.warnings.extend(parsed.warnings.into_iter().map(|warning| warning.below(path)));
    parsed.value.unwrap_or_else(|faults| {
        findings.faults.extend(faults.into_vec().into_iter().map(|fault| fault.below(path)));
        AutoscalerConfig::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_ieee_802_3() {
        assert_eq!(crc32("123456789"), 0xCBF4_3926);
        assert_eq!(crc32(""), 0);
    }

    #[test]
    fn a_default_is_recognised_however_it_is_written() {
        let is_default = |key, text| is_default(config_map::named(key).unwrap(), text);
        assert!(is_default("panic-window-percentage", "10.0"));
        assert!(is_default("stable-window", "1m"));
        assert!(is_default("container-concurrency-target-percentage", "0.7"));
        assert!(!is_default("stable-window", "30s"));
        assert!(!is_default("stable-window", "soon"));
    }
}
