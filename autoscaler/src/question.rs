//! The question that a queue-proxy is asked, and the answers that are of no use.

use std::io;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode, header};
use pilotlight_core::Stat;
use pilotlight_net::once::{Answer, Get, GetError};
use pilotlight_net::{headers, wire};

/// Why scrapes of a revision fail. Nothing is recorded then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScrapeFault {
    /// The Service leads to the same pods again and again. Knative's reason is `DidNotReceiveStat`.
    DidNotReceiveStat(String),
    /// Anything else. Knative's reason is `CollectionFailed`.
    CollectionFailed(String),
}

impl ScrapeFault {
    /// The fault in a sentence.
    pub fn message(&self) -> &str {
        let (ScrapeFault::DidNotReceiveStat(message) | ScrapeFault::CollectionFailed(message)) = self;
        message
    }
}

/// Why one stat could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScrapeError {
    #[error(transparent)]
    Get(#[from] GetError),
    #[error("content type is not {}", headers::STATS_CONTENT_TYPE)]
    ContentType,
    #[error(transparent)]
    Decode(#[from] wire::DecodeError),
    #[error("cannot find the Service's address: {0}")]
    Lookup(#[from] io::Error),
    /// Knative's words.
    #[error("did not receive stat from an unscraped pod")]
    Duplicate,
    #[error("too few pods answered, and others seem to be behind a mesh")]
    Exhausted,
    #[error("the scrape took longer than {SCRAPE_LIMIT:?}")]
    Late,
}

impl ScrapeError {
    /// Whether a mesh between here and the pod may have answered. Knative takes only these two statuses for that.
    pub(crate) fn looks_like_mesh(&self) -> bool {
        matches!(
            self,
            ScrapeError::Get(GetError::Status(StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE))
        )
    }

    /// The same for those who show it.
    pub(crate) fn fault(&self) -> ScrapeFault {
        match self {
            ScrapeError::Duplicate => ScrapeFault::DidNotReceiveStat(self.to_string()),
            _ => ScrapeFault::CollectionFailed(self.to_string()),
        }
    }
}

/// The stat in an answer.
pub(crate) fn read(answer: Answer) -> Result<Stat, ScrapeError> {
    let content_type = answer.headers.get(header::CONTENT_TYPE).cloned();
    let bytes = answer.success()?;
    if content_type.is_none_or(|it| it != headers::STATS_CONTENT_TYPE) {
        return Err(ScrapeError::ContentType);
    }
    Ok(wire::decode_stat(&bytes)?)
}

/// The question to a pod.
pub(crate) fn question() -> Get<'static> {
    Get::new("/metrics")
        .header(header::ACCEPT, HeaderValue::from_static(headers::STATS_CONTENT_TYPE))
        .within(SCRAPE_TIMEOUT)
        .at_most(MAX_STAT_BYTES)
}

/// The question to a single pod that a mesh lets through since it names the pod's Service.
pub(crate) fn through_mesh(service: &str) -> Get<'static> {
    let host = service.rsplit_once(':').map_or(service, |(host, _)| host);
    let question = question().header(DIRECT, HeaderValue::from_static("true"));
    match HeaderValue::try_from(host) {
        Ok(host) => question.header(header::HOST, host),
        Err(_) => question,
    }
}

/// Knative's header for requests that go to one pod through a mesh.
const DIRECT: HeaderName = HeaderName::from_static("knative-direct-lb");

/// All attempts of one scrape: the next one begins a second later.
pub(crate) const SCRAPE_LIMIT: Duration = Duration::from_millis(920);

/// Two pods, one after the other, within the second that a scrape has.
pub(crate) const SCRAPE_TIMEOUT: Duration = Duration::from_millis(450);

/// Six doubles with their tags, an integer and a pod name: a stat is never longer.
pub(crate) const MAX_STAT_BYTES: usize = 6 * 10 + 256 + 20;
