//! Lists: pages, versions and selectors.

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{ListParams, ObjectList, PostParams, VersionMatch};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::support::{Cluster, cluster_under_test, pod, reason, version};

fn names<K: ResourceExt + Clone>(list: &ObjectList<K>) -> Vec<String> {
    list.items.iter().map(ResourceExt::name_any).collect()
}

async fn create_maps(cluster: &Cluster, names: &[&str]) {
    for name in names {
        cluster.create_map(name, json!({})).await;
    }
}

#[tokio::test]
async fn a_list_is_in_the_order_of_names() {
    let cluster = cluster_under_test().await;
    create_maps(&cluster, &["c", "a", "b"]).await;
    let params = ListParams::default().fields("metadata.name!=kube-root-ca.crt");
    let list = cluster.api::<ConfigMap>().list(&params).await.expect("a list");
    assert_eq!(names(&list), ["a", "b", "c"]);
    assert!(list.metadata.resource_version.is_some() && list.metadata.continue_.is_none());
}

#[tokio::test]
async fn the_version_of_a_list_is_that_of_the_last_change_or_later() {
    let cluster = cluster_under_test().await;
    let pod = cluster.create_pod("a").await;
    let list = cluster.api::<Pod>().list(&ListParams::default()).await.expect("a list");
    let number = |text: &str| text.parse::<u64>().expect("a number");
    assert!(number(&list.metadata.resource_version.expect("a version")) >= number(&version(&pod)));
}

#[tokio::test]
async fn pages_show_one_version() {
    let cluster = cluster_under_test().await;
    let pods = cluster.api::<Pod>();
    for name in ["a", "b", "c", "d", "e"] {
        cluster.create_pod(name).await;
    }
    let params = ListParams::default().limit(2);
    let first = pods.list(&params).await.expect("a page");
    assert_eq!((names(&first), first.metadata.remaining_item_count), (vec!["a".into(), "b".into()], Some(3)));
    pods.delete("c", &kube::api::DeleteParams::default().grace_period(0)).await.expect("deleted");
    cluster.create_pod("bb").await;
    let token = first.metadata.continue_.expect("more");
    let second = pods.list(&params.clone().continue_token(&token)).await.expect("a page");
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(second.metadata.resource_version, first.metadata.resource_version);
    let token = second.metadata.continue_.expect("more");
    let third = pods.list(&params.continue_token(&token)).await.expect("a page");
    assert_eq!(names(&third), ["e"]);
    assert!(third.metadata.continue_.is_none());
}

#[tokio::test]
async fn a_list_at_exactly_a_version_is_as_it_was() {
    let cluster = cluster_under_test().await;
    let first = cluster.create_pod("a").await;
    cluster.create_pod("b").await;
    let params = ListParams::default().at(&version(&first)).matching(VersionMatch::Exact);
    let list = cluster.api::<Pod>().list(&params).await.expect("a list");
    assert_eq!(names(&list), ["a"]);
    assert_eq!(list.metadata.resource_version, first.resource_version());
}

#[tokio::test]
async fn a_list_not_older_than_a_version_has_it() {
    let cluster = cluster_under_test().await;
    cluster.create_pod("a").await;
    let second = cluster.create_pod("b").await;
    let params = ListParams::default().at(&version(&second)).matching(VersionMatch::NotOlderThan);
    assert_eq!(names(&cluster.api::<Pod>().list(&params).await.expect("a list")), ["a", "b"]);
}

#[tokio::test]
async fn a_list_of_version_0_is_any_version() {
    let cluster = cluster_under_test().await;
    let list = cluster.api::<Pod>().list(&ListParams::default().at("0")).await.expect("a list");
    assert!(list.metadata.resource_version.is_some_and(|version| version != "0"));
}

#[tokio::test]
async fn a_version_of_the_future_is_too_large() {
    let cluster = cluster_under_test().await;
    let params = ListParams::default().at("999999999999").matching(VersionMatch::NotOlderThan);
    assert_eq!(reason(cluster.api::<Pod>().list(&params).await), (504, "Timeout".into()));
}

