//! Scripts of elections: a lease that lives in the test, and candidates with clocks of their own.

use super::*;

fn at(seconds: u64) -> Time {
    Time::from_secs(1_700_000_000 + seconds)
}

fn candidate(identity: &str) -> Election {
    Election::new(at(0), "bucket".to_owned(), identity.to_owned(), LeaseTimes::default())
}

/// The API server's half of optimistic writes.
#[derive(Default)]
struct Server {
    lease: Option<Lease>,
    writes: u64,
}

impl Server {
    fn write(&mut self, lease: Lease) -> Written {
        let version = |lease: &Lease| lease.metadata.resource_version.clone();
        if self.lease.as_ref().and_then(version) != version(&lease) {
            return Written::Conflict;
        }
        self.writes += 1;
        let mut lease = lease;
        lease.metadata.resource_version = Some(self.writes.to_string());
        self.lease = Some(lease.clone());
        Written::Done(Box::new(lease))
    }

    /// Does what the candidate wants until it waits. Returns until when.
    fn serve(&mut self, now: Time, candidate: &mut Election) -> Time {
        for _ in 0..10 {
            match candidate.next(now) {
                Step::Read => candidate.read(now, Ok(self.lease.clone())),
                Step::Create(lease) | Step::Replace(lease) => {
                    let written = self.write(*lease);
                    candidate.written(now, now, written);
                }
                Step::WaitUntil(time) => return time,
            }
        }
        panic!("a candidate that asks without a pause");
    }

    fn spec(&self) -> &LeaseSpec {
        self.lease.as_ref().and_then(|lease| lease.spec.as_ref()).expect("a lease")
    }
}

#[test]
fn the_first_candidate_creates_the_lease_and_renews_it_every_retry_period() {
    let (mut server, mut one) = (Server::default(), candidate("one_10.0.0.1"));
    assert_eq!(server.serve(at(0), &mut one), at(10));
    assert!(one.holds(at(0)));
    let spec = server.spec().clone();
    assert_eq!(spec.holder_identity.as_deref(), Some("one_10.0.0.1"));
    assert_eq!((spec.lease_duration_seconds, spec.lease_transitions), (Some(60), Some(0)));
    assert_eq!((spec.acquire_time, spec.renew_time), (Some(micro(at(0))), Some(micro(at(0)))));
    assert_eq!(server.serve(at(10), &mut one), at(20));
    let spec = server.spec();
    assert_eq!(
        (spec.acquire_time.clone(), spec.renew_time.clone()),
        (Some(micro(at(0))), Some(micro(at(10))))
    );
    assert_eq!(server.writes, 2);
}

#[test]
fn another_waits_for_a_whole_duration_without_a_change_by_its_own_clock() {
    let (mut server, mut one, mut two) = (Server::default(), candidate("one"), candidate("two"));
    server.serve(at(0), &mut one);
    // Seen for the first time at 30: what time is written in it does not count.
    let look = server.serve(at(30), &mut two);
    assert!((at(38)..=at(42)).contains(&look), "{look:?}");
    assert_eq!(two.holder(), Some("one"));
    for second in 31..90 {
        server.serve(at(second), &mut two);
        assert!(!two.holds(at(second)));
    }
    server.serve(at(90), &mut two);
    assert!(two.holds(at(90)));
    let spec = server.spec();
    assert_eq!((spec.lease_transitions, spec.acquire_time.clone()), (Some(1), Some(micro(at(90)))));
    // The one before has been away for so long that it gave up by itself.
    assert!(!one.holds(at(40)));
}

#[test]
fn renewals_keep_another_waiting() {
    let (mut server, mut one, mut two) = (Server::default(), candidate("one"), candidate("two"));
    for second in 0..300 {
        server.serve(at(second), &mut one);
        server.serve(at(second), &mut two);
        assert_eq!((one.holds(at(second)), two.holds(at(second))), (true, false));
    }
    assert_eq!(server.spec().lease_transitions, Some(0));
}

#[test]
fn a_holder_that_cannot_renew_gives_up_before_anybody_may_take_over() {
    let (mut server, mut one, mut two) = (Server::default(), candidate("one"), candidate("two"));
    server.serve(at(0), &mut one);
    server.serve(at(0), &mut two);
    // From now on the first one's requests fail.
    let mut given_up = None;
    for second in 1..=60 {
        let now = at(second);
        match one.next(now) {
            Step::Read => one.read(now, Err(())),
            Step::Create(_) | Step::Replace(_) => one.written(now, now, Written::Failed),
            Step::WaitUntil(time) => assert!(time > now),
        }
        server.serve(now, &mut two);
        assert!(!(one.holds(now) && two.holds(now)), "two holders at {second}");
        if !one.holds(now) {
            given_up.get_or_insert(second);
        }
    }
    assert_eq!(given_up, Some(40));
    assert!(two.holds(at(60)));
}

#[test]
fn a_holder_asks_again_within_its_deadline_and_stays_holder() {
    let (mut server, mut one) = (Server::default(), candidate("one"));
    server.serve(at(0), &mut one);
    let Step::Replace(_) = one.next(at(10)) else { panic!("a renewal") };
    one.written(at(15), at(10), Written::Failed);
    let Step::WaitUntil(again) = one.next(at(15)) else { panic!("no pause") };
    assert!((at(23)..=at(27)).contains(&again), "{again:?}");
    assert!(one.holds(again));
    // Unknown whether the write was done: it looks, then renews.
    assert_eq!(one.next(again), Step::Read);
    server.serve(again, &mut one);
    assert!(one.holds(again + Duration::from_secs(39)));
}

