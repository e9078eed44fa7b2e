//! Creates and updates: what is filled in, what is refused, what counts as a change.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret, Service};
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use serde_json::json;

use crate::support::{cluster_under_test, deployment, pod, reason, refusal, value, version};

#[tokio::test]
async fn a_new_object_gets_a_uid_a_time_and_a_version() {
    let cluster = cluster_under_test().await;
    let map = cluster.create_map("a", json!({"k": "v"})).await;
    assert!(map.uid().is_some_and(|uid| uid.len() == 36), "{map:?}");
    assert!(map.creation_timestamp().is_some() && map.resource_version().is_some(), "{map:?}");
    assert_eq!(map.namespace(), Some(cluster.namespace.clone()));
    let read = cluster.api::<ConfigMap>().get("a").await.expect("there");
    assert_eq!(value(&read), value(&map));
}

#[tokio::test]
async fn generated_names_differ() {
    let cluster = cluster_under_test().await;
    let object = json!({"metadata": {"generateName": "a-"}});
    let (first, second): (ConfigMap, ConfigMap) =
        (cluster.create(object.clone()).await, cluster.create(object).await);
    assert!(first.name_any().starts_with("a-") && first.name_any().len() == 7, "{}", first.name_any());
    assert_ne!(first.name_any(), second.name_any());
}

#[tokio::test]
async fn a_name_is_taken_once() {
    let cluster = cluster_under_test().await;
    cluster.create_map("a", json!({})).await;
    let status = refusal(cluster.try_create::<ConfigMap>(json!({"metadata": {"name": "a"}})).await);
    assert_eq!((status.code, status.reason.as_str()), (409, "AlreadyExists"));
    assert_eq!(status.message, "configmaps \"a\" already exists");
    let details = status.details.expect("details");
    assert_eq!((details.name.as_str(), details.kind.as_str()), ("a", "configmaps"));
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let cluster = cluster_under_test().await;
    let status = refusal(cluster.api::<Deployment>().get("a").await);
    assert_eq!((status.code, status.reason.as_str()), (404, "NotFound"));
    assert_eq!(status.message, "deployments.apps \"a\" not found");
    assert!(cluster.api::<Pod>().get_opt("a").await.expect("an answer").is_none());
}

#[tokio::test]
async fn objects_need_their_namespace() {
    let cluster = cluster_under_test().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "nowhere-at-all");
    let map = serde_json::from_value(json!({"metadata": {"name": "a"}})).expect("a map");
    let status = refusal(maps.create(&PostParams::default(), &map).await);
    assert_eq!((status.code, status.message.as_str()), (404, "namespaces \"nowhere-at-all\" not found"));
}

#[tokio::test]
async fn names_follow_rfc_1123() {
    let cluster = cluster_under_test().await;
    for name in ["A", "a_b", "-a", "a-"] {
        let created = cluster.try_create::<ConfigMap>(json!({"metadata": {"name": name}})).await;
        assert_eq!(reason(created), (422, "Invalid".into()), "{name}");
    }
    let nameless = cluster.try_create::<ConfigMap>(json!({"metadata": {}})).await;
    assert_eq!(reason(nameless), (422, "Invalid".into()));
}

#[tokio::test]
async fn an_update_of_an_old_version_is_a_conflict() {
    let cluster = cluster_under_test().await;
    let maps = cluster.api::<ConfigMap>();
    let first = cluster.create_map("a", json!({"k": "1"})).await;
    let mut second = first.clone();
    second.data.get_or_insert_default().insert("k".into(), "2".into());
    let second = maps.replace("a", &PostParams::default(), &second).await.expect("updated");
    assert_ne!(version(&second), version(&first));
    let mut late = first.clone();
    late.data.get_or_insert_default().insert("k".into(), "3".into());
    let status = refusal(maps.replace("a", &PostParams::default(), &late).await);
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    assert_eq!(
        status.message,
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the \
         latest version and try again"
    );
}

