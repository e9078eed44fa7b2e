use std::net::SocketAddr;

use pilotlight_net::{Body, Response};

use crate::support::{Running, app, body, env, mirror, nobody, status};

const KUBELET: &str = "GET /any/path HTTP/1.1\nUser-Agent: kube-probe/1.29";

async fn with_probe(app: SocketAddr) -> Running {
    let probe = format!(r#"{{"tcpSocket":{{"port":{},"host":"127.0.0.1"}},"periodSeconds":1}}"#, app.port());
    Running::start(env(app, &[("SERVING_READINESS_PROBE", &probe)])).await
}

#[tokio::test]
async fn a_prober_learns_that_the_app_is_ready() {
    let proxy = with_probe(mirror().await).await;
    for prober in ["kube-probe/1.29", "Knative-Activator-Probe", "Knative-Autoscaling-Probe/2"] {
        let response =
            proxy.ask(&format!("POST /x HTTP/1.1\nUser-Agent: {prober}\nK-Network-Probe: queue")).await;
        assert_eq!((status(&response), body(&response)), (200, "queue"), "{prober}");
    }
}

#[tokio::test]
async fn a_prober_learns_that_the_app_is_not_ready() {
    let nobody = nobody();
    let response = with_probe(nobody).await.ask(&format!("{KUBELET}\nK-Network-Probe: queue")).await;
    assert_eq!((status(&response), body(&response)), (503, ""));
}

#[tokio::test]
async fn without_a_readiness_probe_the_app_counts_as_ready() {
    let nobody = nobody();
    let proxy = Running::start(env(nobody, &[])).await;
    assert_eq!(status(&proxy.ask(&format!("{KUBELET}\nK-Network-Probe: queue")).await), 200);
}

#[tokio::test]
async fn a_prober_that_asks_somebody_else_is_told_so() {
    let proxy = with_probe(mirror().await).await;
    let response = proxy.ask(&format!("{KUBELET}\nK-Network-Probe: test-probe")).await;
    assert_eq!((status(&response), body(&response)), (400, "unexpected probe header value: test-probe\n"));
    let response = proxy.ask(KUBELET).await;
    assert_eq!((status(&response), body(&response)), (400, "unexpected probe header value: \n"));
}

#[tokio::test]
async fn an_ingress_gets_its_hash_back() {
    let proxy = with_probe(mirror().await).await;
    let probe = "GET /healthz HTTP/1.1\nUser-Agent: Knative-Ingress-Probe\nK-Network-Probe: probe";
    let response = proxy.ask(&format!("{probe}\nK-Network-Hash: abc")).await;
    assert_eq!((status(&response), body(&response)), (200, ""));
    assert!(response.to_lowercase().contains("k-network-hash: abc\r\n"));
    let response = proxy.ask(probe).await;
    let expected = "a probe request must contain a non-empty \"K-Network-Hash\" header\n";
    assert_eq!((status(&response), body(&response)), (400, expected));
}

#[tokio::test]
async fn other_values_of_other_agents_are_requests_to_the_app() {
    let proxy = with_probe(mirror().await).await;
    for value in ["queue", "activator", "x"] {
        let response =
            proxy.ask(&format!("GET / HTTP/1.1\nUser-Agent: curl\nK-Network-Probe: {value}")).await;
        assert!(body(&response).contains(&format!("k-network-probe: {value}")), "{response}");
    }
    let lower_case = proxy.ask("GET / HTTP/1.1\nUser-Agent: KUBE-PROBE/1\nK-Network-Probe: queue").await;
    assert!(body(&lower_case).contains("user-agent: KUBE-PROBE/1"), "{lower_case}");
}

#[tokio::test]
async fn while_draining_probes_fail_and_requests_do_not() {
    let mut proxy = Running::start(env(
        app(|_| async { Response::new(Body::full("hi")) }).await,
        &[("PILOTLIGHT_DRAIN_QUIET_PERIOD", "10s")],
    ))
    .await;
    proxy.terminate();
    let queue = format!("{KUBELET}\nK-Network-Probe: queue");
    crate::support::until("the drain", async || status(&proxy.ask(&queue).await) == 503).await;
    for probe in [
        &queue,
        KUBELET,
        "GET / HTTP/1.1\nK-Network-Probe: probe\nK-Network-Hash: x",
        "GET / HTTP/1.1\nK-Network-Probe: probe",
    ] {
        let response = proxy.ask(probe).await;
        assert_eq!((status(&response), body(&response)), (503, "shutting down\n"), "{probe}");
    }
    assert_eq!(body(&proxy.ask("GET / HTTP/1.1").await), "hi");
    assert_eq!(body(&proxy.ask("GET / HTTP/1.1\nK-Network-Probe: queue").await), "hi");
}
