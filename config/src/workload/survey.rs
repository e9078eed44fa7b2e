//! All files together: each is read object by object, and then the objects are compared with each other.

use std::collections::{BTreeMap, BTreeSet};

use super::draft::{self, Draft};
use super::kinds;
use super::manifest::{self, Document};
use super::object::{self, some_of};
use super::requests::Shares;
use super::{Elsewhere, Manifest, Source, Workload, Workloads, compare, config, hpa};
use crate::autoscaler::AutoscalerConfig;
use crate::fault::{Fault, Findings, Position, Warning};
use crate::keys::annotation::{CLASS, HPA, KPA, METRIC};
use crate::resolve::{Origin, Verdict, progress_deadline, resolve};
use crate::wording::number;

/// Reads all that is legal in files, and everything that was found on the way: what is at fault is left out of the
/// first and hides nothing else.
pub fn survey(manifests: &[Manifest<'_>], config: Option<&AutoscalerConfig>) -> (Workloads, Findings) {
    let mut findings = Findings::default();
    let mut nothing = Vec::new();
    let files: Vec<File<'_>> =
        manifests.iter().map(|&it| File::open(it, &mut nothing, &mut findings)).collect();
    let (own, config_source) = defaults(&files, config.is_some(), &mut findings);
    let config = config.cloned().unwrap_or(own);
    let identities: BTreeSet<[String; 3]> =
        files.iter().flat_map(|file| &file.documents).filter_map(|it| object::identity(&it.root())).collect();
    let mut workloads = Workloads { workloads: Vec::new(), elsewhere: Vec::new(), config, config_source };
    let (mut pods, mut is_usable) = (Vec::new(), false);
    for file in &files {
        is_usable |= file.read(&identities, &mut workloads, &mut pods, &mut nothing, &mut findings);
    }
    // Beside files that hold something, as in a folder, one without is no fault.
    if is_usable {
        let note = |fault: Fault| Warning { file: fault.file, ..Warning::new(fault.key, fault.rule) };
        findings.warnings.extend(nothing.into_iter().map(note));
    } else {
        findings.faults.extend(nothing);
    }
    compare::all(&mut workloads, &pods, &mut findings);
    workloads.elsewhere.retain(|scaler| !scaler.explanation.is_empty());
    (workloads, findings)
}

/// A file that was opened.
struct File<'a> {
    name: &'a str,
    documents: Vec<Document>,
    has_several: bool,
    is_broken: bool,
}

impl<'a> File<'a> {
    /// Opens a file. One without any object is told among `nothing`.
    fn open(manifest: Manifest<'a>, nothing: &mut Vec<Fault>, findings: &mut Findings) -> Self {
        let (documents, errors) = manifest::read(manifest.text);
        let has_several =
            documents.iter().map(|it| it.number).chain(errors.iter().map(|it| it.number)).max() > Some(1);
        let file = File { name: manifest.file, documents, has_several, is_broken: !errors.is_empty() };
        if file.documents.is_empty() && errors.is_empty() {
            nothing.push(Fault::without_value("", "is empty").in_file(manifest.file));
        }
        for error in errors {
            let document = has_several.then_some(error.number);
            let position = Position { line: error.line, document, object: None };
            let fault = Fault::without_value("", error.message).at(position);
            findings.faults.push(fault.in_file(manifest.file));
        }
        file
    }

