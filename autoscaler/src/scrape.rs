//! Asking pods what they measured: once a second, of each revision a sample.
//!
//! Knative's name: the stats scraper, in its pod-address mode.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use parking_lot::Mutex;
use pilotlight_core::cadence::SCRAPE;
use pilotlight_core::{Candidate, RevisionId, Rng, Stat, ask_order, extrapolate, sample_size};
use pilotlight_feed::{Change, Follower};
use pilotlight_net::{Body, Client, Clock, Request, SendError, UpstreamParams, Upstreams, headers, wire};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};
use tracing::{debug, info, warn};

use crate::cluster::{PodPhase, RevisionView};
use crate::metrics::scrape_duration;
use crate::report::{Report, Source};
use crate::run::OnPodStat;

/// Why one pod's stat could not be had.
#[derive(Debug, thiserror::Error)]
enum ScrapeError {
    #[error("no answer within {SCRAPE_TIMEOUT:?}")]
    TimedOut,
    #[error(transparent)]
    Net(#[from] pilotlight_net::Error),
    #[error("status {0}")]
    Status(StatusCode),
    #[error("content type is not {}", headers::STATS_CONTENT_TYPE)]
    ContentType,
    #[error("the body is cut or longer than {MAX_STAT_BYTES} bytes")]
    Body,
    #[error(transparent)]
    Decode(#[from] wire::DecodeError),
}

/// Scrapes until the receiver is gone.
pub(crate) async fn run(
    clock: Clock,
    mut changes: Follower<RevisionId, RevisionView>,
    reports: mpsc::Sender<Report>,
    on_pod_stat: Option<OnPodStat>,
) {
    let scraper = Arc::new(Scraper {
        clock,
        upstreams: Upstreams::new(UpstreamParams {
            max_idle_per_host: 1,
            idle_timeout: Duration::from_secs(90),
            connect_timeout: SCRAPE_TIMEOUT,
        }),
        on_pod_stat,
        rng: Mutex::new(Rng::new(clock.now().as_nanos())),
        failing: Mutex::default(),
    });
    // Those that have something to ask: a revision at rest costs nothing here.
    let mut scraped = BTreeMap::new();
    let mut under_way = JoinSet::new();
    while !reports.is_closed() {
        sleep_until(clock.instant_at(SCRAPE.next(clock.now()))).await;
        // What has not answered by now would land in a bucket that is not its own.
        under_way.abort_all();
        while under_way.join_next().await.is_some() {}
        while let Some(change) = changes.try_next() {
            match change {
                Change::Set(id, revision) if revision.spec.scraped && revision.counts().ready > 0 => {
                    scraped.insert(id, revision);
                }
                Change::Set(id, _) | Change::Gone(id) => {
                    scraped.remove(&id);
                    scraper.failing.lock().remove(&id);
                }
                Change::Complete => {}
            }
        }
        for (id, revision) in &scraped {
            let (scraper, id, revision) = (Arc::clone(&scraper), Arc::clone(id), Arc::clone(revision));
            let reports = reports.clone();
            under_way.spawn(async move {
                if let Some(stat) = scraper.scrape(&id, &revision).await {
                    let report = Report { revision: (*id).clone(), stat, source: Source::Scrape };
                    let _ = reports.send(report).await;
                }
            });
        }
    }
}

struct Scraper {
    clock: Clock,
    upstreams: Upstreams,
    on_pod_stat: Option<OnPodStat>,
    rng: Mutex<Rng>,
    /// Revisions whose last scrape failed: said once, and again when it is over.
    failing: Mutex<BTreeSet<RevisionId>>,
}

impl Scraper {
    /// The sum over a revision's ready pods, reckoned from a sample; `None`, and nothing recorded, if too few
    /// answered.
    async fn scrape(&self, id: &RevisionId, revision: &RevisionView) -> Option<Stat> {
        let started = self.clock.now();
        let ready = revision.pods.iter().filter(|pod| pod.phase == PodPhase::Ready);
        let candidates: Vec<_> = ready
            .map(|pod| Candidate { pod: (pod.name.clone(), pod.stats_address), started: pod.started })
            .collect();
        let pods = candidates.len();
        let wanted = sample_size(pods);
        let order = ask_order(started, revision.spec.stable_window, candidates, &mut self.rng.lock());
        let (answers, failure) = self.ask(id, order, wanted).await;
        scrape_duration(&id.namespace).record((self.clock.now() - started).as_secs_f64());
        let sum = extrapolate(&answers, pods);
        if sum.is_some() {
            if self.failing.lock().remove(id) {
                info!(revision = %id, pods, "Scrapes work again");
            }
        } else if let Some(error) = failure
            && self.failing.lock().insert(id.clone())
        {
            warn!(revision = %id, %error, pods, "Scrapes fail, nothing is recorded");
        }
        sum
    }

    /// Asks `wanted` pods at a time, others in place of those that fail, until that many have answered; or until there
    /// are no others, with the failure that came last.
    async fn ask(
        &self,
        id: &RevisionId,
        order: Vec<(String, SocketAddr)>,
        wanted: usize,
    ) -> (Vec<Stat>, Option<ScrapeError>) {
        let mut order = order.into_iter();
        let mut asking = FuturesUnordered::new();
        let ask = |(name, address): (String, SocketAddr)| async move {
            let answer = timeout(SCRAPE_TIMEOUT, self.ask_one(address)).await;
            (name, answer.unwrap_or(Err(ScrapeError::TimedOut)))
        };
        asking.extend(order.by_ref().take(wanted).map(ask));
        let mut answers = Vec::with_capacity(wanted);
        while let Some((name, answer)) = asking.next().await {
            match answer {
                Ok(stat) => {
                    if let Some(on_pod_stat) = &self.on_pod_stat {
                        on_pod_stat(id, &name, &stat);
                    }
                    answers.push(stat);
                }
                Err(error) => {
                    let Some(next) = order.next() else { return (answers, Some(error)) };
                    debug!(pod = name, %error, "Pod did not answer, asking another");
                    asking.push(ask(next));
                }
            }
        }
        (answers, None)
    }

    async fn ask_one(&self, address: SocketAddr) -> Result<Stat, ScrapeError> {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = http::Uri::from_static("/metrics");
        let host = HeaderValue::try_from(address.to_string()).expect("an address is a legal value");
        request.headers_mut().insert(header::HOST, host);
        let accept = HeaderValue::from_static(headers::STATS_CONTENT_TYPE);
        request.headers_mut().insert(header::ACCEPT, accept);
        let response = self
            .upstreams
            .send(&Client::ourselves(), address, &mut request)
            .await
            .map_err(SendError::into_error)?;
        if !response.status().is_success() {
            return Err(ScrapeError::Status(response.status()));
        }
        if response.headers().get(header::CONTENT_TYPE).is_none_or(|it| it != headers::STATS_CONTENT_TYPE) {
            return Err(ScrapeError::ContentType);
        }
        let body = Limited::new(response.into_body(), MAX_STAT_BYTES).collect().await;
        let bytes = body.map_err(|_| ScrapeError::Body)?.to_bytes();
        Ok(wire::decode_stat(&bytes)?)
    }
}

/// Two pods, one after the other, within the second that a scrape has.
const SCRAPE_TIMEOUT: Duration = Duration::from_millis(450);

/// Six doubles with their tags, an integer and a pod name: a stat is never longer.
const MAX_STAT_BYTES: usize = 6 * 10 + 256 + 20;
