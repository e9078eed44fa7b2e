//! Asking pods what they measured: once a second, of each revision a sample.
//!
//! Knative's name: the stats scraper. Pods are asked at their addresses; where a mesh does not let that through, their
//! Service is asked (`service_scrape.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use http::{HeaderValue, header};
use parking_lot::Mutex;
use pilotlight_core::cadence::SCRAPE;
use pilotlight_core::{Candidate, MeshMode, RevisionId, Rng, Stat, ask_order, extrapolate, sample_size};
use pilotlight_feed::{Change, Follower};
use pilotlight_net::once::Get;
use pilotlight_net::{Clock, UpstreamParams, Upstreams};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};
use tracing::{debug, info, warn};

use crate::cluster::{PodPhase, RevisionView};
use crate::metrics::scrape_duration;
use crate::question::{SCRAPE_LIMIT, SCRAPE_TIMEOUT, ScrapeError, ScrapeFault, question, read, through_mesh};
use crate::report::{Report, Source};
use crate::service_scrape::ServiceScrape;

/// Hears of a revision's pod, by name, and what it measured.
pub type OnPodStat = Arc<dyn Fn(&RevisionId, &str, &Stat) + Send + Sync>;

/// Hears of a revision whose scrapes fail from now on, or fail in another way; `None`: they work again.
pub type OnScrape = Arc<dyn Fn(&RevisionId, Option<&ScrapeFault>) + Send + Sync>;

/// Finds the address of a host and a port.
pub type Resolve = Arc<dyn Fn(String, u16) -> BoxFuture<'static, io::Result<SocketAddr>> + Send + Sync>;

/// The system's resolver.
pub(crate) fn system_resolver() -> Resolve {
    Arc::new(|host, port| {
        Box::pin(async move {
            let mut addresses = tokio::net::lookup_host((host.as_str(), port)).await?;
            addresses.next().ok_or_else(|| io::ErrorKind::NotFound.into())
        })
    })
}

/// The parts of a scraper.
pub(crate) struct ScraperParams {
    pub(crate) clock: Clock,
    pub(crate) on_pod_stat: Option<OnPodStat>,
    pub(crate) on_scrape: Option<OnScrape>,
    pub(crate) resolve: Resolve,
}

/// Scrapes until the receiver is gone. Spawned here: the caller is generic, and every crate that names its cluster would
/// compile this again.
pub(crate) fn start(
    params: ScraperParams,
    changes: Follower<RevisionId, RevisionView>,
    reports: mpsc::Sender<Report>,
) {
    tokio::spawn(run(params, changes, reports));
}

