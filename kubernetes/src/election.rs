//! The election of one lease's holder, as a pure state machine. Time comes in as an argument, requests go out as values.
//!
//! The rules are those of client-go's `leaderelection`: a lease is over when nothing about it has changed for its duration
//! by the local clock, whatever times are written in it; a write names the version that it replaces, so of two candidates
//! one is refused; a holder that could not renew for the renew deadline gives up, before anybody else may take over.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use pilotlight_core::{Rng, Time};

/// The times of an election. Each is shorter than the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimes {
    /// How long a lease lasts that is not renewed; whole seconds.
    pub duration: Duration,
    /// How long a holder goes on that cannot renew.
    pub renew_deadline: Duration,
    /// From one renewal, or one look at the lease, to the next.
    pub retry_period: Duration,
}

impl Default for LeaseTimes {
    /// Knative's: 60 s, 40 s, 10 s.
    fn default() -> Self {
        LeaseTimes {
            duration: Duration::from_secs(60),
            renew_deadline: Duration::from_secs(40),
            retry_period: Duration::from_secs(10),
        }
    }
}

/// A candidate for one lease.
#[derive(Debug)]
pub(crate) struct Election {
    name: String,
    identity: String,
    times: LeaseTimes,
    rng: Rng,
    /// The lease as it was last seen; `None`: there was none.
    lease: Option<Box<Lease>>,
    /// Since when nothing about it has changed, by our clock.
    since: Time,
    /// Whether `lease` is what there is, as far as anybody told; if not, it must be read.
    is_current: bool,
    /// When the request was sent that last won or renewed the lease; `None`: it is not ours.
    renewed: Option<Time>,
    /// Before this time nothing is sent, unless a watch tells of a change.
    try_at: Time,
    has_stopped: bool,
}

/// The next thing to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// Read the lease.
    Read,
    /// Create the lease.
    Create(Box<Lease>),
    /// Replace the lease, if its version still is what it was.
    Replace(Box<Lease>),
    /// Nothing before this time, unless a watch tells of something.
    WaitUntil(Time),
}

/// The outcome of a write.
#[derive(Debug)]
pub(crate) enum Written {
    /// The lease as it is now.
    Done(Box<Lease>),
    /// Another candidate was faster.
    Conflict,
    /// The write may or may not have been done.
    Failed,
}

impl Election {
    pub(crate) fn new(now: Time, name: String, identity: String, times: LeaseTimes) -> Self {
        let seed = identity.bytes().fold(now.as_nanos(), |seed, byte| seed.rotate_left(8) ^ u64::from(byte));
        Election {
            name,
            identity,
            times,
            rng: Rng::new(seed),
            lease: None,
            since: now,
            is_current: false,
            renewed: None,
            try_at: now,
            has_stopped: false,
        }
    }

    /// Whether the lease is held here.
    pub(crate) fn holds(&self, now: Time) -> bool {
        self.deadline().is_some_and(|deadline| now < deadline)
    }

