//! Whole autoscalers at an API server in the test.

use futures_util::StreamExt;
use http::{HeaderValue, header};
use pilotlight_net::once::{self, Get};
use pilotlight_telemetry::Registry;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{client_async, tungstenite};

use super::*;
use crate::autoscaler::probe::dns;
use pilotlight_kubernetes::pretend::PretendApi;

const LEASE: &str =
    "/apis/coordination.k8s.io/v1/namespaces/knative-serving/leases/autoscaler-bucket-00-of-01";

fn put_maps(api: &PretendApi, observability: &Value) {
    let maps = "/api/v1/namespaces/knative-serving/configmaps";
    for name in ["config-autoscaler", "config-deployment", "config-network"] {
        api.put(&format!("{maps}/{name}"), json!({ "metadata": {} }));
    }
    api.put(&format!("{maps}/config-observability"), json!({ "metadata": {}, "data": observability }));
}

fn params(client: &Client, pod_name: &str) -> RunningParams {
    RunningParams {
        client: client.clone(),
        minimum: MinimumKubernetes::default(),
        clock: Clock::start(),
        pod_name: pod_name.to_owned(),
        pod_ip: [127, 0, 0, 1].into(),
        system_namespace: "knative-serving".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        config_maps: ConfigMapNames::default(),
        stateful: None,
        bind_address: [127, 0, 0, 1].into(),
        stats_port: 0,
        admin: ([127, 0, 0, 1], 0).into(),
        prometheus: PrometheusEnv::default(),
        page: MetricsPage::new(Registry::new(), &[]),
        journal: None,
        resolve: dns(),
        on_level: Arc::new(|_| {}),
    }
}

async fn deadline<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("within half a minute")
}

async fn until_held(running: &RunningAutoscaler) {
    let mut buckets = running.buckets.clone();
    let _ = deadline(buckets.wait_for(|buckets| !buckets.held.is_empty())).await.unwrap();
}

async fn page(address: SocketAddr, get: &Get<'_>) -> String {
    let body = deadline(once::get(address, get)).await.unwrap().success().unwrap();
    String::from_utf8(body.to_vec()).unwrap()
}

/// An activator that asks for this host.
async fn connected(
    running: &RunningAutoscaler,
    host: &'static str,
) -> Result<tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>, tungstenite::Error> {
    let stream = tokio::net::TcpStream::connect(running.stats).await.unwrap();
    let mut request = format!("ws://{}/", running.stats).into_client_request().unwrap();
    request.headers_mut().insert(header::HOST, HeaderValue::from_static(host));
    deadline(client_async(request, stream)).await.map(|(socket, _)| socket)
}

#[tokio::test]
async fn an_autoscaler_serves_takes_its_lease_and_gives_it_up_at_the_end() {
    let (api, client) = PretendApi::start();
    put_maps(&api, &json!({ "metrics-protocol": "prometheus", "metrics-endpoint": "127.0.0.1:0" }));
    let running = start(params(&client, "autoscaler-a")).await.unwrap();
    until_held(&running).await;
    assert_eq!(api.get(LEASE).unwrap()["spec"]["holderIdentity"], "autoscaler-a_127.0.0.1");

    // A kubelet asks the stat server, at any path.
    let probe = Get::new("/healthz").header(header::USER_AGENT, HeaderValue::from_static("kube-probe/1.33"));
    assert_eq!(page(running.stats, &probe).await, "");
    assert_eq!(page(running.admin, &Get::new("/v1/decisions")).await, "[]");
    assert!(
        page(running.metrics.unwrap(), &Get::new("/metrics")).await.contains("process_start_time_seconds")
    );

    // The bucket that is held here, one that is not, and the Service that leads to any autoscaler.
    let own = connected(&running, "autoscaler-bucket-00-of-01.knative-serving.svc.cluster.local:8080").await;
    let others =
        connected(&running, "autoscaler-bucket-01-of-02.knative-serving.svc.cluster.local:8080").await;
    let Err(tungstenite::Error::Http(refusal)) = others else { panic!("{others:?}") };
    assert_eq!(refusal.status(), 200, "Knative's answer");
    let any = connected(&running, "autoscaler.knative-serving.svc.cluster.local:8080").await;

    let stopping = tokio::spawn(running.stop());
    for mut socket in [own.unwrap(), any.unwrap()] {
        let goodbye = deadline(socket.next()).await;
        let Some(Ok(Message::Close(Some(frame)))) = goodbye else { panic!("{goodbye:?}") };
        assert_eq!(frame.code, CloseCode::Restart);
        while let Some(Ok(_)) = deadline(socket.next()).await {}
    }
    deadline(stopping).await.unwrap();
    assert_eq!(api.get(LEASE).unwrap()["spec"]["holderIdentity"], "");
}

#[tokio::test]
async fn a_second_autoscaler_stands_by_and_takes_over() {
    let (api, client) = PretendApi::start();
    put_maps(&api, &json!({}));
    let first = start(params(&client, "a")).await.unwrap();
    assert_eq!(first.metrics, None, "nobody asked for it");
    until_held(&first).await;
    let second = start(params(&client, "b")).await.unwrap();
    let mut buckets = second.buckets.clone();
    assert!(buckets.borrow_and_update().held.is_empty());
    deadline(first.stop()).await;
    until_held(&second).await;
    assert_eq!(api.get(LEASE).unwrap()["spec"]["holderIdentity"], "b_127.0.0.1");
}

#[tokio::test]
async fn in_a_stateful_set_no_lease_is_written() {
    let (api, client) = PretendApi::start();
    put_maps(&api, &json!({}));
    let [pod, service, protocol, port] = ["autoscaler-0", "autoscaler", "ws", "8080"].map(str::to_owned);
    let stateful = Some(StatefulEnv { pod, service, protocol, port });
    let running = start(RunningParams { stateful, ..params(&client, "autoscaler-0") }).await.unwrap();
    let expected = "ws://autoscaler-0.autoscaler.knative-serving.svc.cluster.local:8080";
    assert!(running.buckets.borrow().held.contains(expected));
    deadline(running.stop()).await;
    assert!(api.writes().is_empty());
}

#[tokio::test]
async fn an_api_server_that_is_older_than_demanded_is_refused() {
    let (api, client) = PretendApi::start();
    put_maps(&api, &json!({}));
    let demanded = |version: &str| MinimumKubernetes::from_env(|_| Some(version.to_owned())).unwrap();
    let start_at = async |server: &str, minimum| {
        api.raw(
            "/version",
            json!({"major": "1", "minor": "33", "gitVersion": server, "gitCommit": "",
            "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": ""}),
        );
        start(RunningParams { minimum, ..params(&client, "a") }).await.err().map(|error| error.to_string())
    };
    let refused = start_at("v1.33.4", demanded("v1.34.0")).await.expect("refused");
    assert!(refused.contains("1.34.0 or newer is needed (KUBERNETES_MIN_VERSION)"), "{refused}");
    assert_eq!(start_at("v1.34.0-rc.1", demanded("v1.34.0")).await, None);
    assert_eq!(start_at("v1.20.0", MinimumKubernetes::default()).await, None, "only warned of");
}

#[tokio::test]
async fn without_its_config_maps_an_autoscaler_does_not_start() {
    let (_api, client) = PretendApi::start();
    let Err(error) = start(params(&client, "a")).await else { panic!("it started") };
    let wrong = error.downcast_ref::<WrongSettings>().expect("exit code 2").to_string();
    assert_eq!(wrong.lines().count(), 3, "{wrong}");
}
