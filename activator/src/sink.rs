//! The connection to the autoscaler: one WebSocket, one task, stats in the order in which they were made.
//!
//! Stats are not buffered across a disconnect: a late stat would be added to the wrong second. Without a connection they
//! are dropped and counted, and the next connection begins with the requests in flight.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pilotlight_core::{RevisionId, Rng, Stat};
use pilotlight_net::{Backoff, Drain};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use crate::link::{Dial, Outgoing, connect, converse};
use crate::metrics::StatsMetrics;

/// Stats on their way to the autoscaler; never blocks. The oldest make room if the autoscaler cannot keep up.
#[derive(Debug)]
pub(crate) struct Outbox {
    pod_name: String,
    stats: Mutex<VecDeque<(RevisionId, Stat)>>,
    filled: Notify,
    connected: AtomicBool,
    dropped: AtomicU64,
    metrics: StatsMetrics,
}

impl Outbox {
    pub(crate) fn new(pod_name: String) -> Self {
        Outbox {
            pod_name,
            stats: Mutex::default(),
            filled: Notify::new(),
            connected: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            metrics: StatsMetrics::new(),
        }
    }

    /// Queues stats to be sent at once, or drops them if the autoscaler is not connected.
    pub(crate) fn push(&self, stats: impl IntoIterator<Item = (RevisionId, Stat)>) {
        let mut queue = self.stats.lock();
        let before = queue.len();
        queue.extend(
            stats.into_iter().map(|(id, stat)| (id, Stat { pod_name: self.pod_name.clone(), ..stat })),
        );
        if queue.len() == before {
            return;
        }
        // Under the lock, as the queue is emptied at a disconnect: no stat can stay behind.
        let keep = if self.is_connected() { MAX_STATS } else { 0 };
        let excess = queue.len().saturating_sub(keep);
        queue.drain(..excess);
        drop(queue);
        self.count_dropped(excess);
        self.filled.notify_one();
    }

    /// Whether the autoscaler is connected.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    /// The number of stats dropped so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn set_connected(&self, connected: bool) {
        let mut queue = self.stats.lock();
        self.connected.store(connected, Ordering::Release);
        let stale = queue.len();
        queue.clear();
        drop(queue);
        self.count_dropped(stale);
        self.metrics.reachable.set(if connected { 1.0 } else { 0.0 });
    }

    fn count_dropped(&self, stats: usize) {
        if stats > 0 {
            self.dropped.fetch_add(stats as u64, Ordering::Relaxed);
            self.metrics.dropped.increment(stats as u64);
        }
    }
}

impl Outgoing for Outbox {
    fn take(&self) -> Vec<(RevisionId, Stat)> {
        self.stats.lock().drain(..).collect()
    }

    fn filled(&self) -> impl Future<Output = ()> + Send {
        self.filled.notified()
    }
}

/// Keeps the connection up and sends what is in the outbox, until `stop` starts. `on_connect` is called before
/// the first stat of each connection; what it pushes goes first.
pub(crate) async fn run<D: Dial>(to: D, outbox: Arc<Outbox>, stop: Drain, on_connect: impl Fn() + Send) {
    // Seeded with the pod's name: activators that lost the same autoscaler must not come back in step.
    let seed = outbox.pod_name.bytes().fold(0u64, |seed, byte| seed.rotate_left(8) ^ u64::from(byte));
    let (mut rng, mut backoff) = (Rng::new(seed), Backoff::new(FIRST_DELAY, LONGEST_DELAY));
    let mut is_told = false;
    loop {
        tokio::select! {
            biased;
            () = stop.started() => return,
            () = to.found() => {}
        }
        let (url, mut lasted) = (to.url(), Duration::ZERO);
        match connect(&to, HANDSHAKE_TIMEOUT).await {
            Ok(socket) => {
                info!(url, "Connected to the autoscaler");
                is_told = false;
                let since = Instant::now();
                outbox.set_connected(true);
                on_connect();
                let ended = converse(socket, &*outbox, &stop).await;
                outbox.set_connected(false);
                let Err(error) = ended else { return };
                outbox.metrics.errors.increment(1);
                warn!(%error, "Lost the connection to the autoscaler");
                lasted = since.elapsed();
            }
            Err(error) => {
                outbox.metrics.errors.increment(1);
                if std::mem::replace(&mut is_told, true) {
                    debug!(url, %error, "Still cannot reach the autoscaler");
                } else {
                    warn!(url, %error, "Cannot reach the autoscaler; trying again");
                }
            }
        }
        tokio::select! {
            () = sleep(backoff.next(lasted, rng.unit())) => {}
            () = stop.started() => {}
        }
    }
}

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// Knative goes up to 15 s: for so long a sleeping workload could not be woken after the autoscaler came back.
const LONGEST_DELAY: Duration = Duration::from_secs(2);
/// The most queued stats.
const MAX_STATS: usize = 65_536;

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::Message;

    use super::*;
    use crate::link::message;

    fn stat(count: u32) -> (RevisionId, Stat) {
        (RevisionId::new("default", "hello"), Stat { request_count: f64::from(count), ..Stat::default() })
    }

    #[test]
    fn without_a_connection_stats_are_dropped_and_counted() {
        let outbox = Outbox::new("act".to_owned());
        outbox.push([stat(1), stat(2)]);
        assert_eq!(outbox.dropped(), 2);
        assert_eq!(message(&outbox.take()), None);
    }

    #[test]
    fn the_oldest_stats_make_room() {
        let outbox = Outbox::new("act".to_owned());
        outbox.set_connected(true);
        outbox.push((0..MAX_STATS as u32 + 3).map(stat));
        assert_eq!(outbox.dropped(), 3);
        assert_eq!(outbox.stats.lock()[0].1.request_count, 3.0);
    }

    #[test]
    fn nothing_stale_survives_a_disconnect() {
        let outbox = Outbox::new("act".to_owned());
        outbox.set_connected(true);
        outbox.push([stat(1)]);
        outbox.set_connected(false);
        outbox.set_connected(true);
        assert_eq!((outbox.dropped(), message(&outbox.take())), (1, None));
    }

    #[test]
    fn a_message_is_knatives_batch() {
        let outbox = Outbox::new("act".to_owned());
        outbox.set_connected(true);
        let announcement = Stat { average_concurrent_requests: 1.0, request_count: 1.0, ..Stat::default() };
        outbox.push([(RevisionId::new("ns", "rev"), announcement)]);
        let Some(Message::Binary(bytes)) = message(&outbox.take()) else { panic!("a binary message") };
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "0a220a026e7312037265761a170a0361637411000000000000f03f21000000000000f03f");
    }
}
