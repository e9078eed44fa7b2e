//! The activator of a cluster: revisions and addresses from watches, requests to pods.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Resource};
use pilotlight_activator::ActivatorParams;
use pilotlight_config::process::MinimumKubernetes;
use pilotlight_core::RevisionId;
use pilotlight_knative::activator::{
    ConfigNames, KnativeActivatorParams, ListenAddresses, RunningActivator, start,
};
use pilotlight_kubernetes::knative::Revision;
use pilotlight_net::{Body, Client, Clock, Drain, Handler, Request, Response, Target};
use pilotlight_telemetry::Registry;
use pilotlight_tests::cluster::api::{ApiServer, Outage, Requests, Verb};
use pilotlight_tests::http::{Answer, get, send_raw};
use pilotlight_tests::{SOON, eventually};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A pod's queue-proxy: answers requests with what the activator told it.
struct EchoPod;

impl Handler for EchoPod {
    async fn handle(&self, _: &Client, request: Request) -> Response {
        let header = |name: &str| {
            request.headers().get(name).map_or("", |value| value.to_str().unwrap_or_default()).to_owned()
        };
        if header("k-network-probe") == "queue" {
            return Response::new(Body::full("queue"));
        }
        Response::new(Body::full(format!("{} {}", header("k-proxy-request"), header("k-original-host"))))
    }
}

/// Starts a pod. Returns its address.
pub(crate) async fn pod() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(pilotlight_net::serve(listener, Arc::new(EchoPod), Drain::default()));
    address
}

/// An autoscaler that takes whatever it is told. Returns its address.
async fn autoscaler() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await {
                    while socket.next().await.is_some() {}
                }
            });
        }
    });
    address
}

/// An API server with Knative's ConfigMaps, which lets an activator read what Knative's role does.
pub(crate) async fn cluster() -> ApiServer {
    let server = ApiServer::start().await;
    server.allow(|_, kind| kind != "endpointslices.discovery.k8s.io");
    for name in ["config-network", "config-observability", "config-logging"] {
        server.add(config_map(name, &json!({"_example": "nothing"})));
    }
    server
}

pub(crate) fn config_map(name: &str, data: &Value) -> Value {
    let metadata = json!({"name": name, "namespace": "knative-serving"});
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
}

pub(crate) fn params(server: &ApiServer, autoscaler: SocketAddr) -> KnativeActivatorParams {
    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let target = Target::ws(&format!("ws://{autoscaler}")).expect("a URL");
    KnativeActivatorParams {
        client: server.client(),
        minimum: MinimumKubernetes::default(),
        system_namespace: "knative-serving".to_owned(),
        config: ConfigNames::default(),
        listen: ListenAddresses { http1: free, http2: free, https: free, admin: free, metrics: free },
        max_connections: 1000,
        env: BTreeMap::new(),
        activator: ActivatorParams {
            drain_wait: Duration::ZERO,
            ..ActivatorParams::new("activator-1", Clock::start(), target)
        },
        registry: Registry::new(),
        addresses: None,
    }
}

async fn running(server: &ApiServer) -> RunningActivator {
    start(params(server, autoscaler().await)).await.expect("a start")
}

fn revision(name: &str) -> Value {
    json!({"apiVersion": "serving.knative.dev/v1", "kind": "Revision",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containerConcurrency": 10, "timeoutSeconds": 60,
            "containers": [{"name": "user-container", "image": "example.com/app"}]}})
}

fn metadata(revision: &str, side: &str) -> Value {
    json!({"name": format!("{revision}-{}", side.to_lowercase()), "namespace": "default", "labels": {
        "serving.knative.dev/revision": revision, "networking.internal.knative.dev/serviceType": side}})
}

fn endpoints(revision: &str, ready: &[SocketAddr]) -> Value {
    let subset = |pod: &SocketAddr| {
        json!({"addresses": [{"ip": pod.ip(), "targetRef": {"kind": "Pod", "name": "pod-1"}}],
            "ports": [{"name": "http", "port": pod.port()}]})
    };
    json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata(revision, "Private"),
        "subsets": ready.iter().map(subset).collect::<Vec<_>>()})
}

fn slice(revision: &str, pod: SocketAddr) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata(revision, "Private"),
        "addressType": "IPv4", "ports": [{"name": "http", "port": pod.port()}],
        "endpoints": [{"addresses": [pod.ip()], "conditions": {"ready": true}}]})
}

