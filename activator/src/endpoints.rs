//! The table of endpoints over HTTP, for an activator that runs apart from whoever runs the pods.
//!
//! The source answers one GET with a stream of lines, each a whole [`EndpointTable`] as JSON: the first at once, one
//! more after every change, and an empty one now and then to say that it is still there. Whatever goes wrong, the
//! last good table stays in force.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Body;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use pilotlight_core::EndpointTable;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

/// Follows the table at `url` (`http://host:port/path`) until every receiver is gone. It starts out empty.
pub fn follow(url: &str) -> Result<watch::Receiver<Arc<EndpointTable>>, BadUrl> {
    let source = Source::parse(url)?;
    let (sender, receiver) = watch::channel(Arc::default());
    tokio::spawn(async move {
        tokio::select! {
            () = keep_following(&source, &sender) => {}
            () = sender.closed() => {}
        }
    });
    Ok(receiver)
}

/// The address of a table is not one.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not of the form http://host:port/path")]
pub struct BadUrl(String);

/// Why a stream of tables ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("{0}")]
    Dial(#[from] std::io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("answered {0}")]
    Status(StatusCode),
    #[error("the source ended the stream")]
    Ended,
    #[error("nothing heard for {0:?}")]
    Silent(Duration),
    #[error("a line of more than {MAX_LINE_BYTES} bytes")]
    LineTooLong,
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

async fn keep_following(source: &Source, tables: &watch::Sender<Arc<EndpointTable>>) {
    let mut delay = FIRST_DELAY;
    let mut told = false;
    loop {
        let mut heard = false;
        let error = match follow_once(source, tables, &mut heard).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        if heard {
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

async fn follow_once(
    source: &Source,
    tables: &watch::Sender<Arc<EndpointTable>>,
    heard: &mut bool,
) -> Result<Infallible, StreamError> {
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
        read_tables(response.into_body(), tables, heard).await
    };
    // In one task, so that nothing is left behind when nobody follows any more.
    tokio::pin!(exchange);
    tokio::select! {
        ended = &mut exchange => ended,
        _ = connection => exchange.await,
    }
}

async fn read_tables<B: Body<Data = Bytes> + Unpin>(
    mut body: B,
    tables: &watch::Sender<Arc<EndpointTable>>,
    heard: &mut bool,
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
            take_line(&line, tables, heard);
        }
    }
}

fn take_line(line: &[u8], tables: &watch::Sender<Arc<EndpointTable>>, heard: &mut bool) {
    match read_line(line) {
        Ok(None) => {}
        Ok(Some(table)) => {
            // The first counts as new even if it is as empty as ours: now it is known to be.
            let is_first = !std::mem::replace(heard, true);
            tables.send_if_modified(|current| {
                let is_new = is_first || **current != table;
                if is_new {
                    *current = Arc::new(table);
                }
                is_new
            });
        }
        Err(error) => warn!(%error, "Cannot read a table of endpoints; keeping the last"),
    }
}

/// The table in a line; `None` in an empty one.
fn read_line(line: &[u8]) -> Result<Option<EndpointTable>, serde_json::Error> {
    match line.trim_ascii() {
        b"" => Ok(None),
        text => serde_json::from_slice(text).map(Some),
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
/// Three heartbeats of the source's: it has gone, though its connection does not say so.
const MAX_SILENCE: Duration = EndpointTable::HEARTBEAT.saturating_mul(3);
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(2);
const MAX_LINE_BYTES: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use futures_util::stream::unfold;
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn empty_lines_keep_a_stream_alive_and_three_that_are_missing_end_it() {
        let (tables, table) = watch::channel(Arc::default());
        let heartbeats = unfold(0, |beat| async move {
            sleep(if beat < 20 { EndpointTable::HEARTBEAT } else { Duration::MAX }).await;
            Some((Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"\n"))), beat + 1))
        });
        let started = Instant::now();
        let body = StreamBody::new(Box::pin(heartbeats));
        let Err(error) = read_tables(body, &tables, &mut false).await;
        assert_eq!(error.to_string(), "nothing heard for 45s");
        assert_eq!(started.elapsed(), EndpointTable::HEARTBEAT * 23);
        assert!(!table.has_changed().unwrap());
    }

    #[test]
    fn the_first_table_counts_as_new_even_if_it_is_empty() {
        let (tables, mut table) = watch::channel(Arc::default());
        let (empty, mut heard) = (serde_json::to_vec(&EndpointTable::default()).unwrap(), false);
        take_line(b" \n", &tables, &mut heard);
        assert!(!table.has_changed().unwrap());
        take_line(&empty, &tables, &mut heard);
        assert!(table.has_changed().unwrap());
        table.mark_unchanged();
        take_line(&empty, &tables, &mut heard);
        assert!(!table.has_changed().unwrap());
    }

    #[test]
    fn an_empty_line_is_no_table_and_no_fault() {
        for empty in ["", "\n", " \r\n"] {
            assert!(matches!(read_line(empty.as_bytes()), Ok(None)), "{empty:?}");
        }
        assert_eq!(read_line(b"{\"revisions\":{}}\n").unwrap(), Some(EndpointTable::default()));
        assert!(read_line(b"{\n").is_err());
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
