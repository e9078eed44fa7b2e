//! Requests over connections of their own: `GET` with its limits, and responses read as streams.

use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use pilotlight_net::once::{self, Answer, BodyError, Get, GetError};
use pilotlight_net::{Error, Target};

use crate::support::{self, App, OK, nobody, soon, upstreams};

const MOMENT: Duration = Duration::from_millis(20);

/// The answer to `get` from an app that reads the request, says `response` and closes if it `closes`.
async fn answer_to(get: &Get<'_>, response: &str, closes: bool) -> Result<Answer, GetError> {
    let app = App::listen().await;
    let answering = async {
        let mut client = app.accept().await;
        client.read_head().await;
        client.send(response).await;
        if closes {
            client.finish().await;
        }
        client
    };
    tokio::join!(soon("an answer", once::get(app.address, get)), answering).0
}

#[tokio::test]
async fn a_get_names_its_host_and_closes_its_connection() {
    let app = App::listen().await;
    let get = Get::new("/a?b").header(header::ACCEPT, HeaderValue::from_static("text/plain"));
    let answering = async {
        let mut client = app.accept().await;
        let seen = client.read_head().await;
        assert!(seen.starts_with("GET /a?b HTTP/1.1\r\n"), "{seen}");
        assert_eq!(support::header(&seen, "host"), Some(app.address.to_string()));
        assert_eq!(support::header(&seen, "accept").as_deref(), Some("text/plain"));
        assert_eq!(support::header(&seen, "connection").as_deref(), Some("close"));
        client.send("HTTP/1.1 200 OK\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: u\r\n\r\n").await;
        assert_eq!(client.read_to_end().await, "");
    };
    let (answer, ()) = tokio::join!(once::get(app.address, &get), answering);
    let answer = answer.unwrap();
    assert_eq!((answer.status, &answer.headers["x-a"]), (StatusCode::OK, &HeaderValue::from_static("b")));
    assert_eq!(answer.trailers["x-t"], "u");
    assert_eq!(answer.success().unwrap(), "ok");
}

#[tokio::test]
async fn a_get_without_a_head_of_a_response_says_why() {
    let get = Get::new("/");
    let refused = once::get(nobody().await, &get).await.unwrap_err();
    assert!(matches!(&refused, GetError::Failed(error) if error.is_refused()), "{refused}");
    let closed = answer_to(&get, "", true).await.unwrap_err();
    assert!(matches!(closed, GetError::Failed(Error::UpstreamClosed)), "{closed}");
    let late = answer_to(&get.clone().within(MOMENT), "HTTP/1.1 200 OK\r\n", false).await.unwrap_err();
    assert_eq!(late.to_string(), "no answer within 20ms");
    for path in ["", "a", "http://a/", "/a b", "/\0"] {
        let error = once::get(nobody().await, &Get::new(path)).await.unwrap_err();
        assert!(matches!(error, GetError::Path(_)), "{path:?}: {error}");
    }
}

#[tokio::test]
async fn a_status_is_known_even_if_the_body_is_not() {
    let get = Get::new("/").within(MOMENT).at_most(3);
    let unavailable = |body: &str| format!("HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\n{body}");
    let late = answer_to(&get, &unavailable("no"), false).await.unwrap();
    assert_eq!(late.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(late.body.unwrap_err().to_string(), "no end of the body within 20ms");
    let get = get.within(Duration::from_secs(10));
    let broken = answer_to(&get, &unavailable("no"), true).await.unwrap();
    assert!(matches!(broken.body, Err(BodyError::Failed(Error::UpstreamClosed))), "{broken:?}");
    let long = answer_to(&get, &unavailable("none"), false).await.unwrap();
    assert_eq!(long.body.as_ref().unwrap_err().to_string(), "the body is longer than 3 bytes");
    assert_eq!(long.success().unwrap_err().to_string(), "answered 503 Service Unavailable");
    let whole = answer_to(&get.at_most(4), &unavailable("none"), false).await.unwrap();
    assert_eq!(whole.body.unwrap(), "none");
}

#[tokio::test]
async fn a_get_over_kept_connections_uses_one_again() {
    let (app, upstreams, get) = (App::listen().await, upstreams(), Get::new("/"));
    let asking = async {
        for _ in 0..2 {
            let answer = soon("an answer", upstreams.get(app.address, &get)).await.unwrap();
            assert_eq!(answer.success().unwrap(), "ok");
        }
    };
    let answering = async {
        let mut client = app.accept().await;
        for _ in 0..2 {
            assert!(client.read_head().await.starts_with("GET / "));
            client.send(OK).await;
        }
    };
    tokio::join!(asking, answering);
}

#[tokio::test]
async fn the_body_of_an_open_response_is_read_as_it_comes_without_a_time_limit() {
    let app = App::listen().await;
    let target = Target::http(&format!("http://localhost:{}/v1/stream?x", app.address.port())).unwrap();
    let get = Get::new(target.path()).within(Duration::from_secs(10));
    let opening = async { soon("the head", once::open(&target, &get)).await.unwrap() };
    let answering = async {
        let mut client = app.accept().await;
        let seen = client.read_head().await;
        assert!(seen.starts_with("GET /v1/stream?x HTTP/1.1\r\n"), "{seen}");
        assert_eq!(support::header(&seen, "host"), Some(target.authority()));
        client.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        client
    };
    let (response, mut client) = tokio::join!(opening, answering);
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = response.into_body();
    for line in ["one\n", "two\n"] {
        client.send(&format!("4\r\n{line}\r\n")).await;
        let frame = soon("a line", body.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), line);
    }
    drop(body);
    assert_eq!(client.read_to_end().await, "");
}
