//! The number of pods, as scripts of what happens to them, and against everything that might.

use std::collections::BTreeMap;
use std::time::Duration;

use pilotlight_core::TroubleReason::{self, CannotStart, Exited, NeverReady};
use pilotlight_core::pods::{BackOff, Command, Event, Pods};
use pilotlight_core::{RevisionId, Time};
use proptest::prelude::*;

/// A script: what happens at which time, and what the pods, numbered in the order of their starts, are told.
#[derive(Default)]
struct Script {
    pods: Pods<u32>,
    now: Time,
    started: u32,
    /// Pods that were told something, and what, since somebody looked.
    used: Vec<u32>,
    stopped: Vec<u32>,
    killed: Vec<u32>,
    back_off: Option<BackOff>,
    /// Why a start is not carried out.
    refused: Option<TroubleReason>,
}

impl Script {
    fn at(&mut self, millis: u64) -> &mut Self {
        self.now = Time::from_millis(millis);
        self.step(Event::Tick)
    }

    fn step(&mut self, event: Event<u32>) -> &mut Self {
        for command in self.pods.step(self.now, event) {
            match command {
                Command::Start => {
                    let answer = match self.refused {
                        Some(reason) => Event::NotStarted(reason),
                        None => {
                            self.started += 1;
                            Event::Started(self.started)
                        }
                    };
                    self.step(answer);
                }
                Command::Use(pod) => self.used.push(pod),
                Command::Stop(pod) => self.stopped.push(pod),
                Command::Kill(pod) => self.killed.push(pod),
                Command::BackOff(back_off) => self.back_off = Some(back_off),
            }
        }
        self
    }

    fn scale(&mut self, pods: u32) -> &mut Self {
        self.step(Event::Scale(pods))
    }

    fn ready(&mut self, pod: u32) -> &mut Self {
        self.step(Event::Ready(pod))
    }

    fn demand(&mut self) -> &mut Self {
        self.step(Event::Demand)
    }

    fn load(&mut self, pod: u32, requests: f64) -> &mut Self {
        self.step(Event::Load(pod, requests))
    }

    fn fails(&mut self, pod: u32, reason: TroubleReason) -> &mut Self {
        self.step(Event::Failed(pod, reason))
    }

    /// Asserts how many pods have been started since the beginning.
    fn has_started(&mut self, pods: u32) -> &mut Self {
        assert_eq!(self.started, pods, "started by {:?}", self.now);
        self
    }

    fn has_stopped(&mut self, pods: &[u32]) -> &mut Self {
        assert_eq!(std::mem::take(&mut self.stopped), pods, "stopped by {:?}", self.now);
        self
    }

    /// The failures in a row so far, the pause in milliseconds, and whether waiting requests are answered.
    fn backs_off(&mut self, failures: u32, millis: u64, gives_up: bool) -> &mut Self {
        let told = self.back_off.take().expect("a start has failed");
        assert_eq!(
            (told.failures, told.pause.as_millis(), told.gives_up),
            (failures, millis.into(), gives_up)
        );
        assert!(told.retry_at.is_none_or(|at| at == self.now + told.pause), "{told:?}");
        assert_eq!(self.pods.back_off(self.now), Some(told));
        self
    }

    fn wakes_at(&mut self, millis: Option<u64>) -> &mut Self {
        assert_eq!(self.pods.wake_at(self.now), millis.map(Time::from_millis));
        self
    }
}

#[test]
fn pods_are_started_until_there_are_as_many_as_wanted_and_used_once_they_are_ready() {
    let mut script = Script::default();
    script.scale(2).has_started(2).wakes_at(None);
    script.ready(2).ready(1);
    assert_eq!(script.used, [2, 1]);
    script.scale(3).has_started(3).has_stopped(&[]);
}

#[test]
fn in_a_crash_loop_starts_come_later_each_time_and_after_three_failures_requests_are_answered() {
    let mut script = Script::default();
    script.scale(1).has_started(1).at(50).fails(1, Exited).backs_off(1, 100, false).wakes_at(Some(150));
    script.at(149).has_started(1).at(150).has_started(2).wakes_at(None);
    script.at(200).fails(2, Exited).backs_off(2, 200, false).at(399).has_started(2).at(400).has_started(3);
    script.at(500).fails(3, Exited).backs_off(3, 400, true).at(900).has_started(4);
    script.at(1_000).fails(4, Exited).backs_off(4, 800, true);
}