#[tokio::test]
async fn an_update_without_a_version_is_taken_for_built_in_kinds() {
    let cluster = cluster_under_test().await;
    let mut map = cluster.create_map("a", json!({"k": "1"})).await;
    map.metadata.resource_version = None;
    map.data.get_or_insert_default().insert("k".into(), "2".into());
    let map = cluster.api::<ConfigMap>().replace("a", &PostParams::default(), &map).await.expect("updated");
    assert_eq!(map.data.expect("data")["k"], "2");
}

#[tokio::test]
async fn an_update_that_changes_nothing_is_no_change() {
    let cluster = cluster_under_test().await;
    let map = cluster.create_map("a", json!({"k": "1"})).await;
    let again = cluster.api::<ConfigMap>().replace("a", &PostParams::default(), &map).await.expect("updated");
    assert_eq!(version(&again), version(&map));
}

#[tokio::test]
async fn uid_and_creation_outlive_updates() {
    let cluster = cluster_under_test().await;
    let maps = cluster.api::<ConfigMap>();
    let first = cluster.create_map("a", json!({})).await;
    let mut map = first.clone();
    map.metadata.creation_timestamp = None;
    map.metadata.uid = None;
    map.data = Some([("k".into(), "v".into())].into());
    let map = maps.replace("a", &PostParams::default(), &map).await.expect("updated");
    assert_eq!((map.uid(), map.creation_timestamp()), (first.uid(), first.creation_timestamp()));
    let mut other = map.clone();
    other.metadata.uid = Some("11111111-1111-1111-1111-111111111111".into());
    assert_eq!(reason(maps.replace("a", &PostParams::default(), &other).await).0, 409);
}

#[tokio::test]
async fn a_name_cannot_be_changed() {
    let cluster = cluster_under_test().await;
    let mut map = cluster.create_map("a", json!({})).await;
    map.metadata.name = Some("b".into());
    let client = &cluster.client;
    let path = format!("/api/v1/namespaces/{}/configmaps/a", cluster.namespace);
    let request = http::Request::put(path).header("content-type", "application/json");
    let request = request.body(serde_json::to_vec(&map).expect("JSON")).expect("a request");
    assert_eq!(reason(client.request::<ConfigMap>(request).await), (400, "BadRequest".into()));
}

#[tokio::test]
async fn the_generation_counts_changes_of_the_spec() {
    let cluster = cluster_under_test().await;
    let deployments = cluster.api::<Deployment>();
    let mut object = cluster.create_deployment("a").await;
    assert_eq!(object.metadata.generation, Some(1));
    object.metadata.labels = Some([("l".into(), "v".into())].into());
    let mut object = deployments.replace("a", &PostParams::default(), &object).await.expect("updated");
    assert_eq!(object.metadata.generation, Some(1));
    object.spec.as_mut().expect("a spec").min_ready_seconds = Some(7);
    // A real Deployment controller writes the status in between.
    object.metadata.resource_version = None;
    let object = deployments.replace("a", &PostParams::default(), &object).await.expect("updated");
    assert_eq!(object.metadata.generation, Some(2));
}

#[tokio::test]
async fn deployments_are_filled_in() {
    let cluster = cluster_under_test().await;
    let mut bare = deployment("a");
    bare["spec"].as_object_mut().expect("a spec").remove("replicas");
    let object: Deployment = cluster.create(bare).await;
    let spec = value(&object.spec);
    assert_eq!(spec["replicas"], 1);
    assert_eq!(
        spec["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
    );
    assert_eq!(spec["progressDeadlineSeconds"], 600);
    let pod = &spec["template"]["spec"];
    assert_eq!(
        (&pod["restartPolicy"], &pod["terminationGracePeriodSeconds"]),
        (&json!("Always"), &json!(30))
    );
    assert_eq!(pod["containers"][0]["imagePullPolicy"], "IfNotPresent");
}

#[tokio::test]
async fn pods_begin_pending() {
    let cluster = cluster_under_test().await;
    let mut object = pod("a");
    object["status"] = json!({"phase": "Running"});
    let made: Pod = cluster.create(object).await;
    assert_eq!(made.status.expect("a status").phase.as_deref(), Some("Pending"));
}

#[tokio::test]
async fn services_get_an_address_and_keep_it() {
    let cluster = cluster_under_test().await;
    let service: Service =
        cluster.create(json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}})).await;
    let spec = value(&service.spec);
    let address = spec["clusterIP"].as_str().expect("an address").to_owned();
    assert!(address.parse::<std::net::Ipv4Addr>().is_ok(), "{address}");
    assert_eq!(spec["clusterIPs"], json!([address]));
    assert_eq!(spec["ports"], json!([{"port": 80, "protocol": "TCP", "targetPort": 80}]));
    let mut bare: Service =
        serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 81}]}}))
            .expect("a Service");
    bare.metadata.resource_version = service.resource_version();
    let updated =
        cluster.api::<Service>().replace("a", &PostParams::default(), &bare).await.expect("updated");
    assert_eq!(value(&updated.spec)["clusterIP"], address.as_str());
    let headless: Service = cluster
        .create(json!({"metadata": {"name": "b"}, "spec": {"clusterIP": "None", "ports": [{"port": 80}]}}))
        .await;
    assert_eq!(value(&headless.spec)["clusterIP"], "None");
}

