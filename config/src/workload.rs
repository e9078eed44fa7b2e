//! The manifests people have, read into workloads that can be run and scaled: Knative Services and Revisions,
//! KServe and KFServing InferenceServices, Deployments with autoscaling annotations, and the ConfigMap
//! `config-autoscaler` beside them. YAML with any number of documents; lists are opened.
//!
//! All faults of all files come in one answer. A kind that is not supported is a note, unless a file holds
//! nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use pilotlight_core::{ConcurrencyLimit, Reachability, RevisionId, RevisionSpec, Timeouts};
use serde::Serialize;

use crate::autoscaler::AutoscalerConfig;
use crate::fault::{Fault, Findings, Parsed, Warning};
use crate::resolve::{Origin, Setting, Verdict, progress_deadline, resolve};
use kinds::Draft;
use manifest::Node;

mod kinds;
pub mod manifest;
mod pod;
mod written;

/// Something to run and to scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// The name: namespace (`default` where none is written) and name of the object.
    pub id: RevisionId,
    /// The kind of object it was written as.
    pub kind: Kind,
    /// How it scales.
    pub spec: RevisionSpec,
    /// The same for people, with where each setting came from.
    pub settings: Vec<Setting>,
    /// The annotations these settings came from: those written, and those that fields stand for.
    pub annotations: BTreeMap<String, String>,
    /// How many requests one pod may answer at once.
    pub container_concurrency: ConcurrencyLimit,
    /// The time limits of a request.
    pub timeouts: Timeouts,
    /// How long it may take to come up.
    pub progress_deadline: Duration,
    /// How to find out whether a pod is ready: a Kubernetes probe with Knative's defaults filled in.
    pub readiness_probe: Option<serde_json::Value>,
    /// The container of a pod.
    pub container: Container,
    /// The file, document and line it was read from.
    pub source: Source,
    /// Warnings: parts that are suspicious, or not carried over.
    pub notes: Vec<Warning>,
}

/// The kind of object a workload was written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Kind {
    /// A Knative `Service`.
    Service,
    /// A Knative `Revision`.
    Revision,
    /// An `InferenceService` of KServe or KFServing.
    InferenceService,
    /// A plain `Deployment`.
    Deployment,
}

/// The serving container of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Container {
    /// The image, if one is written.
    pub image: Option<String>,
    /// The command; empty where the image's own is meant.
    pub command: Vec<String>,
    /// The arguments.
    pub args: Vec<String>,
    /// The environment, in the order written. Only literal values: what lives in a cluster stays there.
    pub env: Vec<(String, String)>,
    /// The directory to run in.
    pub working_dir: Option<String>,
    /// The port it listens on, if one is written.
    pub port: Option<u16>,
}

/// The file, document and line of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Source {
    /// The file, as it was named.
    pub file: String,
    /// The line on which the document begins, from 1.
    pub line: u64,
}

/// The text of one file.
#[derive(Clone, Copy, Debug)]
pub struct Manifest<'a> {
    /// How to name the file in messages.
    pub file: &'a str,
    /// What it holds.
    pub text: &'a str,
}

/// All that was found in a set of files.
#[derive(Clone, Debug, PartialEq)]
pub struct Workloads {
    /// The workloads, in the order of the files.
    pub workloads: Vec<Workload>,
    /// The defaults they were resolved with.
    pub config: AutoscalerConfig,
}

/// The port an application listens on where its manifest names none.
pub const DEFAULT_PORT: u16 = 8080;

