//! Endpoints over HTTP, for an activator in another process than the driver that runs the pods.
//!
//! The publisher answers one GET with a stream of [`EndpointLine`]s: a snapshot, then a line for each revision that
//! changes, and an empty line every [heartbeat](EndpointLine::HEARTBEAT). Whatever goes wrong, the last good state stays
//! in force and the activator reconnects; the new snapshot repairs what was missed.

use std::convert::Infallible;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Body as HttpBody;
use pilotlight_core::{EndpointLine, RevisionEndpoints, RevisionId};
use pilotlight_feed::{Feed, Follower};
use pilotlight_net::once::{self, Get, GetError};
use pilotlight_net::{Backoff, Body, Target};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

/// Follows the endpoints at a [`Target::http`] until the follower is dropped.
pub fn follow(target: Target) -> Follower<RevisionId, RevisionEndpoints> {
    follow_source(target)
}

/// [`follow`] from any source.
pub(crate) fn follow_source<S: EndpointSource>(source: S) -> Follower<RevisionId, RevisionEndpoints> {
    let feed = Feed::default();
    let follower = feed.follow();
    tokio::spawn(async move {
        tokio::select! {
            () = keep_following(&source, &feed) => {}
            () = feed.closed() => {}
        }
    });
    follower
}

/// The publisher of endpoints: an HTTP server at a [`Target`], or, in a test, a script.
pub(crate) trait EndpointSource: Send + Sync + 'static {
    type Body: HttpBody<Data = Bytes, Error = pilotlight_net::Error> + Send + Unpin;

    /// The address, for logs.
    fn address(&self) -> String;

    /// Asks for the stream. The body is read as it comes.
    fn open(&self) -> impl Future<Output = Result<http::Response<Self::Body>, GetError>> + Send;
}

impl EndpointSource for Target {
    type Body = Body;

    fn address(&self) -> String {
        self.authority()
    }

    async fn open(&self) -> Result<http::Response<Body>, GetError> {
        once::open(self, &Get::new(self.path()).within(HEAD_TIMEOUT)).await
    }
}

/// The reason why a stream of endpoints ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error(transparent)]
    Open(#[from] GetError),
    #[error(transparent)]
    Broken(#[from] pilotlight_net::Error),
    #[error("the publisher answered {0}")]
    Status(StatusCode),
    #[error("the publisher ended the stream")]
    Ended,
    #[error("neither a line nor a heartbeat within {0:?}")]
    Silent(Duration),
    #[error("a line of more than {MAX_LINE_BYTES} bytes")]
    LineTooLong,
    #[error("cannot read a line: {0}")]
    Unreadable(serde_json::Error),
    #[error("the first line is no snapshot")]
    NoSnapshot,
}

async fn keep_following(source: &impl EndpointSource, feed: &Feed<RevisionId, RevisionEndpoints>) {
    let from = source.address();
    let mut backoff = Backoff::new(FIRST_DELAY, LONGEST_DELAY);
    let mut is_told = false;
    loop {
        let mut reader = LineReader { feed, has_snapshot: false };
        let since = Instant::now();
        let error = match follow_once(source, &from, &mut reader).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        let lasted = if reader.has_snapshot { since.elapsed() } else { Duration::ZERO };
        is_told &= !reader.has_snapshot;
        if std::mem::replace(&mut is_told, true) {
            debug!(from, %error, "Still no endpoints");
        } else {
            warn!(from, %error, "Lost the endpoints; keeping the last");
        }
        sleep(backoff.next(lasted, 0.0)).await;
    }
}

async fn follow_once(
    source: &impl EndpointSource,
    from: &str,
    reader: &mut LineReader<'_>,
) -> Result<Infallible, StreamError> {
    let response = source.open().await?;
    if response.status() != StatusCode::OK {
        return Err(StreamError::Status(response.status()));
    }
    info!(from, "Following endpoints");
    let mut body = response.into_body();
    let mut lines = Lines::default();
    loop {
        let frame = timeout(MAX_SILENCE, body.frame()).await;
        let frame = frame.map_err(|_| StreamError::Silent(MAX_SILENCE))?.ok_or(StreamError::Ended)??;
        let Ok(data) = frame.into_data() else { continue };
        lines.push(&data)?;
        while let Some(line) = lines.next_line() {
            reader.take(&line)?;
        }
    }
}

/// Reader of one stream: turns lines into changes of a feed.
#[derive(Debug)]
struct LineReader<'a> {
    feed: &'a Feed<RevisionId, RevisionEndpoints>,
    has_snapshot: bool,
}

