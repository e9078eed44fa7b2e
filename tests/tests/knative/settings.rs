//! The operator changes `config-autoscaler`.

use k8s_openapi::api::core::v1::Event;
use kube::api::{Api, ListParams};
use pilotlight_tests::cluster::SYSTEM_NAMESPACE;
use pilotlight_tests::eventually;

use crate::support::{LATER, cluster, ready_revision};

#[tokio::test]
async fn a_change_takes_effect_and_an_illegal_one_leaves_what_was_there() {
    let cluster = cluster().await;
    ready_revision(&cluster, "hello", &[]).await;
    cluster.configure(&[("min-scale", "2")]).await.expect("changed");
    cluster.has_scale("hello", 2, LATER).await;

    // One key is illegal: the other must not take effect either.
    cluster.configure(&[("stable-window", "1s"), ("min-scale", "3")]).await.expect("changed");
    let api: Api<Event> = Api::namespaced(cluster.client.clone(), SYSTEM_NAMESPACE);
    let is_refused = async || {
        let events = api.list(&ListParams::default()).await.ok()?.items;
        events.into_iter().find(|event| event.involved_object.name.as_deref() == Some("config-autoscaler"))
    };
    let event = eventually("an Event says that it was refused", LATER, is_refused).await;
    assert!(event.message.unwrap_or_default().contains("stable-window"));
    ready_revision(&cluster, "later", &[]).await;
    cluster.has_scale("later", 2, LATER).await;
    assert_eq!(cluster.replicas_of("hello"), [1, 2]);

    cluster.configure(&[("stable-window", "6s")]).await.expect("changed");
    cluster.has_scale("hello", 3, LATER).await;
}