    /// Reads all objects; whether there is anything that can be read, be it at fault.
    fn read(
        &self,
        identities: &BTreeSet<[String; 3]>,
        all: &mut Workloads,
        pods: &mut Vec<compare::Pods>,
        nothing: &mut Vec<Fault>,
        findings: &mut Findings,
    ) -> bool {
        let mut found = Findings::default();
        let mut passed_over: Vec<String> = Vec::new();
        let (mut made, mut usable) = (Vec::new(), 0);
        for document in &self.documents {
            let root = document.root();
            if object::owner(&root).is_some_and(|owner| identities.contains(&owner)) {
                made.push(object::name(&root));
                continue;
            }
            let mut here = Findings::default();
            let source = Source { file: self.name.to_owned(), line: document.line };
            usable += 1;
            match kinds::read(&root, &mut here) {
                kinds::Read::Workload(draft) => {
                    let position = |key: &str| self.position(document, key);
                    pods.extend(compare::Pods::of(&draft, self.name, &position));
                    all.workloads.extend(finish(*draft, &all.config, source, &position, &mut here));
                }
                kinds::Read::Scaler(kind, scaler) => {
                    let id = draft::id(&root, &mut here);
                    let hpa::Scaler { explanation, scales, needed } = scaler;
                    // A scaler at fault is not explained, and what it scales is still known.
                    let explanation = if here.faults.is_empty() { explanation } else { Vec::new() };
                    all.elsewhere.extend(id.map(|id| Elsewhere {
                        id,
                        kind,
                        source,
                        explanation,
                        scales,
                        needed,
                    }));
                }
                kinds::Read::Config | kinds::Read::Invalid => {}
                kinds::Read::Unsupported => {
                    usable -= 1;
                    passed_over.push(object::name(&root));
                }
            }
            self.absorb(document, here, &mut found);
        }
        if usable == 0 && !self.documents.is_empty() && !self.is_broken {
            let rule = format!("holds nothing to scale, only {}", some_of(&passed_over));
            nothing.push(Fault::without_value("", rule).in_file(self.name));
        } else if let Some(advice) =
            told(&passed_over, "not something to scale; it is", "nothing to scale; they are")
        {
            findings.warnings.push(Warning::new("", advice).in_file(self.name));
        }
        if let Some(advice) =
            told(&made, "made by another object here; it is", "made by other objects here; they are")
        {
            findings.warnings.push(Warning::new("", advice).in_file(self.name));
        }
        fold(&mut found);
        found.faults.sort_by_key(|fault| fault.position.as_ref().map(|it| it.line));
        found.warnings.sort_by_key(|warning| warning.position.as_ref().map(|it| it.line));
        findings.faults.append(&mut found.faults);
        findings.warnings.append(&mut found.warnings);
        usable > 0
    }

    /// Takes over what was found in one of the documents.
    fn absorb(&self, document: &Document, found: Findings, all: &mut Findings) {
        let placed = |fault: Fault| {
            let position = self.position(document, &fault.key);
            let fault = fault.at(position).in_file(self.name);
            match &fault.value {
                Some(value) if value.contains("{{") => {
                    let rule = format!("{}; {}", fault.rule, manifest::RENDER_FIRST);
                    Fault { rule, ..fault }
                }
                _ => fault,
            }
        };
        let told = |warning: Warning| {
            let position = self.position(document, &warning.key);
            warning.at(position).in_file(self.name)
        };
        all.faults.extend(found.faults.into_iter().map(placed));
        all.warnings.extend(found.warnings.into_iter().map(told));
        all.repeated.extend(found.repeated.into_iter().map(told));
    }

    fn position(&self, document: &Document, key: &str) -> Position {
        let root = document.root();
        let object = match object::identity(&root) {
            Some([kind, namespace, name]) => Some(format!("{kind} {namespace}/{name}")),
            None => root.child("kind").value.map(manifest::shown),
        };
        Position {
            line: document.line_of(key),
            document: self.has_several.then_some(document.number),
            object,
        }
    }
}

