//! Activators that behave, and peers that do not: over real sockets.

use std::future::Future;

use pilotlight_core::{Input, RevisionId, Stat};
use tokio_tungstenite::tungstenite::Bytes;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, connect_async};

use super::*;
use crate::AutoscalerParams;
use crate::pretend::{PretendCluster, at_rest, id, spec};

struct Server {
    cluster: Arc<PretendCluster>,
    address: SocketAddr,
    drain: Drain,
    serving: tokio::task::JoinHandle<()>,
}

type ClientSocket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

impl Server {
    async fn start() -> Server {
        Server::with(|params| params).await
    }

    async fn with(change: impl FnOnce(AutoscalerParams) -> AutoscalerParams) -> Server {
        let (clock, cluster) = (Clock::start(), Arc::new(PretendCluster::default()));
        let autoscaler = Autoscaler::start(change(AutoscalerParams::new(clock)), Arc::clone(&cluster));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, drain) = (listener.local_addr().unwrap(), Drain::default());
        let serving = {
            let (autoscaler, drain) = (autoscaler.clone(), drain.clone());
            tokio::spawn(async move { autoscaler.serve_stats(clock, listener, drain).await })
        };
        cluster.revisions.set(id("hello"), at_rest(spec()));
        let server = Server { cluster, address, drain, serving };
        server.until(|server| server.cluster.evaluations("hello") > 0).await;
        server
    }

    async fn connect(&self) -> ClientSocket {
        connect_async(format!("ws://{}", self.address)).await.unwrap().0
    }

    async fn until(&self, holds: impl Fn(&Server) -> bool) {
        deadline(async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// The load is taken in, and acted on at once.
    async fn until_woken(&self) {
        self.until(|server| server.cluster.scale("hello") == Some(4)).await;
    }
}

async fn deadline<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("within half a minute")
}

fn frame(in_flight: f64) -> Message {
    let stat = Stat { average_concurrent_requests: in_flight, ..Stat::default() };
    Message::Binary(wire::encode_stats(&[(id("hello"), stat)]).into())
}

#[tokio::test]
async fn stats_are_taken_from_the_addresses_that_are_accepted_and_no_others() {
    for is_accepted in [true, false] {
        let server = Server::with(|params| AutoscalerParams {
            accepts_peer: Some(Arc::new(move |ip| is_accepted && ip.is_loopback())),
            ..params
        })
        .await;
        let connected = connect_async(format!("ws://{}", server.address)).await;
        assert_eq!(connected.is_ok(), is_accepted);
    }
}

#[tokio::test]
async fn garbage_costs_the_frame_and_not_the_connection() {
    let server = Server::start().await;
    let mut activator = server.connect().await;
    for garbage in [&b"\xff\xff\xff\xff"[..], b"", b"\x0a\x05hello"] {
        activator.send(Message::Binary(Bytes::from_static(garbage))).await.unwrap();
    }
    activator.send(Message::text("25 in flight")).await.unwrap();
    activator.send(frame(25.0)).await.unwrap();
    server.until_woken().await;
}