#[test]
fn the_pause_grows_to_half_a_minute_and_no_further() {
    let mut script = Script { pods: Pods::with_minimum(1), ..Script::default() };
    script.scale(1);
    // 0.1 s doubled nine times is 51.2 s.
    let pauses = [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000];
    let mut now = 0;
    for (failures, pause) in (1..).zip(pauses) {
        script.fails(failures, Exited).backs_off(failures, pause, failures >= 3);
        now += pause;
        script.at(now).has_started(failures + 1);
    }
}

/// A pod that fails as soon as it is started, from 0 s on, until nothing is tried any more unasked.
fn crashing() -> Script {
    let mut script = Script::default();
    script.scale(1);
    for (pod, now) in (1..).zip([0, 100, 300, 700, 1_500, 3_100, 6_300, 12_700, 25_500]) {
        script.at(now).has_started(pod).fails(pod, Exited);
    }
    script
}

#[test]
fn half_a_minute_after_the_last_request_nothing_is_tried_until_the_next_one() {
    let mut script = crashing();
    // The next would come at 51.1 s.
    script.backs_off(9, 25_600, true).wakes_at(None).at(300_000).has_started(9);
    script.demand().has_started(10).wakes_at(Some(305_000));
    script
        .at(300_100)
        .fails(10, Exited)
        .backs_off(10, 30_000, true)
        .wakes_at(None)
        .at(600_000)
        .has_started(10);
}

#[test]
fn a_request_during_the_pause_has_a_start_tried_at_once_and_at_most_one_a_second() {
    let mut script = crashing();
    let on_demand_at = |script: &Script| script.pods.back_off(script.now).and_then(|it| it.on_demand_at);
    assert_eq!(on_demand_at(&script), Some(Time::from_millis(26_500)));
    script.at(26_499).demand().has_started(9).at(26_500).has_started(9);
    script.demand().has_started(10).demand().has_started(10);
    assert_eq!(on_demand_at(&script), None);
    script.at(26_600).fails(10, Exited).demand().has_started(10).at(27_600).demand().has_started(11);
    script.at(27_700).ready(11);
    assert_eq!(script.pods.back_off(script.now), None);
}

#[test]
fn requests_are_held_for_a_start_on_demand_but_no_longer_than_five_seconds() {
    let mut script = crashing();
    let gives_up = |script: &Script| script.pods.back_off(script.now).map(|it| it.gives_up);
    assert_eq!(gives_up(&script), Some(true));
    script.at(30_000).demand().has_started(10).wakes_at(Some(35_000));
    assert_eq!(gives_up(&script), Some(false));
    script.at(35_000).wakes_at(None);
    assert_eq!(gives_up(&script), Some(true));
    script.at(36_000).fails(10, NeverReady);
    assert_eq!(gives_up(&script), Some(true));
}

#[test]
fn pods_that_are_wanted_without_requests_are_tried_again_for_ever() {
    let mut script = Script { pods: Pods::with_minimum(1), ..Script::default() };
    script.scale(1);
    for pod in 1..100 {
        script.fails(pod, Exited);
        let at = script.pods.wake_at(script.now).expect("it is tried again");
        script.now = at;
        script.step(Event::Tick).has_started(pod + 1);
    }
}

#[test]
fn while_others_work_a_pod_that_fails_is_tried_again_for_ever() {
    let mut script = Script::default();
    script.scale(2).ready(1).at(60_000).fails(2, Exited).wakes_at(Some(60_100));
}

#[test]
fn what_cannot_be_run_or_took_its_whole_time_is_given_up_at_once_and_still_tried_again() {
    for reason in [CannotStart, NeverReady] {
        let mut script = Script::default();
        script.scale(1).fails(1, reason).backs_off(1, 100, true).at(100).has_started(2);
    }
}

#[test]
fn a_pod_that_comes_up_ends_the_trouble() {
    let mut script = Script::default();
    script.scale(2).has_started(2).fails(1, NeverReady).backs_off(1, 100, true);
    script.ready(2);
    assert_eq!(script.pods.back_off(script.now), None);
    // The pause of the failed one still stands.
    script.wakes_at(Some(100)).at(99).has_started(2).at(100).has_started(3);
}

#[test]
fn after_a_failure_starts_come_one_at_a_time_until_a_pod_comes_up() {
    let mut script = Script::default();
    script.scale(1).fails(1, Exited).scale(5).has_started(1).at(100).has_started(2);
    script.at(10_000).has_started(2).wakes_at(None).ready(2).has_started(6);
}

