//! Leaving a workload alone again.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use kube::api::{Api, DeleteParams};
use kube::{Client, ResourceExt};
use pilotlight_config::duration;
use pilotlight_controller::crd::{RequestAutoscaler, ScaleTargetRef};

use super::place::PlaceArgs;
use super::wait::{Waiting, wait};
use super::{reference, selectors, status, tell};

#[derive(Debug, Args)]
pub(super) struct DisableArgs {
    /// Workload that is left alone, such as deploy/web
    #[arg(value_name = "KIND/NAME", value_parser = reference::target)]
    target: ScaleTargetRef,
    /// How long the controller may take to wake it and to lead its traffic back
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration::parse)]
    timeout: Duration,
    #[command(flatten)]
    place: PlaceArgs,
}

impl DisableArgs {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let place = self.place.connect().await?;
        let short = reference::short(&self.target);
        let all = status::list(&place.client, Some(&place.namespace)).await?;
        let of_target = |autoscaler: &&RequestAutoscaler| {
            let target = &autoscaler.spec.scale_target_ref;
            target.kind == self.target.kind && target.name == self.target.name
        };
        let Some(autoscaler) = all.iter().find(of_target) else {
            return Err(anyhow!("no RequestAutoscaler in {} scales {short}", place.namespace));
        };
        restore_selectors(&place.client, autoscaler).await?;
        let name = autoscaler.name_any();
        let api: Api<RequestAutoscaler> = Api::namespaced(place.client.clone(), &place.namespace);
        api.delete(&name, &DeleteParams::default())
            .await
            .with_context(|| format!("cannot delete RequestAutoscaler {name}"))?;
        wait(self.timeout, async || is_gone(&api, &name).await).await.context(
            "the controller does not restore it; `pilotlight kube doctor` says whether it runs, and \
             `pilotlight kube uninstall --force` restores everything without it",
        )?;
        tell(&format!("{short} is left alone: its Service leads to its pods again, and nothing scales it"));
        Ok(ExitCode::SUCCESS)
    }
}

/// Puts the selectors of a workload's Services back, as far as they are kept.
pub(super) async fn restore_selectors(client: &Client, autoscaler: &RequestAutoscaler) -> anyhow::Result<()> {
    let namespace = autoscaler.namespace().unwrap_or_default();
    let named: Vec<&str> = autoscaler.spec.services.iter().map(|service| service.name.as_str()).collect();
    let ports = autoscaler.status.as_ref().map(|status| status.ports.clone()).unwrap_or_default();
    let is_own = |name: &str| {
        let in_status = || ports.keys().any(|key| key.split('/').next() == Some(name));
        named.contains(&name) || (named.is_empty() && (in_status() || ports.is_empty()))
    };
    for service in selectors::keeping(client, Some(&namespace)).await? {
        let name = service.name_any();
        if is_own(&name)
            && let Some(kept) = selectors::put_back(client, &service).await?
        {
            tell(&format!("Service {namespace}/{name} has its selector again: {kept}"));
        }
    }
    Ok(())
}

async fn is_gone(api: &Api<RequestAutoscaler>, name: &str) -> anyhow::Result<Waiting> {
    match api.get_opt(name).await.context("cannot read the RequestAutoscaler")? {
        None => Ok(Waiting::Done),
        Some(_) => Ok(Waiting::Not("waiting for the controller to restore it".to_owned())),
    }
}
