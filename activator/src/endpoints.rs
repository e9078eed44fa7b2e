//! The table of endpoints over HTTP, for an activator that runs apart from whoever runs the pods.
//!
//! The source answers one GET with a stream of lines, each a whole [`EndpointTable`] as JSON: the first at once, one
//! more after every change. Empty lines say nothing. Whatever goes wrong, the last good table stays in force.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
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
        match error {
            // Nothing changed for long, or the connection died unnoticed: asking again settles it.
            StreamError::Silent(_) => debug!(from = source.authority, "Asking for the endpoints again"),
            error if std::mem::replace(&mut told, true) => {
                debug!(from = source.authority, %error, "Still no endpoints");
            }
            error => warn!(from = source.authority, %error, "Lost the endpoints; keeping the last"),
        }
        sleep(delay).await;
        delay = delay.mul_f64(1.5).min(LONGEST_DELAY);
    }
}

async fn follow_once(
    source: &Source,
    tables: &watch::Sender<Arc<EndpointTable>>,
    heard: &mut bool,
) -> Result<std::convert::Infallible, StreamError> {
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
        let mut body = response.into_body();
        let mut lines = Lines::default();
        loop {
            let frame = timeout(MAX_SILENCE, body.frame()).await.map_err(silent(MAX_SILENCE))?;
            let frame = frame.ok_or(StreamError::Ended)??;
            let Ok(data) = frame.into_data() else { continue };
            lines.push(&data)?;
            while let Some(line) = lines.next_line() {
                take_line(&line, tables, heard);
            }
        }
    };
    // In one task, so that nothing is left behind when nobody follows any more.
    tokio::pin!(exchange);
    tokio::select! {
        ended = &mut exchange => ended,
        _ = connection => exchange.await,
    }
}

fn take_line(line: &[u8], tables: &watch::Sender<Arc<EndpointTable>>, heard: &mut bool) {
    if line.iter().all(u8::is_ascii_whitespace) {
        return;
    }
    match serde_json::from_slice::<EndpointTable>(line) {
        Ok(table) => {
            *heard = true;
            tables.send_if_modified(|current| {
                let is_new = **current != table;
                if is_new {
                    *current = Arc::new(table);
                }
                is_new
            });
        }
        Err(error) => warn!(%error, "Cannot read a table of endpoints; keeping the last"),
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
const MAX_SILENCE: Duration = Duration::from_secs(60);
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(2);
const MAX_LINE_BYTES: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

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