#[tokio::test]
async fn labels_select() {
    let cluster = cluster_under_test().await;
    for (name, tier) in [("a", "web"), ("b", "db"), ("c", "web")] {
        let mut object = pod(name);
        object["metadata"]["labels"]["tier"] = tier.into();
        cluster.create::<Pod>(object).await;
    }
    let pods = cluster.api::<Pod>();
    let cases: [(&str, &[&str]); 7] = [
        ("tier=web", &["a", "c"]),
        ("tier!=web", &["b"]),
        ("tier in (web,db),app notin (a)", &["b", "c"]),
        ("tier", &["a", "b", "c"]),
        ("!tier", &[]),
        ("app==c", &["c"]),
        ("tier=web,app=b", &[]),
    ];
    for (selector, expected) in cases {
        let list = pods.list(&ListParams::default().labels(selector)).await.expect("a list");
        assert_eq!(names(&list), expected, "{selector}");
    }
    assert_eq!(reason(pods.list(&ListParams::default().labels("a in")).await), (400, "BadRequest".into()));
}

#[tokio::test]
async fn fields_select() {
    let cluster = cluster_under_test().await;
    for name in ["a", "b"] {
        cluster.create_pod(name).await;
    }
    let pods: Api<Pod> = Api::all(cluster.client.clone());
    let here = format!("metadata.namespace={}", cluster.namespace);
    let cases: [(&str, &[&str]); 5] = [
        ("metadata.name=a", &["a"]),
        ("metadata.name!=a", &["b"]),
        ("status.phase=Pending", &["a", "b"]),
        ("status.phase=Running", &[]),
        ("spec.nodeName=", &["a", "b"]),
    ];
    for (selector, expected) in cases {
        let list =
            pods.list(&ListParams::default().fields(&format!("{selector},{here}"))).await.expect("a list");
        assert_eq!(names(&list), expected, "{selector}");
    }
}

#[tokio::test]
async fn events_are_selected_by_what_they_are_about() {
    let cluster = cluster_under_test().await;
    let object =
        |name: &str| json!({"kind": "Pod", "name": name, "namespace": cluster.namespace, "uid": name});
    for name in ["a", "b"] {
        let event = json!({
            "metadata": {"name": format!("{name}.1")}, "involvedObject": object(name), "reason": "R", "message": "m", "type": "Normal"
        });
        cluster.create::<k8s_openapi::api::core::v1::Event>(event).await;
    }
    let events = cluster.api::<k8s_openapi::api::core::v1::Event>();
    let params = ListParams::default().fields("involvedObject.kind=Pod,involvedObject.name=b");
    assert_eq!(names(&events.list(&params).await.expect("a list")), ["b.1"]);
}

#[tokio::test]
async fn metadata_can_be_had_alone() {
    let cluster = cluster_under_test().await;
    cluster.create_pod("a").await;
    let pods = cluster.api::<Pod>();
    let list = pods.list_metadata(&ListParams::default()).await.expect("a list");
    assert_eq!(list.items[0].name_any(), "a");
    assert_eq!(pods.get_metadata("a").await.expect("metadata").labels()["app"], "a");
}

#[tokio::test]
async fn all_namespaces_are_listed_together() {
    let cluster = cluster_under_test().await;
    let other = Api::<k8s_openapi::api::core::v1::Namespace>::all(cluster.client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"generateName": "pilotlight-test-"}}))
        .expect("a namespace");
    let namespace = other.create(&PostParams::default(), &namespace).await.expect("created").name_any();
    let mut object = pod("a");
    object["metadata"]["labels"]["test"] = cluster.namespace.as_str().into();
    cluster.create::<Pod>(object.clone()).await;
    let elsewhere: Api<Pod> = Api::namespaced(cluster.client.clone(), &namespace);
    let object = serde_json::from_value(object).expect("a pod");
    elsewhere.create(&PostParams::default(), &object).await.expect("created");
    let params = ListParams::default().labels(&format!("test={}", cluster.namespace));
    let all = Api::<Pod>::all(cluster.client.clone()).list(&params).await.expect("a list");
    assert_eq!(all.items.len(), 2);
    assert_eq!(cluster.api::<Pod>().list(&params).await.expect("a list").items.len(), 1);
}
