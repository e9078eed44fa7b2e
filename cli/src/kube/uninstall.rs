//! Taking Pilotlight off a cluster, with everything as it was.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Api, DeleteParams, ListParams, ObjectList, Patch, PatchParams};
use kube::{Client, ResourceExt};
use pilotlight_config::duration;
use pilotlight_controller::crd::RequestAutoscaler;
use pilotlight_kubernetes::scale::Scales;
use serde_json::{Value, json};

use super::apply::{delete, release, title};
use super::disable::restore_selectors;
use super::place::SystemArgs;
use super::wait::{Waiting, wait};
use super::{install, status, tell};

#[derive(Debug, Args)]
pub(super) struct UninstallArgs {
    /// Restore everything from here, if the controller cannot: wake what sleeps, lead traffic back, let objects go
    #[arg(long)]
    force: bool,
    /// How long the controller may take to restore everything
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration::parse)]
    timeout: Duration,
    #[command(flatten)]
    system: SystemArgs,
}

impl UninstallArgs {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let client = self.system.connect().await?;
        // Without their definition there are none.
        let autoscalers = status::list(&client, None).await.unwrap_or_default();
        for autoscaler in &autoscalers {
            restore_selectors(&client, autoscaler).await?;
        }
        if self.force {
            self.restore(&client, &autoscalers).await?;
        }
        for autoscaler in &autoscalers {
            let (namespace, name) = (autoscaler.namespace().unwrap_or_default(), autoscaler.name_any());
            let api: Api<RequestAutoscaler> = Api::namespaced(client.clone(), &namespace);
            gone(api.delete(&name, &DeleteParams::default()).await.map(drop))
                .with_context(|| format!("cannot delete RequestAutoscaler {namespace}/{name}"))?;
        }
        wait(self.timeout, async || are_gone(&client).await).await.context(
            "the controller does not restore them; `pilotlight kube uninstall --force` does it without",
        )?;
        let mut objects = install::objects(&self.system.system_namespace);
        objects.reverse();
        objects.extend(roles_elsewhere(&client).await?);
        for object in &objects {
            // Nothing is left to restore, so nothing has to be held for it.
            release(&client, object).await?;
            if delete(&client, object).await? {
                tell(&format!("deleted {}", title(object)));
            }
        }
        tell("Pilotlight is off this cluster; its namespace goes as soon as its pods have ended");
        Ok(ExitCode::SUCCESS)
    }

    /// What the controller does when a RequestAutoscaler goes: wake, wait for pods, take the slices away, let it go.
    async fn restore(&self, client: &Client, autoscalers: &[RequestAutoscaler]) -> anyhow::Result<()> {
        let scales = Scales::new(client.clone());
        for autoscaler in autoscalers {
            let (namespace, name) = (autoscaler.namespace().unwrap_or_default(), autoscaler.name_any());
            let target = (&autoscaler.spec.scale_target_ref).into();
            match scales.read(&namespace, &target).await {
                Ok((scale, _)) if scale.replicas == 0 => {
                    let pods = autoscaler.spec.min_replicas.unwrap_or(1).max(1);
                    scales
                        .set(&namespace, &target, pods)
                        .await
                        .with_context(|| format!("cannot wake {namespace}/{name}"))?;
                    tell(&format!("{namespace}/{name}: woken to {pods}"));
                }
                Ok(_) => {}
                Err(error) => tell(&format!("{namespace}/{name}: its target is left as it is: {error}")),
            }
        }
        let slices: Api<EndpointSlice> = Api::all(client.clone());
        let ours = ListParams::default().labels(SLICES);
        for slice in slices.list(&ours).await.context("cannot read EndpointSlices")? {
            let (namespace, name) = (slice.namespace().unwrap_or_default(), slice.name_any());
            let api: Api<EndpointSlice> = Api::namespaced(client.clone(), &namespace);
            gone(api.delete(&name, &DeleteParams::default()).await.map(drop))
                .with_context(|| format!("cannot delete EndpointSlice {namespace}/{name}"))?;
        }
        for autoscaler in autoscalers {
            let (namespace, name) = (autoscaler.namespace().unwrap_or_default(), autoscaler.name_any());
            let api: Api<RequestAutoscaler> = Api::namespaced(client.clone(), &namespace);
            let others = autoscaler.finalizers().iter().filter(|finalizer| *finalizer != RESTORE);
            let patch = json!({"metadata": {"finalizers": others.collect::<Vec<_>>()}});
            gone(api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop))
                .with_context(|| format!("cannot let RequestAutoscaler {namespace}/{name} go"))?;
        }
        Ok(())
    }
}

async fn are_gone(client: &Client) -> anyhow::Result<Waiting> {
    let left = status::list(client, None).await.unwrap_or_default();
    match left.len() {
        0 => Ok(Waiting::Done),
        number => Ok(Waiting::Not(format!("{number} workloads are being restored by the controller"))),
    }
}

/// Roles and bindings of an installation that looks after some namespaces only.
async fn roles_elsewhere(client: &Client) -> anyhow::Result<Vec<Value>> {
    let ours = ListParams::default().labels("app.kubernetes.io/name=pilotlight");
    let roles: Vec<Role> = listed(Api::all(client.clone()).list(&ours).await)?;
    let bindings: Vec<RoleBinding> = listed(Api::all(client.clone()).list(&ours).await)?;
    let object = |kind: &str, namespace: Option<String>, name: String| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
            "metadata": {"namespace": namespace, "name": name}})
    };
    let roles = roles.iter().map(|role| object("Role", role.namespace(), role.name_any()));
    let bindings =
        bindings.iter().map(|binding| object("RoleBinding", binding.namespace(), binding.name_any()));
    Ok(bindings.chain(roles).collect())
}

/// Objects of a list. Whoever may not read all namespaces has none in others.
fn listed<K: Clone>(list: kube::Result<ObjectList<K>>) -> anyhow::Result<Vec<K>> {
    match list {
        Ok(list) => Ok(list.items),
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => Ok(Vec::new()),
        Err(error) => Err(error).context("cannot read Roles"),
    }
}

/// The same; what is not there is gone.
fn gone(result: kube::Result<()>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other,
    }
}

/// The label of slices that are ours.
const SLICES: &str = "endpointslice.kubernetes.io/managed-by=pilotlight.dev";
/// The finalizer of RequestAutoscalers that have something to restore.
const RESTORE: &str = "pilotlight.dev/restore";
