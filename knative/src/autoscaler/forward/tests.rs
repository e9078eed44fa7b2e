//! Stats on their way to other autoscalers, over real sockets.

use std::collections::BTreeSet;

use futures_util::StreamExt;
use pilotlight_core::Time;
use pilotlight_net::wire;
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};

use super::*;
use crate::autoscaler::ownership::Holders;

const ALL: [&str; 2] = ["autoscaler-bucket-00-of-02", "autoscaler-bucket-01-of-02"];

struct Script {
    buckets: watch::Sender<Arc<Buckets>>,
    holders: watch::Sender<Arc<Holders>>,
    owners: Owners,
    accepts: AcceptsHost,
    ours: mpsc::Receiver<Forwarded>,
}

impl Script {
    fn start() -> Script {
        let (buckets, seen_buckets) = watch::channel(Arc::new(held(&[])));
        let (holders, seen_holders) = watch::channel(Arc::default());
        let forwarder =
            Forwarder::new(Ownership { buckets: seen_buckets, holders: seen_holders }, Metrics::new());
        let (owners, accepts) = (forwarder.owners(), forwarder.accepts());
        let (tell, ours) = mpsc::channel(16);
        tokio::spawn(forwarder.run(tell));
        Script { buckets, holders, owners, accepts, ours }
    }

    /// As the stat server does it.
    fn push(&self, revision: &RevisionId, in_flight: f64) {
        match (self.owners)(revision) {
            Owner::Other(owner) => owner.try_send((revision.clone(), stat(in_flight))).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    async fn our_next(&mut self) -> (RevisionId, f64) {
        let (revision, stat) = deadline(self.ours.recv()).await.unwrap();
        assert_eq!(stat.timestamp, Some(Time::from_secs(1_700_000_000)), "it is not made younger");
        (revision, stat.average_concurrent_requests)
    }
}

fn held(names: &[&str]) -> Buckets {
    let held: BTreeSet<String> = names.iter().map(|&name| name.to_owned()).collect();
    Buckets { all: ALL.map(str::to_owned).into(), held }
}

fn stat(in_flight: f64) -> Stat {
    let timestamp = Some(Time::from_secs(1_700_000_000));
    Stat { average_concurrent_requests: in_flight, timestamp, ..Stat::default() }
}

/// A revision of each bucket.
fn revisions() -> [RevisionId; 2] {
    let buckets = held(&[]);
    ALL.map(|bucket| {
        let mut names = (0..).map(|number| RevisionId::new("default", format!("r{number}")));
        names.find(|revision| buckets.of(revision) == Some(bucket)).unwrap()
    })
}

async fn deadline<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("within half a minute")
}

/// Another autoscaler.
async fn other() -> (TcpListener, Target) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target::ws(&format!("ws://{}", listener.local_addr().unwrap())).unwrap();
    (listener, target)
}

async fn accept(listener: &TcpListener) -> WebSocketStream<tokio::net::TcpStream> {
    accept_async(deadline(listener.accept()).await.unwrap().0).await.unwrap()
}

async fn next(socket: &mut WebSocketStream<tokio::net::TcpStream>) -> Vec<(RevisionId, Stat)> {
    loop {
        match deadline(socket.next()).await.unwrap().unwrap() {
            Message::Binary(bytes) => return wire::decode_stats(&bytes).unwrap(),
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// An address at which nobody listens.
fn nowhere() -> Target {
    Target::ws("ws://127.0.0.1:1").unwrap()
}

#[tokio::test]
async fn a_stat_without_an_owner_waits_until_the_bucket_is_ours() {
    let [one, _] = revisions();
    let mut script = Script::start();
    script.push(&one, 3.0);
    script.buckets.send_replace(Arc::new(held(&[ALL[0]])));
    assert_eq!(script.our_next().await, (one.clone(), 3.0));
    assert!(matches!((script.owners)(&one), Owner::Us));
}

#[tokio::test]
async fn a_stat_of_another_bucket_goes_to_its_holder_as_it_is() {
    let [_, two] = revisions();
    let script = Script::start();
    // Before anybody knows the holder.
    script.push(&two, 5.0);
    let (listener, target) = other().await;
    script.holders.send_replace(Arc::new([(ALL[1].to_owned(), vec![nowhere(), target])].into()));
    let mut socket = accept(&listener).await;
    assert_eq!(next(&mut socket).await, [(two.clone(), stat(5.0))]);
    script.push(&two, 6.0);
    assert_eq!(next(&mut socket).await, [(two, stat(6.0))], "over the same connection");
}

#[tokio::test]
async fn a_holder_that_is_away_gets_its_stats_when_it_is_back() {
    let [_, two] = revisions();
    let script = Script::start();
    let (listener, target) = other().await;
    let address = listener.local_addr().unwrap();
    drop(listener);
    script.holders.send_replace(Arc::new([(ALL[1].to_owned(), vec![target])].into()));
    script.push(&two, 5.0);
    let listener = pilotlight_net::listen(address).unwrap();
    let mut socket = accept(&listener).await;
    assert_eq!(next(&mut socket).await, [(two, stat(5.0))]);
}

#[tokio::test]
async fn what_the_holder_before_did_not_get_goes_to_the_next_one_or_to_us() {
    let [_, two] = revisions();
    let mut script = Script::start();
    let way = || match (script.owners)(&two) {
        Owner::Other(way) => way,
        other => panic!("{other:?}"),
    };
    let park = way();
    script.holders.send_replace(Arc::new([(ALL[1].to_owned(), vec![nowhere()])].into()));
    deadline(async {
        while way().same_channel(&park) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    script.push(&two, 5.0);
    script.buckets.send_replace(Arc::new(held(&[ALL[1]])));
    assert_eq!(script.our_next().await, (two, 5.0));
}

#[tokio::test]
async fn a_connection_to_a_holder_is_closed_when_the_holder_changes() {
    let [_, two] = revisions();
    let script = Script::start();
    let (first, first_target) = other().await;
    let (second, second_target) = other().await;
    script.holders.send_replace(Arc::new([(ALL[1].to_owned(), vec![first_target])].into()));
    script.push(&two, 1.0);
    let mut socket = accept(&first).await;
    assert_eq!(next(&mut socket).await, [(two.clone(), stat(1.0))]);
    script.holders.send_replace(Arc::new([(ALL[1].to_owned(), vec![second_target])].into()));
    assert!(matches!(deadline(socket.next()).await, Some(Ok(Message::Close(_))) | None));
    script.push(&two, 2.0);
    let mut socket = accept(&second).await;
    assert_eq!(next(&mut socket).await, [(two, stat(2.0))]);
}

#[tokio::test]
async fn the_service_of_a_bucket_is_served_while_the_bucket_is_held() {
    let script = Script::start();
    script.buckets.send_replace(Arc::new(held(&[ALL[0]])));
    for (host, is_accepted) in [
        ("autoscaler-bucket-00-of-02.knative-serving.svc.cluster.local:8080", true),
        ("autoscaler-bucket-01-of-02.knative-serving.svc.cluster.local:8080", false),
        ("autoscaler.knative-serving.svc.cluster.local:8080", true),
        ("10.0.0.1:8080", true),
        ("", true),
    ] {
        assert_eq!((script.accepts)(host), is_accepted, "{host}");
    }
}
