//! Scrapes of pods that answer, do not answer, and answer nonsense: over real sockets.

use std::sync::atomic::{AtomicUsize, Ordering};

use http::StatusCode;
use pilotlight_core::RevisionSpec;
use pilotlight_net::{Body, Client, Drain, Handler, Request, Response, plain};
use pilotlight_net::{headers, wire};
use tokio::net::TcpListener;

use super::*;
use crate::cluster::Scraping;
use crate::pretend::{at_rest, id, with_pods};
use crate::question::MAX_STAT_BYTES;

/// A pod that answers like this.
#[derive(Clone, Copy)]
enum Pretend {
    InFlight(f64),
    Status(StatusCode),
    WrongContentType,
    Garbage,
    TooMuch,
}

struct PretendPod {
    name: usize,
    answers: Pretend,
    asked: Arc<AtomicUsize>,
    heard: Heard,
}

/// `Host` and `Knative-Direct-Lb` of each question.
type Heard = Arc<Mutex<Vec<(String, Option<String>)>>>;

impl Handler for PretendPod {
    async fn handle(&self, _: &Client, request: Request) -> Response {
        assert_eq!((request.uri().path(), &request.headers()[header::ACCEPT]), ("/metrics", &STATS));
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let through = request.headers().get("knative-direct-lb").map(|it| it.to_str().unwrap().to_owned());
        let host = request.headers()[header::HOST].to_str().unwrap().to_owned();
        self.heard.lock().push((host, through));
        let stat = |in_flight| {
            let pod_name = format!("{}-{number}", self.name);
            wire::encode_stat(&Stat { pod_name, average_concurrent_requests: in_flight, ..Stat::default() })
        };
        let (content_type, body) = match self.answers {
            Pretend::InFlight(in_flight) => (STATS, stat(in_flight)),
            Pretend::Status(status) => return plain(status, "no"),
            Pretend::WrongContentType => (HeaderValue::from_static("text/plain"), stat(1.0)),
            Pretend::Garbage => (STATS, vec![0xff; 16]),
            Pretend::TooMuch => (STATS, vec![0; MAX_STAT_BYTES + 1]),
        };
        let mut response = Response::new(Body::full(body));
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response
    }
}

struct Pods {
    addresses: Vec<SocketAddr>,
    asked: Arc<AtomicUsize>,
    heard: Heard,
    drain: Drain,
}

impl Pods {
    async fn start(all: impl IntoIterator<Item = Pretend>) -> Pods {
        let (drain, asked, mut addresses) = (Drain::default(), Arc::default(), Vec::new());
        let heard = Heard::default();
        for (name, answers) in all.into_iter().enumerate() {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push(listener.local_addr().unwrap());
            let pod = PretendPod { name, answers, asked: Arc::clone(&asked), heard: Arc::clone(&heard) };
            tokio::spawn(pilotlight_net::serve(listener, Arc::new(pod), drain.clone()));
        }
        Pods { addresses, asked, heard, drain }
    }

    fn revision(&self) -> RevisionView {
        with_pods(at_rest(RevisionSpec::default()), self.addresses.iter().copied())
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        self.drain.force();
    }
}

const STATS: HeaderValue = HeaderValue::from_static(headers::STATS_CONTENT_TYPE);

fn params() -> ScraperParams {
    let clock = Clock::start();
    ScraperParams { clock, on_pod_stat: None, on_scrape: None, resolve: system_resolver() }
}

fn scraper() -> Scraper {
    Scraper::new(params())
}

async fn scraped(pods: impl IntoIterator<Item = Pretend>) -> Option<f64> {
    let pods = Pods::start(pods).await;
    let scraper = scraper();
    let stat = scraper.scrape(&id("hello"), &pods.revision()).await;
    stat.map(|stat| stat.average_concurrent_requests)
}

#[tokio::test]
async fn a_revisions_load_is_the_sum_over_its_pods() {
    assert_eq!(scraped([1.0, 2.0, 4.5].map(Pretend::InFlight)).await, Some(7.5));
}

