//! The simulated world: a scenario from a file, or one that flags describe, or the first with changes by the second.
//! Flags become the fields of a scenario and go through its reader: there is one set of rules.

use std::path::{Path, PathBuf};

use clap::Args;
use pilotlight_config::{Fault, Faults, duration};
use pilotlight_sim::report::Tuning;
use pilotlight_sim::scenario::file::{Draft, ScenarioFile};
use serde_json::{Map, Value, json};

use crate::run::ServiceArgs;

/// The simulated world.
#[derive(Debug, Args)]
pub(super) struct WorldArgs {
    /// The scenario, in YAML; without it, flags say what comes and what there is
    #[arg(required_unless_present_any = ["rate", "users", "trace"])]
    scenario: Option<PathBuf>,
    /// Change a field of the scenario: app.service-time=200ms, settings[0].annotations.target=5
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    changes: Vec<String>,
    /// Expectation of latencies, such as p95<500ms
    #[arg(long, value_name = "EXPR")]
    slo: Option<String>,
    #[command(flatten)]
    load: LoadArgs,
    /// The settings of a manifest: Knative Service, InferenceService, Deployment, HorizontalPodAutoscaler
    #[arg(long = "settings", value_name = "FILE", help_heading = SERVICE)]
    manifests: Vec<PathBuf>,
    /// Always so many pods
    #[arg(long, value_name = "PODS", help_heading = SERVICE)]
    pods: Option<u32>,
    /// Defaults: a config-autoscaler ConfigMap in YAML
    #[arg(long, value_name = "FILE", help_heading = SERVICE)]
    config: Option<PathBuf>,
    #[command(flatten)]
    service: ServiceArgs,
}

/// Clients, and the pods that answer them.
#[derive(Debug, Args)]
#[command(next_help_heading = "Load and app (instead of the scenario's)")]
struct LoadArgs {
    /// Requests per second
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["users", "trace"], requires = "length")]
    rate: Option<f64>,
    /// Users, each of whom waits for an answer before the next request
    #[arg(long, value_name = "NUMBER", conflicts_with = "trace", requires = "length")]
    users: Option<u32>,
    /// Recorded traffic: access logs, CSV, Prometheus, a journal; `sim import` says what is in it
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Format of the trace, where it is not recognised; more is said by --set load.trace.FIELD=VALUE
    #[arg(long, value_name = "FORMAT", requires = "trace")]
    trace_format: Option<String>,
    /// For how long
    #[arg(long = "for", value_name = "DURATION")]
    length: Option<String>,
    /// How requests follow the rate: poisson, uniform, gamma:cv=2 [default: poisson]
    #[arg(long, value_name = "PROCESS", requires = "rate")]
    process: Option<String>,
    /// How long a user waits between an answer and the next request [default: 0s]
    #[arg(long, value_name = "TIME", requires = "users")]
    think: Option<String>,
    /// How long a request takes that is alone on a pod: 100ms, lognormal:p50=80ms,p99=1s, empirical:FILE:COLUMN
    #[arg(long, value_name = "TIME")]
    service_time: Option<String>,
    /// How long a pod takes to come up, likewise
    #[arg(long, value_name = "TIME")]
    startup: Option<String>,
    /// The pod's cores, which its requests share [default: as many as needed]
    #[arg(long, value_name = "NUMBER")]
    cores: Option<String>,
}

/// A scenario that is ready to run, and how it was written.
pub(super) struct World {
    pub(super) file: ScenarioFile,
    /// As text, with what flags have changed.
    pub(super) text: String,
    /// Result of a search, if there was one.
    pub(super) tuning: Option<Tuning>,
}

impl WorldArgs {
    /// Reads everything. Warnings go to standard error at once.
    pub(super) fn load(&self) -> Result<World, Faults> {
        let draft = self.draft()?;
        let parsed = draft.load();
        for warning in parsed.warnings {
            eprintln!("warning: {warning}");
        }
        Ok(World { file: parsed.value?, text: draft.text(), tuning: None })
    }

