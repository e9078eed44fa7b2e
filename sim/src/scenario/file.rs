//! Scenarios as people write them: YAML with the fields of [`SECTIONS`], and nothing else.
//!
//! What was written is a [`Draft`], which flags may still change; loaded, with the files it names, it is a
//! [`ScenarioFile`]. All faults come at once, each with its place. Paths start at the folder of the scenario.
//!
//! | file | what it does |
//! |---|---|
//! | `fields.rs` | the table of all fields; the reader refuses what is not in it, and the docs are made of it |
//! | `place.rs` | changes by place: `app.service-time`, `settings[0].annotations.target` |
//! | `world.rs` | load, app, pods, clients, platform |
//! | `room.rs` | the cluster |
//! | `settings.rs` | the settings under trial |
//! | `yaml.rs` | a scenario as text |

mod fields;
mod place;
mod room;
mod settings;
mod world;
mod yaml;

use std::fs;
use std::path::{Path, PathBuf};

use pilotlight_config::workload::manifest::{self, Node};
use pilotlight_config::{Fault, Faults, Findings, Parsed};
use serde_json::{Map, Value};

use super::{Scaler, Scenario, Settings};
use crate::assert::Slo;
use crate::read;
use crate::sweep::Written;

pub use fields::{Field, SECTIONS, Section, markdown};

/// A scenario and the settings to try in it, loaded and legal.
#[derive(Clone, Debug)]
pub struct ScenarioFile {
    /// The world.
    pub scenario: Scenario,
    /// The description as it is written; may be empty.
    pub description: String,
    /// The settings, at least one: Knative's defaults where none are written.
    pub settings: Vec<Settings>,
    /// The first of them that go by Knative's algorithm, as they are written: what can be varied.
    pub written: Option<Written>,
    /// The objective for latencies, where one is written.
    pub slo: Option<Slo>,
}

/// A scenario as it was written, before anything is checked.
///
/// ```
/// use pilotlight_sim::scenario::file::Draft;
/// let text = "
/// load:
///   constant: {rate: 20, for: 1m}
/// app: {service-tine: 100ms}
/// pods: {init: 2s}
/// ";
/// let mut draft = Draft::parse("checkout.yaml", text, ".".as_ref())?;
/// let faults = draft.load().value.unwrap_err();
/// assert_eq!(
///     faults.to_string(),
///     "checkout.yaml: app.service-tine: unknown field; did you mean `service-time`?\n\
///      checkout.yaml: app.service-time: is missing: how long a request takes that is alone on a pod"
/// );
/// draft.set("app={service-time: 100ms}")?;
/// assert_eq!(draft.load().value?.scenario.name, "checkout");
/// # Ok::<(), pilotlight_config::Faults>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    value: Value,
    /// How messages name it; `None` where flags say everything.
    file: Option<String>,
    base_dir: PathBuf,
}

impl Draft {
    /// A scenario of which nothing is written yet; paths in it will start at `base_dir`.
    pub fn empty(base_dir: &Path) -> Draft {
        Draft { value: Value::Object(Map::new()), file: None, base_dir: base_dir.to_owned() }
    }

    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Draft, Faults> {
        let file = path.display().to_string();
        let text = fs::read_to_string(path)
            .map_err(|error| Fault::without_value("", format!("cannot be read: {error}")).in_file(&file))?;
        Draft::parse(&file, &text, path.parent().unwrap_or(Path::new("")))
    }

    /// Takes the text of a file; `file` is how messages name it.
    pub fn parse(file: &str, text: &str, base_dir: &Path) -> Result<Draft, Faults> {
        let fault = |rule: String| Fault::without_value("", rule).in_file(file);
        let documents = manifest::documents(text).map_err(fault)?;
        let [document] = documents.as_slice() else {
            let rule = if documents.is_empty() {
                "is empty"
            } else {
                "holds several YAML documents, and one is needed"
            };
            return Err(fault(rule.to_owned()).into());
        };
        let value = document.root().value.cloned().unwrap_or_default();
        if !value.is_object() {
            return Err(fault("is not a scenario: a map with `load`, `app` and so on".to_owned()).into());
        }
        if let Some(kind) = value.get("kind").and_then(Value::as_str) {
            let rule = format!("is a {kind}, not a scenario: name it under `settings` with `file:`");
            return Err(fault(rule).into());
        }
        Ok(Draft { value, file: Some(file.to_owned()), base_dir: base_dir.to_owned() })
    }

