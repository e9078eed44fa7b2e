//! Services: connections to ready pods, with a lag behind the endpoints.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use pilotlight_tests::eventually;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Fixture, SOON, names, plain, service, web};

#[tokio::test]
async fn a_change_of_endpoints_takes_effect_after_the_lag() {
    const LAG: Duration = Duration::from_secs(3);
    let fixture = Fixture::start().await;
    web(&fixture, 1).await;
    fixture.answers("web").await;
    fixture.cluster.proxy.set_lag(LAG);
    let begun = Instant::now();
    fixture.patch::<Deployment>("web", json!({ "spec": { "replicas": 0 } })).await;
    let is_empty =
        |endpoints: &Endpoints| endpoints.subsets.iter().flatten().all(|each| each.addresses.is_none());
    fixture.until::<Endpoints>("the endpoints are empty", "web", is_empty).await;
    let host = format!("web.{}.svc.cluster.local", fixture.namespace);
    let address = fixture.cluster.names.resolve(&host, 80).expect("an address");
    eventually("the Service refuses", SOON, async || {
        TcpStream::connect(address).await.is_err().then_some(())
    })
    .await;
    assert!(begun.elapsed() >= LAG, "the Service refused before the lag was over");
}

#[tokio::test]
async fn connections_stay_with_their_pod_while_it_ends() {
    let fixture = Fixture::start().await;
    web(&fixture, 1).await;
    fixture.answers("web").await;
    let host = format!("web.{}.svc", fixture.namespace);
    let address = fixture.cluster.names.resolve(&host, 80).expect("an address");
    let mut connection = TcpStream::connect(address).await.expect("a connection");
    let request = format!("GET /?sleep=1500 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.expect("written");
    let inside = async || fixture.get("web", "/").await.ok()?.body.contains("2 in flight").then_some(());
    eventually("the request is inside", SOON, inside).await;
    fixture.patch::<Deployment>("web", json!({ "spec": { "replicas": 0 } })).await;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("a whole answer");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains("Slept for 1500 ms."), "{answer}");
}

#[tokio::test]
async fn names_are_those_of_a_clusters_dns() {
    let fixture = Fixture::start().await;
    web(&fixture, 1).await;
    let namespace = &fixture.namespace;
    let names = &fixture.cluster.names;
    let address = names.resolve(&format!("web.{namespace}.svc.cluster.local"), 80);
    assert!(address.is_some());
    for host in [format!("web.{namespace}"), format!("web.{namespace}.svc")] {
        assert_eq!(names.resolve(&host, 80), address, "{host}");
    }
    for host in ["web".to_owned(), format!("none.{namespace}.svc"), format!("web.{namespace}.example.com")] {
        assert_eq!(names.resolve(&host, 80), None, "{host}");
    }
}

#[tokio::test]
async fn a_slice_of_somebody_else_joins_those_of_kubernetes_with_a_port_of_its_own() {
    let fixture = Fixture::start().await;
    web(&fixture, 1).await;
    fixture.create::<Deployment>(plain("other", "9000/http 9001/tcp", &[])).await;
    fixture.has_ready("other", 1).await;
    let ip = fixture.pods("other").await[0].status.clone().unwrap().pod_ip;
    let slice = |port: u16, conditions: serde_json::Value| {
        json!({
            "metadata": { "name": "of-a-test", "labels": {
                "kubernetes.io/service-name": "web", "endpointslice.kubernetes.io/managed-by": "of-a-test",
            } },
            "addressType": "IPv4", "ports": [{ "name": "http", "port": port }],
            "endpoints": [{ "addresses": [ip], "conditions": conditions }],
        })
    };
    let ready = json!({ "ready": true, "serving": true, "terminating": false });
    fixture.create::<EndpointSlice>(slice(9000, ready)).await;
    let answered = async |wanted: &str| {
        eventually(&format!("{wanted} answers"), SOON, async || {
            fixture.answers("web").await.starts_with(wanted).then_some(())
        })
        .await;
    };
    answered("web-").await;
    answered("other-").await;
    // An endpoint that ends serves only while there is no other.
    let ending = json!({ "ready": false, "serving": true, "terminating": true });
    fixture
        .patch::<EndpointSlice>("of-a-test", json!({ "endpoints": slice(9000, ending)["endpoints"] }))
        .await;
    let mut others = 0;
    eventually("twenty answers in a row come from the Service's own pod", SOON, async || {
        others = if fixture.answers("web").await.starts_with("web-") { others + 1 } else { 0 };
        (others == 20).then_some(())
    })
    .await;
    fixture.patch::<Deployment>("web", json!({ "spec": { "replicas": 0 } })).await;
    fixture.pods_until("no pod is left", "web", <[Pod]>::is_empty).await;
    answered("other-").await;
}

/// One of two pods is told to end, of which the proxy hears a second late. The pod that ends.
async fn one_of_two_ends(fixture: &Fixture, env: &[(&str, &str)], pre_stop: bool, lag: Duration) -> String {
    let mut deployment = plain("web", "8080/http", env);
    deployment["spec"]["replicas"] = 2.into();
    if pre_stop {
        let hook = json!({ "preStop": { "sleep": { "seconds": 3 } } });
        deployment["spec"]["template"]["spec"]["containers"][0]["lifecycle"] = hook;
    }
    fixture.create::<Service>(service("web")).await;
    fixture.create::<Deployment>(deployment).await;
    fixture.has_ready("web", 2).await;
    fixture.answers("web").await;
    fixture.cluster.proxy.set_lag(lag);
    let mut both = names(&fixture.pods_until("two pods", "web", |pods| pods.len() == 2).await);
    fixture.patch::<Deployment>("web", json!({ "spec": { "replicas": 1 } })).await;
    // The pod of an app that ends at once may be gone before anybody looks.
    let stays = |pod: &&Pod| pod.metadata.deletion_timestamp.is_none();
    let is_ending = |pods: &[Pod]| pods.iter().filter(stays).count() == 1;
    let pods = fixture.pods_until("a pod is told to end", "web", is_ending).await;
    let left = names(&pods.iter().filter(stays).cloned().collect::<Vec<_>>());
    both.retain(|pod| !left.contains(pod));
    both.remove(0)
}

#[tokio::test]
async fn an_app_that_closes_at_once_is_lost_to_whoever_comes_before_the_proxy_has_heard() {
    let fixture = Fixture::start().await;
    one_of_two_ends(&fixture, &[], false, Duration::from_secs(5)).await;
    let is_lost = async || fixture.get("web", "/").await.is_err().then_some(());
    eventually("a request is lost", SOON, is_lost).await;
}

#[tokio::test]
async fn an_app_that_pauses_before_it_closes_loses_nothing() {
    for (env, pre_stop) in [(&[("CLOSE_AFTER", "3s")][..], false), (&[], true)] {
        let fixture = Fixture::start().await;
        let pod = one_of_two_ends(&fixture, env, pre_stop, Duration::from_secs(1)).await;
        let is_gone = async || {
            fixture.get("web", "/").await.expect("an answer");
            fixture.api::<Pod>().get_opt(&pod).await.expect("an answer to that").is_none().then_some(())
        };
        eventually("the pod is gone", SOON, is_gone).await;
    }
}
