//! Routes of the autoscaler's admin port: every decision, and the endpoints of the pods.

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::unfold;
use http::{HeaderValue, header};
use http_body_util::StreamBody;
use hyper::body::Frame;
use pilotlight_core::{EndpointLine, RevisionEndpoints, RevisionId};
use pilotlight_feed::{Change, Feed, Follower};
use pilotlight_net::{Admin, Body, Response};
use tokio::time::timeout;

use crate::Autoscaler;

/// `/v1/decisions`: the latest evaluation of every revision and the latest changes of scale, as JSON.
pub fn decisions(admin: Admin, autoscaler: &Autoscaler) -> Admin {
    let board = Arc::clone(autoscaler.board());
    admin.route("/v1/decisions", move |_| {
        let body = serde_json::to_vec_pretty(&board.snapshot()).expect("a status has only string keys");
        ready(json("application/json", Body::full(body)))
    })
}

/// `/v1/endpoints`: every revision's endpoints as one line of JSON, then one line for each revision that changes
/// ([`EndpointLine`]). Activators in other processes follow it.
pub fn endpoints(admin: Admin, endpoints: Feed<RevisionId, RevisionEndpoints>) -> Admin {
    admin.route("/v1/endpoints", move |_| {
        let lines = unfold(EndpointLines::new(endpoints.follow()), |mut lines| async move {
            let line = lines.next().await?;
            Some((Ok(Frame::data(line)), lines))
        });
        ready(json("application/x-ndjson", Body::stream(StreamBody::new(lines))))
    })
}

/// The lines for one follower over HTTP.
struct EndpointLines {
    follower: Follower<RevisionId, RevisionEndpoints>,
    /// The revisions so far, until all of them are known; `None` once they have been told.
    snapshot: Option<BTreeMap<RevisionId, RevisionEndpoints>>,
}

impl EndpointLines {
    fn new(follower: Follower<RevisionId, RevisionEndpoints>) -> Self {
        EndpointLines { follower, snapshot: Some(BTreeMap::new()) }
    }

    /// The next line, an empty one if nothing changes for a while; `None` when nobody publishes any more.
    async fn next(&mut self) -> Option<Bytes> {
        let mut text = match timeout(EndpointLine::HEARTBEAT, self.next_change()).await {
            Ok(line) => serde_json::to_vec(&line?).expect("a line has only string keys"),
            Err(_) => Vec::new(),
        };
        text.push(b'\n');
        Some(text.into())
    }

    async fn next_change(&mut self) -> Option<EndpointLine> {
        loop {
            let change = self.follower.next().await?;
            let Some(snapshot) = &mut self.snapshot else {
                match change {
                    Change::Set(id, endpoints) => {
                        let endpoints = Box::new(RevisionEndpoints::clone(&endpoints));
                        return Some(EndpointLine::Set { revision: RevisionId::clone(&id), endpoints });
                    }
                    Change::Gone(id) => return Some(EndpointLine::Gone(RevisionId::clone(&id))),
                    // Told once, and the snapshot has been its line.
                    Change::Complete => continue,
                }
            };
            match change {
                Change::Set(id, endpoints) => {
                    snapshot.insert(RevisionId::clone(&id), RevisionEndpoints::clone(&endpoints));
                }
                Change::Gone(id) => drop(snapshot.remove(&id)),
                Change::Complete => return self.snapshot.take().map(EndpointLine::Snapshot),
            }
        }
    }
}

fn json(content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> RevisionId {
        RevisionId::new("default", name)
    }

    fn with_pods(starting: u32) -> RevisionEndpoints {
        RevisionEndpoints { starting, ..RevisionEndpoints::default() }
    }

    fn set(name: &str, starting: u32) -> EndpointLine {
        EndpointLine::Set { revision: id(name), endpoints: Box::new(with_pods(starting)) }
    }

    /// The next line; `None`: a heartbeat.
    async fn next(lines: &mut EndpointLines) -> Option<EndpointLine> {
        let line = lines.next().await.expect("the feed is there");
        assert!(line.ends_with(b"\n"));
        serde_json::from_slice(&line).ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_hears_everything_at_once_and_then_each_change_by_itself() {
        let feed = Feed::default();
        feed.set(id("a"), with_pods(0));
        let mut lines = EndpointLines::new(feed.follow());
        assert_eq!(next(&mut lines).await, None, "there may be more than `a`");
        feed.set(id("b"), with_pods(0));
        feed.set(id("a"), with_pods(1));
        feed.complete();
        let all = [(id("a"), with_pods(1)), (id("b"), with_pods(0))];
        assert_eq!(next(&mut lines).await, Some(EndpointLine::Snapshot(all.into())));
        feed.set(id("b"), with_pods(1));
        feed.set(id("b"), with_pods(2));
        feed.remove(&id("a"));
        assert_eq!(next(&mut lines).await, Some(set("b", 2)));
        assert_eq!(next(&mut lines).await, Some(EndpointLine::Gone(id("a"))));
        assert_eq!(next(&mut lines).await, None, "nothing is new");
        drop(feed);
        assert_eq!(lines.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn two_activators_follow_each_at_its_own_pace() {
        let feed = Feed::default();
        feed.replace([(id("a"), with_pods(0))].into());
        let [mut quick, mut slow] = [(); 2].map(|()| EndpointLines::new(feed.follow()));
        for lines in [&mut quick, &mut slow] {
            let all = [(id("a"), with_pods(0))].into();
            assert_eq!(next(lines).await, Some(EndpointLine::Snapshot(all)));
        }
        for starting in 1..=3 {
            feed.set(id("a"), with_pods(starting));
            assert_eq!(next(&mut quick).await, Some(set("a", starting)));
        }
        assert_eq!(next(&mut slow).await, Some(set("a", 3)), "only the last counts");
        drop(quick);
        feed.remove(&id("a"));
        assert_eq!(next(&mut slow).await, Some(EndpointLine::Gone(id("a"))));
        // One that comes late, or comes back, begins with what there is.
        let mut late = EndpointLines::new(feed.follow());
        assert_eq!(next(&mut late).await, Some(EndpointLine::Snapshot(BTreeMap::new())));
    }
}