    /// The end of what a holder may do without another renewal; `None`: it is not held.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.renewed.map(|renewed| renewed + self.times.renew_deadline)
    }

    /// The holder that the lease names; `None`: nobody, or it is not known.
    pub(crate) fn holder(&self) -> Option<&str> {
        self.lease.as_deref().map(holder).filter(|holder| !holder.is_empty())
    }

    /// The next thing to do, by what is known now.
    pub(crate) fn next(&mut self, now: Time) -> Step {
        if self.has_stopped {
            return Step::WaitUntil(Time::from_nanos(u64::MAX));
        }
        if self.renewed.is_some() && !self.holds(now) {
            (self.renewed, self.is_current) = (None, false);
        }
        if now < self.try_at {
            return Step::WaitUntil(
                self.deadline().map_or(self.try_at, |deadline| deadline.min(self.try_at)),
            );
        }
        match &self.lease {
            _ if !self.is_current => Step::Read,
            None => Step::Create(Box::new(self.created(now))),
            Some(lease) if holder(lease) == self.identity => {
                Step::Replace(Box::new(self.renewal(lease, now)))
            }
            Some(lease) => match self.over_at() {
                Some(over_at) if now < over_at => Step::Read,
                _ => Step::Replace(Box::new(self.taken(lease, now))),
            },
        }
    }

    /// The answer to [`Step::Read`]; `Ok(None)`: there is no such lease. `Err`: it could not be read.
    pub(crate) fn read(&mut self, now: Time, lease: Result<Option<Lease>, ()>) {
        match lease {
            Ok(lease) => {
                self.see(now, lease);
                self.try_at = self.next_look(now);
            }
            Err(()) => self.try_at = now + self.pause(),
        }
    }

    /// The answer to [`Step::Create`] or [`Step::Replace`], which was sent at `sent`.
    pub(crate) fn written(&mut self, now: Time, sent: Time, written: Written) {
        match written {
            Written::Done(lease) => {
                let is_ours = holder(&lease) == self.identity;
                self.see(now, Some(*lease));
                if is_ours && !self.has_stopped {
                    self.renewed = Some(sent);
                    self.try_at = sent + self.times.retry_period;
                }
            }
            Written::Conflict => {
                (self.is_current, self.try_at) = (false, now);
            }
            Written::Failed => {
                self.is_current = false;
                self.try_at = now + self.pause();
            }
        }
    }

    /// A watch tells of the lease; `None`: it is gone. A watch may be late: a holder looks for itself, and whoever is told
    /// something old is refused when it writes.
    pub(crate) fn told(&mut self, now: Time, lease: Option<Lease>) {
        if self.renewed.is_none() {
            self.see(now, lease);
            self.try_at = self.next_look(now);
        } else if lease.is_none_or(|lease| holder(&lease) != self.identity) {
            (self.is_current, self.try_at) = (false, now);
        }
    }

    /// Takes part no longer. Returns the lease to be written so that others may have it at once, if it is held here.
    pub(crate) fn stop(&mut self, now: Time) -> Option<Lease> {
        let was_held = self.holds(now);
        self.has_stopped = true;
        self.renewed = None;
        let lease = self.lease.as_deref()?;
        if !was_held || holder(lease) != self.identity {
            return None;
        }
        let spec = LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            acquire_time: Some(micro(now)),
            renew_time: Some(micro(now)),
            ..lease.spec.clone().unwrap_or_default()
        };
        Some(Lease { metadata: lease.metadata.clone(), spec: Some(spec) })
    }

    fn see(&mut self, now: Time, lease: Option<Lease>) {
        if self.renewed.is_some() && lease.as_ref().is_none_or(|lease| holder(lease) != self.identity) {
            self.renewed = None;
        }
        let spec = |lease: Option<&Lease>| lease.map(|lease| lease.spec.clone());
        if spec(self.lease.as_deref()) != spec(lease.as_ref()) {
            self.since = now;
        }
        (self.lease, self.is_current) = (lease.map(Box::new), true);
    }

    /// When the lease of somebody else runs out, if nothing about it changes; `None`: it is nobody's, or ours.
    fn over_at(&self) -> Option<Time> {
        let lease = self.lease.as_deref().filter(|_| self.is_others())?;
        Some(self.since + duration(lease))
    }

    /// When something is to be done about a lease that was seen now: at once, unless somebody else has it.
    fn next_look(&mut self, now: Time) -> Time {
        let Some(over_at) = self.over_at() else { return now };
        over_at.max(now).min(now + self.pause())
    }

    fn is_others(&self) -> bool {
        self.holder().is_some_and(|holder| holder != self.identity)
    }

    /// The retry period, and a fifth of it more or less, so that candidates do not come in step.
    fn pause(&mut self) -> Duration {
        self.times.retry_period.mul_f64(0.8 + 0.4 * self.rng.unit())
    }

    fn created(&self, now: Time) -> Lease {
        let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
        Lease { metadata, spec: Some(self.spec(now, LeaseSpec::default(), now_micro(now), 0)) }
    }

    fn renewal(&self, lease: &Lease, now: Time) -> Lease {
        let before = lease.spec.clone().unwrap_or_default();
        let (acquired, transitions) = (before.acquire_time.clone(), before.lease_transitions.unwrap_or(0));
        let spec = self.spec(now, before, acquired.or_else(|| now_micro(now)), transitions);
        Lease { metadata: lease.metadata.clone(), spec: Some(spec) }
    }

    fn taken(&self, lease: &Lease, now: Time) -> Lease {
        let before = lease.spec.clone().unwrap_or_default();
        let transitions = before.lease_transitions.unwrap_or(0).saturating_add(1);
        Lease {
            metadata: lease.metadata.clone(),
            spec: Some(self.spec(now, before, now_micro(now), transitions)),
        }
    }

    fn spec(&self, now: Time, rest: LeaseSpec, acquired: Option<MicroTime>, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.times.duration.as_secs()).unwrap_or(i32::MAX)),
            acquire_time: acquired,
            renew_time: now_micro(now),
            lease_transitions: Some(transitions),
            ..rest
        }
    }
}

fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

fn duration(lease: &Lease) -> Duration {
    let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or(0);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn now_micro(now: Time) -> Option<MicroTime> {
    Some(micro(now))
}

fn micro(now: Time) -> MicroTime {
    let micros = i64::try_from(now.as_nanos() / 1000).unwrap_or(i64::MAX);
    MicroTime(Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX))
}

#[cfg(test)]
mod tests;
