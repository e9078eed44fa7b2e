use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Response;
use pilotlight_net::Body;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{GET, Gate, Running, app, app_on, ask, body, env, mirror, send, soon, status, until};

#[tokio::test]
async fn the_app_sees_what_the_client_sent_and_the_forwarding_headers() {
    let proxy = Running::start(env(mirror().await, &[])).await;
    let response = proxy
        .ask(
            "GET /a//b?q=%20 HTTP/1.1\nHost: h:1\nX-Mine: 1\nTraceparent: 00-0af7-b7ad-01\nX-Forwarded-Proto: https\n\
             X-Forwarded-For: 1.2.3.4\nKnative-Serving-Revision: r\nKnative-Serving-Namespace: n\nKnative-Serving-Tag: t",
        )
        .await;
    assert_eq!(
        body(&response).split('\n').collect::<Vec<_>>(),
        [
            "GET /a//b?q=%20",
            "forwarded: for=1.2.3.4;proto=https",
            "host: h:1",
            "knative-serving-tag: t",
            "traceparent: 00-0af7-b7ad-01",
            "x-forwarded-for: 1.2.3.4, 127.0.0.1",
            "x-forwarded-proto: https",
            "x-mine: 1",
        ]
    );
}

#[tokio::test]
async fn a_user_agent_is_kept_and_never_invented() {
    let proxy = Running::start(env(mirror().await, &[])).await;
    assert!(!proxy.ask(GET).await.contains("user-agent"));
    assert!(proxy.ask("GET / HTTP/1.1\nUser-Agent: mine").await.contains("user-agent: mine"));
}

#[tokio::test]
async fn the_original_host_takes_the_place_of_host() {
    let proxy = Running::start(env(mirror().await, &[])).await;
    let response = proxy.ask("GET / HTTP/1.1\nHost: nimporte.pas\nK-Original-Host: a-better-host.com").await;
    assert!(body(&response).contains("host: a-better-host.com"));
    assert!(!response.contains("nimporte.pas") && !response.contains("k-original-host"));
}

#[tokio::test]
async fn of_fifty_six_requests_to_five_slots_the_last_is_turned_away() {
    let gate = Gate::closed().await;
    let proxy = Running::start(env(gate.address, &[("CONTAINER_CONCURRENCY", "5")])).await;
    let asking: Vec<_> = (0..56).map(|_| tokio::spawn(ask(proxy.at.requests, GET))).collect();
    gate.holds(5).await;
    // One is turned away while the app has not let anybody go, and then all others get through.
    let (turned_away, _, rest) = soon("the one turned away", futures_util::future::select_all(asking)).await;
    let turned_away = turned_away.unwrap();
    assert_eq!((status(&turned_away), body(&turned_away)), (503, "pending request queue full\n"));
    gate.let_through(55);
    for response in rest {
        assert_eq!(status(&response.await.unwrap()), 200);
    }
    assert_eq!(gate.most.load(Ordering::SeqCst), 5, "never more than five at once");
}

#[tokio::test]
async fn a_waiting_client_that_leaves_makes_room_even_if_it_sent_a_body() {
    let gate = Gate::closed().await;
    let proxy = Running::start(env(gate.address, &[("CONTAINER_CONCURRENCY", "1")])).await;
    let first = tokio::spawn(ask(proxy.at.requests, GET));
    gate.holds(1).await;
    let metric = "kn_serving_queue_depth{";
    let depth = async || {
        let metrics = proxy.metrics().await;
        metrics
            .lines()
            .find(|line| line.starts_with(metric))
            .and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    let mut waiting = Vec::new();
    for _ in 0..10 {
        waiting.push(send(proxy.at.requests, "POST / HTTP/1.1\nContent-Length: 0").await);
    }
    until("ten in the queue", async || depth().await == Some(11.0)).await;
    assert_eq!(status(&proxy.ask(GET).await), 503);
    waiting.pop();
    let admitted = tokio::spawn(async move {
        loop {
            let response = ask(proxy.at.requests, GET).await;
            if status(&response) == 200 {
                return response;
            }
        }
    });
    gate.let_through(12);
    assert_eq!(body(&soon("the one admitted", admitted).await.unwrap()), "through");
    assert_eq!(status(&first.await.unwrap()), 200);
}

#[tokio::test]
async fn probes_by_header_pass_the_limit_and_are_not_counted() {
    let gate = Gate::closed().await;
    let proxy = Running::start(env(gate.address, &[("CONTAINER_CONCURRENCY", "1")])).await;
    let probe = "GET / HTTP/1.1\nK-Kubelet-Probe: x";
    let asking: Vec<_> = (0..3).map(|_| tokio::spawn(ask(proxy.at.requests, probe))).collect();
    gate.holds(3).await;
    let report = proxy.next_report().await;
    assert_eq!((report.request_count, report.average_concurrent_requests), (0.0, 0.0));
    gate.let_through(3);
    for response in asking {
        assert_eq!(status(&response.await.unwrap()), 200);
    }
}

#[tokio::test]
async fn a_slot_is_taken_until_the_last_byte_of_the_response() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Running::start(env(listener.local_addr().unwrap(), &[("CONTAINER_CONCURRENCY", "1")])).await;
    let mut first = send(proxy.at.requests, GET).await;
    let (mut in_app, _) = soon("the first", listener.accept()).await.unwrap();
    use tokio::io::AsyncWriteExt;
    in_app.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nab").await.unwrap();
    let mut seen = Vec::new();
    soon("half the body", async {
        while !seen.ends_with(b"ab") {
            first.read_buf(&mut seen).await.unwrap();
        }
    })
    .await;
    let _second = send(proxy.at.requests, GET).await;
    assert!(tokio::time::timeout(Duration::from_millis(100), listener.accept()).await.is_err());
    in_app.write_all(b"cd").await.unwrap();
    soon("the second", listener.accept()).await.unwrap();
}

