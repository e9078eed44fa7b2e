use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};
use pilotlight_net::probe::{ProbeError, answer_network_probe, probe};
use pilotlight_net::{Admin, headers};

use crate::support::{App, Client, GET, header, nobody, start};

const LIMIT: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_probe_brings_back_status_and_body_and_closes() {
    let app = App::listen().await;
    let mut asked = HeaderMap::new();
    asked.insert(headers::NETWORK_PROBE, HeaderValue::from_static(headers::QUEUE));
    let answering = async {
        let mut prober = app.accept().await;
        let seen = prober.read_head().await;
        assert!(seen.starts_with("GET /healthz?x HTTP/1.1\r\n"), "{seen}");
        assert_eq!(header(&seen, "k-network-probe").as_deref(), Some("queue"));
        assert_eq!(header(&seen, "host"), Some(app.address.to_string()));
        prober.send("HTTP/1.1 503 No\r\nContent-Length: 5\r\n\r\nqueue").await;
        assert_eq!(prober.read_to_end().await, "");
    };
    let (answer, ()) = tokio::join!(probe(app.address, "/healthz?x", asked, LIMIT), answering);
    let answer = answer.unwrap();
    assert_eq!((answer.status, &answer.body[..]), (StatusCode::SERVICE_UNAVAILABLE, &b"queue"[..]));
    assert!(!answer.is_success());
}

#[tokio::test]
async fn a_probe_says_why_it_got_no_answer() {
    let refused = probe(nobody().await, "/", HeaderMap::new(), LIMIT).await.unwrap_err();
    assert!(matches!(&refused, ProbeError::Failed(error) if error.is_refused()), "{refused}");
    let silent = App::listen().await;
    let limit = Duration::from_millis(20);
    let late = probe(silent.address, "/", HeaderMap::new(), limit).await.unwrap_err();
    assert_eq!(late.to_string(), "no answer within 20ms");
    assert!(matches!(probe(silent.address, "\0", HeaderMap::new(), LIMIT).await, Err(ProbeError::Path(_))));
}

#[test]
fn a_network_probe_gets_its_hash_back_or_is_told_that_it_needs_one() {
    let asked = |pairs: &[(http::HeaderName, &'static str)]| {
        let pairs = pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        answer_network_probe(&pairs.collect())
    };
    let probe = (headers::NETWORK_PROBE, headers::PROBE);
    let answer = asked(&[probe.clone(), (headers::NETWORK_HASH, "abc")]).unwrap();
    assert_eq!(
        (answer.status(), &answer.headers()[headers::NETWORK_HASH]),
        (StatusCode::OK, &HeaderValue::from_static("abc"))
    );
    assert_eq!(asked(std::slice::from_ref(&probe)).unwrap().status(), StatusCode::BAD_REQUEST);
    assert_eq!(asked(&[probe, (headers::NETWORK_HASH, "")]).unwrap().status(), StatusCode::BAD_REQUEST);
    assert!(asked(&[(headers::NETWORK_PROBE, headers::QUEUE)]).is_none());
    assert!(asked(&[]).is_none());
}

#[tokio::test]
async fn an_admin_server_answers_what_it_has_and_lists_it_otherwise() {
    let admin = Admin::new().metrics(|| "a 1\n".to_owned()).healthz().readyz(|| Err("no leader".to_owned()));
    let server = start(admin).await;
    let mut client = Client::connect(server.address).await;
    for (path, status, body) in [
        ("/metrics", "200", "a 1\n"),
        ("/healthz?verbose", "200", "ok\n"),
        ("/readyz", "503", "no leader\n"),
        ("/", "404", "404 page not found; known paths: /healthz, /metrics, /readyz\n"),
    ] {
        let response = client.send(&GET.replace("/ ", &format!("{path} "))).await.read_message().await;
        assert_eq!(response.split(' ').nth(1), Some(status), "{response}");
        assert!(response.ends_with(&format!("\r\n\r\n{body}")), "{response}");
    }
}