fn api<K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>>(
    server: &ApiServer,
) -> Api<K> {
    Api::namespaced(server.client(), "default")
}

async fn set_pods(server: &ApiServer, revision: &str, pods: &[SocketAddr]) {
    let patch = Patch::Merge(endpoints(revision, pods));
    let name = format!("{revision}-private");
    api::<Endpoints>(server).patch(&name, &PatchParams::default(), &patch).await.expect("a patch");
}

fn host(revision: &str) -> String {
    format!("{revision}.default.svc.cluster.local")
}

fn ask(at: SocketAddr, revision: &str) -> JoinHandle<Answer> {
    let host = host(revision);
    tokio::spawn(async move { get(at, &host, "/").await.expect("an answer") })
}

async fn status(at: SocketAddr, revision: &str) -> u16 {
    get(at, &host(revision), "/").await.expect("an answer").status.as_u16()
}

/// Status and body of the answer to the kubelet's probe.
async fn kubelet_probe(at: SocketAddr) -> (u16, String) {
    let probe = b"GET / HTTP/1.1\r\nHost: a\r\nK-Kubelet-Probe: activator\r\nConnection: close\r\n\r\n";
    let answer = send_raw(at, probe).await.expect("an answer");
    let answer = String::from_utf8(answer).expect("text");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, body.to_owned())
}

async fn is_ready(running: &RunningActivator) {
    eventually("the activator is ready", SOON, async || running.activator().check().ok()).await;
}

async fn queued(running: &RunningActivator, revision: &str) {
    let id = RevisionId::new("default", revision);
    let waits = || running.activator().activity().get(&id).is_some_and(|revision| revision.queued == 1);
    eventually("a request waits", SOON, async || waits().then_some(())).await;
}

#[tokio::test]
async fn a_request_waits_until_its_pod_is_listed() {
    let server = cluster().await;
    server.add(revision("hello"));
    server.add(endpoints("hello", &[]));
    let running = running(&server).await;
    let sent = ask(running.addresses().http1, "hello");
    queued(&running, "hello").await;
    set_pods(&server, "hello", &[pod().await]).await;
    let answer = sent.await.expect("no panic");
    assert_eq!(
        (answer.status.as_u16(), answer.body),
        (200, "activator hello.default.svc.cluster.local".to_owned())
    );
    assert!(answer.headers.contains_key("server-timing"), "it was a cold start");
    assert_eq!(status(running.addresses().http2, "hello").await, 200, "the other port takes HTTP/1.1, too");
    running.stop().await;
}

#[tokio::test]
async fn it_is_ready_with_the_autoscaler_and_the_first_list_and_says_so_where_knative_asks() {
    let server = cluster().await;
    let revisions = Requests::all().verb(Verb::List).resource("revisions.serving.knative.dev");
    server.faults().fail(revisions, 500, 0, None);
    server.add(revision("hello"));
    server.add(endpoints("hello", &[pod().await]));
    let running = running(&server).await;
    let probe = async || kubelet_probe(running.addresses().http1).await;
    let connected =
        async || (probe().await == (500, "the endpoints are not known yet\n".to_owned())).then_some(());
    eventually("the autoscaler is connected", SOON, connected).await;
    let early = ask(running.addresses().http1, "hello");
    server.faults().clear();
    assert_eq!(early.await.expect("no panic").status, 200, "it waited for the list");
    is_ready(&running).await;
    assert_eq!(probe().await, (200, String::new()));
    let admin = running.addresses().admin;
    assert_eq!(get(admin, "a", "/readyz").await.expect("an answer").status, 200);
    let activity = get(admin, "a", "/v1/activity").await.expect("an answer").body;
    assert!(activity.contains("\"default/hello\""), "{activity}");
}

#[tokio::test]
async fn without_leave_to_read_slices_it_reads_endpoints_and_only_those_of_revisions() {
    let server = cluster().await;
    server.add(revision("hello"));
    server.add(endpoints("hello", &[pod().await]));
    let running = running(&server).await;
    is_ready(&running).await;
    assert_eq!(status(running.addresses().http1, "hello").await, 200);
    let reads = |kind: &str| server.log().count(|request| request.resource == kind);
    assert_eq!(reads("endpointslices.discovery.k8s.io"), 0);
    assert!(reads("endpoints") > 0);
}

