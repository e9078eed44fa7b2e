//! Asking pods what they measured: once a second, of each revision a sample.
//!
//! Knative's name: the stats scraper, in its pod-address mode.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{HeaderValue, header};
use parking_lot::Mutex;
use pilotlight_core::cadence::SCRAPE;
use pilotlight_core::{Candidate, RevisionId, Rng, Stat, ask_order, extrapolate, sample_size};
use pilotlight_feed::{Change, Follower};
use pilotlight_net::once::{Get, GetError};
use pilotlight_net::{Clock, UpstreamParams, Upstreams, headers, wire};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tracing::{debug, info, warn};

use crate::cluster::{PodPhase, RevisionView};
use crate::metrics::scrape_duration;
use crate::report::{Report, Source};

/// Hears of a revision's pod, by name, and what it measured.
pub type OnPodStat = Arc<dyn Fn(&RevisionId, &str, &Stat) + Send + Sync>;

/// Why one pod's stat could not be had.
#[derive(Debug, thiserror::Error)]
enum ScrapeError {
    #[error(transparent)]
    Get(#[from] GetError),
    #[error("content type is not {}", headers::STATS_CONTENT_TYPE)]
    ContentType,
    #[error(transparent)]
    Decode(#[from] wire::DecodeError),
}

/// Scrapes until the receiver is gone. Spawned here: the caller is generic, and every crate that names its cluster would
/// compile this again.
pub(crate) fn start(
    clock: Clock,
    changes: Follower<RevisionId, RevisionView>,
    reports: mpsc::Sender<Report>,
    on_pod_stat: Option<OnPodStat>,
) {
    tokio::spawn(run(clock, changes, reports, on_pod_stat));
}

async fn run(
    clock: Clock,
    mut changes: Follower<RevisionId, RevisionView>,
    reports: mpsc::Sender<Report>,
    on_pod_stat: Option<OnPodStat>,
) {
    let scraper = Arc::new(Scraper::new(clock, on_pod_stat));
    // Revisions with something to ask: a revision at rest costs nothing here.
    let mut scraped = BTreeMap::new();
    let mut under_way = JoinSet::new();
    while !reports.is_closed() {
        sleep_until(clock.instant_at(SCRAPE.next(clock.now()))).await;
        // An answer that has not come by now would land in a bucket that is not its own.
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
    question: Get<'static>,
    on_pod_stat: Option<OnPodStat>,
    rng: Mutex<Rng>,
    /// Revisions whose last scrape failed: said once, and again when it is over.
    failing: Mutex<BTreeSet<RevisionId>>,
}

impl Scraper {
    fn new(clock: Clock, on_pod_stat: Option<OnPodStat>) -> Self {
        Scraper {
            clock,
            upstreams: Upstreams::new(UpstreamParams {
                max_idle_per_host: 1,
                idle_timeout: Duration::from_secs(90),
                connect_timeout: SCRAPE_TIMEOUT,
            }),
            question: Get::new("/metrics")
                .header(header::ACCEPT, HeaderValue::from_static(headers::STATS_CONTENT_TYPE))
                .within(SCRAPE_TIMEOUT)
                .at_most(MAX_STAT_BYTES),
            on_pod_stat,
            rng: Mutex::new(Rng::new(clock.now().as_nanos())),
            failing: Mutex::default(),
        }
    }

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
        let ask = |(name, address): (String, SocketAddr)| async move { (name, self.ask_one(address).await) };
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
                    debug!(revision = %id, pod = name, %error, "Pod did not answer, asking another");
                    asking.push(ask(next));
                }
            }
        }
        (answers, None)
    }

    async fn ask_one(&self, address: SocketAddr) -> Result<Stat, ScrapeError> {
        let answer = self.upstreams.get(address, &self.question).await?;
        let content_type = answer.headers.get(header::CONTENT_TYPE).cloned();
        let bytes = answer.success()?;
        if content_type.is_none_or(|it| it != headers::STATS_CONTENT_TYPE) {
            return Err(ScrapeError::ContentType);
        }
        Ok(wire::decode_stat(&bytes)?)
    }
}

/// Two pods, one after the other, within the second that a scrape has.
const SCRAPE_TIMEOUT: Duration = Duration::from_millis(450);

/// Six doubles with their tags, an integer and a pod name: a stat is never longer.
const MAX_STAT_BYTES: usize = 6 * 10 + 256 + 20;

#[cfg(test)]
mod tests;
