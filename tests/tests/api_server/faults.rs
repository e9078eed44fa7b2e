//! Faults on demand, and what the server tells tests about requests. Only a server of this process has these.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Config, ResourceExt};
use pilotlight_tests::cluster::api::{ApiServer, Definition, Outage, Requests, Verb};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::support::{Cluster, SOON, cluster_under_test, reason, refusal, version};

/// Events of a watcher in short, until one is as expected.
async fn follow_until(
    events: &mut (impl futures_util::Stream<Item = String> + Unpin),
    expected: &str,
) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.last().is_none_or(|last| last != expected) {
        let event = timeout(SOON, events.next()).await;
        seen.push(event.unwrap_or_else(|_| panic!("not {expected} in time: {seen:?}")).expect("no end"));
    }
    seen
}

fn in_short(cluster: &Cluster) -> impl futures_util::Stream<Item = String> + use<> {
    let config = watcher::Config::default().page_size(2);
    watcher(cluster.api::<ConfigMap>(), config).default_backoff().map(|event| match event {
        Ok(watcher::Event::Init) => "init".to_owned(),
        Ok(watcher::Event::InitApply(map)) => format!("list {}", map.name_any()),
        Ok(watcher::Event::InitDone) => "done".into(),
        Ok(watcher::Event::Apply(map)) => format!("apply {}", map.name_any()),
        Ok(watcher::Event::Delete(map)) => format!("delete {}", map.name_any()),
        Err(error) => format!("error {}", error.to_string().split(':').next().unwrap_or_default()),
    })
}

#[tokio::test]
async fn requests_are_refused_as_often_as_asked() {
    let cluster = cluster_under_test().await;
    let Some(server) = cluster.faulty() else { return };
    server.faults().fail(Requests::all().verb(Verb::Create).resource("configmaps"), 503, 7, Some(1));
    let status = refusal(cluster.try_create::<ConfigMap>(json!({"metadata": {"name": "a"}})).await);
    assert_eq!((status.code, status.reason.as_str()), (503, "ServiceUnavailable"));
    assert_eq!(status.details.expect("details").retry_after_seconds, 7);
    cluster.create_map("a", json!({})).await;
    server.faults().fail(Requests::all().name("a"), 500, 0, None);
    for _ in 0..2 {
        assert_eq!(reason(cluster.api::<ConfigMap>().get("a").await).0, 500);
    }
    server.faults().clear();
    cluster.api::<ConfigMap>().get("a").await.expect("there");
}

#[tokio::test]
async fn answers_are_late_as_asked() {
    let cluster = cluster_under_test().await;
    let Some(server) = cluster.faulty() else { return };
    let late = Duration::from_millis(150);
    server.faults().delay(Requests::all().verb(Verb::Get).resource("pods"), late);
    let start = Instant::now();
    assert!(cluster.api::<Pod>().get_opt("a").await.expect("an answer").is_none());
    assert!(start.elapsed() >= late);
}

#[tokio::test]
async fn a_lost_answer_is_of_a_request_that_was_carried_out() {
    let cluster = cluster_under_test().await;
    let Some(server) = cluster.faulty() else { return };
    server.faults().lose_answers(Requests::all().writes(), Some(1));
    let lost = cluster.try_create::<ConfigMap>(json!({"metadata": {"name": "a"}})).await;
    assert!(!matches!(lost, Ok(_) | Err(kube::Error::Api(_))), "{lost:?}");
    assert!(server.get::<ConfigMap>(&cluster.namespace, "a").is_some());
}

#[tokio::test]
async fn a_watch_breaks_ends_or_expires() {
    let cluster = cluster_under_test().await;
    let Some(server) = cluster.faulty() else { return };
    let pods = cluster.api::<Pod>();
    let from = version(&cluster.create_pod("a").await);
    let open = async || {
        let events = pods.watch(&WatchParams::default(), &from).await.expect("a watch");
        events.boxed()
    };
    let meant = || Requests::all().resource("pods");
    let (mut broken, mut other) = (open().await, open().await);
    server.faults().break_watches(meant().namespace("elsewhere"));
    cluster.create_pod("b").await;
    for events in [&mut broken, &mut other] {
        let event = timeout(SOON, events.try_next()).await.expect("in time").expect("an event");
        assert!(matches!(&event, Some(WatchEvent::Added(pod)) if pod.name_any() == "b"), "{event:?}");
    }
    server.faults().send_bookmarks(meant());
    let event = timeout(SOON, broken.try_next()).await.expect("in time").expect("an event");
    assert!(matches!(&event, Some(WatchEvent::Bookmark(_))), "{event:?}");
    server.faults().break_watches(meant());
    // Kube tells neither kind of break: the watch just ends.
    assert!(timeout(SOON, broken.next()).await.expect("in time").is_none_or(|event| event.is_err()));
    let mut ended = open().await;
    timeout(SOON, ended.next()).await.expect("in time").expect("pod b").expect("no failure");
    server.faults().end_watches(meant());
    assert!(timeout(SOON, ended.next()).await.expect("in time").is_none());
    let mut expired = open().await;
    timeout(SOON, expired.next()).await.expect("in time").expect("pod b").expect("no failure");
    server.faults().expire_watches(meant());
    let event = timeout(SOON, expired.try_next()).await.expect("in time").expect("an event");
    assert!(matches!(&event, Some(WatchEvent::Error(status)) if status.code == 410), "{event:?}");
}