    fn draft(&self) -> Result<Draft, Faults> {
        let mut draft = match &self.scenario {
            Some(path) => Draft::read(path)?,
            None => Draft::empty(Path::new("")),
        };
        self.load.write(&mut draft, self.scenario.is_some())?;
        if let Some(slo) = &self.slo {
            draft.put("slo", slo.as_str())?;
        }
        if let Some(timeout) = self.service.timeout {
            // The platform may be a single word.
            if draft.field("platform").is_some_and(Value::is_string) {
                let kind = draft.field("platform").cloned();
                draft.put("platform", json!({ "kind": kind }))?;
            }
            draft.put("platform.request-timeout", duration::format(timeout))?;
        }
        if let Some(settings) = self.settings()? {
            draft.put("settings", settings)?;
        }
        for change in &self.changes {
            draft.set(change)?;
        }
        Ok(draft)
    }

    /// Settings given by flags; they take the place of those in the scenario.
    fn settings(&self) -> Result<Option<Value>, Fault> {
        if self.service.readiness_path.is_some() {
            return Err(Fault::without_value("--readiness-path", "means nothing in a simulation"));
        }
        let config = self.config.as_deref().map(|path| self.path(path));
        let annotations = self.service.annotations();
        let limit = self.service.concurrency;
        let mut list = Vec::new();
        let mut add = |mut entry: Value, has_config: bool| {
            entry["container-concurrency"] = json!(limit);
            entry["config"] = if has_config { json!(config) } else { Value::Null };
            list.push(entry);
        };
        for path in &self.manifests {
            add(json!({ "file": self.path(path) }), true);
        }
        if let Some(pods) = self.pods {
            add(json!({ "name": self.service.name, "pods": pods }), false);
        }
        let says_nothing_else = self.manifests.is_empty() && self.pods.is_none();
        let says_settings = !annotations.is_empty() || limit.is_some() || config.is_some();
        if !annotations.is_empty() || says_nothing_else && says_settings {
            add(json!({ "name": self.service.name, "annotations": annotations }), true);
        }
        if let (Some(name), true) = (&self.service.name, list.iter().all(|entry| entry["name"].is_null())) {
            let rule = "names the settings that flags describe, and there are none";
            return Err(Fault::new("--name", name, rule));
        }
        Ok((!list.is_empty()).then_some(Value::Array(list)))
    }

    /// A path from a flag, as the scenario, which may lie elsewhere, has to name it.
    fn path(&self, path: &Path) -> String {
        named_from(path, self.scenario.is_some())
    }
}

impl LoadArgs {
    fn write(&self, draft: &mut Draft, has_file: bool) -> Result<(), Faults> {
        let length = self.length.as_deref();
        if let Some(rate) = self.rate {
            let mut pattern =
                Map::from_iter([("rate".to_owned(), json!(rate)), ("for".to_owned(), json!(length))]);
            if let Some(process) = &self.process {
                pattern.insert("arrivals".to_owned(), json!(process));
            }
            draft.put("load", json!({ "constant": pattern }))?;
            draft.put("duration", Value::Null)?;
        } else if let Some(users) = self.users {
            let users = json!({ "steps": [{ "users": users }], "think": self.think });
            draft.put("load", json!({ "users": users }))?;
            draft.put("duration", json!(length))?;
        } else if let Some(trace) = &self.trace {
            draft.put("load", json!({ "trace": { "file": named_from(trace, has_file) } }))?;
            if let Some(format) = &self.trace_format {
                draft.put("load.trace.format", format.as_str())?;
            }
            draft.put("duration", json!(length))?;
        } else if let Some(length) = length {
            draft.put("duration", length)?;
        }
        let fields = [
            ("app.service-time", &self.service_time),
            ("pods.init", &self.startup),
            ("app.cores", &self.cores),
        ];
        for (place, value) in fields {
            if let Some(value) = value {
                draft.put(place, value.as_str())?;
            }
        }
        Ok(())
    }
}

fn named_from(path: &Path, has_file: bool) -> String {
    let whole = if has_file { std::path::absolute(path).ok() } else { None };
    whole.as_deref().unwrap_or(path).display().to_string()
}

const SERVICE: &str = "Settings of the service (those of files are in the files)";
