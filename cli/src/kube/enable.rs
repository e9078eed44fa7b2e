//! Having a workload scaled by its requests.

use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use pilotlight_config::AutoscalerConfig;
use pilotlight_controller::crd::{RequestAutoscaler, ScaleTargetRef};
use pilotlight_controller::manifest::to_yaml;
use pilotlight_controller::refusal::{self, Way};
use pilotlight_controller::settings::accept;
use pilotlight_controller::survey::{Survey, survey};
use pilotlight_process::WrongSettings;
use serde_json::{Value, json};

use super::apply::{MANAGER, apply};
use super::place::{Place, PlaceArgs};
use super::{reference, selectors, status, tell};
use crate::output::print;

#[derive(Debug, Args)]
pub(super) struct EnableArgs {
    /// Workload that is scaled, such as deploy/web
    #[arg(value_name = "KIND/NAME", value_parser = reference::target)]
    target: ScaleTargetRef,
    /// Service whose traffic counts; may be repeated [default: every one that selects the pods]
    #[arg(long, value_name = "NAME")]
    service: Vec<String>,
    /// Have all requests pass the activators: take the Services' selectors away, and keep them in an annotation
    #[arg(long)]
    exact: bool,
    /// Fewest pods; 0 lets the last one go [default: 1]
    #[arg(long, value_name = "PODS")]
    min: Option<u32>,
    /// Most pods [default: any number]
    #[arg(long, value_name = "PODS")]
    max: Option<u32>,
    /// Requests in flight that each pod is to have [default: 100]
    #[arg(long = "target", id = "target_value", value_name = "NUMBER")]
    target_value: Option<f64>,
    /// Whether anything is scaled
    #[arg(long, value_name = "MODE")]
    mode: Option<ModeArg>,
    /// Print the YAML for Git, and change nothing; needs no cluster
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeArg {
    /// Scale
    Act,
    /// Decide and tell, and scale nothing
    Observe,
    /// Leave a workload without pods asleep
    Paused,
}

impl EnableArgs {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        if self.dry_run {
            print(&self.for_git())?;
            return Ok(ExitCode::SUCCESS);
        }
        let place = self.place.connect().await?;
        let there = status::list(&place.client, Some(&place.namespace)).await?;
        let there = there.into_iter().find(|autoscaler| autoscaler.name_any() == self.target.name);
        let object = self.object(Some(&place.namespace));
        let autoscaler = changed(there.as_ref(), &object).map_err(|error| {
            WrongSettings::new(format!("the RequestAutoscaler would be no such object: {error}"))
        })?;
        let survey = survey(&place.client, &place.system_namespace, &place.namespace, &autoscaler).await?;
        self.check(&survey)?;
        match there {
            None => apply(&place.client, &object).await?,
            // Only what was said is changed: the rest may be somebody else's.
            Some(_) => {
                let api: Api<RequestAutoscaler> = Api::namespaced(place.client.clone(), &place.namespace);
                let params =
                    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
                api.patch(&self.target.name, &params, &Patch::Merge(&object))
                    .await
                    .with_context(|| format!("cannot change RequestAutoscaler {}", self.target.name))?;
            }
        }
        let name = reference::short(&self.target);
        tell(&format!("RequestAutoscaler {} scales {name}", self.target.name));
        if self.exact {
            self.take_selectors(&place, &survey).await?;
        }
        self.advise(&survey);
        Ok(ExitCode::SUCCESS)
    }

    /// Everything that is wrong, at once. With `--exact` the Services are taken as they will be.
    fn check(&self, survey: &Survey) -> anyhow::Result<()> {
        let mut faults =
            match accept(&survey.workload, &survey.target_annotations(), &AutoscalerConfig::default()) {
                Ok(_) => Vec::new(),
                Err(faults) => faults,
            };
        let refusals = refusal::refusals(&self.as_it_will_be(survey).workload, &survey.surroundings);
        faults.extend(refusals.iter().map(|refusal| format!("{}: {refusal}", refusal.reason)));
        if faults.is_empty() { Ok(()) } else { Err(anyhow!(faults.join("\n"))) }
    }

