//! Services: connections to ready pods, with a lag behind the endpoints.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Endpoints;
use pilotlight_tests::eventually;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Fixture, SOON, web};

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
