//! Leases of `coordination.k8s.io`, held or stood by for: who of several processes is at work on what.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use pilotlight_core::Time;
use pilotlight_feed::{Change, Feed, Follower};
use pilotlight_net::Clock;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout_at};
use tracing::{debug, info, warn};

use crate::LeaseTimes;
use crate::election::{Election, Step, Written};
use crate::watch::WatchParams;

/// Leases that this process stands for.
#[derive(Clone)]
pub struct LeasesParams {
    /// The API server.
    pub client: kube::Client,
    /// The process's clock.
    pub clock: Clock,
    /// The namespace of the leases.
    pub namespace: String,
    /// The name of this process in a lease: no other may have the same.
    pub identity: String,
    /// The names of the leases.
    pub names: Vec<String>,
    /// The times of each election.
    pub times: LeaseTimes,
}

/// The leases that are held here, and the holders of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseState {
    /// The names of those held here.
    pub held: BTreeSet<String>,
    /// The holders of all that have one, by the name of the lease. The one of a lease that has run out is still named.
    pub holders: BTreeMap<String, String>,
}

/// A running stand for leases. Dropping it ends the elections without a word: others then wait for the leases to run out.
#[derive(Debug)]
pub struct Leases {
    state: watch::Receiver<LeaseState>,
    stop: watch::Sender<bool>,
    elections: Vec<JoinHandle<()>>,
    watching: JoinHandle<()>,
}

impl Leases {
    /// Stands for leases, on the current runtime.
    pub fn start(params: LeasesParams) -> Leases {
        let LeasesParams { client, clock, namespace, identity, names, times } = params;
        let api: Api<Lease> = Api::namespaced(client, &namespace);
        let (state, seen) = watch::channel(LeaseState::default());
        let (stop, stopped) = watch::channel(false);
        let feed = Feed::default();
        let elections = names
            .iter()
            .map(|name| {
                let candidate = Candidate {
                    name: name.clone(),
                    clock,
                    api: api.clone(),
                    election: Election::new(clock.now(), name.clone(), identity.clone(), times),
                    request_limit: times.retry_period,
                    state: state.clone(),
                };
                tokio::spawn(candidate.run(feed.follow(), stopped.clone()))
            })
            .collect();
        let ours: BTreeSet<String> = names.into_iter().collect();
        let watching = tokio::spawn(crate::watch(api, WatchParams::default(), feed, move |lease: &Lease| {
            let name = lease.name_any();
            ours.contains(&name).then(|| (name, lease.clone()))
        }));
        Leases { state: seen, stop, elections, watching }
    }

    /// The leases held here, and the holders of the others, as they change.
    pub fn state(&self) -> watch::Receiver<LeaseState> {
        self.state.clone()
    }

    /// Gives up all leases, so that others may have them at once. Returns when the API server knows, or has not answered
    /// within the retry period.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        join_all(std::mem::take(&mut self.elections)).await;
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        self.watching.abort();
        self.elections.iter().for_each(JoinHandle::abort);
    }
}

/// The task of one lease.
struct Candidate {
    name: String,
    clock: Clock,
    api: Api<Lease>,
    election: Election,
    request_limit: Duration,
    state: watch::Sender<LeaseState>,
}

impl Candidate {
    async fn run(mut self, mut told: Follower<String, Lease>, mut stopped: watch::Receiver<bool>) {
        while !*stopped.borrow() {
            let now = self.clock.now();
            let step = self.election.next(now);
            self.publish(now);
            match step {
                Step::WaitUntil(time) => tokio::select! {
                    () = sleep_until(self.clock.instant_at(time)) => {}
                    Some(change) = told.next() => self.hear(change),
                    _ = stopped.wait_for(|stopped| *stopped) => {}
                },
                Step::Read => {
                    let lease = self.within_limit(self.api.get_opt(&self.name)).await;
                    let lease =
                        lease.map_err(|error| debug!(lease = self.name, %error, "Cannot read a lease"));
                    self.election.read(self.clock.now(), lease);
                }
                Step::Create(lease) => {
                    let created = self.within_limit(self.api.create(&PostParams::default(), &lease)).await;
                    self.wrote(now, created);
                }
                Step::Replace(lease) => {
                    let replaced = self.replace(&lease).await;
                    self.wrote(now, replaced);
                }
            }
        }
        if let Some(lease) = self.election.stop(self.clock.now()) {
            // At an end the lease is not ours any more, whatever is answered.
            self.publish(self.clock.now());
            match self.replace(&lease).await {
                Ok(_) => info!(lease = self.name, "Gave the lease up"),
                Err(error) => {
                    warn!(lease = self.name, %error, "Cannot give the lease up; others wait until it runs out");
                }
            }
        }
        self.publish(self.clock.now());
    }

    async fn replace(&self, lease: &Lease) -> Result<Lease, Unanswered> {
        self.within_limit(self.api.replace(&self.name, &PostParams::default(), lease)).await
    }

    fn hear(&mut self, change: Change<String, Lease>) {
        let now = self.clock.now();
        match change {
            Change::Set(name, lease) if *name == self.name => {
                self.election.told(now, Some(Lease::clone(&lease)));
            }
            Change::Gone(name) if *name == self.name => self.election.told(now, None),
            Change::Set(..) | Change::Gone(_) | Change::Complete => {}
        }
    }

    /// A holder waits no longer than it may hold the lease without an answer.
    async fn within_limit<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, Unanswered> {
        let now = self.clock.now();
        let limit = now + self.request_limit;
        let limit =
            self.election.deadline().filter(|deadline| *deadline > now).map_or(limit, |it| it.min(limit));
        match timeout_at(self.clock.instant_at(limit), request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(Unanswered::Conflict),
            Ok(Err(error)) => Err(Unanswered::Failed(error)),
            Err(_) => Err(Unanswered::Late),
        }
    }

    fn wrote(&mut self, sent: Time, written: Result<Lease, Unanswered>) {
        let written = match written {
            Ok(lease) => Written::Done(Box::new(lease)),
            Err(Unanswered::Conflict) => Written::Conflict,
            Err(error) => {
                warn!(lease = self.name, %error, "Cannot write a lease");
                Written::Failed
            }
        };
        self.election.written(self.clock.now(), sent, written);
    }

    fn publish(&self, now: Time) {
        let (holds, holder) = (self.election.holds(now), self.election.holder());
        self.state.send_if_modified(|state| {
            let is_held = state.held.contains(&self.name);
            let before = state.holders.get(&self.name).map(String::as_str);
            if (is_held, before) == (holds, holder) {
                return false;
            }
            match (is_held, holds) {
                (false, true) => info!(lease = self.name, "Took the lease"),
                (true, false) => info!(lease = self.name, holder, "The lease is not held here any more"),
                _ => info!(lease = self.name, holder, "The lease has another holder"),
            }
            if holds {
                state.held.insert(self.name.clone());
            } else {
                state.held.remove(&self.name);
            }
            match holder {
                Some(holder) => drop(state.holders.insert(self.name.clone(), holder.to_owned())),
                None => drop(state.holders.remove(&self.name)),
            }
            true
        });
    }
}

/// Why a request about a lease brought nothing.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error("somebody else was faster")]
    Conflict,
    #[error(transparent)]
    Failed(kube::Error),
    #[error("no answer in time")]
    Late,
}

#[cfg(test)]
mod tests;