#[tokio::test]
async fn objects_that_break_rules_are_invalid() {
    let cluster = cluster_under_test().await;
    let field = |status: kube::core::Status| {
        assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"), "{status:?}");
        status.details.expect("details").causes.first().expect("a cause").field.clone()
    };
    let mut empty = pod("a");
    empty["spec"]["containers"] = json!([]);
    assert_eq!(field(refusal(cluster.try_create::<Pod>(empty).await)), "spec.containers");
    let mut other = deployment("a");
    other["spec"]["selector"]["matchLabels"]["app"] = "b".into();
    assert_eq!(
        field(refusal(cluster.try_create::<Deployment>(other).await)),
        "spec.template.metadata.labels"
    );
    let mut negative = deployment("a");
    negative["spec"]["replicas"] = (-1).into();
    assert_eq!(field(refusal(cluster.try_create::<Deployment>(negative).await)), "spec.replicas");
}

#[tokio::test]
async fn selectors_and_pods_cannot_be_changed() {
    let cluster = cluster_under_test().await;
    cluster.create_deployment("a").await;
    let mut other = deployment("a");
    other["spec"]["selector"]["matchLabels"] = json!({"app": "b"});
    other["spec"]["template"]["metadata"]["labels"] = json!({"app": "b"});
    let other: Deployment = serde_json::from_value(other).expect("a Deployment");
    let refused = cluster.api::<Deployment>().replace("a", &PostParams::default(), &other).await;
    assert_eq!(reason(refused), (422, "Invalid".into()));
    let mut made = cluster.create_pod("a").await;
    made.spec.as_mut().expect("a spec").restart_policy = Some("Never".into());
    let refused = cluster.api::<Pod>().replace("a", &PostParams::default(), &made).await;
    assert_eq!(reason(refused), (422, "Invalid".into()));
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let cluster = cluster_under_test().await;
    let map = serde_json::from_value(json!({"metadata": {"name": "a"}})).expect("a map");
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let made: ConfigMap = cluster.api().create(&params, &map).await.expect("as if created");
    assert_eq!(made.name_any(), "a");
    assert!(cluster.api::<ConfigMap>().get_opt("a").await.expect("an answer").is_none());
}

#[tokio::test]
async fn texts_of_secrets_are_encoded() {
    let cluster = cluster_under_test().await;
    let secret: Secret = cluster.create(json!({"metadata": {"name": "a"}, "stringData": {"k": "foo"}})).await;
    assert_eq!(
        (value(&secret)["data"]["k"].clone(), secret.type_.as_deref()),
        (json!("Zm9v"), Some("Opaque"))
    );
}

#[tokio::test]
async fn namespaces_are_active_and_labelled() {
    let cluster = cluster_under_test().await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let namespace = namespaces.get(&cluster.namespace).await.expect("there");
    assert_eq!(namespace.labels()["kubernetes.io/metadata.name"], cluster.namespace);
    assert_eq!(namespace.status.expect("a status").phase.as_deref(), Some("Active"));
}
