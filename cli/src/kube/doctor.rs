//! Everything that stands in the way of a cluster or of a workload, and what to do about it.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Client;
use kube::api::{Api, PostParams};
use pilotlight_config::AutoscalerConfig;
use pilotlight_controller::crd::{RequestAutoscaler, RequestAutoscalerSpec, ScaleTargetRef};
use pilotlight_controller::manifest::{ACTIVATOR_NAME, NAME};
use pilotlight_controller::refusal::{self, Way, look};
use pilotlight_controller::settings::accept;
use pilotlight_controller::survey::{Survey, survey};

use super::place::{Place, PlaceArgs};
use super::{install, reference, status};
use crate::output::print;

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// A workload, such as deploy/web, whether or not it is scaled yet
    #[arg(value_name = "KIND/NAME", value_parser = reference::target)]
    target: Option<ScaleTargetRef>,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Findings, line by line.
#[derive(Default)]
struct Findings {
    lines: Vec<String>,
    has_fault: bool,
}

impl Findings {
    fn ok(&mut self, text: impl AsRef<str>) {
        self.lines.push(format!("ok       {}", text.as_ref()));
    }

    fn warning(&mut self, text: impl AsRef<str>) {
        self.lines.push(format!("warning  {}", text.as_ref()));
    }

    fn fault(&mut self, text: impl AsRef<str>) {
        self.lines.push(format!("fault    {}", text.as_ref()));
        self.has_fault = true;
    }
}

impl DoctorArgs {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let place = self.place.connect().await?;
        let mut findings = Findings::default();
        let is_installed = of_cluster(&place, &mut findings).await?;
        of_rights(&place, &mut findings).await?;
        if let Some(target) = &self.target {
            of_workload(&place, target, is_installed, &mut findings).await?;
        }
        print(&(findings.lines.join("\n") + "\n"))?;
        Ok(if findings.has_fault { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// Whether Pilotlight is there and runs. Returns whether RequestAutoscalers are served.
async fn of_cluster(place: &Place, findings: &mut Findings) -> anyhow::Result<bool> {
    match install::version(&place.client).await {
        Ok(version) => findings.ok(format!("Kubernetes is {version}")),
        Err(error) => findings.fault(error.to_string()),
    }
    let is_installed = match status::list(&place.client, Some(&place.namespace)).await {
        Ok(_) => {
            findings.ok("RequestAutoscalers are served");
            true
        }
        Err(error) => {
            findings.fault(format!("{error:#}"));
            false
        }
    };
    if is_installed {
        let deployments: Api<Deployment> = Api::namespaced(place.client.clone(), &place.system_namespace);
        for name in [NAME, ACTIVATOR_NAME] {
            let deployment = deployments.get_opt(name).await;
            match deployment {
                Ok(None) => findings.fault(format!(
                    "Deployment {}/{name} is not there; `pilotlight kube install` makes it",
                    place.system_namespace
                )),
                Ok(Some(deployment)) => match install::lacking(&deployment) {
                    None => findings.ok(format!("{name} runs")),
                    Some(lacking) => findings.fault(format!("{name}: {lacking}")),
                },
                Err(error) => findings.warning(format!("cannot see whether {name} runs: {error}")),
            }
        }
    }
    let cluster =
        look::cluster(&place.client, &place.system_namespace).await.context("cannot look at the cluster")?;
    for plane in cluster.data_planes() {
        findings.ok(format!("{} is there", plane.name()));
    }
    if !cluster.has_pod_metrics() {
        findings
            .warning("the pods' CPU is not known (no metrics.k8s.io): interception AtZero by CPU is refused");
    }
    Ok(is_installed)
}

/// Rights that whoever asks needs for `kube enable`.
async fn of_rights(place: &Place, findings: &mut Findings) -> anyhow::Result<()> {
    for (verb, group, resource, what) in [
        ("create", "pilotlight.dev", "requestautoscalers", "have workloads scaled"),
        ("delete", "pilotlight.dev", "requestautoscalers", "leave workloads alone again"),
        ("patch", "", "services", "take selectors away (enable --exact)"),
    ] {
        if may(&place.client, &place.namespace, verb, group, resource).await? {
            findings.ok(format!("you may {what} in {}", place.namespace));
        } else {
            let dot = if group.is_empty() { "" } else { "." };
            findings.warning(format!(
                "you may not {what} in {}: the right to {verb} {resource}{dot}{group} is missing",
                place.namespace
            ));
        }
    }
    Ok(())
}

async fn may(
    client: &Client,
    namespace: &str,
    verb: &str,
    group: &str,
    resource: &str,
) -> anyhow::Result<bool> {
    let text = |text: &str| Some(text.to_owned());
    let attributes = ResourceAttributes {
        namespace: text(namespace),
        verb: text(verb),
        group: text(group),
        resource: text(resource),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec {
        resource_attributes: Some(attributes),
        ..SelfSubjectAccessReviewSpec::default()
    };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let answer = api.create(&PostParams::default(), &review).await.context("cannot ask for rights")?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

async fn of_workload(
    place: &Place,
    target: &ScaleTargetRef,
    is_installed: bool,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let there =
        if is_installed { status::list(&place.client, Some(&place.namespace)).await? } else { Vec::new() };
    let of_target = |autoscaler: &RequestAutoscaler| {
        let other = &autoscaler.spec.scale_target_ref;
        other.kind == target.kind && other.name == target.name
    };
    let thought = || {
        let spec =
            RequestAutoscalerSpec { scale_target_ref: target.clone(), ..RequestAutoscalerSpec::default() };
        RequestAutoscaler::new(&target.name, spec)
    };
    let short = reference::short(target);
    let autoscaler = there.into_iter().find(of_target).unwrap_or_else(thought);
    let Survey { workload, surroundings, replicas } =
        match survey(&place.client, &place.system_namespace, &place.namespace, &autoscaler).await {
            Ok(survey) => survey,
            Err(error) => {
                findings.fault(format!("{:#}", anyhow::Error::from(error)));
                return Ok(());
            }
        };
    findings.ok(format!("{short} asks for {replicas} pods, and {} are there", workload.pods.len()));
    for name in workload.services.keys() {
        findings.ok(format!("Service {name} leads to it"));
    }
    let annotations =
        surroundings.target.as_ref().map(|target| target.annotations.clone()).unwrap_or_default();
    match accept(&workload, &annotations, &AutoscalerConfig::default()) {
        Ok(accepted) => accepted.warnings.iter().for_each(|warning| findings.warning(warning)),
        Err(faults) => faults.iter().for_each(|fault| findings.fault(fault)),
    }
    for refusal in refusal::refusals(&workload, &surroundings) {
        findings.fault(format!("{}: {refusal}", refusal.reason));
    }
    match refusal::way(&workload, &surroundings) {
        Ok(Way::Always) => findings.ok("all requests pass the activators: exact"),
        Ok(Way::AtZero(signal)) => {
            findings
                .ok(format!("requests pass the activators while there are no pods; above zero: {signal:?}"));
        }
        Ok(Way::WakeOnly) => {
            findings.warning(format!("CannotSee: {}", refusal::cannot_see(&workload).message));
        }
        Err(_) => {}
    }
    for warning in refusal::warnings(&workload, &surroundings) {
        findings.warning(format!("{}: {}", warning.reason, warning.message));
    }
    Ok(())
}
