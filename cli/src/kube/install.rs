//! Putting Pilotlight on a cluster.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use pilotlight_config::duration;
use pilotlight_controller::manifest::{self, ACTIVATOR_NAME, ManifestParams, NAME};
use pilotlight_kubernetes::trouble::trouble_of;
use serde_json::Value;

use super::apply::{apply, title};
use super::place::SystemArgs;
use super::tell;
use super::wait::{Waiting, wait};
use crate::output::print;

/// Flags of an installation. `kube uninstall` takes the same ones away.
#[derive(Debug, Args)]
pub(super) struct InstallArgs {
    /// Print the manifest, and change nothing; needs no cluster
    #[arg(long)]
    dry_run: bool,
    /// The image of both programs [default: that of this version]
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Look after these namespaces only, by Roles instead of ClusterRoles
    #[arg(long, short, value_name = "NAMES", value_delimiter = ',')]
    namespace: Vec<String>,
    /// Let the controller patch pods, to say which are to go first; it is a right to change their images
    #[arg(long)]
    with_deletion_cost: bool,
    /// How long both programs may take to become ready
    #[arg(long, value_name = "DURATION", default_value = "3m", value_parser = duration::parse)]
    timeout: Duration,
    #[command(flatten)]
    system: SystemArgs,
}

impl InstallArgs {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let defaults = ManifestParams::default();
        let params = ManifestParams {
            image: self.image.unwrap_or(defaults.image),
            system_namespace: self.system.system_namespace.clone(),
            namespaces: self.namespace,
            with_deletion_cost: self.with_deletion_cost,
        };
        if self.dry_run {
            print(&manifest::yaml(&params))?;
            return Ok(ExitCode::SUCCESS);
        }
        let client = self.system.connect().await?;
        for object in manifest::objects(&params) {
            apply(&client, &object).await?;
            tell(&format!("applied {}", title(&object)));
            if object["kind"] == "CustomResourceDefinition" {
                wait(SERVED_WITHIN, async || is_served(&client).await).await?;
            }
        }
        tell("Waiting until both programs are ready");
        wait(self.timeout, async || are_ready(&client, &params.system_namespace).await).await.with_context(
            || {
                format!(
                    "Pilotlight is applied, and not ready; `kubectl -n {} get pods` shows more",
                    params.system_namespace
                )
            },
        )?;
        tell(
            "Pilotlight is ready. Next: `pilotlight kube doctor deploy/NAME` says what a workload needs, \
             `pilotlight kube enable deploy/NAME --min 0` has it scaled",
        );
        Ok(ExitCode::SUCCESS)
    }
}

/// Whether RequestAutoscalers are served.
async fn is_served(client: &Client) -> anyhow::Result<Waiting> {
    let waiting = || Waiting::Not("the API server does not serve RequestAutoscalers yet".to_owned());
    match client.list_api_group_resources("pilotlight.dev/v1alpha1").await {
        Ok(list) if list.resources.iter().any(|known| known.name == "requestautoscalers") => {
            Ok(Waiting::Done)
        }
        Ok(_) => Ok(waiting()),
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 503 => Ok(waiting()),
        Err(error) => Err(error).context("cannot ask for RequestAutoscalers"),
    }
}

async fn are_ready(client: &Client, namespace: &str) -> anyhow::Result<Waiting> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    for name in [NAME, ACTIVATOR_NAME] {
        let deployment =
            deployments.get(name).await.with_context(|| format!("cannot read Deployment {name}"))?;
        if let Some(lacking) = lacking(&deployment) {
            let why = trouble(client, &deployment).await.map(|why| format!(": {why}")).unwrap_or_default();
            return Ok(Waiting::Not(format!("{name}: {lacking}{why}")));
        }
    }
    Ok(Waiting::Done)
}

/// The pods that a Deployment lacks to be rolled out.
pub(super) fn lacking(deployment: &Deployment) -> Option<String> {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let status = deployment.status.clone().unwrap_or_default();
    let (updated, available) = (status.updated_replicas.unwrap_or(0), status.available_replicas.unwrap_or(0));
    let is_seen = status.observed_generation >= deployment.metadata.generation;
    (!is_seen || updated < wanted || available < wanted || status.replicas.unwrap_or(0) > wanted)
        .then(|| format!("{available} of {wanted} pods are ready"))
}

/// Why pods of a Deployment do not come up, as Kubernetes tells it.
async fn trouble(client: &Client, deployment: &Deployment) -> Option<String> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &deployment.namespace()?);
    let labels = deployment.spec.as_ref()?.selector.match_labels.clone()?;
    let labels: Vec<String> = labels.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    let listed = pods.list(&ListParams::default().labels(&labels.join(","))).await.ok()?;
    let trouble = listed.iter().find_map(|pod| trouble_of(pod.status.as_ref()?))?;
    Some(format!("{}: {}", trouble.word, trouble.message))
}

/// Whether the cluster is one that is supported.
pub(super) async fn version(client: &Client) -> anyhow::Result<String> {
    let version = client.apiserver_version().await.context("cannot ask for the version of Kubernetes")?;
    let number = |text: &str| text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().ok();
    match (number(&version.major), number(&version.minor)) {
        (Some(major), Some(minor)) if (major, minor) < OLDEST => Err(anyhow!(
            "Kubernetes is {}, and must be {}.{} or newer",
            version.git_version,
            OLDEST.0,
            OLDEST.1
        )),
        _ => Ok(version.git_version),
    }
}

/// The objects of an installation of either kind, for whoever takes them away.
pub(super) fn objects(system_namespace: &str) -> Vec<Value> {
    manifest::objects(&ManifestParams {
        system_namespace: system_namespace.to_owned(),
        ..ManifestParams::default()
    })
}

const SERVED_WITHIN: Duration = Duration::from_secs(30);
/// The oldest Kubernetes that Pilotlight is built for.
const OLDEST: (u32, u32) = (1, 33);