#[tokio::test]
async fn silence_past_the_timeout_is_a_504() {
    let gate = Gate::closed().await;
    let mut settings = env(gate.address, &[]);
    settings.timeouts.total = Duration::from_millis(50);
    let proxy = Running::start(settings).await;
    let response = proxy.ask(GET).await;
    assert_eq!((status(&response), body(&response)), (504, "request timeout"));
    assert!(response.to_lowercase().contains("content-type: text/plain; charset=utf-8"));
}

#[tokio::test]
async fn time_in_the_queue_counts_against_the_timeout_and_the_place_is_freed() {
    let gate = Gate::closed().await;
    let mut settings = env(gate.address, &[("CONTAINER_CONCURRENCY", "1")]);
    let total = Duration::from_secs(5);
    settings.timeouts.total = total;
    let proxy = Running::start(settings).await;
    // A probe leaves a second connection to the app behind, over which a request could be sent at once.
    let probe = tokio::spawn(ask(proxy.at.requests, "GET / HTTP/1.1\nK-Kubelet-Probe: x"));
    gate.holds(1).await;
    let first = tokio::spawn(ask(proxy.at.requests, GET));
    gate.holds(2).await;
    gate.let_through(1);
    assert_eq!(status(&probe.await.unwrap()), 200);
    let second = tokio::spawn(ask(proxy.at.requests, GET));
    let depth = async || proxy.metrics().await.lines().any(|line| is_queue_depth(line, "2"));
    until("the second waits", depth).await;
    // One step of the clock for both: the second gets the place of the first when its own time is over, too.
    tokio::time::pause();
    tokio::time::advance(total).await;
    tokio::time::resume();
    assert_eq!((status(&first.await.unwrap()), status(&second.await.unwrap())), (504, 504));
    gate.holds(0).await;
    gate.let_through(1);
    assert_eq!(status(&proxy.ask(GET).await), 200);
}

fn is_queue_depth(line: &str, depth: &str) -> bool {
    line.starts_with("kn_serving_queue_depth{") && line.rsplit(' ').next() == Some(depth)
}

#[tokio::test]
async fn a_timeout_of_zero_lets_nothing_pass() {
    let proxy = Running::start(env(mirror().await, &[("REVISION_TIMEOUT_SECONDS", "0")])).await;
    assert_eq!(status(&proxy.ask(GET).await), 504);
}

#[tokio::test]
async fn a_response_that_stalls_is_broken_off_rather_than_patched() {
    let stalling = app(|_| async {
        let pieces = futures_util::stream::unfold(0, |piece| async move {
            match piece {
                0 => Some((Ok(http_body::Frame::data("foo".into())), 1)),
                _ => std::future::pending().await,
            }
        });
        Response::new(Body::stream(http_body_util::StreamBody::new(pieces)))
    })
    .await;
    let mut settings = env(stalling, &[]);
    settings.timeouts.idle = Some(Duration::from_millis(50));
    let proxy = Running::start(settings).await;
    let response = proxy.ask(GET).await;
    assert_eq!((status(&response), body(&response)), (200, "3\r\nfoo\r\n"), "no end of the chunks");
}

