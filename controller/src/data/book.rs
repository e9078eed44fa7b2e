//! The ports of an activator: which to bind, which to change, which to close. Pure: whoever owns the sockets carries the
//! orders out, one by one, and says whether a port could be bound.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use pilotlight_activator::{PortIdentity, PortSettings};
use pilotlight_core::Time;

use super::named::Naming;

/// The use of a port of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PortUse {
    /// The owner of connections that come in there; `None`: it is of no workload that is known yet. Connections then wait to be
    /// accepted.
    pub(super) identity: Option<PortIdentity>,
    /// Settings of connections.
    pub(super) settings: Arc<PortSettings>,
}

/// One thing to do with a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Bind it. Must be [answered](PortBook::answered).
    Bind(u16, Arc<PortUse>),
    /// The port is bound and keeps its owner: serve it like this from now on.
    Change(u16, Arc<PortUse>),
    /// Close it with all of its connections.
    Close(u16),
}

/// All ports.
#[derive(Debug, Default)]
pub(super) struct PortBook {
    entries: HashMap<u16, BookedPort>,
    /// Ports to look at.
    todo: BTreeSet<u16>,
    /// Ports to look at later.
    due: BTreeSet<(Time, u16)>,
    /// Ports of the table that are not bound.
    unbound: BTreeSet<u16>,
    /// Ports that slices name and that are not bound.
    missing: BTreeSet<u16>,
    bound: usize,
}

#[derive(Debug, Default)]
struct BookedPort {
    /// As the table and the workloads have it; `None`: the table does not have the port.
    wanted: Option<Arc<PortUse>>,
    /// As it is served; `None`: it is not bound.
    bound: Option<Arc<PortUse>>,
    /// Slices that name it.
    names: usize,
    unneeded_since: Option<Time>,
    failure: Option<Failure>,
}

/// A port that cannot be bound.
#[derive(Clone, Copy, Debug)]
struct Failure {
    since: Time,
    delay: Duration,
    next: Time,
}

impl PortBook {
    /// A port of the table is used like this now; `None`: the table does not have it any more.
    pub(super) fn wanted(&mut self, port: u16, wanted: Option<Arc<PortUse>>) {
        self.entries.entry(port).or_default().wanted = wanted;
        self.changed(port);
    }

    /// Slices name a port, or do not any more.
    pub(super) fn named(&mut self, naming: Naming) {
        let (Naming::Named(port) | Naming::Dropped(port)) = naming;
        let entry = self.entries.entry(port).or_default();
        entry.names = match naming {
            Naming::Named(_) => entry.names + 1,
            Naming::Dropped(_) => entry.names.saturating_sub(1),
        };
        self.changed(port);
    }

    /// The next thing to do; `None`: nothing, until something changes or [the time](Self::due) has come.
    pub(super) fn next(&mut self, now: Time) -> Option<Order> {
        while let Some(&(time, port)) = self.due.first().filter(|(time, _)| *time <= now) {
            self.due.remove(&(time, port));
            self.todo.insert(port);
        }
        while let Some(port) = self.todo.pop_first() {
            if let Some(order) = self.look(now, port) {
                return Some(order);
            }
        }
        None
    }

    /// The answer to [`Order::Bind`].
    pub(super) fn answered(&mut self, now: Time, port: u16, used: Arc<PortUse>, is_bound: bool) {
        let Some(entry) = self.entries.get_mut(&port) else { return };
        if is_bound {
            entry.bound = Some(used);
            entry.failure = None;
            self.bound += 1;
            self.changed(port);
            return;
        }
        let (since, delay) = match entry.failure {
            Some(failure) => (failure.since, failure.delay.saturating_mul(2).min(LONGEST_DELAY)),
            None => (now, FIRST_DELAY),
        };
        let next = now + delay;
        entry.failure = Some(Failure { since, delay, next });
        self.due.insert((next, port));
    }

    /// When there is something to do next.
    pub(super) fn due(&self) -> Option<Time> {
        self.due.first().map(|(time, _)| *time)
    }

    /// Ports of the table that cannot be bound. One that was closed a moment ago is not among them.
    pub(super) fn unbindable(&self, now: Time) -> Vec<u16> {
        let cannot = |port: &&u16| {
            let failure = self.entries.get(*port).and_then(|entry| entry.failure);
            failure.is_some_and(|failure| now.since(failure.since) >= PATIENCE)
        };
        self.unbound.iter().filter(cannot).copied().collect()
    }

