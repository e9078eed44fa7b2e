//! How cost is measured.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Cost of one component with so many revisions.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Cost {
    pub revisions: usize,
    /// CPU time of one change among many that follow each other, in microseconds.
    pub change_us: f64,
    /// CPU time of one change that finds the processor's caches emptied, in microseconds. The median: now and then a tick
    /// of all revisions falls into a change, and belongs to the cost at rest.
    pub lone_change_us: f64,
    /// Share of one core while nothing changes.
    pub rest_percent: f64,
    /// Share of one core at 200 changes a second.
    pub busy_percent: f64,
    /// Resident memory before there was any revision.
    pub empty_mib: f64,
    /// Resident memory with all of them, at rest.
    pub resident_mib: f64,
}

/// Something that has revisions whose pods change.
pub(crate) trait Changing {
    /// Changes one revision's pods.
    fn change(&mut self, revision: usize);

    /// Returns when all changes so far are in force.
    async fn caught_up(&mut self);
}

/// Measures a component that has been started with its revisions, in this order: at rest, changes as fast as they are
/// taken, changes one by one with cold caches, changes at a pace.
pub(crate) async fn measure(revisions: usize, empty_mib: f64, component: &mut impl Changing) -> Cost {
    component.caught_up().await;
    // The first seconds still belong to the start.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let resident_mib = resident_mib();
    let rest_percent = share_of_a_core(async || tokio::time::sleep(PERIOD).await).await;

    let before = cpu();
    for number in 0..CHANGES {
        component.change(nth(number, revisions));
        // As many at once as with ten revisions: what changes twice before it is told is told once.
        if number % TOGETHER == TOGETHER - 1 {
            component.caught_up().await;
        }
    }
    let change_us = (cpu() - before).as_secs_f64() * 1e6 / CHANGES as f64;

    let mut caches = Caches::default();
    let mut lone = Vec::with_capacity(LONE_CHANGES);
    for number in 0..LONE_CHANGES {
        caches.empty();
        let before = cpu();
        component.change(nth(number, revisions));
        component.caught_up().await;
        lone.push(cpu() - before);
    }
    drop(caches);
    lone.sort();
    let lone_change_us = lone[LONE_CHANGES / 2].as_secs_f64() * 1e6;

    let busy_percent = share_of_a_core(async || {
        let mut every = tokio::time::interval(Duration::from_millis(5));
        let started = Instant::now();
        for number in 0.. {
            every.tick().await;
            if started.elapsed() >= PERIOD {
                return;
            }
            component.change(nth(number, revisions));
        }
    })
    .await;
    Cost { revisions, change_us, lone_change_us, rest_percent, busy_percent, empty_mib, resident_mib }
}

/// More memory than the caches of a processor's core hold.
struct Caches(Vec<u64>);

impl Default for Caches {
    fn default() -> Self {
        Caches(vec![1; CACHES_BYTES / size_of::<u64>()])
    }
}

impl Caches {
    /// Has other data take the place of what is cached, as it does between two changes of a cluster.
    fn empty(&mut self) {
        for line in self.0.chunks_mut(64 / size_of::<u64>()) {
            line[0] = std::hint::black_box(line[0] + 1);
        }
    }
}

async fn share_of_a_core(during: impl AsyncFnOnce()) -> f64 {
    let (used, started) = (cpu(), Instant::now());
    during().await;
    (cpu() - used).as_secs_f64() / started.elapsed().as_secs_f64() * 100.0
}

/// All over the revisions, none twice in a row.
fn nth(number: usize, revisions: usize) -> usize {
    (number * 7_919) % revisions
}

fn cpu() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
}

/// Memory of this process that is in RAM, in MiB.
pub(crate) fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("every process has it");
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib / 1024.0
}

const CHANGES: usize = 20_000;
const TOGETHER: usize = 10;
const LONE_CHANGES: usize = 1_000;
const CACHES_BYTES: usize = 64 << 20;
const PERIOD: Duration = Duration::from_secs(5);
