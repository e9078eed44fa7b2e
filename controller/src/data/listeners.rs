//! The sockets of an activator: one for each port of the table, opened and closed as the [book](super::book) says.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use pilotlight_activator::{Activator, PortSettings};
use pilotlight_core::Time;
use pilotlight_feed::{Change, Follower};
use pilotlight_net::{Clock, Drain, Port, listen};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::book::{Order, PortBook, PortUse};
use super::metrics::Metrics;
use super::named::{NamedIndex, Standing};
use super::watches::SliceNews;

/// The state of the ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PortState {
    /// The version of the newest table of which every port is bound that can be.
    pub(super) table_version: String,
    /// Ports of the table that cannot be bound.
    pub(super) unbindable: Vec<u16>,
    /// Ports that slices name and that are not bound: how many, and the first.
    pub(super) missing: (usize, Option<u16>),
    /// Ports that are bound.
    pub(super) bound: usize,
    /// Whether slices name this activator.
    pub(super) standing: Standing,
}

/// The parts that sockets are made of.
pub(super) struct Listeners {
    /// Serves the connections.
    pub(super) activator: Activator,
    /// The process's clock.
    pub(super) clock: Clock,
    /// The address to bind ports of.
    pub(super) listen: IpAddr,
    /// The most connections at each port.
    pub(super) max_connections: usize,
    /// How long connections of a port that is closed may take over their end.
    pub(super) close_limit: Duration,
    /// Uses of ports.
    pub(super) ports: Follower<u16, PortUse>,
    /// The version of the table whose ports are in `ports`.
    pub(super) table: watch::Receiver<String>,
    /// Slices that lead to activators.
    pub(super) slices: mpsc::Receiver<SliceNews>,
    /// Told how things are.
    pub(super) state: watch::Sender<PortState>,
    /// The metrics.
    pub(super) metrics: Metrics,
}

/// A port that is bound.
enum Socket {
    /// Connections have no known owner yet, and wait to be accepted.
    Held(TcpListener),
    /// Connections are served.
    Served(Served),
}

struct Served {
    settings: watch::Sender<Arc<PortSettings>>,
    drain: Drain,
}

/// Connections do not outlive whoever is to close them.
impl Drop for Served {
    fn drop(&mut self) {
        self.drain.force();
    }
}

#[derive(Default)]
struct Sockets {
    open: HashMap<u16, Socket>,
    /// Servers of ports, those that are being closed among them.
    serving: JoinSet<()>,
    closing: JoinSet<()>,
}

impl Listeners {
    /// Keeps the ports as they should be until `leave` starts; then closes all of them, and returns when every connection is
    /// over.
    pub(super) async fn run(mut self, leave: Drain) {
        let (mut book, mut named, mut sockets) =
            (PortBook::default(), NamedIndex::default(), Sockets::default());
        tokio::select! {
            () = self.keep(&mut book, &mut named, &mut sockets) => {}
            () = leave.started() => {}
        }
        sockets.close_all(&leave).await;
    }

    async fn keep(&mut self, book: &mut PortBook, named: &mut NamedIndex, sockets: &mut Sockets) {
        loop {
            // The version first: all uses of its ports are there already, and are taken in below.
            let version = self.table.borrow_and_update().clone();
            while let Some(change) = self.ports.try_next() {
                take(book, change);
            }
            self.carry_out(book, sockets).await;
            self.tell(&version, book, named);
            let due = book.due();
            tokio::select! {
                Some(change) = self.ports.next() => take(book, change),
                Some((name, slice)) = self.slices.recv() => {
                    for naming in named.learn(&name, slice.map(|slice| (*slice).clone())) {
                        book.named(naming);
                    }
                }
                Ok(()) = self.table.changed() => {}
                () = reached(self.clock, due) => {}
                Some(_) = sockets.serving.join_next() => {}
                Some(_) = sockets.closing.join_next() => {}
            }
        }
    }

