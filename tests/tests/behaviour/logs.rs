//! The queue-proxy's request log.

use pilotlight_tests::http::send_raw;
use pilotlight_tests::proxies::Proxy;
use pilotlight_tests::recorder::Recorder;
use pilotlight_tests::{SOON, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const PROBE: &[u8] = b"GET /probe HTTP/1.1\r\nHost: a\r\nK-Network-Probe: probe\r\nK-Network-Hash: x\r\n\
                       Connection: close\r\n\r\n";
const REQUEST: &[u8] = b"GET /request HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn config(probes: bool) -> String {
    let template = "{{.Request.RequestURI}} {{.Response.Code}}";
    format!(
        r#"{{"enableRequestLog":true,"requestLogTemplate":"{template}","enableProbeRequestLog":{probes}}}"#
    )
}

#[tokio::test]
async fn probes_are_in_the_request_log_only_if_that_is_asked_for() {
    let app = Recorder::start().await;
    for (probes, lines) in [(false, &["/request 200"][..]), (true, &["/probe 200", "/request 200"])] {
        let proxy = Proxy::queue_proxy(app.address, &[("OBSERVABILITY_CONFIG", &config(probes))]).await;
        for bytes in [PROBE, REQUEST] {
            send_raw(proxy.address, bytes).await.expect("a connection");
        }
        let last = async || proxy.output().contains(&"/request 200".to_owned()).then_some(());
        eventually("the line of the request", SOON, last).await;
        assert_eq!(proxy.output(), lines);
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_is_logged_as_a_500() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let app = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await;
        }
    });
    let proxy = Proxy::queue_proxy(app, &[("OBSERVABILITY_CONFIG", &config(false))]).await;
    let answer = send_raw(proxy.address, REQUEST).await.expect("a connection");
    assert!(answer.ends_with(b"half"), "{}", String::from_utf8_lossy(&answer));
    eventually("the line", SOON, async || (!proxy.output().is_empty()).then_some(())).await;
    assert_eq!(proxy.output(), ["/request 500"]);
}