#[test]
fn two_pods_that_fail_beside_one_another_count_once() {
    let mut script = Script::default();
    script.scale(3).has_started(3).at(10).fails(1, Exited).backs_off(1, 100, false);
    script.at(20).fails(2, Exited).backs_off(1, 100, false).wakes_at(None);
    // The third, started before any failure was known, is of the same kind.
    script.at(30).fails(3, Exited).backs_off(1, 100, false).at(130).has_started(4);
    script.at(140).fails(4, Exited).backs_off(2, 200, false);
}

#[test]
fn a_pod_that_worked_for_ten_seconds_was_fine() {
    let mut script = Script::default();
    script.scale(1).fails(1, Exited).backs_off(1, 100, false);
    script.at(100).has_started(2).at(1_000).ready(2);
    // Ready, and gone at once: the count goes on.
    script.at(10_999).fails(2, Exited).backs_off(2, 200, false);
    script.at(11_199).has_started(3).at(12_000).ready(3);
    script.at(22_000).fails(3, Exited).backs_off(1, 100, false);
}

#[test]
fn no_pods_wanted_means_that_failures_are_forgotten() {
    let mut script = Script::default();
    script.scale(1).fails(1, CannotStart).backs_off(1, 100, true).scale(0).wakes_at(None);
    assert_eq!(script.pods.back_off(script.now), None);
    script.scale(1).has_started(2).fails(2, Exited).backs_off(1, 100, false);
}

#[test]
fn the_failure_of_a_pod_that_was_told_to_go_does_not_count() {
    let mut script = Script::default();
    script.scale(2).ready(1).ready(2).scale(1).has_stopped(&[2]).fails(2, Exited);
    assert_eq!((script.back_off, script.pods.back_off(script.now)), (None, None));
    script.scale(0).has_stopped(&[1]).fails(1, Exited).scale(1).has_started(3);
}

#[test]
fn a_start_that_cannot_be_carried_out_is_a_failure() {
    // Say, there is no address for a pod.
    let mut script = Script { refused: Some(CannotStart), ..Script::default() };
    script.scale(3).backs_off(1, 100, true).wakes_at(Some(100));
    script.at(100).backs_off(2, 200, true);
    script.refused = None;
    script.at(300).has_started(1).ready(1).has_started(3);
}

#[test]
fn those_that_start_go_first_then_the_least_busy_then_the_newest() {
    let mut script = Script::default();
    script.scale(6);
    for pod in 1..=4 {
        script.ready(pod);
    }
    script.load(1, 0.5).load(2, 3.0).load(3, 0.5).load(4, 0.7);
    // 5 and 6 are starting.
    script.scale(5).has_stopped(&[6]).scale(4).has_stopped(&[5]);
    script.scale(3).has_stopped(&[3]).scale(2).has_stopped(&[1]).scale(1).has_stopped(&[4]);
    script.scale(0).has_stopped(&[2]);
}

#[test]
fn several_go_at_once_in_the_same_order() {
    let mut script = Script::default();
    script.scale(4);
    script.ready(1).ready(2).ready(3).load(2, 1.0);
    script.scale(1).has_stopped(&[4, 3, 1]);
}

#[test]
fn a_pod_of_which_nothing_was_measured_counts_as_idle() {
    let mut script = Script::default();
    script.scale(2).ready(1).ready(2).load(2, 0.1);
    script.scale(1).has_stopped(&[1]);
}

#[test]
fn a_load_told_before_a_pod_was_ready_or_after_it_is_gone_changes_nothing() {
    let mut script = Script::default();
    script.scale(2).load(1, 9.0).ready(1).ready(2).load(7, 1.0);
    script.scale(1).has_stopped(&[2]).load(2, 5.0).scale(0).has_stopped(&[1]);
}

#[test]
fn a_pod_that_is_stopped_while_it_starts_stays_stopped() {
    let mut script = Script::default();
    script.scale(1).scale(0).has_stopped(&[1]).ready(1);
    assert!(script.used.is_empty());
    // A leaving pod does not count, so another takes its place.
    script.scale(1).has_started(2).step(Event::Stopped(1)).has_started(2).has_stopped(&[]);
}

#[test]
fn closed_it_ends_with_its_last_pod() {
    let mut script = Script::default();
    script.scale(2).ready(1).step(Event::Close).has_stopped(&[2, 1]).scale(5).has_started(2);
    script.step(Event::Stopped(1));
    assert!(!script.pods.is_done());
    script.step(Event::Failed(2, Exited));
    assert!(script.pods.is_done() && script.back_off.is_none());
}

