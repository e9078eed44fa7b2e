//! Scripts: the activator against an autoscaler and a publisher of endpoints made of pipes, under a clock that stands
//! still until everybody waits.

mod endpoints;
mod revisions;
mod sink;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use pilotlight_core::{RevisionEndpoints, RevisionId};
use pilotlight_feed::Feed;
use pilotlight_net::{Body, Client, Clock, Error, Handler, Request, Response, Target, wire};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};

use crate::activator::{Activator, ActivatorParams};
use crate::link::Dial;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn id(name: &str) -> RevisionId {
    RevisionId::new("default", name)
}

/// A revision without pods that answers to its own name.
fn revision(name: &str) -> RevisionEndpoints {
    RevisionEndpoints { hosts: vec![name.to_owned()], ..RevisionEndpoints::default() }
}

fn params() -> ActivatorParams {
    ActivatorParams::new("act", Clock::start(), Target::ws("ws://autoscaler.example").unwrap())
}

/// An activator whose clock shows a whole second, the feed it follows, and its autoscaler.
async fn start(names: &[&str]) -> (Activator, Feed<RevisionId, RevisionEndpoints>, ScriptedAutoscaler) {
    let params = params();
    let second = params.clock.now().whole_seconds() + 1;
    sleep_until(params.clock.instant_at(pilotlight_core::Time::from_secs(second))).await;
    let feed = Feed::default();
    feed.replace(names.iter().map(|name| (id(name), revision(name))).collect());
    let (dial, autoscaler) = ScriptedAutoscaler::new();
    (Activator::start_over(dial, params, feed.follow()), feed, autoscaler)
}

/// Sends a request in the background. Aborting the task is a client that leaves.
fn request(activator: &Activator, host: &str) -> JoinHandle<Response> {
    let request: Request = http::Request::builder().header("host", host).body(Body::empty()).unwrap();
    let activator = activator.clone();
    tokio::spawn(async move { activator.handle(&Client::ourselves(), request).await })
}

/// Lets a client leave.
async fn leave(request: JoinHandle<Response>) {
    request.abort();
    assert!(request.await.is_err(), "it had been answered");
}

/// An attempt to connect, and when it was made.
type Attempt = (Instant, oneshot::Sender<DuplexStream>);

/// The way to a [`ScriptedAutoscaler`].
struct Pipes(mpsc::UnboundedSender<Attempt>);

impl Dial for Pipes {
    type Stream = DuplexStream;

    fn url(&self) -> String {
        "ws://autoscaler.example:8080/".to_owned()
    }

    async fn dial(&self) -> Result<DuplexStream, Error> {
        let (answer, answered) = oneshot::channel();
        self.0.send((Instant::now(), answer)).unwrap();
        answered.await.map_err(|_| Error::UpstreamClosed)
    }
}

/// An autoscaler that does as the script says.
struct ScriptedAutoscaler(mpsc::UnboundedReceiver<Attempt>);

impl ScriptedAutoscaler {
    fn new() -> (Pipes, ScriptedAutoscaler) {
        let (attempts, received) = mpsc::unbounded_channel();
        (Pipes(attempts), ScriptedAutoscaler(received))
    }

    /// Refuses the next attempt to connect. Returns when it was made.
    async fn refuse(&mut self) -> Instant {
        self.0.recv().await.unwrap().0
    }

    /// Accepts the next attempt to connect, and says nothing.
    async fn accept_silently(&mut self) -> DuplexStream {
        let (ours, theirs) = duplex(64 << 10);
        self.0.recv().await.unwrap().1.send(theirs).unwrap();
        ours
    }

    /// Accepts the next attempt to connect, and shakes hands.
    async fn accept(&mut self) -> Conversation {
        Conversation(accept_async(self.accept_silently().await).await.unwrap())
    }
}

/// A connection of the autoscaler's. Dropping it is the autoscaler's death.
struct Conversation(WebSocketStream<DuplexStream>);

impl Conversation {
    /// Revision, concurrency and count of each stat in the next message; `None`: a close frame.
    async fn stats(&mut self) -> Option<Vec<(String, f64, f64)>> {
        loop {
            match self.0.next().await.unwrap().unwrap() {
                Message::Close(_) => return None,
                Message::Binary(bytes) => {
                    let stats = wire::decode_stats(&bytes).unwrap().into_iter();
                    let told = |(id, stat): (RevisionId, pilotlight_core::Stat)| {
                        (id.name, stat.average_concurrent_requests, stat.request_count)
                    };
                    return Some(stats.map(told).collect());
                }
                _ => {}
            }
        }
    }

    async fn expect(&mut self, expected: &[(&str, f64, f64)]) {
        let stats = self.stats().await.unwrap();
        let stats: Vec<_> = stats.iter().map(|(name, average, count)| (&**name, *average, *count)).collect();
        assert_eq!(stats, expected);
    }

    async fn say(&mut self, message: Message) {
        self.0.send(message).await.unwrap();
    }
}