    async fn carry_out(&self, book: &mut PortBook, sockets: &mut Sockets) {
        let mut done = 0_usize;
        while let Some(order) = book.next(self.clock.now()) {
            match order {
                Order::Bind(port, used) => {
                    let bound = self.bind(port, &used, sockets);
                    if let Err(error) = &bound {
                        self.metrics.bind_errors.increment(1);
                        debug!(port, %error, "Cannot bind a port; trying again");
                    }
                    book.answered(self.clock.now(), port, used, bound.is_ok());
                }
                Order::Change(port, used) => self.change(port, &used, sockets),
                Order::Close(port) => sockets.close(port, self.close_limit),
            }
            done += 1;
            if done.is_multiple_of(BATCH) {
                yield_now().await;
            }
        }
    }

    fn bind(&self, port: u16, used: &PortUse, sockets: &mut Sockets) -> io::Result<()> {
        let listener = listen(SocketAddr::new(self.listen, port))?;
        sockets.open.insert(port, Socket::Held(listener));
        self.change(port, used, sockets);
        Ok(())
    }

    fn change(&self, port: u16, used: &PortUse, sockets: &mut Sockets) {
        let Some(identity) = &used.identity else { return };
        match sockets.open.remove(&port) {
            Some(Socket::Held(listener)) => {
                let (settings, drain) = (watch::Sender::new(Arc::clone(&used.settings)), Drain::default());
                let limited = Port::limited(listener, self.max_connections);
                let follow = settings.subscribe();
                let serving = self.activator.serve_port(limited, identity.clone(), follow, drain.clone());
                sockets.serving.spawn(serving);
                sockets.open.insert(port, Socket::Served(Served { settings, drain }));
            }
            Some(Socket::Served(served)) => {
                served.settings.send_replace(Arc::clone(&used.settings));
                sockets.open.insert(port, Socket::Served(served));
            }
            None => {}
        }
    }

    fn tell(&self, version: &str, book: &PortBook, named: &NamedIndex) {
        let unbindable = book.unbindable(self.clock.now());
        let has_settled = book.unbound() == unbindable.len();
        self.metrics.listeners.set(book.bound() as f64);
        self.metrics.unbindable.set(unbindable.len() as f64);
        self.state.send_if_modified(|state| {
            let table_version = if has_settled { version } else { &state.table_version };
            let now = PortState {
                table_version: table_version.to_owned(),
                unbindable,
                missing: book.missing(),
                bound: book.bound(),
                standing: named.standing(),
            };
            if now.unbindable != state.unbindable && !now.unbindable.is_empty() {
                warn!(ports = ?now.unbindable, "Ports cannot be bound; the controller gives others in their place");
            }
            let is_news = *state != now;
            *state = now;
            is_news
        });
    }
}

impl Sockets {
    /// Closes a port, and its connections within a time.
    fn close(&mut self, port: u16, limit: Duration) {
        if let Some(Socket::Served(served)) = self.open.remove(&port) {
            info!(port, "Closing a port");
            served.drain.start();
            self.closing.spawn(async move {
                sleep(limit).await;
                drop(served);
            });
        }
    }

    /// Closes all ports. Connections are cut when `leave` is forced.
    async fn close_all(mut self, leave: &Drain) {
        for socket in self.open.values() {
            if let Socket::Served(served) = socket {
                served.drain.start();
            }
        }
        let served = async { while self.serving.join_next().await.is_some() {} };
        tokio::select! {
            () = served => return,
            () = leave.forced() => {}
        }
        self.open.clear();
        self.closing.abort_all();
        // Connections that were cut end by themselves.
        let _ = timeout(CUT_LIMIT, async { while self.serving.join_next().await.is_some() {} }).await;
    }
}

/// Returns when a time has come; never without one.
async fn reached(clock: Clock, due: Option<Time>) {
    match due {
        Some(due) => sleep_until(clock.instant_at(due)).await,
        None => std::future::pending().await,
    }
}

fn take(book: &mut PortBook, change: Change<u16, PortUse>) {
    match change {
        Change::Set(port, used) => book.wanted(*port, Some(used)),
        Change::Gone(port) => book.wanted(*port, None),
        Change::Complete => {}
    }
}

/// Ports that are bound in one go, before other tasks get their turn.
const BATCH: usize = 64;
/// The longest time that connections may take to end once they are cut.
const CUT_LIMIT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