#[tokio::test]
async fn a_page_of_an_expired_list_is_gone() {
    let cluster = cluster_under_test().await;
    let Some(server) = cluster.faulty() else { return };
    for name in ["a", "b", "c"] {
        cluster.create_pod(name).await;
    }
    let pods = cluster.api::<Pod>();
    let first = pods.list(&ListParams::default().limit(1)).await.expect("a page");
    cluster.create_pod("d").await;
    server.faults().compact(&Requests::all().resource("pods"));
    let params = ListParams::default().limit(1).continue_token(&first.metadata.continue_.expect("more"));
    assert_eq!(reason(pods.list(&params).await), (410, "Expired".into()));
}

#[tokio::test]
async fn kubes_watcher_gets_over_everything() {
    let cluster = cluster_under_test().await;
    let Some(server) = cluster.faulty() else { return };
    for name in ["a", "b", "c"] {
        cluster.create_map(name, json!({})).await;
    }
    let mut events = pin!(in_short(&cluster));
    let listed = ["init", "list a", "list b", "list c", "done"];
    assert_eq!(follow_until(&mut events, "done").await, listed);
    cluster.create_map("d", json!({})).await;
    assert_eq!(follow_until(&mut events, "apply d").await, ["apply d"]);
    let maps = || Requests::all().resource("configmaps");
    // A break is followed by a watch from the last version: nothing is listed again.
    server.faults().break_watches(maps());
    cluster.create_map("e", json!({})).await;
    let seen = follow_until(&mut events, "apply e").await;
    assert!(!seen.contains(&"init".to_owned()), "{seen:?}");
    // A version that has expired is followed by a list.
    server.faults().expire_watches(maps());
    let seen = follow_until(&mut events, "done").await;
    assert_eq!(seen.iter().filter(|event| event.starts_with("list")).count(), 5, "{seen:?}");
    // An outage ends in the same way.
    for outage in [Outage::Refused, Outage::Reset] {
        server.faults().outage(outage);
        follow_until_prefix(&mut events, "error").await;
        server.add(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("{outage:?}").to_lowercase(), "namespace": cluster.namespace}
        }));
        server.faults().heal();
        follow_until_prefix(&mut events, &format!("apply {}", format!("{outage:?}").to_lowercase())).await;
    }
}

async fn follow_until_prefix(events: &mut (impl futures_util::Stream<Item = String> + Unpin), prefix: &str) {
    let mut last = String::new();
    while !last.starts_with(prefix) {
        last = timeout(SOON, events.next())
            .await
            .unwrap_or_else(|_| panic!("no {prefix} in time"))
            .expect("no end");
    }
}

#[tokio::test]
async fn a_silent_server_answers_nothing_until_it_heals() {
    let cluster = cluster_under_test().await;
    let Some(server) = cluster.faulty() else { return };
    server.faults().outage(Outage::Silent);
    let mut stream =
        TcpStream::connect(server.url().trim_start_matches("http://")).await.expect("a connection");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
    let mut byte = [0];
    let mut read = pin!(stream.read(&mut byte));
    assert!(timeout(Duration::from_millis(100), &mut read).await.is_err());
    server.faults().heal();
    assert!(timeout(SOON, read).await.expect("in time").is_err());
    cluster.api::<Pod>().list(&ListParams::default()).await.expect("a list");
}