    /// Ports of the table that are not bound.
    pub(super) fn unbound(&self) -> usize {
        self.unbound.len()
    }

    /// Ports that slices name and that are not bound: how many, and the first.
    pub(super) fn missing(&self) -> (usize, Option<u16>) {
        (self.missing.len(), self.missing.first().copied())
    }

    /// Ports that are bound.
    pub(super) fn bound(&self) -> usize {
        self.bound
    }

    fn look(&mut self, now: Time, port: u16) -> Option<Order> {
        let entry = self.entries.get_mut(&port)?;
        match (&entry.bound, &entry.wanted) {
            (Some(bound), Some(wanted)) => {
                entry.unneeded_since = None;
                if bound == wanted {
                    return None;
                }
                if bound.identity.is_some() && bound.identity != wanted.identity {
                    return Some(self.close(port));
                }
                entry.bound = Some(Arc::clone(wanted));
                Some(Order::Change(port, Arc::clone(wanted)))
            }
            (Some(_), None) if entry.names > 0 => {
                entry.unneeded_since = None;
                None
            }
            (Some(_), None) => {
                let until = *entry.unneeded_since.get_or_insert(now) + KEPT;
                if now >= until {
                    return Some(self.close(port));
                }
                self.due.insert((until, port));
                None
            }
            (None, Some(wanted)) => match entry.failure.filter(|failure| now < failure.next) {
                Some(_) => None,
                None => Some(Order::Bind(port, Arc::clone(wanted))),
            },
            (None, None) => {
                if entry.names == 0 {
                    self.entries.remove(&port);
                }
                None
            }
        }
    }

    fn close(&mut self, port: u16) -> Order {
        if let Some(entry) = self.entries.get_mut(&port) {
            (entry.bound, entry.unneeded_since) = (None, None);
        }
        self.bound -= 1;
        self.changed(port);
        Order::Close(port)
    }

    fn changed(&mut self, port: u16) {
        let Some(entry) = self.entries.get(&port) else { return };
        let is_unbound = entry.bound.is_none();
        set(&mut self.unbound, port, is_unbound && entry.wanted.is_some());
        set(&mut self.missing, port, is_unbound && entry.names > 0);
        self.todo.insert(port);
    }
}

fn set(ports: &mut BTreeSet<u16>, port: u16, is_in: bool) {
    match is_in {
        true => ports.insert(port),
        false => ports.remove(&port),
    };
}