impl LineReader<'_> {
    fn take(&mut self, line: &[u8]) -> Result<(), StreamError> {
        let line = match line.trim_ascii() {
            // A heartbeat.
            b"" => return Ok(()),
            text => serde_json::from_slice(text).map_err(StreamError::Unreadable)?,
        };
        match line {
            EndpointLine::Snapshot(revisions) => {
                self.feed.replace(revisions);
                self.has_snapshot = true;
            }
            _ if !self.has_snapshot => return Err(StreamError::NoSnapshot),
            EndpointLine::Set { revision, endpoints } => drop(self.feed.set(revision, *endpoints)),
            EndpointLine::Gone(revision) => drop(self.feed.remove(&revision)),
        }
        Ok(())
    }
}

/// Cuts a stream of bytes into lines.
#[derive(Debug, Default)]
struct Lines {
    pending: BytesMut,
    /// The length of the part of `pending` that is known to hold no line feed.
    searched: usize,
}

impl Lines {
    fn push(&mut self, data: &[u8]) -> Result<(), StreamError> {
        self.pending.extend_from_slice(data);
        if self.pending.len() > MAX_LINE_BYTES && !self.pending[self.searched..].contains(&b'\n') {
            return Err(StreamError::LineTooLong);
        }
        Ok(())
    }

    fn next_line(&mut self) -> Option<BytesMut> {
        match self.pending[self.searched..].iter().position(|&byte| byte == b'\n') {
            Some(length) => {
                let line = self.pending.split_to(self.searched + length + 1);
                self.searched = 0;
                Some(line)
            }
            None => {
                self.searched = self.pending.len();
                None
            }
        }
    }
}

/// From the attempt to connect to the head of the response.
const HEAD_TIMEOUT: Duration = Duration::from_secs(3);
/// Three heartbeats: the publisher is gone, although its connection is still open.
const MAX_SILENCE: Duration = EndpointLine::HEARTBEAT.saturating_mul(3);
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(2);
const MAX_LINE_BYTES: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use pilotlight_feed::Change;

    use super::*;

    fn told(
        follower: &mut Follower<RevisionId, RevisionEndpoints>,
    ) -> Vec<Change<RevisionId, RevisionEndpoints>> {
        std::iter::from_fn(|| follower.try_next()).collect()
    }

    #[test]
    fn an_empty_snapshot_says_that_there_is_nothing_and_an_empty_line_says_nothing() {
        let feed = Feed::default();
        let mut follower = feed.follow();
        let mut reader = LineReader { feed: &feed, has_snapshot: false };
        for empty in ["", "\n", " \r\n"] {
            reader.take(empty.as_bytes()).unwrap();
            assert_eq!(told(&mut follower), [], "{empty:?}");
        }
        reader.take(b"{\"snapshot\":{}}\n").unwrap();
        assert_eq!(told(&mut follower), [Change::Complete]);
    }

    #[test]
    fn what_cannot_be_read_or_comes_too_early_ends_the_stream() {
        let feed = Feed::default();
        let mut reader = LineReader { feed: &feed, has_snapshot: false };
        assert!(matches!(reader.take(b"{\"gone\":\"default/hello\"}\n"), Err(StreamError::NoSnapshot)));
        for unreadable in ["{\n", "{\"revisions\":{}}\n", "{\"gone\":\"hello\"}\n"] {
            let taken = reader.take(unreadable.as_bytes());
            assert!(matches!(taken, Err(StreamError::Unreadable(_))), "{unreadable}: {taken:?}");
        }
    }

    #[test]
    fn lines_are_found_however_the_stream_is_cut() {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for piece in ["ab", "c\nde\n", "", "\nf"] {
            lines.push(piece.as_bytes()).unwrap();
            found.extend(std::iter::from_fn(|| lines.next_line()));
        }
        assert_eq!(found, ["abc\n", "de\n", "\n"]);
    }
}