/// Reads workloads from files. `config` holds the defaults; without it they come from a ConfigMap
/// `config-autoscaler` in the files, and without that they are Knative's.
///
/// ```
/// use pilotlight_config::workload::{self, Manifest};
/// let text = r#"
/// apiVersion: serving.knative.dev/v1
/// kind: Service
/// metadata: { name: hello }
/// spec:
///   template:
///     metadata:
///       annotations: { autoscaling.knative.dev/max-scale: "ten" }
///     spec:
///       containers: [{ image: hello }]
/// "#;
/// let faults = workload::read(&[Manifest { file: "service.yaml", text }], None).value.unwrap_err();
/// assert_eq!(
///     faults.to_string(),
///     "service.yaml: spec.template.metadata.annotations.autoscaling.knative.dev/max-scale: \
///      \"ten\" is not a whole number between 0 and 2147483647"
/// );
/// ```
pub fn read(manifests: &[Manifest<'_>], config: Option<&AutoscalerConfig>) -> Parsed<Workloads> {
    let mut findings = Findings::default();
    let files: Vec<(Manifest<'_>, Vec<manifest::Document>)> = manifests
        .iter()
        .map(|&manifest| {
            let documents = manifest::documents(manifest.text).unwrap_or_else(|message| {
                findings.faults.push(Fault::without_value("", message).in_file(manifest.file));
                Vec::new()
            });
            (manifest, documents)
        })
        .collect();
    let config = match config {
        Some(config) => config.clone(),
        None => config_among(&files, &mut findings),
    };
    let mut workloads = Vec::new();
    for (manifest, documents) in &files {
        let mut notes = Findings::default();
        let mut usable = 0;
        for document in documents {
            let mut found = Findings::default();
            let root = document.root();
            match kinds::draft(&root, &mut found) {
                kinds::Read::Workload(draft) => {
                    usable += 1;
                    let source = Source { file: manifest.file.to_owned(), line: document.line };
                    workloads.extend(finish(*draft, &config, source, &mut found));
                }
                kinds::Read::Config => usable += 1,
                kinds::Read::Unsupported(kind) => {
                    notes.warn("", format!("{kind} is not something to scale; it is passed over"));
                }
                kinds::Read::Invalid => usable += 1,
            }
            absorb_from_file(&mut findings, found, manifest.file);
        }
        if usable == 0 && !documents.is_empty() {
            let kinds: Vec<String> = documents.iter().map(|document| kinds::name(&document.root())).collect();
            let fault =
                Fault::without_value("", format!("holds nothing to scale, only {}", kinds.join(", ")));
            findings.faults.push(fault.in_file(manifest.file));
        } else {
            absorb_from_file(&mut findings, notes, manifest.file);
        }
        if documents.is_empty() && findings.faults.iter().all(|f| f.file.as_deref() != Some(manifest.file)) {
            findings.faults.push(Fault::without_value("", "is empty").in_file(manifest.file));
        }
    }
    Parsed::new(Workloads { workloads, config }, findings)
}

/// The data of a ConfigMap: a manifest of kind ConfigMap, or the bare keys and values.
pub(crate) fn config_from_yaml(text: &str) -> Parsed<AutoscalerConfig> {
    let mut findings = Findings::default();
    let mut config = None;
    match manifest::documents(text) {
        Err(message) => findings.faults.push(Fault::without_value("", message)),
        Ok(documents) => {
            let roots: Vec<Node<'_>> = documents.iter().map(manifest::Document::root).collect();
            let is_manifest = |node: &Node<'_>| node.child("kind").value.is_some();
            let is_any_map =
                |node: &&Node<'_>| node.child("kind").value.is_some_and(|kind| kind == "ConfigMap");
            let by_name = roots.iter().find(|node| kinds::is_config_map(node));
            if let Some(map) = by_name.or_else(|| roots.iter().find(is_any_map)) {
                config = Some(read_config(map, &mut findings));
            } else if let [bare] = roots.as_slice()
                && !is_manifest(bare)
            {
                let data = bare.bare_strings(&mut findings);
                config = Some(absorb_config(AutoscalerConfig::from_map(&data), "", &mut findings));
            } else if roots.is_empty() {
                findings.faults.push(Fault::without_value("", "is empty"));
            } else {
                findings.faults.push(Fault::without_value("", "holds no ConfigMap"));
            }
        }
    }
    Parsed::new(config.unwrap_or_default(), findings)
}

fn config_among(
    files: &[(Manifest<'_>, Vec<manifest::Document>)],
    findings: &mut Findings,
) -> AutoscalerConfig {
    let mut config = None;
    for (manifest, documents) in files {
        for document in documents.iter().filter(|document| kinds::is_config_map(&document.root())) {
            let mut found = Findings::default();
            if config.is_none() {
                config = Some(read_config(&document.root(), &mut found));
            } else {
                found.warn("", "a second ConfigMap config-autoscaler; the first one counts");
            }
            absorb_from_file(findings, found, manifest.file);
        }
    }
    config.unwrap_or_default()
}

fn read_config(map: &Node<'_>, findings: &mut Findings) -> AutoscalerConfig {
    let data = map.child("data");
    let strings = data.strings(findings);
    absorb_config(AutoscalerConfig::from_map(&strings), &data.path, findings)
}

fn absorb_config(parsed: Parsed<AutoscalerConfig>, path: &str, findings: &mut Findings) -> AutoscalerConfig {
    findings.warnings.extend(parsed.warnings.into_iter().map(|warning| warning.below(path)));
    parsed.value.unwrap_or_else(|faults| {
        findings.faults.extend(faults.into_vec().into_iter().map(|fault| fault.below(path)));
        AutoscalerConfig::default()
    })
}

fn absorb_from_file(all: &mut Findings, found: Findings, file: &str) {
    all.faults.extend(found.faults.into_iter().map(|fault| fault.in_file(file)));
    all.warnings.extend(found.warnings.into_iter().map(|warning| warning.in_file(file)));
}

/// Resolves what one object says; `None` if it is at fault or another autoscaler's.
fn finish(
    draft: Draft,
    config: &AutoscalerConfig,
    source: Source,
    findings: &mut Findings,
) -> Option<Workload> {
    let parsed =
        resolve(config, &draft.written.annotations, draft.container_concurrency, Reachability::Reachable);
    let (verdict, faults) = match parsed.value {
        Ok(verdict) => (Some(verdict), Vec::new()),
        Err(faults) => (None, faults.into_vec()),
    };
    let found = Findings { faults, warnings: parsed.warnings, ..Findings::default() };
    findings.absorb(found, |key| draft.written.path_of(key));
    let (verdict, id) = (verdict?, draft.id?);
    let mut resolved = match verdict {
        Verdict::Resolved(resolved) => *resolved,
        Verdict::OtherClass(class) => {
            findings.warn(&draft.path, format!("{id} belongs to the autoscaler {class}; it is left alone"));
            return None;
        }
    };
    for setting in &mut resolved.settings {
        if let Origin::Annotation(key) = setting.from {
            setting.from = draft.written.origin_of(key);
        }
    }
    let notes = findings.warnings.iter().map(|note| note.clone().in_file(source.file.clone())).collect();
    Some(Workload {
        id,
        kind: draft.kind,
        settings: resolved.settings,
        annotations: draft.written.annotations,
        container_concurrency: draft.container_concurrency,
        timeouts: draft.timeouts,
        progress_deadline: progress_deadline(&resolved.spec),
        spec: resolved.spec,
        readiness_probe: Some(draft.readiness_probe),
        container: draft.container,
        source,
        notes,
    })
}
