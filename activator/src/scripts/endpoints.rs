//! The stream of endpoints: when it is begun anew, and what is in force meanwhile.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::stream::{BoxStream, poll_fn};
use http::StatusCode;
use http_body_util::StreamBody;
use hyper::body::Frame;
use pilotlight_core::EndpointLine;
use pilotlight_feed::{Change, Follower};
use pilotlight_net::once::GetError;
use tokio::time::sleep;

use super::*;
use crate::endpoints::{EndpointSource, follow_source};

type Frames = BoxStream<'static, Result<Frame<Bytes>, Error>>;
type Asked = (Instant, oneshot::Sender<http::Response<StreamBody<Frames>>>);

/// The way to a [`ScriptedPublisher`].
struct Asking(mpsc::UnboundedSender<Asked>);

impl EndpointSource for Asking {
    type Body = StreamBody<Frames>;

    fn address(&self) -> String {
        "publisher.example:9090".to_owned()
    }

    async fn open(&self) -> Result<http::Response<Self::Body>, GetError> {
        let (answer, answered) = oneshot::channel();
        self.0.send((Instant::now(), answer)).unwrap();
        answered.await.map_err(|_| GetError::TimedOut(Duration::ZERO))
    }
}

/// A publisher that does as the script says.
struct ScriptedPublisher(mpsc::UnboundedReceiver<Asked>);

/// One stream. Dropping it ends it.
struct ScriptedStream(mpsc::UnboundedSender<String>);

impl ScriptedPublisher {
    async fn answer(&mut self, status: StatusCode) -> (Instant, ScriptedStream) {
        let (at, answer) = self.0.recv().await.unwrap();
        let (lines, mut told) = mpsc::unbounded_channel::<String>();
        let frames = poll_fn(move |cx| told.poll_recv(cx).map(|text| Some(Ok(Frame::data(text?.into())))));
        let response = http::Response::builder().status(status).body(StreamBody::new(frames.boxed()));
        assert!(answer.send(response.unwrap()).is_ok());
        (at, ScriptedStream(lines))
    }

    async fn accept(&mut self) -> ScriptedStream {
        self.answer(StatusCode::OK).await.1
    }

    /// Lets the next request fail. Returns when it was made.
    async fn refuse(&mut self) -> Instant {
        self.0.recv().await.unwrap().0
    }
}

impl ScriptedStream {
    fn say(&self, text: &str) {
        self.0.send(text.to_owned()).unwrap();
    }

    fn snapshot(&self, revisions: &[(&str, u32)]) {
        let revisions = revisions.iter().map(|(name, starting)| (id(name), starting_pods(*starting)));
        self.say(&line(&EndpointLine::Snapshot(revisions.collect())));
    }
}

/// A follower, and what it has heard.
struct Heard {
    follower: Follower<RevisionId, RevisionEndpoints>,
    starting: BTreeMap<String, u32>,
}

impl Heard {
    /// The names of all revisions and their starting pods, as far as they are known at this moment.
    async fn now(&mut self) -> Vec<(&str, u32)> {
        // Lets all tasks run that can.
        sleep(millis(1)).await;
        while let Some(change) = self.follower.try_next() {
            match change {
                Change::Set(id, endpoints) => drop(self.starting.insert(id.name.clone(), endpoints.starting)),
                Change::Gone(id) => drop(self.starting.remove(&id.name)),
                Change::Complete => {}
            }
        }
        self.starting.iter().map(|(name, starting)| (&**name, *starting)).collect()
    }
}

fn follow() -> (Heard, ScriptedPublisher) {
    let (asked, asking) = mpsc::unbounded_channel();
    let follower = follow_source(Asking(asked));
    (Heard { follower, starting: BTreeMap::new() }, ScriptedPublisher(asking))
}

fn starting_pods(starting: u32) -> RevisionEndpoints {
    RevisionEndpoints { starting, ..RevisionEndpoints::default() }
}

fn line(line: &EndpointLine) -> String {
    serde_json::to_string(line).unwrap() + "\n"
}

