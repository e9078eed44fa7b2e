//! Requests that wait for their turn, and clients that leave meanwhile.

use http::StatusCode;
use http_body_util::BodyExt;
use pilotlight_net::{Body, Breaker, ByteBudget, Request, Response, hold_while, plain};

use crate::support::{Answer, Client, GET, Server, soon, start, until};

/// A server whose requests wait for a slot, of which there is none at first; then it sends their body back, and the
/// trailer `x-sum` last. `/now` does not wait.
struct Queue {
    server: Server,
    breaker: Breaker,
    budget: ByteBudget,
}

impl Queue {
    async fn start(budget: usize) -> Queue {
        let (breaker, budget) = (Breaker::new(0, 10), ByteBudget::new(budget));
        let shared = (breaker.clone(), budget.clone());
        let server = start(Answer(move |mut request: Request| {
            let (breaker, budget) = shared.clone();
            async move {
                if request.uri() == "/now" {
                    return Response::new(Body::empty());
                }
                match hold_while(&mut request, &budget, breaker.acquire()).await {
                    Err(error) => plain(error.status(), error.to_string()),
                    Ok(Err(_)) => plain(StatusCode::SERVICE_UNAVAILABLE, "full"),
                    Ok(Ok(permit)) => {
                        let body = request.into_body().collect().await.unwrap();
                        let sum = body.trailers().and_then(|trailers| trailers.get("x-sum")).cloned();
                        let sum = sum.as_ref().map_or(&b""[..], |sum| sum.as_bytes());
                        let said = [body.to_bytes().as_ref(), sum].concat();
                        Response::new(Body::full(said).guarded(permit))
                    }
                }
            }
        }))
        .await;
        Queue { server, breaker, budget }
    }

    /// Sends a request, as far as the server takes it, and waits until it is in the queue.
    async fn enter(&self, request: String) -> tokio::task::JoinHandle<Client> {
        let before = self.breaker.waiting();
        let mut client = Client::connect(self.server.address).await;
        let sent = tokio::spawn(async move {
            client.send(&request).await;
            client
        });
        until("the request in the queue", || self.breaker.waiting() == before + 1).await;
        sent
    }

    /// Lets the server do all that it has to do: on one thread, its tasks run before this one again.
    async fn settle(&self) {
        for _ in 0..3 {
            let mut client = Client::connect(self.server.address).await;
            client.send("GET /now HTTP/1.1\r\nHost: h\r\n\r\n").await.read_message().await;
        }
    }
}

fn post(body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn chunked(body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
}

const PLENTY: usize = 64 << 20;

#[tokio::test]
async fn a_waiting_client_that_leaves_frees_its_place_with_or_without_a_body() {
    let queue = Queue::start(PLENTY).await;
    for request in [GET.to_owned(), post("hello"), chunked("3\r\nabc\r\n")] {
        let client = queue.enter(request).await;
        drop(client.await.unwrap());
        until("the place in the queue", || queue.breaker.waiting() == 0).await;
        until("the bytes", || queue.budget.used() == 0).await;
    }
}

#[tokio::test]
async fn what_was_read_while_waiting_is_not_lost_and_no_more_is_read_than_a_little() {
    let queue = Queue::start(PLENTY).await;
    let body = "0123456789".repeat(400_000);
    let sent = queue.enter(post(&body)).await;
    until("the beginning", || queue.budget.used() >= 64 << 10).await;
    queue.settle().await;
    assert!(queue.budget.used() < 1 << 20, "{}", queue.budget.used());
    queue.breaker.set_capacity(1);
    let response = soon("the request", sent).await.unwrap().read_message().await;
    assert!(response.ends_with(&body));
    assert_eq!(queue.budget.used(), 0);
    until("the permit back", || queue.breaker.in_use() == 0).await;
}

#[tokio::test]
async fn pieces_and_trailers_keep_their_order() {
    let queue = Queue::start(PLENTY).await;
    let sent = queue.enter(chunked("1\r\na\r\n1\r\nb\r\n2\r\ncd\r\n0\r\nx-sum: 7\r\n\r\n")).await;
    until("all pieces", || queue.budget.used() == 4).await;
    queue.settle().await;
    queue.breaker.set_capacity(1);
    let response = soon("the request", sent).await.unwrap().read_message().await;
    assert!(response.ends_with("\r\n\r\nabcd7"), "{response}");
    assert_eq!(queue.budget.used(), 0);
}

#[tokio::test]
async fn a_spent_budget_stops_the_reading_and_not_the_waiting() {
    let queue = Queue::start(5).await;
    let first = queue.enter(post("hello")).await;
    until("the first body", || queue.budget.used() == 5).await;
    let second = queue.enter(post("world")).await;
    queue.settle().await;
    assert_eq!(queue.budget.used(), 5);
    queue.breaker.set_capacity(1);
    for (sent, body) in [(first, "hello"), (second, "world")] {
        let response = soon("the request", sent).await.unwrap().read_message().await;
        assert!(response.ends_with(body), "{response}");
    }
    assert_eq!(queue.budget.used(), 0);
}