#[tokio::test]
async fn an_app_that_is_not_there_is_an_immediate_502() {
    let nobody = crate::support::nobody();
    let proxy = Running::start(env(nobody, &[])).await;
    let response = proxy.ask(GET).await;
    let expected = format!("dial tcp {nobody}: connect: connection refused\n");
    assert_eq!((status(&response), body(&response)), (502, expected.as_str()));
    assert!(response.contains("X-Pilotlight-Reason: app-failed\r\n"), "{response}");
}

#[tokio::test]
async fn connect_is_refused() {
    let proxy = Running::start(env(mirror().await, &[])).await;
    let response = proxy.ask("CONNECT h:80 HTTP/1.1").await;
    assert_eq!(status(&response), 501, "{response}");
}

/// What an activator sends.
const PROXIED: &str = "GET / HTTP/1.1\nK-Proxy-Request: activator";

fn says_unsent(response: &str) -> bool {
    response.to_ascii_lowercase().contains("connection: pilotlight-unsent\r\n")
}

#[tokio::test]
async fn an_activator_is_told_that_no_app_has_seen_its_request_and_nobody_else_is() {
    let proxy = Running::start(env(crate::support::nobody(), &[])).await;
    let response = proxy.ask(PROXIED).await;
    assert_eq!((status(&response), says_unsent(&response)), (502, true), "{response}");
    assert!(response.contains("X-Pilotlight-Reason: app-failed\r\n"), "{response}");
    let response = proxy.ask(GET).await;
    assert_eq!((status(&response), says_unsent(&response)), (502, false), "{response}");
}

#[tokio::test]
async fn a_request_that_may_be_sent_again_is_told_by_its_reason() {
    let hangs_up = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Running::start(env(hangs_up.local_addr().unwrap(), &[])).await;
    for (request, reason) in [(PROXIED, "app-closed"), ("POST / HTTP/1.1\nContent-Length: 0", "app-failed")] {
        let (response, ()) = tokio::join!(proxy.ask(request), async {
            let (mut stream, _) = hangs_up.accept().await.unwrap();
            assert!(stream.read(&mut [0; 1000]).await.unwrap() > 0);
        });
        assert_eq!((status(&response), body(&response)), (502, "EOF\n"));
        assert!(response.contains(&format!("X-Pilotlight-Reason: {reason}\r\n")), "{response}");
    }
}

#[tokio::test]
async fn an_app_that_took_the_request_and_one_that_forges_the_sign_are_not_told_as_unsent() {
    let hangs_up = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Running::start(env(hangs_up.local_addr().unwrap(), &[])).await;
    let (response, ()) = tokio::join!(proxy.ask(PROXIED), async {
        let (mut stream, _) = hangs_up.accept().await.unwrap();
        assert!(stream.read(&mut [0; 1000]).await.unwrap() > 0);
    });
    assert_eq!((status(&response), says_unsent(&response)), (502, false), "{response}");

    let forger = app(|_| async {
        let response = Response::builder().status(502).header("connection", "pilotlight-unsent");
        response.body(Body::full("forged")).unwrap()
    })
    .await;
    let proxy = Running::start(env(forger, &[])).await;
    let response = proxy.ask(PROXIED).await;
    assert_eq!((status(&response), says_unsent(&response), body(&response)), (502, false, "forged"));
}

#[tokio::test]
async fn a_request_that_an_app_has_seen_is_not_told_as_unsent_because_a_second_attempt_failed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Running::start(env(listener.local_addr().unwrap(), &[])).await;
    let dying = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 1000];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        assert!(stream.read(&mut request).await.unwrap() > 0);
        // The app dies of the second request: nobody listens any more, and its connection ends.
        drop(listener);
    };
    let asking = async {
        assert_eq!(status(&proxy.ask(PROXIED).await), 200);
        proxy.ask(PROXIED).await
    };
    let (response, ()) = tokio::join!(asking, dying);
    assert_eq!((status(&response), says_unsent(&response)), (502, false), "{response}");
}

#[tokio::test]
async fn an_app_that_listens_on_the_other_localhost_is_found_there() {
    let Ok(listener) = TcpListener::bind("[::1]:0").await else { return };
    let port = listener.local_addr().unwrap().port();
    app_on(listener, |_| async { Response::new(Body::full("by IPv6")) });
    let proxy = Running::start(env(([127, 0, 0, 1], port).into(), &[])).await;
    let response = proxy.ask(GET).await;
    assert_eq!((status(&response), body(&response)), (200, "by IPv6"));
}