fn set(name: &str, starting: u32) -> String {
    line(&EndpointLine::Set { revision: id(name), endpoints: Box::new(starting_pods(starting)) })
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_after_a_reconnect_takes_away_what_is_gone() {
    let (mut heard, mut publisher) = follow();
    let lines = publisher.accept().await;
    lines.snapshot(&[("a", 0), ("b", 0), ("c", 0)]);
    lines.say(&set("c", 1));
    lines.say(&line(&EndpointLine::Gone(id("b"))));
    assert_eq!(heard.now().await, [("a", 0), ("c", 1)]);
    drop(lines);
    // While it was away, `a` went and `d` came; `c` is as it was.
    let lines = publisher.accept().await;
    assert_eq!(heard.now().await, [("a", 0), ("c", 1)], "the last state stays in force");
    lines.snapshot(&[("c", 1), ("d", 0)]);
    assert_eq!(heard.now().await, [("c", 1), ("d", 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_line_that_cannot_be_read_begins_the_stream_anew_later_each_time() {
    let (mut heard, mut publisher) = follow();
    let mut last = Instant::now();
    for (after, garbage) in
        [(0, "{\n"), (50, "{\"set\": 7}\n"), (100, "\u{fffd}\n"), (200, "{\"new\": {}}\n")]
    {
        let (at, lines) = publisher.answer(StatusCode::OK).await;
        assert_eq!(at - last, millis(after));
        last = at;
        lines.snapshot(&[("a", after as u32)]);
        lines.say(&(garbage.to_owned() + &set("a", 7)));
        assert_eq!(heard.now().await, [("a", after as u32)], "what comes after {garbage} is not taken");
    }
    let lines = publisher.accept().await;
    lines.snapshot(&[("a", 7)]);
    assert_eq!(heard.now().await, [("a", 7)]);
    // A stream that lasted is no failure.
    sleep(Duration::from_secs(1)).await;
    lines.say("garbage\n");
    let broken = Instant::now();
    assert_eq!(publisher.refuse().await - broken, millis(50));
}

#[tokio::test(start_paused = true)]
async fn half_a_line_at_the_end_of_a_stream_is_not_taken() {
    let (mut heard, mut publisher) = follow();
    let lines = publisher.accept().await;
    lines.snapshot(&[("a", 1), ("b", 1)]);
    // Whole as JSON, but not as a line: the name may go on.
    lines.say(r#"{"gone":"default/a"}"#);
    drop(lines);
    let lines = publisher.accept().await;
    assert_eq!(heard.now().await, [("a", 1), ("b", 1)]);
    lines.say(&set("a", 2));
    publisher.accept().await.snapshot(&[("a", 3)]);
    assert_eq!(heard.now().await, [("a", 3)], "a change before the snapshot ended the stream");
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_falls_silent_is_left_after_three_heartbeats() {
    let (mut heard, mut publisher) = follow();
    let lines = publisher.accept().await;
    lines.snapshot(&[("a", 1)]);
    for _ in 0..20 {
        sleep(EndpointLine::HEARTBEAT).await;
        lines.say("\n");
    }
    let silent_since = Instant::now();
    let at = publisher.refuse().await;
    assert_eq!(at - silent_since, EndpointLine::HEARTBEAT * 3 + millis(50));
    assert_eq!(heard.now().await, [("a", 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_is_away_or_cannot_answer_is_asked_again_later_each_time() {
    let (mut heard, mut publisher) = follow();
    let mut last = publisher.refuse().await;
    for after in [50, 100, 200, 400, 800, 1600, 2000, 2000] {
        let (at, lines) = publisher.answer(StatusCode::SERVICE_UNAVAILABLE).await;
        assert_eq!(at - last, millis(after));
        last = at;
        lines.snapshot(&[("a", 1)]);
    }
    assert_eq!(heard.now().await, [], "the body of an error is no endpoints");
}

#[tokio::test(start_paused = true)]
async fn following_ends_with_its_follower() {
    let (heard, mut publisher) = follow();
    let lines = publisher.accept().await;
    drop(heard);
    lines.0.closed().await;
    assert!(publisher.0.recv().await.is_none());
}