async fn run(
    params: ScraperParams,
    mut changes: Follower<RevisionId, RevisionView>,
    reports: mpsc::Sender<Report>,
) {
    let clock = params.clock;
    let scraper = Arc::new(Scraper::new(params));
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
                Change::Set(id, _) => {
                    scraped.remove(&id);
                    scraper.end_failure(&id);
                }
                Change::Gone(id) => {
                    scraped.remove(&id);
                    scraper.failing.lock().remove(&id);
                    scraper.by_service.lock().remove(&id);
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
    params: ScraperParams,
    upstreams: Upstreams,
    question: Get<'static>,
    rng: Mutex<Rng>,
    /// Revisions whose last scrape failed, and why: told once, again when it is another reason, and when it is over.
    failing: Mutex<BTreeMap<RevisionId, ScrapeFault>>,
    /// Revisions whose pods cannot be asked one by one.
    by_service: Mutex<BTreeSet<RevisionId>>,
}

impl Scraper {
    fn new(params: ScraperParams) -> Self {
        Scraper {
            upstreams: Upstreams::new(UpstreamParams {
                max_idle_per_host: 1,
                idle_timeout: Duration::from_secs(90),
                connect_timeout: SCRAPE_TIMEOUT,
            }),
            question: question(),
            rng: Mutex::new(Rng::new(params.clock.now().as_nanos())),
            failing: Mutex::default(),
            by_service: Mutex::default(),
            params,
        }
    }

    /// The sum over a revision's ready pods, reckoned from a sample; `None`, and nothing recorded, if too few
    /// answered.
    async fn scrape(&self, id: &RevisionId, revision: &RevisionView) -> Option<Stat> {
        let started = self.params.clock.now();
        let scraped = timeout(SCRAPE_LIMIT, self.measure(id, revision)).await;
        let scraped = scraped.unwrap_or(Err(ScrapeError::Late));
        let took = (self.params.clock.now() - started).as_secs_f64();
        scrape_duration(&id.namespace, &revision.parents).record(took);
        match scraped {
            Ok(sum) => {
                self.end_failure(id);
                sum
            }
            Err(error) => {
                self.fail(id, &error);
                None
            }
        }
    }

    /// Asks the pods, their Service, or first those and then this, as the mesh allows.
    async fn measure(&self, id: &RevisionId, revision: &RevisionView) -> Result<Option<Stat>, ScrapeError> {
        let scraping = &revision.scraping;
        let Some(service) = &scraping.service else { return self.ask_pods(id, revision).await };
        let is_auto = scraping.mesh == MeshMode::Auto;
        let by_pods = match scraping.mesh {
            MeshMode::Enabled => false,
            MeshMode::Disabled => true,
            MeshMode::Auto => scraping.passthrough || !self.by_service.lock().contains(id),
        };
        if by_pods {
            match self.ask_pods(id, revision).await {
                // Every pod was asked, and a mesh answered for each.
                Err(error) if is_auto && !scraping.passthrough && error.looks_like_mesh() => {}
                other => return other,
            }
        }
        let pods = revision.pods.iter().filter(|pod| pod.phase == PodPhase::Ready).count();
        let (host, port) = service.rsplit_once(':').unwrap_or((service, ""));
        let port = port.parse().map_err(io::Error::other)?;
        let address = (self.params.resolve)(host.to_owned(), port).await?;
        let host = HeaderValue::try_from(&**service).unwrap_or(HeaderValue::from_static("pods"));
        let question = question().header(header::HOST, host);
        let sum = ServiceScrape::new(pods, revision.spec.stable_window).run(address, &question).await?;
        if is_auto && self.by_service.lock().insert(id.clone()) {
            info!(revision = %id, "A mesh keeps pods from being asked one by one; their Service is asked from now on");
        }
        Ok(Some(sum))
    }

    /// The sum over the pods, asked one by one. If none answers, and a mesh seems to have answered for each, the error
    /// looks like one of a mesh.
    async fn ask_pods(&self, id: &RevisionId, revision: &RevisionView) -> Result<Option<Stat>, ScrapeError> {
        let ready = revision.pods.iter().filter(|pod| pod.phase == PodPhase::Ready);
        let candidates: Vec<_> = ready
            .map(|pod| Candidate { pod: (pod.name.clone(), pod.stats_address), started: pod.started })
            .collect();
        let pods = candidates.len();
        let (now, window) = (self.params.clock.now(), revision.spec.stable_window);
        let order = ask_order(now, window, candidates, &mut self.rng.lock());
        let passthrough = revision.scraping.service.as_deref().filter(|_| revision.scraping.passthrough);
        let question = passthrough.map(through_mesh);
        let question = question.as_ref().unwrap_or(&self.question);
        let (answers, failure) = self.ask(id, question, order, sample_size(pods)).await;
        match extrapolate(&answers, pods) {
            Some(sum) => Ok(Some(sum)),
            None => failure.map_or(Ok(None), Err),
        }
    }

    fn fail(&self, id: &RevisionId, error: &ScrapeError) {
        let fault = error.fault();
        let before = self.failing.lock().insert(id.clone(), fault.clone());
        let is_same = |before: &ScrapeFault| std::mem::discriminant(before) == std::mem::discriminant(&fault);
        if before.as_ref().is_some_and(is_same) {
            return;
        }
        warn!(revision = %id, %error, "Scrapes fail, nothing is recorded");
        if let Some(on_scrape) = &self.params.on_scrape {
            on_scrape(id, Some(&fault));
        }
    }

    fn end_failure(&self, id: &RevisionId) {
        if self.failing.lock().remove(id).is_none() {
            return;
        }
        info!(revision = %id, "Scrapes work again");
        if let Some(on_scrape) = &self.params.on_scrape {
            on_scrape(id, None);
        }
    }

    /// Asks `wanted` pods at a time, others in place of those that fail, until that many have answered; or until there
    /// are no others, with a failure: one that does not look like a mesh, if there is one.
    async fn ask(
        &self,
        id: &RevisionId,
        question: &Get<'_>,
        order: Vec<(String, SocketAddr)>,
        wanted: usize,
    ) -> (Vec<Stat>, Option<ScrapeError>) {
        let mut order = order.into_iter();
        let mut asking = FuturesUnordered::new();
        let ask = |(name, address): (String, SocketAddr)| async move {
            let answer = self.upstreams.get(address, question).await;
            (name, answer.map_err(ScrapeError::Get).and_then(read))
        };
        asking.extend(order.by_ref().take(wanted).map(ask));
        let mut answers = Vec::with_capacity(wanted);
        let mut failure: Option<ScrapeError> = None;
        while let Some((name, answer)) = asking.next().await {
            match answer {
                Ok(stat) => {
                    if let Some(on_pod_stat) = &self.params.on_pod_stat {
                        on_pod_stat(id, &name, &stat);
                    }
                    answers.push(stat);
                }
                Err(error) => {
                    debug!(revision = %id, pod = name, %error, "Pod did not answer");
                    if failure.as_ref().is_none_or(ScrapeError::looks_like_mesh) {
                        failure = Some(error);
                    }
                    asking.extend(order.next().map(ask));
                }
            }
        }
        // Where one pod has answered, no mesh is in the way.
        let failure = failure.map(|error| match answers.is_empty() {
            false if error.looks_like_mesh() => ScrapeError::Exhausted,
            _ => error,
        });
        (answers, failure)
    }
}

#[cfg(test)]
mod tests;