    /// Changes one place: `app.service-time=200ms`, `settings[1].annotations.target=5`. The value is YAML; nothing
    /// after the `=` takes the field away.
    pub fn set(&mut self, change: &str) -> Result<(), Fault> {
        let (path, text) = change.split_once('=').ok_or_else(|| {
            Fault::new("", change, "is not of the form PLACE=VALUE, such as app.service-time=200ms")
        })?;
        let documents = manifest::documents(text);
        let documents = documents.map_err(|rule| Fault::new(path, text, rule))?;
        let value = documents.first().and_then(|document| document.root().value.cloned());
        place::put(&mut self.value, path, value.unwrap_or_default())
    }

    /// Writes `value` at a place, whatever was there.
    pub fn put(&mut self, path: &str, value: impl Into<Value>) -> Result<(), Fault> {
        place::put(&mut self.value, path, value.into())
    }

    /// A field as it is written, if it is.
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.value.get(name).filter(|value| !value.is_null())
    }

    /// All that is written.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Reads everything, and the files it names.
    pub fn load(&self) -> Parsed<ScenarioFile> {
        let mut findings = Findings::default();
        let root = Node { value: Some(&self.value), path: String::new() };
        let file = scenario(&root, self, &mut findings);
        // A fault of a file that is named here is told as that file's.
        let named = |fault: Fault| match (&self.file, &fault.file) {
            (Some(file), None) => fault.in_file(file),
            _ => fault,
        };
        findings.faults = findings.faults.into_iter().map(named).collect();
        if let Some(file) = &self.file {
            let warnings = findings.warnings.into_iter();
            findings.warnings = warnings
                .map(|warning| if warning.file.is_none() { warning.in_file(file) } else { warning })
                .collect();
        }
        match file {
            Some(file) => Parsed::new(file, findings),
            None => Parsed {
                value: Err(Faults::all(findings.faults)
                    .unwrap_or_else(|| Fault::without_value("", "cannot be read as a scenario").into())),
                warnings: findings.warnings,
            },
        }
    }

    /// The scenario as YAML that reads back the same.
    pub fn text(&self) -> String {
        yaml::write(&self.value)
    }

    /// The name where none is written.
    fn default_name(&self) -> String {
        let stem = self.file.as_deref().and_then(|file| Path::new(file).file_stem());
        stem.map_or_else(|| "simulation".to_owned(), |stem| stem.to_string_lossy().into_owned())
    }
}

/// `None` only where there is a fault.
fn scenario(root: &Node<'_>, draft: &Draft, findings: &mut Findings) -> Option<ScenarioFile> {
    fields::ROOT.check(root, findings);
    let base_dir = draft.base_dir.as_path();
    let name = root.child("name").text(findings).unwrap_or_else(|| draft.default_name());
    let description = root.child("description").text(findings).unwrap_or_default();
    let app_node = root.child("app");
    let load = world::load(&root.child("load"), base_dir, findings);
    let duration = world::duration(root, load.as_ref(), findings);
    let app = world::app(&app_node, load.as_ref(), base_dir, findings);
    let pods = world::pods(&root.child("pods"), base_dir, findings);
    let cluster = room::cluster(&root.child("cluster"), &app_node, findings);
    let platform = world::platform(&root.child("platform"), findings);
    let clients = world::clients(&root.child("clients"), findings);
    let slo: Option<Slo> = read::parsed(&root.child("slo"), findings);
    let (settings, written) = settings::all(&root.child("settings"), base_dir, findings);
    let scales = settings.iter().any(|settings| match &settings.scaler {
        Scaler::Requests(spec) => spec.max_scale != Some(spec.min_scale),
        Scaler::Hpa(_) => true,
        Scaler::Fixed(_) => false,
    });
    let start_up = ["schedule", "pull", "cached-pull", "init", "ready"];
    if scales && !start_up.iter().any(|phase| root.child("pods").child(phase).is_present()) {
        findings.warn("pods", "pods start in no time: write how long it takes, such as `pods: {init: 2s}`");
    }
    Some(ScenarioFile {
        description: description.split_whitespace().collect::<Vec<_>>().join(" "),
        scenario: Scenario {
            name,
            load: load?,
            duration: duration?,
            clients,
            app: app?,
            pods,
            cluster,
            platform,
            objective: slo.map(|slo| slo.threshold),
        },
        settings,
        written,
        slo,
    })
}