#[tokio::test]
async fn what_a_sample_measured_is_reckoned_up_to_all_pods() {
    let pods = Pods::start([Pretend::InFlight(2.0); 20]).await;
    let stat = scraper().scrape(&id("hello"), &pods.revision()).await.unwrap();
    assert_eq!(stat.average_concurrent_requests, 40.0);
    assert_eq!(pods.asked.load(Ordering::Relaxed), sample_size(20), "not all twenty are asked");
}

#[tokio::test]
async fn a_pod_that_does_not_answer_is_made_up_for_by_another() {
    let mut pods = vec![Pretend::InFlight(2.0); 20];
    pods[..8].fill(Pretend::Status(StatusCode::INTERNAL_SERVER_ERROR));
    assert_eq!(scraped(pods).await, Some(40.0));
}

#[tokio::test]
async fn half_a_sum_is_not_recorded() {
    for fault in [
        Pretend::Status(StatusCode::SERVICE_UNAVAILABLE),
        Pretend::WrongContentType,
        Pretend::Garbage,
        Pretend::TooMuch,
    ] {
        assert_eq!(scraped([Pretend::InFlight(5.0), fault]).await, None);
    }
}

#[tokio::test]
async fn a_pod_that_is_gone_without_a_word_is_a_failure_and_one_that_is_back_ends_it() {
    let mut pods = Pods::start([Pretend::InFlight(5.0)]).await;
    let there = pods.addresses[0];
    // The first port has no listener.
    pods.addresses[0] = SocketAddr::from(([127, 0, 0, 1], 1));
    let scraper = scraper();
    assert_eq!(scraper.scrape(&id("hello"), &pods.revision()).await, None);
    assert!(scraper.failing.lock().contains_key(&id("hello")));
    pods.addresses[0] = there;
    assert!(scraper.scrape(&id("hello"), &pods.revision()).await.is_some());
    assert!(scraper.failing.lock().is_empty());
}

#[tokio::test]
async fn whoever_wants_to_know_hears_what_each_pod_of_each_revision_measured() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hear: OnPodStat = {
        let heard = Arc::clone(&heard);
        Arc::new(move |revision, pod, stat| {
            heard.lock().push((revision.to_string(), pod.to_owned(), stat.average_concurrent_requests));
        })
    };
    let scraper = Scraper::new(ScraperParams { on_pod_stat: Some(hear), ..params() });
    for (namespace, load) in [("a", 1.0), ("b", 2.0)] {
        let pods = Pods::start([Pretend::InFlight(load)]).await;
        // Pods of one name in two namespaces are two pods.
        scraper.scrape(&RevisionId::new(namespace, "hello"), &pods.revision()).await.unwrap();
    }
    let expected = [("a/hello", "pod-0", 1.0), ("b/hello", "pod-0", 2.0)];
    assert_eq!(
        *heard.lock(),
        expected.map(|(revision, pod, load)| (revision.to_owned(), pod.to_owned(), load))
    );
}

/// A revision whose Service leads to `service`, and what its scraper was told.
struct Meshed {
    scraper: Scraper,
    view: RevisionView,
    told: Arc<Mutex<Vec<Option<ScrapeFault>>>>,
}

impl Meshed {
    fn new(pods: &Pods, service: &Pods, mesh: MeshMode, passthrough: bool) -> Meshed {
        let told = Arc::new(Mutex::new(Vec::new()));
        let on_scrape: OnScrape = {
            let told = Arc::clone(&told);
            Arc::new(move |_, fault| told.lock().push(fault.cloned()))
        };
        let address = service.addresses[0];
        let resolve: Resolve = Arc::new(move |host, port| {
            assert_eq!((&*host, port), ("hello-private.default", 9090));
            Box::pin(async move { Ok(address) })
        });
        let service = Some("hello-private.default:9090".into());
        let view = RevisionView { scraping: Scraping { service, mesh, passthrough }, ..pods.revision() };
        let params = ScraperParams { on_scrape: Some(on_scrape), resolve, ..params() };
        Meshed { scraper: Scraper::new(params), view, told }
    }

    async fn scrape(&self) -> Option<f64> {
        let stat = self.scraper.scrape(&id("hello"), &self.view).await;
        stat.map(|stat| stat.average_concurrent_requests)
    }
}

