//! The settings under trial, by the parsers that production uses: annotations and the ConfigMap, manifests, a
//! HorizontalPodAutoscaler, or so many pods.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use pilotlight_config::keys::annotation;
use pilotlight_config::workload::manifest::{self, Document, Node};
use pilotlight_config::workload::{self, Manifest};
use pilotlight_config::{AutoscalerConfig, Fault, Faults, Findings, Parsed, Verdict, Warning, resolve};
use pilotlight_core::{ConcurrencyLimit, Reachability, RevisionSpec};
use serde_json::json;

use super::fields;
use crate::hpa::HpaSpec;
use crate::read::whole;
use crate::scenario::Settings;
use crate::sweep::Written;

/// Settings, and what they came from if that can be varied.
type NamedSettings = (Settings, Option<Written>);

/// All settings, Knative's defaults where none are written; and the first that can be varied, as they are written.
pub(super) fn all(
    node: &Node<'_>,
    base_dir: &Path,
    findings: &mut Findings,
) -> (Vec<Settings>, Option<Written>) {
    let mut settings: Vec<Settings> = Vec::new();
    let mut first_written = None;
    for item in node.items(findings) {
        for (one, written) in entry(&item, base_dir, findings) {
            if settings.iter().any(|other| other.name == one.name) {
                findings.fault(&item.child("name").path, &one.name, "is the name of other settings already");
            }
            settings.push(one);
            first_written = first_written.or(written);
        }
    }
    if settings.is_empty() {
        settings.push(Settings::requests("defaults", RevisionSpec::default(), 0));
        first_written = Some(Written::default());
    }
    (settings, first_written)
}

fn entry(node: &Node<'_>, base_dir: &Path, findings: &mut Findings) -> Vec<NamedSettings> {
    fields::SETTINGS.check(node, findings);
    let name = node.child("name").text(findings);
    let limit = node.child("container-concurrency");
    let limit = whole(&limit, 0, MOST_CONCURRENCY, findings).map(ConcurrencyLimit::from);
    let (pods, hpa, file) = (node.child("pods"), node.child("hpa"), node.child("file"));
    let written = [node.child("annotations"), node.child("config")];
    let kinds: Vec<&Node<'_>> = [&pods, &hpa, &file].into_iter().filter(|kind| kind.is_present()).collect();
    if let [first, others @ ..] = kinds.as_slice() {
        // A ConfigMap goes with a manifest, as it does in a cluster.
        let allowed = |other: &Node<'_>| first.path == file.path && other.path == written[1].path;
        let written = written.iter().filter(|other| other.is_present() && !allowed(other));
        for other in others.iter().copied().chain(written) {
            other.fault(format!("stands beside `{}`, and one of them is needed", first.path), findings);
        }
    }
    if pods.is_present() {
        let count = whole(&pods, 0, MOST_PODS, findings);
        let plural = if count == Some(1) { "" } else { "s" };
        let fixed = |count| {
            let name = name.unwrap_or_else(|| format!("{count} pod{plural}"));
            (Settings::fixed(&name, count, limit.unwrap_or_default()), None)
        };
        return count.map(fixed).into_iter().collect();
    }
    if hpa.is_present() {
        let spec = inline_hpa(&hpa, findings);
        let name = name.unwrap_or_else(|| "hpa".to_owned());
        let settings = spec.map(|spec| Settings::hpa(&name, spec, limit.unwrap_or_default()));
        return settings.map(|settings| (settings, None)).into_iter().collect();
    }
    let config = config(&written[1], base_dir, findings);
    if file.is_present() {
        return from_file(&file, name.as_deref(), limit, config, base_dir, findings);
    }
    let limit = limit.unwrap_or_default();
    requests(&written[0], name, limit, config.unwrap_or_default(), findings).into_iter().collect()
}

/// Knative's algorithm, as annotations and the ConfigMap have it.
fn requests(
    node: &Node<'_>,
    name: Option<String>,
    limit: ConcurrencyLimit,
    config: Config,
    findings: &mut Findings,
) -> Option<NamedSettings> {
    let short = node.bare_strings(findings);
    let name = name.unwrap_or_else(|| {
        let all: Vec<String> = short.iter().map(|(key, value)| format!("{key}={value}")).collect();
        if all.is_empty() { "defaults".to_owned() } else { all.join(" ") }
    });
    let whole_key = |key: &str| if key.contains('/') { key.to_owned() } else { format!("{PREFIX}{key}") };
    let annotations: BTreeMap<String, String> =
        short.into_iter().map(|(key, value)| (whole_key(&key), value)).collect();
    let parsed = resolve(&config.parsed, &annotations, limit, Reachability::Reachable);
    let below = |key: String| node.child(key.strip_prefix(PREFIX).unwrap_or(&key)).path;
    let is_known = |key: &str| {
        let mut known = annotation::ALL.iter().flat_map(|entry| [Some(entry.name()), entry.alias()]);
        !annotations.contains_key(key) || !key.starts_with(PREFIX) || known.any(|name| name == Some(key))
    };
    for warning in parsed.warnings {
        let place = below(warning.key.clone());
        // In a cluster a key that nobody knows is passed over; here it is most likely misspelt.
        if is_known(&warning.key) {
            findings.warn(&place, warning.advice);
        } else {
            findings.faults.push(Fault::without_value(place, warning.advice));
        }
    }
    match parsed.value {
        Ok(Verdict::Resolved(resolved)) => {
            let written = Written { config: config.data, annotations, container_concurrency: limit };
            Some((Settings::requests(&name, resolved.spec, limit), Some(written)))
        }
        Ok(Verdict::OtherClass(class)) => {
            let rule = "is another autoscaler's class: write its settings under `hpa`";
            findings.fault(&node.child("class").path, &class, rule);
            None
        }
        Err(faults) => {
            let faults = faults.into_vec().into_iter();
            findings.faults.extend(faults.map(|fault| Fault { key: below(fault.key.clone()), ..fault }));
            None
        }
    }
}