#[tokio::test]
async fn each_request_is_noted() {
    let cluster = cluster_under_test().await;
    let Some(server) = cluster.faulty() else { return };
    cluster.create_deployment("a").await;
    server.log().clear();
    let mut config = Config::new(server.url().parse().expect("a URL"));
    config
        .headers
        .push(("user-agent".parse().expect("a name"), "scaler/1.0 (test)".parse().expect("a value")));
    let deployments: Api<Deployment> =
        Api::namespaced(Client::try_from(config).expect("a client"), &cluster.namespace);
    let add = json!([{"op": "add", "path": "/spec/replicas", "value": 3}]);
    let patch: Patch<Value> = Patch::Json(serde_json::from_value(add.clone()).expect("a patch"));
    deployments.patch_scale("a", &PatchParams::default(), &patch).await.expect("scaled");
    deployments.get("a").await.expect("there");
    assert!(deployments.delete("none", &kube::api::DeleteParams::default()).await.is_err());
    let writes = server.log().writes();
    let lines: Vec<_> = writes.iter().map(|write| (write.line(), write.status)).collect();
    let here = &cluster.namespace;
    let expected = [
        (format!("patch deployments.apps/scale {here}/a"), 200),
        (format!("delete deployments.apps {here}/none"), 404),
    ];
    assert_eq!(lines, expected);
    assert_eq!((writes[0].json(), writes[0].user_agent.as_str()), (add, "scaler/1.0 (test)"));
    assert_eq!(writes[0].content_type, "application/json-patch+json");
    assert!(writes[0].at < writes[1].at);
    assert_eq!(server.log().count(|request| request.verb == Verb::Get), 1);
    let object = server.get::<Deployment>(here, "a").expect("there");
    assert_eq!(object.managed_fields().last().and_then(|entry| entry.manager.clone()), Some("scaler".into()));
}

#[tokio::test]
async fn tests_wait_for_changes() {
    let cluster = cluster_under_test().await;
    let Some(server) = cluster.faulty() else { return };
    let seen = server.wait_until("map a", SOON, |server| server.get::<ConfigMap>(&cluster.namespace, "a"));
    let (map, made) = tokio::join!(seen, cluster.create_map("a", json!({"k": "v"})));
    assert_eq!(version(&map), version(&made));
    assert_eq!(server.objects::<ConfigMap>().len(), 1);
}

#[tokio::test]
async fn access_is_as_the_test_says() {
    let cluster = cluster_under_test().await;
    let Some(server) = cluster.faulty() else { return };
    let ask = async |verb: &str, group: &str, resource: &str| {
        let review =
            json!({"spec": {"resourceAttributes": {"verb": verb, "group": group, "resource": resource}}});
        let review: SelfSubjectAccessReview = serde_json::from_value(review).expect("a review");
        let answer = Api::all(cluster.client.clone())
            .create(&PostParams::default(), &review)
            .await
            .expect("an answer");
        answer.status.expect("a status").allowed
    };
    assert!(ask("get", "", "pods").await);
    server.allow(|verb, resource| (verb, resource) == ("patch", "deployments.apps"));
    assert!(ask("patch", "apps", "deployments").await && !ask("get", "", "pods").await);
}

#[tokio::test]
async fn requests_to_a_pods_proxy_reach_the_pod() {
    let cluster = cluster_under_test().await;
    let Some(_) = cluster.faulty() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let app = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut head = vec![0; 4096];
        let length = stream.read(&mut head).await.expect("a request");
        stream.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\nhi").await.expect("sent");
        String::from_utf8_lossy(&head[..length]).lines().next().unwrap_or_default().to_owned()
    });
    cluster.create_pod("a").await;
    let status = Patch::Merge(json!({"status": {"podIP": "127.0.0.1"}}));
    cluster.api::<Pod>().patch_status("a", &PatchParams::default(), &status).await.expect("patched");
    let path = format!("/api/v1/namespaces/{}/pods/a:{port}/proxy/metrics?x=1", cluster.namespace);
    let request = http::Request::get(path).body(Vec::new()).expect("a request");
    assert_eq!(cluster.client.request_text(request).await.expect("an answer"), "hi");
    assert_eq!(app.await.expect("no panic"), "GET /metrics?x=1 HTTP/1.1");
}

#[tokio::test]
async fn a_kind_can_be_added() {
    let server = ApiServer::start().await;
    server.define(
        Definition::new("example.org", "v1", "Bird", "birds").with_status().with_short_names(&["bd"]),
    );
    let group = kube::discovery::group(&server.client(), "example.org").await.expect("a group");
    assert_eq!(group.recommended_kind("Bird").expect("a kind").0.plural, "birds");
    let knative =
        kube::discovery::group(&server.client(), "autoscaling.internal.knative.dev").await.expect("a group");
    assert!(knative.recommended_kind("PodAutoscaler").is_some());
}

#[tokio::test]
async fn addresses_of_services_are_of_this_machine() {
    let cluster = cluster_under_test().await;
    let Some(_) = cluster.faulty() else { return };
    let service = json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}});
    let service: k8s_openapi::api::core::v1::Service = cluster.create(service).await;
    let address = service.spec.and_then(|spec| spec.cluster_ip).expect("an address");
    assert!(address.parse::<std::net::Ipv4Addr>().expect("IPv4").is_loopback(), "{address}");
}