    fn as_it_will_be(&self, survey: &Survey) -> Survey {
        let mut survey = survey.clone();
        if self.exact {
            for service in survey.workload.services.values_mut() {
                let mut without = (**service).clone();
                without.kept_selector = Some(std::mem::take(&mut without.selector));
                *service = without.into();
            }
        }
        survey
    }

    async fn take_selectors(&self, place: &Place, survey: &Survey) -> anyhow::Result<()> {
        for service in survey.workload.services.keys() {
            match selectors::take(&place.client, &place.namespace, service).await? {
                Some(kept) => tell(&format!(
                    "Service {service} has no selector any more; its annotation pilotlight.dev/selector keeps {kept:?}. \
                     Remove spec.selector where the Service is written down, or it will come back"
                )),
                None => tell(&format!("Service {service} has no selector already")),
            }
        }
        Ok(())
    }

    fn advise(&self, survey: &Survey) {
        let survey = self.as_it_will_be(survey);
        for warning in refusal::warnings(&survey.workload, &survey.surroundings) {
            tell(&format!("warning: {}: {}", warning.reason, warning.message));
        }
        if refusal::way(&survey.workload, &survey.surroundings) == Ok(Way::WakeOnly) {
            tell(&format!("note: {}", refusal::cannot_see(&survey.workload).message));
        }
        if survey.workload.autoscaler.spec.min_replicas.is_none() {
            tell("note: minReplicas is 1, so one pod stays; --min 0 lets it go");
        }
        tell(&format!("`pilotlight kube explain {}` says what it does", self.target.name));
    }

    /// The YAML for Git.
    fn for_git(&self) -> String {
        let mut head = String::new();
        if self.exact {
            let services = match self.service.as_slice() {
                [] => "every Service that selects its pods".to_owned(),
                services => format!("Service {}", services.join(" and ")),
            };
            head = format!(
                "# Remove spec.selector from {services} as well: all requests then pass the activators.\n"
            );
        }
        format!("{head}{}", to_yaml(&self.object(self.place.namespace.as_deref())))
    }

    /// The RequestAutoscaler, with what was said and nothing else.
    fn object(&self, namespace: Option<&str>) -> Value {
        let ScaleTargetRef { api_version, kind, name } = &self.target;
        let mut spec = json!({"scaleTargetRef": {"apiVersion": api_version, "kind": kind, "name": name}});
        let mut set = |field: &str, value: Option<Value>| {
            if let Some(value) = value {
                spec[field] = value;
            }
        };
        let services: Vec<Value> = self.service.iter().map(|name| json!({"name": name})).collect();
        set("services", (!services.is_empty()).then_some(Value::Array(services)));
        set("interception", self.exact.then(|| json!("Always")));
        set("minReplicas", self.min.map(|pods| json!(pods)));
        set("maxReplicas", self.max.map(|pods| json!(pods)));
        set("target", self.target_value.map(|target| json!(target)));
        set("mode", self.mode.map(|mode| json!(format!("{mode:?}"))));
        let mut metadata = json!({"name": name});
        if let Some(namespace) = namespace {
            metadata["namespace"] = json!(namespace);
        }
        json!({"apiVersion": "pilotlight.dev/v1alpha1", "kind": "RequestAutoscaler", "metadata": metadata, "spec": spec})
    }
}

/// The RequestAutoscaler that there will be.
fn changed(there: Option<&RequestAutoscaler>, object: &Value) -> serde_json::Result<RequestAutoscaler> {
    let mut whole = there.map_or(Ok(Value::Null), serde_json::to_value)?;
    if whole.is_null() {
        return serde_json::from_value(object.clone());
    }
    for (field, value) in object["spec"].as_object().into_iter().flatten() {
        whole["spec"][field] = value.clone();
    }
    serde_json::from_value(whole)
}