/// The ConfigMap `config-autoscaler`.
#[derive(Clone, Debug, Default)]
struct Config {
    data: BTreeMap<String, String>,
    parsed: AutoscalerConfig,
}

/// The data of the ConfigMap, or the name of a file with it.
fn config(node: &Node<'_>, base_dir: &Path, findings: &mut Findings) -> Option<Config> {
    let value = node.value?;
    if let Some(name) = value.as_str() {
        let (file, text) = text_of(node, name, base_dir, findings)?;
        let parsed = AutoscalerConfig::from_yaml(&text);
        let parsed =
            absorb(parsed, findings, |fault| fault.in_file(&file), |warning| warning.in_file(&file))?;
        return Some(Config { data: workload::data_in(&text), parsed });
    }
    let data = node.bare_strings(findings);
    let path = &node.path;
    let parsed = AutoscalerConfig::from_map(&data);
    let parsed = absorb(parsed, findings, |fault| fault.below(path), |warning| warning.below(path))?;
    Some(Config { data, parsed })
}

/// Settings from a manifest: of its workloads, or of a HorizontalPodAutoscaler.
fn from_file(
    node: &Node<'_>,
    name: Option<&str>,
    limit: Option<ConcurrencyLimit>,
    config: Option<Config>,
    base_dir: &Path,
    findings: &mut Findings,
) -> Vec<NamedSettings> {
    let Some((file, text)) = node.text(findings).and_then(|name| text_of(node, &name, base_dir, findings))
    else {
        return Vec::new();
    };
    let is_hpa = |document: &Document| {
        document.root().child("kind").value.is_some_and(|kind| kind == "HorizontalPodAutoscaler")
    };
    if manifest::documents(&text).is_ok_and(|documents| documents.iter().any(is_hpa)) {
        let spec = absorb(HpaSpec::read(&file, &text), findings, |fault| fault, |warning| warning);
        let named = |spec: &HpaSpec| name.map(str::to_owned).or_else(|| spec.name.clone());
        let settings = spec.map(|spec| {
            let name = named(&spec).unwrap_or_else(|| "hpa".to_owned());
            (Settings::hpa(&name, spec, limit.unwrap_or_default()), None)
        });
        return settings.into_iter().collect();
    }
    let manifest = Manifest { file: &file, text: &text };
    let read = workload::read(&[manifest], config.as_ref().map(|config| &config.parsed));
    let read = absorb(read, findings, |fault| fault, |warning| warning);
    let workloads = read.map(|read| read.workloads).unwrap_or_default();
    // Without another ConfigMap, one in the same file counts.
    let data = config.map_or_else(|| workload::data_beside(&text), |config| config.data);
    let several = workloads.len() > 1;
    let named = |own: &str| match name {
        Some(name) if several => format!("{name} {own}"),
        Some(name) => name.to_owned(),
        None => own.to_owned(),
    };
    let settings = workloads.into_iter().map(|workload| {
        let limit = limit.unwrap_or(workload.container_concurrency);
        let settings = Settings::requests(&named(&workload.id.name), workload.spec, limit);
        let annotations = workload.annotations;
        (settings, Some(Written { config: data.clone(), annotations, container_concurrency: limit }))
    });
    settings.collect()
}

/// The `spec` of a HorizontalPodAutoscaler, written into the scenario.
fn inline_hpa(node: &Node<'_>, findings: &mut Findings) -> Option<HpaSpec> {
    let manifest = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "spec": node.value,
    });
    let place = |key: &str| match key.strip_prefix("spec") {
        Some(rest) => format!("{}{rest}", node.path),
        None => node.path.clone(),
    };
    absorb(
        HpaSpec::read("", &manifest.to_string()),
        findings,
        |fault| Fault { key: place(&fault.key), file: None, ..fault },
        |warning| Warning { key: place(&warning.key), file: None, ..warning },
    )
}

/// A file that is named in a scenario, and how messages name it.
fn text_of(
    node: &Node<'_>,
    name: &str,
    base_dir: &Path,
    findings: &mut Findings,
) -> Option<(String, String)> {
    let path = base_dir.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => Some((path.display().to_string(), text)),
        Err(error) => {
            findings.fault(&node.path, name, format!("cannot be read: {error}"));
            None
        }
    }
}

fn absorb<T>(
    parsed: Parsed<T>,
    findings: &mut Findings,
    fault: impl Fn(Fault) -> Fault,
    warning: impl Fn(Warning) -> Warning,
) -> Option<T> {
    findings.warnings.extend(parsed.warnings.into_iter().map(warning));
    let mut refuse = |faults: Faults| findings.faults.extend(faults.into_vec().into_iter().map(&fault));
    parsed.value.map_err(&mut refuse).ok()
}

/// The prefix of the autoscaler's annotations.
const PREFIX: &str = "autoscaling.knative.dev/";

/// Knative's own bound.
const MOST_CONCURRENCY: u32 = 1_000;
const MOST_PODS: u32 = 1_000_000;
