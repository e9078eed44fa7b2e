//! Asking pods through their Service, which leads to another pod each time, or to the same one again.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use pilotlight_core::{Stat, extrapolate, sample_size};
use pilotlight_net::once::{self, Get};

use crate::question::{ScrapeError, read};

/// One scrape of a Service. Pods that have lived for a whole stable window count first, the young ones fill up.
pub(crate) struct ServiceScrape {
    pods: usize,
    wanted: usize,
    window: Duration,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    names: BTreeSet<String>,
    old: Vec<Stat>,
    young: Vec<Stat>,
}

/// What an answer was.
#[derive(Debug, PartialEq, Eq)]
enum Taken {
    /// From a pod that has answered before.
    Duplicate,
    /// From a pod that counts, or one that fills up the last place: whoever asked is done.
    Counts,
    /// From a young pod: another may be older.
    Young,
}

impl ServiceScrape {
    /// A scrape of a Service with so many ready pods.
    pub(crate) fn new(pods: usize, window: Duration) -> Self {
        ServiceScrape { pods, wanted: sample_size(pods), window, heard: Mutex::default() }
    }

    /// The sum over all pods, reckoned from as many as a sample needs.
    pub(crate) async fn run(self, service: SocketAddr, question: &Get<'_>) -> Result<Stat, ScrapeError> {
        let workers = join_all((0..self.wanted).map(|_| self.ask(service, question))).await;
        self.sum(workers.into_iter().filter_map(Result::err))
    }

    /// Asks until a pod counts. Each connection is a new one, or it would lead to the same pod.
    async fn ask(&self, service: SocketAddr, question: &Get<'_>) -> Result<(), ScrapeError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let answer = once::get(service, question).await.map_err(ScrapeError::Get).and_then(read);
            let error = match answer.map(|stat| self.take(stat)) {
                Ok(Taken::Counts) => return Ok(()),
                Ok(Taken::Young) => continue,
                Ok(Taken::Duplicate) => ScrapeError::Duplicate,
                Err(error) => error,
            };
            if tries >= MOST_TRIES {
                return Err(error);
            }
        }
    }

    fn take(&self, stat: Stat) -> Taken {
        let mut heard = self.heard.lock();
        if !heard.names.insert(stat.pod_name.clone()) {
            return Taken::Duplicate;
        }
        if stat.process_uptime.unwrap_or(Duration::ZERO) >= self.window {
            heard.old.push(stat);
            return Taken::Counts;
        }
        if heard.young.len() >= self.wanted {
            return Taken::Counts;
        }
        heard.young.push(stat);
        Taken::Young
    }

    /// The sum, unless too few have answered; that a pod answered again is no fault by itself.
    fn sum(self, errors: impl Iterator<Item = ScrapeError>) -> Result<Stat, ScrapeError> {
        let Heard { old, young, .. } = self.heard.into_inner();
        let has_enough = old.len() + young.len() >= self.wanted;
        for error in errors {
            if !has_enough || !matches!(error, ScrapeError::Duplicate) {
                return Err(error);
            }
        }
        let sample: Vec<Stat> = old.into_iter().chain(young).take(self.wanted).collect();
        extrapolate(&sample, self.pods).ok_or(ScrapeError::Duplicate)
    }
}

/// Attempts of each of those that ask. Knative's number.
const MOST_TRIES: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn stat(pod: usize, in_flight: f64, uptime: u64) -> Stat {
        Stat {
            pod_name: format!("pod-{pod}"),
            average_concurrent_requests: in_flight,
            process_uptime: Some(Duration::from_secs(uptime)),
            ..Stat::default()
        }
    }

    /// The sum of what these pods say, in the order in which the Service leads to them.
    fn sum(pods: &[(f64, u64)]) -> Option<f64> {
        let scrape = ServiceScrape::new(pods.len(), WINDOW);
        let mut workers = scrape.wanted;
        for (number, (in_flight, uptime)) in pods.iter().enumerate() {
            if workers > 0 && scrape.take(stat(number, *in_flight, *uptime)) == Taken::Counts {
                workers -= 1;
            }
        }
        let errors = (0..workers).map(|_| ScrapeError::Duplicate);
        scrape.sum(errors).ok().map(|stat| stat.average_concurrent_requests)
    }

    #[test]
    fn sums_are_knatives() {
        assert_eq!(sum(&[2.0, 4.0, 6.0, 8.0, 10.0, 12.0].map(|load| (load, 60))), Some(36.0));
        // All are young, and all are needed.
        assert_eq!(sum(&[2.0, 4.0, 6.0, 8.0].map(|load| (load, 59))), Some(20.0));
        // Three of the eleven pods are young, the first ones.
        let eleven: Vec<_> =
            (1..=11).map(|pod| (f64::from(2 * pod), if pod <= 3 { 30 } else { 60 })).collect();
        assert_eq!(sum(&eleven), Some(154.0));
        assert_eq!(sum(&[3.0, 5.0, 3.0].map(|load| (load, 3600))), Some(11.0));
    }

    #[test]
    fn a_pod_counts_once() {
        let scrape = ServiceScrape::new(2, WINDOW);
        assert_eq!(scrape.take(stat(1, 5.0, 60)), Taken::Counts);
        assert_eq!(scrape.take(stat(1, 5.0, 61)), Taken::Duplicate);
        let error = scrape.sum([ScrapeError::Duplicate].into_iter()).unwrap_err();
        assert_eq!(error.to_string(), "did not receive stat from an unscraped pod");
    }

    #[test]
    fn any_other_failure_of_one_that_asks_is_the_scrapes() {
        let scrape = ServiceScrape::new(1, WINDOW);
        scrape.take(stat(1, 5.0, 60));
        assert!(matches!(scrape.sum([ScrapeError::ContentType].into_iter()), Err(ScrapeError::ContentType)));
    }
}
