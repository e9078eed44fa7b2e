//! Endpoints over HTTP, for an activator that runs apart from whoever runs the pods.
//!
//! The publisher answers one GET with a stream of [`EndpointLine`]s: a snapshot, then a line for each revision that
//! changes, and an empty line now and then to say that it is still there. Whatever goes wrong, the last good state stays
//! in force, and the stream is begun anew: the snapshot repairs what was missed.

use std::convert::Infallible;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Body;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use pilotlight_core::{EndpointLine, RevisionEndpoints, RevisionId};
use pilotlight_feed::{Feed, Follower};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

/// Follows the endpoints at `url` (`http://host:port/path`) until the follower is dropped.
pub fn follow(url: &str) -> Result<Follower<RevisionId, RevisionEndpoints>, BadUrl> {
    let source = Source::parse(url)?;
    let feed = Feed::default();
    let follower = feed.follow();
    tokio::spawn(async move {
        tokio::select! {
            () = keep_following(&source, &feed) => {}
            () = feed.closed() => {}
        }
    });
    Ok(follower)
}

/// The address of endpoints is not one.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not of the form http://host:port/path")]
pub struct BadUrl(String);

/// Why a stream of endpoints ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error(transparent)]
    Dial(#[from] std::io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error("answered {0}")]
    Status(StatusCode),
    #[error("the publisher ended the stream")]
    Ended,
    #[error("nothing heard for {0:?}")]
    Silent(Duration),
    #[error("a line of more than {MAX_LINE_BYTES} bytes")]
    LineTooLong,
    #[error("cannot read a line: {0}")]
    Unreadable(serde_json::Error),
    #[error("a change before the snapshot")]
    NoSnapshot,
}

#[derive(Clone, Debug)]
struct Source {
    host: String,
    port: u16,
    authority: String,
    path: String,
}

impl Source {
    fn parse(url: &str) -> Result<Source, BadUrl> {
        let bad = || BadUrl(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| bad())?;
        if uri.scheme_str() != Some("http") {
            return Err(bad());
        }
        let authority = uri.authority().ok_or_else(bad)?;
        Ok(Source {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            authority: authority.to_string(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }
}

async fn keep_following(source: &Source, feed: &Feed<RevisionId, RevisionEndpoints>) {
    let mut delay = FIRST_DELAY;
    let mut told = false;
    loop {
        let mut reader = LineReader { feed, has_snapshot: false };
        let error = match follow_once(source, &mut reader).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        // A publisher whose lines cannot be read is not asked for all of them again at once.
        if reader.has_snapshot && !matches!(error, StreamError::Unreadable(_)) {
            (delay, told) = (FIRST_DELAY, false);
        }
        if std::mem::replace(&mut told, true) {
            debug!(from = source.authority, %error, "Still no endpoints");
        } else {
            warn!(from = source.authority, %error, "Lost the endpoints; keeping the last");
        }
        sleep(delay).await;
        delay = delay.mul_f64(1.5).min(LONGEST_DELAY);
    }
}

async fn follow_once(source: &Source, reader: &mut LineReader<'_>) -> Result<Infallible, StreamError> {
    let silent = |limit| move |_| StreamError::Silent(limit);
    let dial = TcpStream::connect((source.host.as_str(), source.port));
    let stream = timeout(DIAL_TIMEOUT, dial).await.map_err(silent(DIAL_TIMEOUT))??;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async move {
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = source.path.parse().unwrap_or_default();
        if let Ok(host) = source.authority.parse() {
            request.headers_mut().insert(header::HOST, host);
        }
        let response =
            timeout(DIAL_TIMEOUT, sender.send_request(request)).await.map_err(silent(DIAL_TIMEOUT))??;
        if response.status() != StatusCode::OK {
            return Err(StreamError::Status(response.status()));
        }
        info!(from = source.authority, "Following endpoints");
        read_lines(response.into_body(), reader).await
    };
    // In one task, so that nothing is left behind when nobody follows any more.
    tokio::pin!(exchange);
    tokio::select! {
        ended = &mut exchange => ended,
        _ = connection => exchange.await,
    }
}

async fn read_lines<B: Body<Data = Bytes> + Unpin>(
    mut body: B,
    reader: &mut LineReader<'_>,
) -> Result<Infallible, StreamError>
where
    StreamError: From<B::Error>,
{
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

/// Passes the lines of one stream on.
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
    /// So much of `pending` is known to hold no line feed.
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

const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// Three heartbeats of the publisher's: it has gone, though its connection does not say so.
const MAX_SILENCE: Duration = EndpointLine::HEARTBEAT.saturating_mul(3);
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(2);
const MAX_LINE_BYTES: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use futures_util::stream::unfold;
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use pilotlight_feed::Change;
    use tokio::time::Instant;

    use super::*;

    fn told(
        follower: &mut Follower<RevisionId, RevisionEndpoints>,
    ) -> Vec<Change<RevisionId, RevisionEndpoints>> {
        std::iter::from_fn(|| follower.try_next()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn empty_lines_keep_a_stream_alive_and_three_that_are_missing_end_it() {
        let feed = Feed::default();
        let mut follower = feed.follow();
        let heartbeats = unfold(0, |beat| async move {
            sleep(if beat < 20 { EndpointLine::HEARTBEAT } else { Duration::MAX }).await;
            Some((Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"\n"))), beat + 1))
        });
        let started = Instant::now();
        let body = StreamBody::new(Box::pin(heartbeats));
        let Err(error) = read_lines(body, &mut LineReader { feed: &feed, has_snapshot: false }).await;
        assert_eq!(error.to_string(), "nothing heard for 45s");
        assert_eq!(started.elapsed(), EndpointLine::HEARTBEAT * 23);
        assert_eq!(told(&mut follower), []);
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

    #[test]
    fn addresses_must_be_http() {
        assert!(Source::parse("http://[::1]:8022/v1/endpoints").is_ok_and(|source| source.host == "::1"));
        for bad in ["", "https://a/b", "localhost:80", "/v1/endpoints", "http://"] {
            assert!(Source::parse(bad).is_err(), "{bad}");
        }
    }
}
