//! Stats of activators, given to the autoscaler that decides about their revisions.
//!
//! Knative's name: the stat forwarder. Stats whose owner is not known, or cannot be reached, are kept for a while and tried
//! again: a stat may be what wakes a revision.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pilotlight_activator::link::{Dial, LinkError, Outgoing, connect, converse};
use pilotlight_autoscaler::{AcceptsHost, Forwarded, Owner, Owners};
use pilotlight_core::{RevisionId, Stat};
use pilotlight_net::{Drain, Target};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, interval, sleep};
use tracing::{debug, info, warn};

use super::buckets::Buckets;
use super::metrics::Metrics;
use super::ownership::Ownership;

/// Gives stats to their owners.
pub struct Forwarder {
    ways: Arc<Ways>,
    ownership: Ownership,
    parked: mpsc::Receiver<Forwarded>,
}

/// The ways that a stat may go.
struct Ways {
    buckets: watch::Receiver<Arc<Buckets>>,
    peers: Mutex<BTreeMap<String, Peer>>,
    /// Stats without an owner, for the time being.
    park: mpsc::Sender<Forwarded>,
    metrics: Metrics,
}

/// The way to the holder of a bucket. Dropping it closes the connection, once what it was given has been sent.
struct Peer {
    addresses: Vec<Target>,
    stats: mpsc::Sender<Forwarded>,
    stop: Drain,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.start();
    }
}

impl Forwarder {
    /// A forwarder by this ownership. Stats are given away once it [runs](Forwarder::run).
    pub fn new(ownership: Ownership, metrics: Metrics) -> Forwarder {
        let (park, parked) = mpsc::channel(STATS_IN_LINE);
        let buckets = ownership.buckets.clone();
        let ways = Arc::new(Ways { buckets, peers: Mutex::default(), park, metrics });
        Forwarder { ways, ownership, parked }
    }

    /// The owner of each revision, for the autoscaler.
    pub fn owners(&self) -> Owners {
        let ways = Arc::clone(&self.ways);
        Arc::new(move |revision| ways.owner(revision))
    }

    /// Host names at which stats are taken in: the Service of a bucket leads here only while the bucket is held.
    pub fn accepts(&self) -> AcceptsHost {
        let buckets = self.ways.buckets.clone();
        Arc::new(move |host| {
            let bucket = host.split(['.', ':']).next().unwrap_or_default();
            !bucket.starts_with(BUCKET_PREFIX) || buckets.borrow().held.contains(bucket)
        })
    }

    /// Runs until the receiver of `ours` is gone: it gets the stats that turn out to be for this autoscaler.
    pub async fn run(self, ours: mpsc::Sender<Forwarded>) {
        let Forwarder { ways, mut ownership, mut parked } = self;
        let mut waiting: VecDeque<(Instant, Forwarded)> = VecDeque::new();
        let mut retry = interval(RETRY_PERIOD);
        ways.meet(&ownership);
        loop {
            tokio::select! {
                Some(stat) = parked.recv() => {
                    if waiting.len() >= STATS_IN_LINE {
                        ways.metrics.stats_dropped.increment(1);
                        waiting.pop_front();
                    }
                    waiting.push_back((Instant::now(), stat));
                    // What it waits for changes, or half a second passes.
                    continue;
                }
                _ = retry.tick() => {}
                Ok(()) = ownership.holders.changed() => ways.meet(&ownership),
                Ok(()) = ownership.buckets.changed() => ways.meet(&ownership),
                () = ours.closed() => return,
            }
            for (since, stat) in std::mem::take(&mut waiting) {
                match ways.owner(&stat.0) {
                    Owner::Us => drop(ours.send(stat).await),
                    // The park is what it comes from.
                    Owner::Other(peer) if !peer.same_channel(&ways.park) && peer.capacity() > 0 => {
                        drop(peer.try_send(stat));
                    }
                    Owner::Other(_) | Owner::Nobody if since.elapsed() < KEEP => {
                        waiting.push_back((since, stat))
                    }
                    Owner::Other(_) | Owner::Nobody => {
                        debug!(revision = %stat.0, "A stat without an owner is dropped");
                        ways.metrics.stats_dropped.increment(1);
                    }
                }
            }
        }
    }
}

impl Ways {
    fn owner(&self, revision: &RevisionId) -> Owner {
        let buckets = Arc::clone(&self.buckets.borrow());
        let Some(bucket) = buckets.of(revision) else { return Owner::Other(self.park.clone()) };
        if buckets.held.contains(bucket) {
            return Owner::Us;
        }
        let peers = self.peers.lock();
        Owner::Other(peers.get(bucket).map_or_else(|| self.park.clone(), |peer| peer.stats.clone()))
    }