#[test]
fn killed_every_pod_ends_at_once_those_that_were_leaving_too() {
    let mut script = Script::default();
    script.scale(2).ready(1).ready(2).scale(1).has_stopped(&[2]).step(Event::Kill).has_stopped(&[]);
    assert_eq!(script.killed, [1, 2]);
    script.step(Event::Stopped(1)).step(Event::Stopped(2));
    assert!(script.pods.is_done());
}

#[test]
fn pods_of_one_name_in_two_namespaces_are_two_pods() {
    let pod = |namespace| (RevisionId::new(namespace, "hello"), "hello-1");
    let mut pods = Pods::default();
    pods.step(Time::EPOCH, Event::Scale(2));
    for namespace in ["a", "b"] {
        pods.step(Time::EPOCH, Event::Started(pod(namespace)));
        pods.step(Time::EPOCH, Event::Ready(pod(namespace)));
    }
    pods.step(Time::EPOCH, Event::Load(pod("b"), 2.0));
    assert_eq!(pods.step(Time::EPOCH, Event::Scale(1)), [Command::Stop(pod("a"))]);
}

/// How a pod of the model stands.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Seen {
    Starting,
    Working,
    Leaving,
}

proptest! {
    /// Pods that live are never more than wanted, every wake is in the future, and once pods come up and time passes
    /// there are as many as wanted.
    #[test]
    fn there_are_never_too_many_and_in_the_end_enough(happenings in prop::collection::vec((0..8u32, 0..8u32), 0..120)) {
        let mut pods = Pods::default();
        let mut seen: BTreeMap<u32, Seen> = BTreeMap::new();
        let mut now = Time::EPOCH;
        let mut started = 0;
        let mut run = |pods: &mut Pods<u32>, seen: &mut BTreeMap<u32, Seen>, now, event| {
            let mut events = vec![event];
            while let Some(event) = events.pop() {
                for command in pods.step(now, event) {
                    match command {
                        Command::Start => {
                            started += 1;
                            seen.insert(started, Seen::Starting);
                            events.push(Event::Started(started));
                        }
                        Command::Use(pod) => assert_eq!(seen.insert(pod, Seen::Working), Some(Seen::Starting)),
                        Command::Stop(pod) => assert_ne!(seen.insert(pod, Seen::Leaving), Some(Seen::Leaving)),
                        Command::Kill(_) => unreachable!("nobody said so"),
                        Command::BackOff(back_off) => assert!(back_off.retry_at.is_none_or(|at| at > now)),
                    }
                }
            }
            let live = seen.values().filter(|pod| **pod != Seen::Leaving).count() as u32;
            assert!(live <= pods.wanted());
            assert!(pods.wake_at(now).is_none_or(|at| at > now), "{:?} at {now:?}", pods.wake_at(now));
            live
        };
        for (kind, which) in happenings {
            let nth = |wanted: &[Seen]| {
                let found: Vec<u32> =
                    seen.iter().filter(|(_, pod)| wanted.contains(pod)).map(|(pod, _)| *pod).collect();
                (!found.is_empty()).then(|| found[which as usize % found.len()])
            };
            let event = match kind {
                0 => Some(Event::Scale(which)),
                1 => nth(&[Seen::Starting, Seen::Leaving]).map(Event::Ready),
                2 => nth(&[Seen::Working]).map(|pod| Event::Load(pod, f64::from(which))),
                3 => nth(&[Seen::Leaving]).map(Event::Stopped),
                4 => nth(&[Seen::Starting, Seen::Working, Seen::Leaving]).map(|pod| Event::Failed(pod, Exited)),
                5 => Some(Event::Demand),
                _ => Some(Event::Tick),
            };
            if let Some(Event::Stopped(pod) | Event::Failed(pod, _)) = &event {
                seen.remove(pod);
            }
            now += Duration::from_millis(u64::from(which) * 50);
            if let Some(event) = event {
                run(&mut pods, &mut seen, now, event);
            }
        }
        run(&mut pods, &mut seen, now, Event::Scale(5));
        // The longest pause, and then one pod after the other.
        for _ in 0..6 {
            now += Duration::from_secs(30);
            run(&mut pods, &mut seen, now, Event::Demand);
            let starting: Vec<u32> =
                seen.iter().filter(|(_, pod)| **pod == Seen::Starting).map(|(pod, _)| *pod).collect();
            for pod in starting {
                run(&mut pods, &mut seen, now, Event::Ready(pod));
            }
        }
        let live = run(&mut pods, &mut seen, now, Event::Tick);
        prop_assert_eq!((live, pods.wake_at(now)), (5, None));
    }
}
