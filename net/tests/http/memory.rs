//! Budgets of memory: what they let in, what they refuse, and that everything is given back.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderValue, Request as HttpRequest};
use http_body_util::BodyExt;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pilotlight_net::{Body, Breaker, ByteBudget, Request, Response, hold_while, message, plain};
use tokio::net::TcpStream;

use crate::support::{Answer, Client, Server, soon, start, until};

/// A server whose requests wait for a slot, of which there is none at first; then it says how long their bodies are. `/now`
/// does not wait.
struct Queue {
    server: Server,
    breaker: Breaker,
    budget: ByteBudget,
}

impl Queue {
    async fn start(budget: usize) -> Queue {
        let (breaker, budget) = (Breaker::new(0, 10_000), ByteBudget::new(budget));
        let shared = Arc::new((breaker.clone(), budget.clone()));
        let server = start(Answer(move |mut request: Request| {
            let shared = Arc::clone(&shared);
            async move {
                let (breaker, budget) = &*shared;
                let mut permit = None;
                if request.uri().path() != "/now" {
                    match hold_while(&mut request, budget, breaker.acquire()).await {
                        Err(error) => return message::respond(&error),
                        Ok(turn) => permit = Some(turn.unwrap()),
                    }
                }
                match request.into_body().collect().await {
                    Ok(body) => plain(http::StatusCode::OK, body.to_bytes().len().to_string())
                        .map(|body| body.guarded(permit)),
                    Err(error) => message::respond(&error),
                }
            }
        }))
        .await;
        Queue { server, breaker, budget }
    }

    async fn connect(&self) -> http2::SendRequest<Body> {
        let stream = TcpStream::connect(self.server.address).await.unwrap();
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }
}

fn post(path: &str, bytes: usize) -> Request {
    let request = HttpRequest::post(format!("http://h{path}"));
    request.body(Body::full(Bytes::from(vec![0; bytes]))).unwrap()
}

fn is_refused(response: &http::Response<hyper::body::Incoming>) -> bool {
    let headers = response.headers();
    response.status() == 503
        && headers.get("x-pilotlight-reason") == Some(&HeaderValue::from_static("no-room"))
        && headers.get("retry-after") == Some(&HeaderValue::from_static("1"))
}

/// A GET over HTTP/1.1 whose head has some 40 KiB.
fn get_with_a_large_head() -> String {
    format!("GET / HTTP/1.1\r\nHost: h\r\nX-Large: {}\r\n\r\n", "x".repeat(40_000))
}

#[tokio::test]
async fn bodies_that_wait_over_http_2_stay_within_the_budget_and_the_rest_is_refused() {
    const BUDGET: usize = 1 << 20;
    const BODY: usize = 100 << 10;
    let queue = Queue::start(BUDGET).await;
    let sender = queue.connect().await;
    let calls = (0..250).map(|_| {
        let mut sender = sender.clone();
        tokio::spawn(async move {
            sender.ready().await.unwrap();
            let response = sender.send_request(post("/", BODY)).await.unwrap();
            let refused = is_refused(&response);
            (refused, response.into_body().collect().await.unwrap().to_bytes())
        })
    });
    let calls: Vec<_> = calls.collect();
    until("all wait or are refused", || {
        calls.iter().filter(|call| call.is_finished()).count() + queue.breaker.waiting() == 250
            && queue.budget.used() >= BUDGET
    })
    .await;
    let waiting = queue.breaker.waiting();
    assert!(queue.budget.used() < BUDGET + (64 << 10), "{}", queue.budget.used());
    // Bodies that wait do not keep another from being read, on their connection or on others.
    for mut sender in [sender.clone(), queue.connect().await] {
        let response = soon("a turn", sender.send_request(post("/now", 3 << 20))).await.unwrap();
        let body = soon("its body", response.into_body().collect()).await.unwrap().to_bytes();
        assert_eq!(body, format!("{}\n", 3 << 20));
    }
    queue.breaker.set_capacity(1);
    let answers = soon("all answers", join_all(calls)).await;
    let served = answers.iter().map(|answer| answer.as_ref().unwrap()).filter(|(refused, _)| !refused);
    let served: Vec<_> = served.map(|(_, body)| body).collect();
    // As many as fit in the budget, and those that a part of the window has room for.
    assert!((20..100).contains(&served.len()) && served.len() <= waiting, "{} of {waiting}", served.len());
    assert!(served.iter().all(|body| **body == format!("{BODY}\n")), "a body was not whole");
    assert_eq!(queue.budget.used(), 0);
}

