use std::time::Duration;

use pilotlight_config::process::QueueProxyEnv;
use pilotlight_queue_proxy::{QueueProxy, StartError, run};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::support::{GET, Gate, Running, ask, body, env, mirror, soon, status};

const READY: &str = "GET / HTTP/1.1\nUser-Agent: kube-probe/1.29\nK-Network-Probe: queue";

#[tokio::test]
async fn termination_waits_for_quiet_and_then_closes_every_port() {
    let mut proxy = Running::start(env(mirror().await, &[])).await;
    let started = Instant::now();
    proxy.terminate();
    soon("the end", &mut proxy.task).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(100), "the quiet period");
    for port in [proxy.at.requests, proxy.at.stats, proxy.at.admin, proxy.at.user_metrics.unwrap()] {
        assert!(TcpStream::connect(port).await.is_err(), "{port}");
    }
}

#[tokio::test]
async fn requests_in_flight_at_the_end_of_the_drain_still_finish() {
    let gate = Gate::closed().await;
    let mut proxy = Running::start(env(gate.address, &[])).await;
    let asking = tokio::spawn(ask(proxy.at.requests, GET));
    gate.holds(1).await;
    proxy.terminate();
    // The port is closed once the quiet period is over, and the request is still with the app.
    crate::support::until("the port closed", async || TcpStream::connect(proxy.at.requests).await.is_err())
        .await;
    gate.let_through(1);
    assert_eq!(body(&asking.await.unwrap()), "through");
    soon("the end", proxy.task).await.unwrap();
}

#[tokio::test]
async fn a_restart_of_the_app_alone_is_let_go_after_a_second() {
    let proxy = Running::start(env(mirror().await, &[("PILOTLIGHT_DRAIN_QUIET_PERIOD", "30s")])).await;
    let started = Instant::now();
    let waiting = tokio::spawn(ask(proxy.at.admin, "POST /wait-for-drain HTTP/1.1"));
    crate::support::until("the drain", async || status(&proxy.ask(READY).await) == 503).await;
    let response = soon("the answer", waiting).await.unwrap();
    assert_eq!((status(&response), body(&response)), (200, ""));
    assert!(started.elapsed() >= Duration::from_millis(900), "{:?}", started.elapsed());
    assert_eq!(status(&proxy.ask(READY).await), 200, "and the pod is in service again");
}

#[tokio::test]
async fn those_who_wait_for_the_drain_are_answered_when_it_is_over() {
    let mut proxy = Running::start(env(mirror().await, &[("PILOTLIGHT_DRAIN_QUIET_PERIOD", "300ms")])).await;
    let waiting: Vec<_> =
        (0..2).map(|_| tokio::spawn(ask(proxy.at.admin, "GET /wait-for-drain HTTP/1.1"))).collect();
    proxy.terminate();
    for response in waiting {
        assert_eq!(status(&soon("an answer", response).await.unwrap()), 200);
    }
    soon("the end", proxy.task).await.unwrap();
}

#[tokio::test]
async fn the_admin_port_has_nothing_else() {
    let proxy = Running::start(env(mirror().await, &[])).await;
    assert_eq!(status(&ask(proxy.at.admin, GET).await), 404);
    assert_eq!(status(&ask(proxy.at.stats, GET).await), 404);
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_its_purpose() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let settings = QueueProxyEnv { admin_port: address.port(), ..env(mirror().await, &[]) };
    let error = QueueProxy::bind(settings.clone()).await.unwrap_err();
    assert!(matches!(&error, StartError::Bind { .. }));
    assert!(
        error.to_string().starts_with(&format!("cannot listen on {address} for the admin port")),
        "{error}"
    );
    assert!(run(settings, std::future::pending()).await.is_err());
}