/// One line for all warnings of a file that say the same of the same field.
fn fold(found: &mut Findings) {
    let mut groups: Vec<(Warning, BTreeSet<Option<String>>)> = Vec::new();
    let mut known: BTreeMap<(String, String), usize> = BTreeMap::new();
    for warning in found.repeated.drain(..) {
        let field = warning.key.rsplit('.').next().unwrap_or_default();
        let field = field.split('[').next().unwrap_or_default().to_owned();
        let object = warning.position.as_ref().and_then(|position| position.object.clone());
        let at = *known.entry((field, warning.advice.clone())).or_insert_with(|| {
            groups.push((warning, BTreeSet::new()));
            groups.len() - 1
        });
        groups[at].1.insert(object);
    }
    found.warnings.extend(groups.into_iter().map(|(warning, objects)| match objects.len() {
        0 | 1 => warning,
        several => {
            let advice = format!("{} (so in {} objects)", warning.advice, number(several as f64));
            Warning { advice, ..warning }
        }
    }));
}

/// Names of objects that are passed over, in one sentence.
fn told(names: &[String], one: &str, several: &str) -> Option<String> {
    match names {
        [] => None,
        [name] => Some(format!("{name} is {one} passed over")),
        names => Some(format!("{} are {several} passed over", some_of(names))),
    }
}

/// The defaults among the files: the first object that holds some.
fn defaults(
    files: &[File<'_>],
    is_given: bool,
    findings: &mut Findings,
) -> (AutoscalerConfig, Option<Source>) {
    let mut first: Option<(AutoscalerConfig, Source)> = None;
    let mut is_legal = true;
    for file in files {
        for document in file.documents.iter().filter(|document| config::is_config(&document.root())) {
            let mut found = Findings::default();
            let root = document.root();
            match &first {
                None => {
                    let read = config::read(&root, &mut found);
                    is_legal = found.faults.is_empty();
                    first = Some((read, Source { file: file.name.to_owned(), line: document.line }));
                }
                Some((_, Source { file, line })) => {
                    let advice = format!(
                        "no effect: the defaults are written twice, and those at {file}:{line} count"
                    );
                    found.warn(&root.path, advice);
                }
            }
            if is_given {
                found.warn(&root.path, "no effect: the defaults come from the file that --config names");
            }
            file.absorb(document, found, findings);
        }
    }
    match first {
        Some((config, source)) => (config, Some(source).filter(|_| is_legal && !is_given)),
        None => (AutoscalerConfig::default(), None),
    }
}

/// Resolves what one object says; `None` if it is at fault or another autoscaler's.
fn finish(
    draft: Draft,
    config: &AutoscalerConfig,
    source: Source,
    position: &dyn Fn(&str) -> Position,
    findings: &mut Findings,
) -> Option<Workload> {
    let parsed = resolve(config, &draft.written.annotations, draft.container_concurrency, draft.reachability);
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
            let mut known = [KPA, HPA].into_iter().filter(|_| class != HPA);
            let meant = known.find(|known| {
                known.split('.').next() == Some(class.as_str())
                    || strsim::damerau_levenshtein(known, &class) <= 3
            });
            let hint = meant.map_or(String::new(), |meant| format!("; did you mean `{meant}`?"));
            let advice = format!("{id} belongs to the autoscaler {class}; it is left alone{hint}");
            findings.warn(&draft.written.path_of(CLASS.name), advice);
            let metric = draft.written.annotations.get(METRIC.name).map_or("cpu", String::as_str);
            // Any other metric, memory among them, is an amount a pod (Knative's pkg/reconciler/autoscaling/hpa).
            if class == HPA && metric == "cpu" {
                draft.requests.warn(
                    &Shares::cpu(),
                    "the HorizontalPodAutoscaler that Knative makes",
                    findings,
                );
            }
            return None;
        }
    };
    if !findings.faults.is_empty() {
        return None;
    }
    for setting in &mut resolved.settings {
        if let Origin::Annotation(key) = setting.from {
            setting.from = draft.written.origin_of(key);
        }
    }
    let notes = findings.warnings.iter().chain(&findings.repeated);
    let notes =
        notes.map(|note| note.clone().at(position(&note.key)).in_file(source.file.as_str())).collect();
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
        elsewhere: draft.elsewhere,
        notes,
    })
}