/// How long a port stays open that neither the table nor a slice has: clients may still know it.
pub(super) const KEPT: Duration = Duration::from_secs(600);
/// How long a port may fail to be bound before that is told: its former listener may not be closed yet.
const PATIENCE: Duration = Duration::from_secs(1);
const FIRST_DELAY: Duration = Duration::from_millis(10);
const LONGEST_DELAY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use pilotlight_core::RevisionId;

    use super::*;

    /// A port used by a workload of this name; `""`: by none that is known.
    fn used(workload: &str) -> Arc<PortUse> {
        let identity = |name: &str| PortIdentity {
            revision: RevisionId::new("shop", name),
            port: format!("{name}/http"),
        };
        let identity = Some(workload).filter(|name| !name.is_empty()).map(identity);
        Arc::new(PortUse { identity, ..PortUse::default() })
    }

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    /// Carries out what there is to do; every port can be bound.
    fn orders(book: &mut PortBook, now: u64) -> Vec<String> {
        let mut done = Vec::new();
        while let Some(order) = book.next(at(now)) {
            let of = |used: &PortUse| {
                used.identity.as_ref().map_or("nobody", |identity| &identity.revision.name).to_owned()
            };
            match order {
                Order::Bind(port, used) => {
                    done.push(format!("bind {port} for {}", of(&used)));
                    book.answered(at(now), port, used, true);
                }
                Order::Change(port, used) => done.push(format!("change {port} for {}", of(&used))),
                Order::Close(port) => done.push(format!("close {port}")),
            }
        }
        done
    }

    #[test]
    fn ports_of_the_table_are_bound_and_changed_once() {
        let mut book = PortBook::default();
        book.wanted(10_001, Some(used("api")));
        book.wanted(10_000, Some(used("web")));
        assert_eq!(book.unbound(), 2);
        assert_eq!(orders(&mut book, 0), ["bind 10000 for web", "bind 10001 for api"]);
        assert_eq!((book.unbound(), book.bound()), (0, 2));
        book.wanted(10_000, Some(used("web")));
        assert_eq!(orders(&mut book, 0), [""; 0], "nothing has changed");
        let settings =
            PortSettings { protocol: pilotlight_activator::PortProtocol::Http, ..PortSettings::default() };
        let other = PortUse { settings: settings.into(), ..PortUse::clone(&used("web")) };
        book.wanted(10_000, Some(other.into()));
        assert_eq!(orders(&mut book, 0), ["change 10000 for web"]);
        assert_eq!(orders(&mut book, 0), [""; 0]);
    }

    #[test]
    fn a_port_whose_owner_changes_is_closed_first() {
        let mut book = PortBook::default();
        book.wanted(10_000, Some(used("web")));
        orders(&mut book, 0);
        book.wanted(10_000, Some(used("api")));
        assert_eq!(orders(&mut book, 0), ["close 10000", "bind 10000 for api"]);
        book.wanted(10_000, Some(used("")));
        assert_eq!(orders(&mut book, 0), ["close 10000", "bind 10000 for nobody"]);
        book.wanted(10_000, Some(used("web")));
        assert_eq!(orders(&mut book, 0), ["change 10000 for web"], "nobody's connection was accepted");
        assert_eq!(book.bound(), 1);
    }

    #[test]
    fn a_port_stays_ten_minutes_after_the_table_and_the_last_slice_have_dropped_it() {
        let mut book = PortBook::default();
        book.wanted(10_000, Some(used("web")));
        book.named(Naming::Named(10_000));
        orders(&mut book, 0);
        book.wanted(10_000, None);
        assert_eq!(orders(&mut book, 1_000), [""; 0]);
        assert_eq!(book.due(), None, "a slice names it");
        book.named(Naming::Dropped(10_000));
        assert_eq!(orders(&mut book, 2_000), [""; 0]);
        assert_eq!(book.due(), Some(at(602_000)));
        book.named(Naming::Named(10_000));
        orders(&mut book, 3_000);
        book.named(Naming::Dropped(10_000));
        assert_eq!(orders(&mut book, 602_000), [""; 0]);
        assert_eq!(orders(&mut book, 1_201_999), [""; 0]);
        assert_eq!(orders(&mut book, 1_202_000), ["close 10000"]);
        assert_eq!(book.due(), None);
        assert!(book.entries.is_empty() && book.bound() == 0);
    }

    #[test]
    fn a_port_that_comes_back_within_that_time_was_never_closed() {
        let mut book = PortBook::default();
        book.wanted(10_000, Some(used("web")));
        orders(&mut book, 0);
        book.wanted(10_000, None);
        orders(&mut book, 1_000);
        book.wanted(10_000, Some(used("web")));
        assert_eq!(orders(&mut book, 2_000), [""; 0]);
        assert_eq!(orders(&mut book, 700_000), [""; 0]);
    }

    #[test]
    fn a_port_that_cannot_be_bound_is_tried_later_each_time_and_told_after_a_second() {
        let mut book = PortBook::default();
        book.wanted(10_000, Some(used("web")));
        let mut tried = Vec::new();
        for now in (0..12_000).step_by(10) {
            while let Some(order) = book.next(at(now)) {
                let Order::Bind(port, used) = order else { panic!("{order:?}") };
                tried.push(now);
                book.answered(at(now), port, used, false);
                assert_eq!(book.unbindable(at(now)), if now < 1_000 { vec![] } else { vec![10_000] });
            }
        }
        assert_eq!(tried, [0, 10, 30, 70, 150, 310, 630, 1_270, 2_550, 5_110, 10_110]);
        assert_eq!(orders(&mut book, 20_000), ["bind 10000 for web"]);
        assert_eq!((book.unbindable(at(20_000)), book.due()), (vec![], None));
    }

    #[test]
    fn ports_that_are_named_and_not_bound_are_missing() {
        let mut book = PortBook::default();
        book.named(Naming::Named(10_007));
        assert_eq!(orders(&mut book, 0), [""; 0]);
        assert_eq!(book.missing(), (1, Some(10_007)));
        book.wanted(10_007, Some(used("web")));
        orders(&mut book, 0);
        assert_eq!(book.missing(), (0, None));
        let mut other = PortBook::default();
        other.named(Naming::Named(10_008));
        other.named(Naming::Dropped(10_008));
        orders(&mut other, 0);
        assert_eq!(other.missing(), (0, None));
        assert!(other.entries.is_empty());
    }
}
