//! Reports on their way to the loop, and the seam where they can go to another autoscaler instead.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pilotlight_core::{RevisionId, Stat};
use tokio::sync::mpsc;
use tracing::{info, warn};

/// A stat, whose, and where it came from.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) revision: RevisionId,
    pub(crate) stat: Stat,
    pub(crate) source: Source,
}

#[derive(Debug)]
pub(crate) enum Source {
    /// Pushed by an activator.
    Activator,
    /// The sum over a revision's pods.
    Scrape,
}

/// A stat on its way to the autoscaler that decides about its revision.
pub type Forwarded = (RevisionId, Stat);

/// The autoscaler that decides about a revision.
#[derive(Clone, Debug)]
pub enum Owner {
    /// The one that received the stat.
    Us,
    /// Another one, which takes stats here.
    Other(mpsc::Sender<Forwarded>),
    /// None at the moment, as between two leases: the stat is lost, and the next one comes in a second.
    Nobody,
}

/// Finds a revision's [`Owner`]. Asked for every stat that an activator pushes.
pub type Owners = Arc<dyn Fn(&RevisionId) -> Owner + Send + Sync>;

/// Says whether stats that are sent to a host name are taken in.
pub type AcceptsHost = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Says whether stats that come from an address are taken in. Asked once a connection.
pub type AcceptsPeer = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// Takes in what activators push, and gives it to the autoscaler that decides about the revision.
#[derive(Clone)]
pub(crate) struct Intake {
    pub(crate) reports: mpsc::Sender<Report>,
    /// `None`: every revision is ours.
    pub(crate) owners: Option<Owners>,
    /// An owner is behind: said once, and again when it is over.
    pub(crate) is_behind: Arc<AtomicBool>,
}

impl Intake {
    /// Waits while our loop is behind: the socket's own flow control then slows the activator down. Another autoscaler is
    /// not waited for, or its silence would become ours.
    pub(crate) async fn push(&self, revision: RevisionId, stat: Stat) {
        match self.owners.as_ref().map_or(Owner::Us, |owner_of| owner_of(&revision)) {
            Owner::Us => {
                let _ = self.reports.send(Report { revision, stat, source: Source::Activator }).await;
            }
            Owner::Other(owner) => {
                let is_behind = owner.try_send((revision, stat)).is_err();
                let was_behind = self.is_behind.swap(is_behind, Ordering::Relaxed);
                if is_behind && !was_behind {
                    warn!("Stats for another autoscaler are dropped: it is behind");
                } else if was_behind && !is_behind {
                    info!("Stats reach the other autoscaler again");
                }
            }
            Owner::Nobody => {}
        }
    }
}