const NO_PODS: Pretend = Pretend::Status(StatusCode::SERVICE_UNAVAILABLE);

#[tokio::test]
async fn behind_a_mesh_the_service_is_asked_and_nobody_else() {
    let (pods, service) =
        (Pods::start([Pretend::InFlight(9.0); 3]).await, Pods::start([Pretend::InFlight(4.0)]).await);
    let meshed = Meshed::new(&pods, &service, MeshMode::Enabled, false);
    assert_eq!(meshed.scrape().await, Some(12.0));
    assert_eq!(pods.asked.load(Ordering::Relaxed), 0);
    assert!(service.heard.lock().iter().all(|it| *it == ("hello-private.default:9090".to_owned(), None)));
}

#[tokio::test]
async fn without_a_mesh_the_service_is_never_asked() {
    let (pods, service) = (Pods::start([NO_PODS; 2]).await, Pods::start([Pretend::InFlight(4.0)]).await);
    let meshed = Meshed::new(&pods, &service, MeshMode::Disabled, false);
    assert_eq!(meshed.scrape().await, None);
    assert_eq!(service.asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn pods_that_all_seem_to_be_behind_a_mesh_are_asked_through_the_service_from_then_on() {
    let (pods, service) = (Pods::start([NO_PODS; 3]).await, Pods::start([Pretend::InFlight(4.0)]).await);
    let meshed = Meshed::new(&pods, &service, MeshMode::Auto, false);
    assert_eq!(meshed.scrape().await, Some(12.0));
    assert_eq!(pods.asked.load(Ordering::Relaxed), 3);
    assert_eq!(meshed.scrape().await, Some(12.0));
    assert_eq!(pods.asked.load(Ordering::Relaxed), 3, "the pods are left alone");
    assert!(meshed.told.lock().is_empty());
}

#[tokio::test]
async fn one_failure_that_no_mesh_would_give_is_no_mesh() {
    for other in
        [Pretend::Status(StatusCode::INTERNAL_SERVER_ERROR), Pretend::InFlight(1.0), Pretend::Garbage]
    {
        let (pods, service) =
            (Pods::start([NO_PODS, other, NO_PODS]).await, Pods::start([Pretend::InFlight(4.0)]).await);
        let meshed = Meshed::new(&pods, &service, MeshMode::Auto, false);
        assert_eq!(meshed.scrape().await, None);
        assert_eq!(service.asked.load(Ordering::Relaxed), 0);
    }
}

#[tokio::test]
async fn a_mesh_that_lets_questions_through_is_told_the_service() {
    let (pods, service) =
        (Pods::start([Pretend::InFlight(2.0)]).await, Pods::start([Pretend::InFlight(4.0)]).await);
    let meshed = Meshed::new(&pods, &service, MeshMode::Auto, true);
    assert_eq!(meshed.scrape().await, Some(2.0));
    assert_eq!(*pods.heard.lock(), [("hello-private.default".to_owned(), Some("true".to_owned()))]);
    // And no other way is tried.
    let (pods, service) = (Pods::start([NO_PODS]).await, Pods::start([Pretend::InFlight(4.0)]).await);
    let meshed = Meshed::new(&pods, &service, MeshMode::Auto, true);
    assert_eq!(meshed.scrape().await, None);
    assert_eq!(service.asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn what_scrapes_come_to_is_told_when_it_changes() {
    let mut pods = Pods::start([Pretend::InFlight(5.0)]).await;
    let there = std::mem::replace(&mut pods.addresses[0], SocketAddr::from(([127, 0, 0, 1], 1)));
    let service = Pods::start([Pretend::InFlight(4.0)]).await;
    let mut meshed = Meshed::new(&pods, &service, MeshMode::Disabled, false);
    for _ in 0..2 {
        assert_eq!(meshed.scrape().await, None);
    }
    assert!(matches!(meshed.told.lock()[..], [Some(ScrapeFault::CollectionFailed(_))]));
    meshed.view.pods[0].stats_address = there;
    for _ in 0..2 {
        assert_eq!(meshed.scrape().await, Some(5.0));
    }
    assert_eq!(meshed.told.lock().len(), 2);
    assert_eq!(meshed.told.lock()[1], None);
}
