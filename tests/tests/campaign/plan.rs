//! The plan of a campaign: a function of its seed.

use std::time::Duration;

use pilotlight_core::Rng;
use pilotlight_tests::cluster::api::Outage;
use pilotlight_tests::cluster::plain::{AppPort, Way, WorkloadSpec};
use serde_json::json;

/// Everything that is to happen.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) workloads: Vec<Workload>,
    /// Faults, one after the other, until the workloads are done.
    pub(crate) faults: Faults,
}

/// A workload with its cycles.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) spec: WorkloadSpec,
    pub(crate) cycles: Vec<Cycle>,
}

/// From zero to several pods and back.
#[derive(Clone, Debug)]
pub(crate) struct Cycle {
    /// How long it sleeps before.
    pub(crate) pause: Duration,
    /// What becomes of it while it sleeps.
    pub(crate) asleep: Option<AsleepEdit>,
    /// Clients of each port.
    pub(crate) clients: usize,
    pub(crate) http: Way,
    /// Milliseconds that each request takes.
    pub(crate) sleep: u64,
    /// What becomes of it once it is awake.
    pub(crate) awake: Option<AwakeEdit>,
    /// Answers until the load ends, and again after a change.
    pub(crate) answers: u64,
}

/// A change of a workload that sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AsleepEdit {
    /// Its RequestAutoscaler is deleted and made again.
    RemakeAutoscaler,
    /// Its Service is deleted and made again.
    RemakeService,
    /// The first port has another name.
    RenamePort,
    /// Somebody wakes it with two pods.
    Wake,
}

/// A change of a workload under load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AwakeEdit {
    /// A new template.
    Roll,
    /// Somebody asks for so many pods.
    Scale(i32),
    /// Another target in the RequestAutoscaler.
    Target(u32),
    /// The selector is put back, and taken away.
    Selector,
}

/// A fault of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The controller that leads is killed.
    KillLeader,
    /// A controller ends politely.
    EndController(usize),
    /// An activator ends politely.
    EndActivator(usize),
    /// The API server is away for a time.
    Outage(Outage, Duration),
    /// Every watch breaks.
    BreakWatches,
    /// Every version before now is expired.
    ExpireWatches,
    /// Services follow their slices so much later.
    Lag(Duration),
}

/// Faults without end, each with the pause before it.
#[derive(Clone, Debug)]
pub(crate) struct Faults(Rng);

impl Plan {
    pub(crate) fn new(seed: u64, cycles: usize) -> Plan {
        let mut rng = Rng::new(seed);
        let mut workloads: Vec<Workload> = (0..WORKLOADS).map(|number| workload(&mut rng, number)).collect();
        for cycle in 0..cycles {
            let workload = &mut workloads[cycle % WORKLOADS];
            let cycle = cycle_of(&mut rng, &workload.spec);
            workload.cycles.push(cycle);
        }
        Plan { workloads, faults: Faults(Rng::new(seed ^ 0x5eed)) }
    }
}

impl Iterator for Faults {
    type Item = (Duration, Fault);

    fn next(&mut self) -> Option<Self::Item> {
        let rng = &mut self.0;
        let pause = millis(rng, 500, 4000);
        let fault = match below(rng, 9) {
            0 => Fault::KillLeader,
            1 => Fault::EndController(below(rng, 2)),
            2 | 3 => Fault::EndActivator(below(rng, 2)),
            4 => Fault::Outage(Outage::Refused, millis(rng, 500, 4000)),
            5 => Fault::Outage(Outage::Silent, millis(rng, 500, 4000)),
            6 => Fault::BreakWatches,
            7 => Fault::ExpireWatches,
            _ => Fault::Lag(millis(rng, 0, 500)),
        };
        Some((pause, fault))
    }
}

fn workload(rng: &mut Rng, number: usize) -> Workload {
    let mut spec = WorkloadSpec::exact(&format!("w{number}"));
    if number.is_multiple_of(3) {
        spec.ports = vec![AppPort::HTTP, AppPort::H2C, AppPort::TCP];
    }
    spec.is_probed = below(rng, 3) > 0;
    spec.startup = format!("{}ms", below(rng, 500));
    // Pods that the Service may lead to by itself go on for longer than any proxy lags.
    spec.close_after = if number % 4 == 1 { "2s".to_owned() } else { "0s".to_owned() };
    let spec = spec.with(json!({ "target": 1 + below(rng, 3) }));
    Workload { spec, cycles: Vec::new() }
}

fn cycle_of(rng: &mut Rng, spec: &WorkloadSpec) -> Cycle {
    let pauses_before_it_closes = spec.close_after != "0s";
    let asleep = match below(rng, 12) {
        0 => Some(AsleepEdit::RemakeAutoscaler),
        1 => Some(AsleepEdit::RemakeService),
        2 => Some(AsleepEdit::RenamePort),
        3 => Some(AsleepEdit::Wake),
        _ => None,
    };
    let awake = match below(rng, 8) {
        0 => Some(AwakeEdit::Roll),
        1 => Some(AwakeEdit::Scale(1 + below(rng, 4) as i32)),
        2 => Some(AwakeEdit::Target(1 + below(rng, 3) as u32)),
        3 if pauses_before_it_closes => Some(AwakeEdit::Selector),
        _ => None,
    };
    Cycle {
        pause: millis(rng, 0, 3000),
        asleep,
        clients: 1 + below(rng, 3),
        http: if below(rng, 2) == 0 { Way::Once } else { Way::Kept },
        sleep: 50 + below(rng, 200) as u64,
        awake,
        answers: 5 + below(rng, 30) as u64,
    }
}

fn below(rng: &mut Rng, end: usize) -> usize {
    rng.below(end)
}

fn millis(rng: &mut Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(from + rng.next_u64() % (to - from))
}

const WORKLOADS: usize = 12;

#[test]
fn a_seed_has_one_plan() {
    let text = |seed| format!("{:?}", Plan::new(seed, 100).workloads);
    assert_eq!(text(7), text(7));
    assert_ne!(text(7), text(8));
    let plan = Plan::new(7, 100);
    assert_eq!(plan.workloads.iter().map(|workload| workload.cycles.len()).sum::<usize>(), 100);
}
