//! Connections that their server gets one by one, whatever they speak.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pilotlight_net::{Body, ClientConnection, Drain, FirstBytes, Request, Response, serve_each};
use tokio::net::TcpListener;

use crate::support::{Answer, Client, GET, soon};

#[tokio::test]
async fn a_panic_ends_the_connection_that_it_came_from_and_no_other() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let drain = Drain::default();
    let draining = drain.clone();
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    let serve = move |mut connection: ClientConnection| {
        let (drain, count) = (draining.clone(), Arc::clone(&count));
        async move {
            let told = connection.peek(FirstBytes::tell).await.unwrap();
            assert_eq!(told, FirstBytes::Http1, "what the test makes panic");
            let hello = Answer(|_: Request| std::future::ready(Response::new(Body::full("hello"))));
            connection.serve_http(Arc::new(hello), drain).await;
            count.fetch_add(1, Ordering::Relaxed);
        }
    };
    let serving = tokio::spawn(serve_each(listener, drain.clone(), serve));
    let mut before = Client::connect(address).await;
    assert!(before.send(GET).await.read_message().await.ends_with("hello"));
    let mut panics = Client::connect(address).await;
    assert_eq!(panics.send("\x16\x03\x01").await.read_to_end().await, "");
    let mut after = Client::connect(address).await;
    for client in [&mut before, &mut after] {
        assert!(client.send(GET).await.read_message().await.ends_with("hello"));
    }
    drain.start();
    soon("the drain", serving).await.unwrap();
    assert_eq!(served.load(Ordering::Relaxed), 2);
}