#[tokio::test]
async fn with_leave_to_read_slices_it_reads_them() {
    let server = cluster().await;
    server.allow(|_, _| true);
    server.add(revision("hello"));
    server.add(slice("hello", pod().await));
    let running = running(&server).await;
    is_ready(&running).await;
    assert_eq!(status(running.addresses().http1, "hello").await, 200);
    let name = "hello-private";
    api::<EndpointSlice>(&server).delete(name, &DeleteParams::default()).await.expect("deleted");
    let sent = ask(running.addresses().http1, "hello");
    queued(&running, "hello").await;
    sent.abort();
}

#[tokio::test]
async fn a_revision_that_is_deleted_is_a_404() {
    let server = cluster().await;
    server.add(revision("hello"));
    let running = running(&server).await;
    is_ready(&running).await;
    api::<Revision>(&server).delete("hello", &DeleteParams::default()).await.expect("deleted");
    let at = running.addresses().http1;
    eventually("the revision is gone", SOON, async || (status(at, "hello").await == 404).then_some(())).await;
    let answer = get(at, &host("hello"), "/").await.expect("an answer");
    assert_eq!(
        answer.body,
        "Error getting active endpoint: revision.serving.knative.dev \"hello\" not found\n"
    );
}

#[tokio::test]
async fn while_the_api_server_is_away_it_goes_on_and_catches_up_afterwards() {
    let server = cluster().await;
    server.add(revision("hello"));
    server.add(endpoints("hello", &[pod().await]));
    server.add(revision("later"));
    let running = running(&server).await;
    is_ready(&running).await;
    server.faults().outage(Outage::Refused);
    let at = running.addresses().http1;
    assert_eq!(status(at, "hello").await, 200);
    server.add(endpoints("later", &[pod().await]));
    let sent = ask(at, "later");
    queued(&running, "later").await;
    server.faults().heal();
    assert_eq!(sent.await.expect("no panic").status, 200);
}

#[tokio::test]
async fn where_a_mesh_rules_requests_go_to_the_private_service() {
    let server = cluster().await;
    let maps: Api<k8s_openapi::api::core::v1::ConfigMap> =
        Api::namespaced(server.client(), "knative-serving");
    let patch = Patch::Merge(json!({"data": {"mesh-compatibility-mode": "enabled"}}));
    maps.patch("config-network", &PatchParams::default(), &patch).await.expect("a patch");
    server.add(revision("hello"));
    // Nobody is behind this address; the ClusterIP leads to a pod.
    server.add(endpoints("hello", &["127.0.0.1:9".parse().expect("an address")]));
    let behind = pod().await;
    let spec = json!({"clusterIP": behind.ip(), "ports": [{"name": "http", "port": behind.port()}]});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata("hello", "Private"), "spec": spec});
    server.add(service);
    assert!(server.get::<Service>("default", "hello-private").is_some());
    let running = running(&server).await;
    is_ready(&running).await;
    assert_eq!(status(running.addresses().http1, "hello").await, 200);
}

#[tokio::test]
async fn settings_that_are_wrong_are_told_at_once_and_nothing_is_started() {
    let server = ApiServer::start().await;
    server.add(config_map("config-network", &json!({"system-internal-tls": "on"})));
    let refused = start(params(&server, autoscaler().await)).await.expect_err("they are wrong");
    assert_eq!(refused.to_string(), "config-network: system-internal-tls: \"on\" is not enabled or disabled");
}

#[tokio::test]
async fn an_api_server_that_is_older_than_demanded_is_refused() {
    let server = cluster().await;
    let demanded =
        |version: &str| MinimumKubernetes::from_env(|_| Some(version.to_owned())).expect("a version");
    let params = |minimum| KnativeActivatorParams { minimum, ..params(&server, ([127, 0, 0, 1], 1).into()) };
    let refused = start(params(demanded("v1.99.0"))).await.expect_err("the server is v1.33.0");
    assert_eq!(
        refused.to_string(),
        "the API server is Kubernetes \"v1.33.0\", and 1.99.0 or newer is needed (KUBERNETES_MIN_VERSION)"
    );
    start(params(demanded("v1.33.0"))).await.expect("a start");
}