#[test]
fn the_deadline_counts_from_when_the_renewal_was_sent() {
    let (mut server, mut one) = (Server::default(), candidate("one"));
    server.serve(at(0), &mut one);
    let Step::Replace(lease) = one.next(at(10)) else { panic!("a renewal") };
    let written = server.write(*lease);
    one.written(at(35), at(10), written);
    assert!(one.holds(at(49)) && !one.holds(at(50)));
}

#[test]
fn of_two_that_take_a_lease_at_once_one_is_refused_and_waits() {
    let (mut server, mut one, mut two) = (Server::default(), candidate("one"), candidate("two"));
    for candidate in [&mut one, &mut two] {
        assert_eq!(candidate.next(at(0)), Step::Read);
        candidate.read(at(0), Ok(None));
    }
    server.serve(at(0), &mut one);
    // The second thinks that there is no lease, and is told otherwise.
    let wait = server.serve(at(0), &mut two);
    assert!(wait > at(0));
    assert!(one.holds(at(0)) && !two.holds(at(0)));
    assert_eq!(two.holder(), Some("one"));
}

#[test]
fn a_lease_that_is_released_is_taken_as_soon_as_the_watch_tells_of_it() {
    let (mut server, mut one, mut two) = (Server::default(), candidate("one"), candidate("two"));
    server.serve(at(0), &mut one);
    server.serve(at(0), &mut two);
    let released = one.stop(at(3)).expect("it is held");
    let spec = released.spec.clone().unwrap();
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_duration_seconds), (Some(""), Some(1)));
    assert_eq!((spec.acquire_time, spec.renew_time), (Some(micro(at(3))), Some(micro(at(3)))));
    server.write(released);
    assert!(!one.holds(at(3)));
    assert!(matches!(one.next(at(9)), Step::WaitUntil(time) if time > at(1_000_000)));
    two.told(at(3), server.lease.clone());
    server.serve(at(3), &mut two);
    assert!(two.holds(at(3)));
    assert_eq!(server.spec().lease_transitions, Some(1));
    assert_eq!(server.spec().lease_duration_seconds, Some(60));
}

#[test]
fn one_that_holds_nothing_has_nothing_to_release() {
    let (mut server, mut one, mut two) = (Server::default(), candidate("one"), candidate("two"));
    server.serve(at(0), &mut one);
    server.serve(at(0), &mut two);
    assert_eq!(two.stop(at(1)), None);
    // Too late to renew is too late to release: it may be somebody else's by now.
    assert_eq!(one.stop(at(41)), None);
}

#[test]
fn a_candidate_that_comes_back_under_its_name_goes_on_at_once() {
    let (mut server, mut before) = (Server::default(), candidate("one"));
    server.serve(at(0), &mut before);
    let mut after = candidate("one");
    server.serve(at(2), &mut after);
    assert!(after.holds(at(2)));
    let spec = server.spec();
    assert_eq!((spec.lease_transitions, spec.acquire_time.clone()), (Some(0), Some(micro(at(0)))));
}

#[test]
fn a_watch_that_is_late_costs_a_holder_a_look_and_not_the_lease() {
    let (mut server, mut one) = (Server::default(), candidate("one"));
    let mut of_another = Lease { metadata: ObjectMeta::default(), spec: None };
    of_another.spec = Some(LeaseSpec { holder_identity: Some("two".to_owned()), ..LeaseSpec::default() });
    server.serve(at(0), &mut one);
    one.told(at(5), Some(of_another));
    assert!(one.holds(at(5)));
    assert_eq!(one.next(at(5)), Step::Read);
    server.serve(at(5), &mut one);
    assert!(one.holds(at(44)), "it renewed at 5");
    // A renewal of its own, told by the watch, is no news.
    one.told(at(6), server.lease.clone());
    assert_eq!(one.next(at(6)), Step::WaitUntil(at(15)));
}

#[test]
fn a_lease_that_somebody_took_or_deleted_is_lost() {
    let (mut server, mut one) = (Server::default(), candidate("one"));
    server.serve(at(0), &mut one);
    let mut taken = server.lease.clone().unwrap();
    taken.spec.as_mut().unwrap().holder_identity = Some("two".to_owned());
    server.write(taken);
    // The renewal is refused.
    server.serve(at(10), &mut one);
    assert!(!one.holds(at(10)));
    assert_eq!(one.holder(), Some("two"));

    let (mut server, mut one) = (Server::default(), candidate("one"));
    server.serve(at(0), &mut one);
    server.lease = None;
    one.told(at(4), None);
    assert_eq!(one.next(at(4)), Step::Read);
    one.read(at(4), Ok(None));
    assert!(!one.holds(at(4)));
    server.serve(at(4), &mut one);
    assert!(one.holds(at(4)), "nobody has it, so it is made anew");
}

#[test]
fn what_others_wrote_into_the_lease_stays() {
    let (mut server, mut one) = (Server::default(), candidate("one"));
    let mut lease = Lease {
        metadata: ObjectMeta { name: Some("bucket".to_owned()), ..ObjectMeta::default() },
        spec: None,
    };
    lease.metadata.labels = Some([("team".to_owned(), "a".to_owned())].into());
    server.write(lease.clone());
    server.serve(at(0), &mut one);
    assert!(one.holds(at(0)));
    assert_eq!(server.lease.unwrap().metadata.labels, lease.metadata.labels);
}