    /// Goes new ways to those who hold other buckets than before.
    fn meet(self: &Arc<Self>, ownership: &Ownership) {
        let (buckets, holders) = (self.buckets.borrow().clone(), ownership.holders.borrow().clone());
        self.metrics.buckets_held.set(buckets.held.len() as f64);
        let mut peers = self.peers.lock();
        peers.retain(|bucket, peer| {
            !buckets.held.contains(bucket) && holders.get(bucket) == Some(&peer.addresses)
        });
        for (bucket, addresses) in holders.iter().filter(|(bucket, _)| !buckets.held.contains(*bucket)) {
            if peers.contains_key(bucket) {
                continue;
            }
            let (stats, inbox) = mpsc::channel(STATS_IN_LINE);
            let stop = Drain::default();
            let peer = Peer { addresses: addresses.clone(), stats, stop: stop.clone() };
            let way =
                Way { bucket: bucket.clone(), addresses: addresses.clone(), line: Line::default(), stop };
            tokio::spawn(way.run(inbox, self.park.clone(), self.metrics.clone()));
            peers.insert(bucket.clone(), peer);
        }
    }
}

/// The task of one way.
struct Way {
    bucket: String,
    addresses: Vec<Target>,
    line: Line,
    stop: Drain,
}

/// Stats that wait for a connection.
#[derive(Default)]
struct Line {
    stats: Mutex<VecDeque<(Instant, Forwarded)>>,
    filled: Notify,
}

impl Way {
    async fn run(
        self,
        mut inbox: mpsc::Receiver<Forwarded>,
        park: mpsc::Sender<Forwarded>,
        metrics: Metrics,
    ) {
        let pump = async {
            while let Some(stat) = inbox.recv().await {
                metrics.stats_forwarded.increment(1);
                let excess = self.line.push(stat);
                metrics.stats_dropped.increment(excess);
            }
            // The connection says goodbye first.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = pump => {}
            () = self.connect_and_send(&metrics) => {}
        }
        // The holder has changed: the next one gets what this one has not.
        while let Ok(stat) = inbox.try_recv() {
            self.line.push(stat);
        }
        for stat in self.line.take() {
            if park.try_send(stat).is_err() {
                metrics.stats_dropped.increment(1);
            }
        }
    }

    async fn connect_and_send(&self, metrics: &Metrics) {
        let mut is_told = false;
        while !self.stop.is_started() {
            if self.line.stats.lock().is_empty() {
                tokio::select! {
                    () = self.line.filled() => {}
                    () = self.stop.started() => return,
                }
            }
            match self.connect().await {
                Ok((address, socket)) => {
                    info!(bucket = self.bucket, address, "Connected to the autoscaler that holds the bucket");
                    is_told = false;
                    if let Err(error) = converse(socket, &self.line, &self.stop).await {
                        info!(bucket = self.bucket, %error, "Lost the connection to the autoscaler that holds the bucket");
                    }
                }
                Err(error) if std::mem::replace(&mut is_told, true) => {
                    debug!(bucket = self.bucket, %error, "Still cannot reach the autoscaler that holds the bucket");
                }
                Err(error) => {
                    warn!(bucket = self.bucket, %error, "Cannot reach the autoscaler that holds the bucket; trying again");
                }
            }
            metrics.stats_dropped.increment(self.line.forget_old());
            tokio::select! {
                () = sleep(RETRY_PERIOD) => {}
                () = self.stop.started() => {}
            }
        }
    }

    /// The first of the addresses that answers.
    async fn connect(
        &self,
    ) -> Result<(String, tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>), LinkError> {
        let mut last = None;
        for address in &self.addresses {
            match connect(address, CONNECT_LIMIT).await {
                Ok(socket) => return Ok((address.url(), socket)),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or(LinkError::HandshakeTimeout(CONNECT_LIMIT)))
    }
}

impl Line {
    /// Returns how many had to make room.
    fn push(&self, stat: Forwarded) -> u64 {
        let mut stats = self.stats.lock();
        stats.push_back((Instant::now(), stat));
        let excess = stats.len().saturating_sub(STATS_IN_LINE);
        stats.drain(..excess);
        drop(stats);
        self.filled.notify_one();
        excess as u64
    }

    fn forget_old(&self) -> u64 {
        let mut stats = self.stats.lock();
        let before = stats.len();
        stats.retain(|(since, _)| since.elapsed() < KEEP);
        (before - stats.len()) as u64
    }
}

impl Outgoing for Line {
    fn take(&self) -> Vec<(RevisionId, Stat)> {
        self.stats.lock().drain(..).map(|(_, stat)| stat).collect()
    }

    fn filled(&self) -> impl Future<Output = ()> + Send {
        self.filled.notified()
    }
}

/// How the hosts of buckets begin. Knative looks for just this.
const BUCKET_PREFIX: &str = "autoscaler-bucket";
/// Knative's limit for each address.
const CONNECT_LIMIT: Duration = Duration::from_millis(500);
/// From one attempt to the next.
const RETRY_PERIOD: Duration = Duration::from_millis(500);
/// How long a stat is kept that cannot be given away: thirty attempts, as in Knative's code.
const KEEP: Duration = Duration::from_secs(15);
/// Stats that may wait at each place.
const STATS_IN_LINE: usize = 4096;

#[cfg(test)]
mod tests;
