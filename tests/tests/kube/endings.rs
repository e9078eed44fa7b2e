//! RequestAutoscalers, and all of Pilotlight, are deleted.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams};
use pilotlight_controller::crd::RequestAutoscaler;
use pilotlight_tests::cluster::plain::{PlainCluster, SYSTEM_NAMESPACE, WorkloadSpec};
use pilotlight_tests::eventually;

use crate::support::{LATER, cluster, created, goes_on, is_answered, load, nothing_is_left, nothing_is_lost};

async fn is_gone(cluster: &PlainCluster, name: &str) {
    eventually("the RequestAutoscaler is gone", LATER, async || {
        cluster.api::<RequestAutoscaler>().get_opt(name).await.ok()?.is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_request_autoscaler_that_is_deleted_wakes_what_slept_and_cuts_nothing() {
    let cluster = cluster().await;
    let selected = WorkloadSpec { has_selector: true, ..WorkloadSpec::exact("selected") };
    for spec in [&WorkloadSpec::exact("asleep"), &WorkloadSpec::exact("busy")] {
        created(&cluster, spec).await;
    }
    cluster.create(&selected).await.expect("created");
    cluster.has_condition("selected", "Intercepting", ("True", "AtZero"), LATER).await;
    let load = load(&cluster, "busy", 3);
    cluster.has_scale("busy", 2, LATER).await;
    for name in ["asleep", "busy", "selected"] {
        cluster.delete::<RequestAutoscaler>(name).await.expect("deleted");
    }
    for (name, pods) in [("asleep", 1), ("busy", 2), ("selected", 1)] {
        is_gone(&cluster, name).await;
        cluster.has_scale(name, pods, LATER).await;
    }
    goes_on(&load, 3 * 5 * 3).await;
    nothing_is_lost(&load.finish().await);
    is_answered(&cluster, "asleep").await;
    is_answered(&cluster, "selected").await;
    nothing_is_left(&cluster).await;
}

/// As `kubectl delete -f`: everything is deleted at once, the rights among it, and only finalizers hold them.
#[tokio::test]
async fn everything_that_is_deleted_at_once_goes_when_all_is_as_it_was() {
    let cluster = cluster().await;
    let selected = WorkloadSpec { has_selector: true, ..WorkloadSpec::exact("selected") };
    created(&cluster, &WorkloadSpec::exact("asleep")).await;
    cluster.create(&selected).await.expect("created");
    cluster.has_condition("selected", "Intercepting", ("True", "AtZero"), LATER).await;
    let (client, now) = (&cluster.client, DeleteParams::default());
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let (roles, bindings): (Api<ClusterRole>, Api<ClusterRoleBinding>) =
        (Api::all(client.clone()), Api::all(client.clone()));
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    eventually("finalizers hold the rights", LATER, async || {
        let of = [
            accounts.get("pilotlight").await.ok()?.metadata.finalizers,
            roles.get("pilotlight").await.ok()?.metadata.finalizers,
            bindings.get("pilotlight").await.ok()?.metadata.finalizers,
        ];
        let is_held = |each: Option<Vec<String>>| each.is_some_and(|all| all == ["pilotlight.dev/uninstall"]);
        of.into_iter().all(is_held).then_some(())
    })
    .await;
    accounts.delete("pilotlight", &now).await.expect("deleted");
    roles.delete("pilotlight", &now).await.expect("deleted");
    bindings.delete("pilotlight", &now).await.expect("deleted");
    for name in ["asleep", "selected"] {
        cluster.delete::<RequestAutoscaler>(name).await.expect("deleted");
    }
    for name in ["asleep", "selected"] {
        is_gone(&cluster, name).await;
        let replicas =
            cluster.api::<Deployment>().get(name).await.expect("there").spec.and_then(|spec| spec.replicas);
        assert_eq!(replicas, Some(1), "{name}");
    }
    eventually("nothing of ours is held", LATER, async || {
        let account = accounts.get_opt("pilotlight").await.ok()?;
        let role = roles.get_opt("pilotlight").await.ok()?;
        let binding = bindings.get_opt("pilotlight").await.ok()?;
        (account.is_none() && role.is_none() && binding.is_none()).then_some(())
    })
    .await;
    crds.delete("requestautoscalers.pilotlight.dev", &now).await.expect("deleted");
    namespaces.delete(SYSTEM_NAMESPACE, &now).await.expect("deleted");
    is_answered(&cluster, "selected").await;
    is_answered(&cluster, "asleep").await;
}
