//! A limit on the connections of clients at each port.
//!
//! Beyond it, connections are not accepted: they wait in the listener's backlog, and beyond that the kernel drops their
//! SYNs, which TCP sends again. Nothing is refused that would be served a moment later, and a connection that waits costs
//! this process nothing. Ports are counted one by one, so that clients of one do not keep probes from another.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, getrlimit};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

/// A port to serve clients at, and the most connections that it has at once.
#[derive(Debug)]
pub struct Port {
    pub(crate) listener: TcpListener,
    most: usize,
}

impl Port {
    /// A port with so many connections at once, and no more.
    pub fn limited(listener: TcpListener, most: usize) -> Self {
        Port { listener, most: most.min(Semaphore::MAX_PERMITS) }
    }
}

/// A port without a limit.
impl From<TcpListener> for Port {
    fn from(listener: TcpListener) -> Self {
        Port::limited(listener, usize::MAX)
    }
}

/// Connections of clients that are open, at all ports.
pub fn open_connections() -> usize {
    OPEN.load(Ordering::Relaxed)
}

/// Times that a port had its most connections, so that new ones had to wait.
pub fn connection_limit_hits() -> usize {
    LIMIT_HITS.load(Ordering::Relaxed)
}

/// The most file descriptors that this process may have open now: the soft limit, `RLIMIT_NOFILE`.
pub fn descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// The places for connections at one port.
pub(crate) struct Places {
    free: Arc<Semaphore>,
    most: usize,
}

/// One place, for a connection from its acceptance to its end.
pub(crate) type Place = OwnedSemaphorePermit;

/// A connection that is open, and its place.
pub(crate) struct Open {
    _place: Place,
}

impl Open {
    pub(crate) fn new(place: Place) -> Self {
        OPEN.fetch_add(1, Ordering::Relaxed);
        Open { _place: place }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Places {
    pub(crate) fn at(port: &Port) -> Self {
        Places { free: Arc::new(Semaphore::new(port.most)), most: port.most }
    }

    /// Waits for a place, if all are taken.
    pub(crate) async fn take(&self) -> Place {
        if let Ok(place) = Arc::clone(&self.free).try_acquire_owned() {
            return place;
        }
        LIMIT_HITS.fetch_add(1, Ordering::Relaxed);
        warn!(most = self.most, "Port has its most connections, new ones wait in the backlog");
        Arc::clone(&self.free).acquire_owned().await.expect("the semaphore is never closed")
    }
}

static OPEN: AtomicUsize = AtomicUsize::new(0);
static LIMIT_HITS: AtomicUsize = AtomicUsize::new(0);
