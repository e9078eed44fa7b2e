//! Scrapes of pods that answer, do not answer, and answer nonsense: over real sockets.

use std::sync::atomic::{AtomicUsize, Ordering};

use http::StatusCode;
use pilotlight_core::RevisionSpec;
use pilotlight_net::{Body, Client, Drain, Handler, Request, Response, plain};
use tokio::net::TcpListener;

use super::*;
use crate::pretend::{at_rest, id, with_pods};

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
    answers: Pretend,
    asked: Arc<AtomicUsize>,
}

impl Handler for PretendPod {
    async fn handle(&self, _: &Client, request: Request) -> Response {
        assert_eq!((request.uri().path(), &request.headers()[header::ACCEPT]), ("/metrics", &STATS));
        self.asked.fetch_add(1, Ordering::Relaxed);
        let stat = |in_flight| {
            wire::encode_stat(&Stat { average_concurrent_requests: in_flight, ..Stat::default() })
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
    drain: Drain,
}

impl Pods {
    async fn start(all: impl IntoIterator<Item = Pretend>) -> Pods {
        let (drain, asked, mut addresses) = (Drain::default(), Arc::default(), Vec::new());
        for answers in all {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push(listener.local_addr().unwrap());
            let pod = PretendPod { answers, asked: Arc::clone(&asked) };
            tokio::spawn(pilotlight_net::serve(listener, Arc::new(pod), drain.clone()));
        }
        Pods { addresses, asked, drain }
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

async fn scraped(pods: impl IntoIterator<Item = Pretend>) -> Option<f64> {
    let pods = Pods::start(pods).await;
    let scraper = Scraper::new(Clock::start(), None);
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
    let stat = Scraper::new(Clock::start(), None).scrape(&id("hello"), &pods.revision()).await.unwrap();
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
    let scraper = Scraper::new(Clock::start(), None);
    assert_eq!(scraper.scrape(&id("hello"), &pods.revision()).await, None);
    assert!(scraper.failing.lock().contains(&id("hello")));
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
    let scraper = Scraper::new(Clock::start(), Some(hear));
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
