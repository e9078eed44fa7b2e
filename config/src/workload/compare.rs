//! Objects compared with each other: a name that is there twice, an autoscaler beside what it scales.

use std::collections::BTreeMap;

use pilotlight_core::RevisionId;

use super::draft::Draft;
use super::requests::Requests;
use super::{Elsewhere, Kind, Source, Workload, Workloads};
use crate::fault::{Fault, Findings, Position, Warning};
use crate::resolve::Origin;
use crate::wording::number;

/// The pods of an object, and what they request.
pub(super) struct Pods {
    id: RevisionId,
    kind: Kind,
    file: String,
    requests: Requests,
}

impl Pods {
    /// The pods of an object of this file; `None` where its name is a fault.
    pub(super) fn of(draft: &Draft, file: &str, position: &dyn Fn(&str) -> Position) -> Option<Self> {
        let requests = draft.requests.located(position);
        Some(Pods { id: draft.id.clone()?, kind: draft.kind, file: file.to_owned(), requests })
    }
}

/// Compares all objects of all files.
pub(super) fn all(all: &mut Workloads, pods: &[Pods], findings: &mut Findings) {
    names(&all.workloads, findings);
    requests(&all.elsewhere, pods, findings);
    let scalers = scalers(&all.elsewhere, findings);
    let scaled: Vec<Option<String>> = all.workloads.iter().map(|it| scaler_of(it, &scalers)).collect();
    for (workload, scaler) in all.workloads.iter_mut().zip(scaled) {
        let Some(scaler) = scaler else { continue };
        if workload.settings.iter().any(|setting| matches!(setting.from, Origin::Annotation(_))) {
            let advice = format!(
                "annotated for scaling by requests, and {scaler} scales it, too: both contradict each other"
            );
            findings.warnings.push(of_workload(workload, "metadata", advice));
        }
        let sentence = format!("In a cluster {scaler} scales it; `pilotlight run` scales it by requests.");
        workload.elsewhere = Some(vec![sentence]);
    }
}

/// Objects of one name: of one kind it is a fault, else a warning, since on one machine the name is also the host.
fn names(workloads: &[Workload], findings: &mut Findings) {
    let at = |workload: &Workload| format!("{}:{}", workload.source.file, workload.source.line);
    let mut by_kind = BTreeMap::new();
    let mut by_name: BTreeMap<&str, &Workload> = BTreeMap::new();
    let mut shared = Vec::new();
    for workload in workloads {
        if let Some(first) = by_kind.insert((&workload.id, workload.kind), workload) {
            let fault = Fault::without_value("metadata.name", format!("is defined already at {}", at(first)));
            let fault =
                fault.at(position(workload.source.line, format!("{:?} {}", workload.kind, workload.id)));
            findings.faults.push(fault.in_file(workload.source.file.as_str()));
            continue;
        }
        // What `pilotlight run` does not start has no host.
        if workload.kind == Kind::PodAutoscaler {
            continue;
        }
        let Some(first) = by_name.get(workload.id.name.as_str()) else {
            by_name.insert(&workload.id.name, workload);
            continue;
        };
        let advice = format!(
            "{:?} {} ({}) has the same name: on one machine both would answer to the host {}, and `pilotlight run` \
             refuses them together",
            first.kind,
            first.id,
            at(first),
            workload.id.name
        );
        shared.push(of_workload(workload, "metadata.name", advice));
    }
    let more = shared.len().saturating_sub(MOST_SHARED);
    findings.warnings.extend(shared.into_iter().take(MOST_SHARED));
    if more > 0 {
        let advice = format!("{} more objects share a name with an earlier one", number(more as f64));
        findings.warnings.push(Warning::new("", advice));
    }
}

/// Pods that do not request what an autoscaler divides by.
fn requests(elsewhere: &[Elsewhere], pods: &[Pods], findings: &mut Findings) {
    for scaler in elsewhere {
        let Some((kind, name)) = &scaler.scales else { continue };
        let is_scaled = |pods: &&Pods| {
            pods.id.namespace == scaler.id.namespace
                && pods.id.name == *name
                && format!("{:?}", pods.kind) == *kind
        };
        let Some(scaled) = pods.iter().find(is_scaled) else { continue };
        let scaler_name = format!("{} {}", scaler.kind, scaler.id);
        for (container, advice) in scaled.requests.lacking(&scaler.needed, &scaler_name) {
            let warning = Warning::new(container.path.as_str(), advice).in_file(scaled.file.as_str());
            findings.warnings.push(match &container.position {
                Some(position) => warning.at(position.clone()),
                None => warning,
            });
        }
    }
}

/// A cluster's list holds many; the first few show what is meant.
const MOST_SHARED: usize = 5;

/// Autoscalers by what they scale: namespace, name and kind.
type Scalers<'a> = BTreeMap<(RevisionId, &'a str), &'a Elsewhere>;

fn scalers<'a>(elsewhere: &'a [Elsewhere], findings: &mut Findings) -> Scalers<'a> {
    let mut scalers = Scalers::new();
    for scaler in elsewhere {
        let Some((kind, name)) = &scaler.scales else { continue };
        let target = (RevisionId::new(scaler.id.namespace.clone(), name.clone()), kind.as_str());
        if let Some(first) = scalers.get(&target) {
            let advice =
                format!("{} {} scales {kind} {name}, too: both contradict each other", first.kind, first.id);
            let Source { file, line } = &scaler.source;
            let warning = Warning::new("spec.scaleTargetRef", advice);
            let warning = warning.at(position(*line, format!("{} {}", scaler.kind, scaler.id)));
            findings.warnings.push(warning.in_file(file.as_str()));
        }
        scalers.entry(target).or_insert(scaler);
    }
    scalers
}

fn scaler_of(workload: &Workload, scalers: &Scalers<'_>) -> Option<String> {
    let kind = format!("{:?}", workload.kind);
    let scaler = scalers.get(&(workload.id.clone(), kind.as_str()))?;
    Some(format!("{} {}", scaler.kind, scaler.id))
}

fn of_workload(workload: &Workload, key: &str, advice: String) -> Warning {
    let object = format!("{:?} {}", workload.kind, workload.id);
    Warning::new(key, advice)
        .at(position(workload.source.line, object))
        .in_file(workload.source.file.as_str())
}

fn position(line: u64, object: String) -> Position {
    Position { line, document: None, object: Some(object) }
}