#[tokio::test]
async fn a_message_too_large_to_be_stats_ends_its_own_connection_only() {
    let server = Server::start().await;
    let (mut flooding, mut activator) = (server.connect().await, server.connect().await);
    // The server may close while this is still being sent.
    let _ = flooding.send(Message::Binary(vec![0; MAX_MESSAGE_BYTES + 1].into())).await;
    deadline(async { while flooding.next().await.is_some_and(|message| message.is_ok()) {} }).await;
    activator.send(frame(25.0)).await.unwrap();
    server.until_woken().await;
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_middle_of_a_frame_hurts_nobody() {
    let server = Server::start().await;
    let broken = server.connect().await;
    let MaybeTlsStream::Plain(mut stream) = broken.into_inner() else { panic!("no TLS was asked for") };
    // The head of a masked binary frame of 100 bytes, and no more.
    tokio::io::AsyncWriteExt::write_all(&mut stream, &[0x82, 0xe4, 1, 2]).await.unwrap();
    drop(stream);
    server.connect().await.send(frame(25.0)).await.unwrap();
    server.until_woken().await;
}

#[tokio::test]
async fn two_activators_add_up() {
    let server = Server::start().await;
    let (mut one, mut other) = (server.connect().await, server.connect().await);
    one.send(frame(12.0)).await.unwrap();
    other.send(frame(13.0)).await.unwrap();
    // The first wakes it by itself; both together are ceil(25 / 7), within the same second or averaged over two.
    server.until(|server| server.cluster.scale("hello") >= Some(2)).await;
    for _ in 0..40 {
        one.send(frame(12.0)).await.unwrap();
        other.send(frame(13.0)).await.unwrap();
    }
    server.until(|server| server.cluster.scale("hello") >= Some(4)).await;
}

#[tokio::test]
async fn a_stat_of_a_revision_that_nobody_knows_is_passed_over() {
    let server = Server::start().await;
    let mut activator = server.connect().await;
    let stat = |in_flight| Stat { average_concurrent_requests: in_flight, ..Stat::default() };
    let both =
        wire::encode_stats(&[(RevisionId::new("default", "gone"), stat(9.0)), (id("hello"), stat(25.0))]);
    activator.send(Message::Binary(both.into())).await.unwrap();
    server.until_woken().await;
    assert_eq!(server.cluster.evaluations("gone"), 0);
}

#[tokio::test]
async fn whoever_asks_for_something_else_is_told_what_this_port_is_for() {
    let server = Server::start().await;
    let get = |headers: &'static [(&'static str, &'static str)]| {
        let mut request =
            format!("http://{}", server.address).replace("http", "ws").into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_static(value));
        }
        async move {
            match connect_async(request).await {
                Ok((_, response)) => response.status(),
                Err(WebSocketError::Http(response)) => response.status(),
                Err(error) => panic!("{error}"),
            }
        }
    };
    assert_eq!(get(&[]).await, StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(get(&[("upgrade", "h2c")]).await, StatusCode::BAD_REQUEST);
    assert_eq!(get(&[("sec-websocket-version", "8")]).await, StatusCode::BAD_REQUEST);
    assert_eq!(get(&[("origin", "http://elsewhere.example")]).await, StatusCode::FORBIDDEN);
    assert_eq!(get(&[("user-agent", "kube-probe/1.33")]).await, StatusCode::OK);
}

#[tokio::test]
async fn every_activator_is_told_to_come_back_when_the_server_stops() {
    let server = Server::start().await;
    let mut activators = [server.connect().await, server.connect().await];
    server.drain.start();
    for activator in &mut activators {
        let goodbye = deadline(activator.next()).await;
        let Some(Ok(Message::Close(Some(frame)))) = goodbye else { panic!("{goodbye:?}") };
        assert_eq!(frame.code, CloseCode::Restart);
        // Answers the close.
        while let Some(Ok(_)) = deadline(activator.next()).await {}
    }
    deadline(server.serving).await.unwrap();
}

#[tokio::test]
async fn the_inputs_of_a_pushed_stat_are_what_the_core_is_told() {
    // The journal shows what came in, stamped by whoever received it.
    let path = std::env::temp_dir().join(format!("pilotlight-ingest-{}.jsonl", std::process::id()));
    let server = Server::start().await;
    let (clock, cluster) = (Clock::start(), Arc::new(PretendCluster::default()));
    cluster.revisions.set(id("hello"), at_rest(spec()));
    let journal = Some(crate::Journal::create(&path).unwrap());
    let autoscaler =
        Autoscaler::start(AutoscalerParams { journal, ..AutoscalerParams::new(clock) }, Arc::clone(&cluster));
    let session = Session {
        peer: server.address,
        clock,
        intake: autoscaler.intake().clone(),
        drain: server.drain.clone(),
    };
    server.until(|_| cluster.evaluations("hello") > 0).await;
    let stat = Stat { average_concurrent_requests: 25.0, ..Stat::default() };
    session.take_in(&wire::encode_stats(&[(id("hello"), stat)])).await;
    server.until(|_| cluster.scale("hello") == Some(4)).await;
    autoscaler.stop().await;
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let records = text.lines().map(|line| serde_json::from_str::<pilotlight_core::Record>(line).unwrap());
    let pushed = records.flat_map(|record| record.inputs).find_map(|(at, input)| match input {
        Input::Pushed(stat) => Some((at, stat)),
        _ => None,
    });
    let (at, stat) = pushed.expect("one was pushed");
    assert_eq!(stat.average_concurrent_requests, 25.0);
    let received = stat.timestamp.expect("the first receiver sets it");
    assert!(received.whole_seconds().abs_diff(at.whole_seconds()) <= 1, "{stat:?}");
}