#[tokio::test]
async fn bodies_wait_in_their_windows_while_there_is_room_be_the_budget_spent_or_not() {
    let queue = Queue::start(0).await;
    let sender = queue.connect().await;
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let mut sender = sender.clone();
            tokio::spawn(async move { sender.send_request(post("/", 1 << 20)).await.unwrap().status() })
        })
        .collect();
    until("all wait", || queue.breaker.waiting() == 20).await;
    assert_eq!(queue.budget.used(), 0);
    queue.breaker.set_capacity(1);
    for call in calls {
        assert_eq!(soon("its turn", call).await.unwrap(), 200);
    }
}

#[tokio::test]
async fn a_large_head_counts_while_it_waits_and_is_refused_without_room() {
    let queue = Queue::start(100_000).await;
    let mut waiting = Vec::new();
    for count in 1..=2 {
        let mut client = Client::connect(queue.server.address).await;
        client.send(&get_with_a_large_head()).await;
        until("it waits", || queue.breaker.waiting() == count).await;
        until("it is counted", || queue.budget.used() >= count * 40_000).await;
        waiting.push(client);
    }
    let mut third = Client::connect(queue.server.address).await;
    let answer = third.send(&get_with_a_large_head()).await.read_message().await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("no-room"), "{answer}");
    let mut sender = queue.connect().await;
    let mut request = post("/", 0);
    request.headers_mut().insert("x-large", HeaderValue::try_from("x".repeat(40_000)).unwrap());
    assert!(is_refused(&soon("an answer", sender.send_request(request)).await.unwrap()));

    let mut small = Client::connect(queue.server.address).await;
    small.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    until("a small one waits", || queue.breaker.waiting() == 3).await;
    queue.breaker.set_capacity(1);
    for client in waiting.iter_mut().chain([&mut small]) {
        assert!(client.read_message().await.starts_with("HTTP/1.1 200"));
    }
    assert_eq!(queue.budget.used(), 0);
}

#[tokio::test]
async fn a_client_that_leaves_gives_back_what_its_head_took() {
    let queue = Queue::start(100_000).await;
    let mut client = Client::connect(queue.server.address).await;
    client.send(&get_with_a_large_head()).await;
    until("it is counted", || queue.budget.used() >= 40_000).await;
    drop(client);
    until("the bytes are back", || queue.budget.used() == 0).await;
}

#[tokio::test]
async fn a_cookie_in_crumbs_reaches_the_handler_whole_and_too_many_fields_do_not() {
    let server = start(Answer(|request: Request| async move {
        let cookies = request.headers().get_all("cookie").iter().count();
        Response::new(Body::full(format!("{cookies} of {}", request.headers()["cookie"].len())))
    }))
    .await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let with = |name: &'static str, count| {
        let mut request = post("/", 0);
        for _ in 0..count {
            request.headers_mut().append(name, HeaderValue::from_static("a=b"));
        }
        request
    };
    let response = soon("an answer", sender.send_request(with("cookie", 3000))).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, format!("1 of {}", 3000 * 5 - 2));
    let response = soon("an answer", sender.send_request(with("x-a", 3000))).await.unwrap();
    assert_eq!(response.status(), 431);
    let response = soon("an answer", sender.send_request(with("cookie", 1))).await.unwrap();
    assert_eq!(response.status(), 200, "the connection is not at fault");
}
