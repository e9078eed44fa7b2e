//! Cost of a change where there are many revisions, and of the revisions when nothing changes:
//! `cargo bench -p pilotlight-tests --bench scale`, about two minutes.
//!
//! Each figure comes from a process of its own, in which the autoscaler's loop or the activator runs with 10, 1,000,
//! 5,000 or 10,000 revisions. CPU time is the process's, user and system, all threads; the side that publishes the
//! changes is in it. Goals are checked; the exit code says whether all were met.
//!
//! A change is measured twice. Among many that follow each other, ten revisions stay in the processor's caches and ten
//! thousand do not: the difference between those figures is the processor's. A change of its own, as a cluster has it,
//! finds its revision in no cache, however few there are: those figures show whether work grows with the revisions.

mod activator;
mod autoscaler;
mod cost;

use std::process::{Command, ExitCode};

use cost::Cost;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [component, revisions] = args.as_slice() {
        let revisions = revisions.parse().expect("a number of revisions");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let cost = runtime.block_on(async {
            match component.as_str() {
                "autoscaler" => autoscaler::measure(revisions).await,
                "activator" => activator::measure(revisions).await,
                other => panic!("no component is called {other}"),
            }
        });
        println!("{}", serde_json::to_string(&cost).expect("only numbers"));
        return ExitCode::SUCCESS;
    }
    let mut goals = Goals::default();
    for component in ["autoscaler", "activator"] {
        let costs: Vec<Cost> = SIZES.map(|revisions| in_a_process_of_its_own(component, revisions)).into();
        for cost in &costs {
            println!(
                "{component}: {:.1} us a change at {} revisions ({:.1} us with cold caches)",
                cost.change_us, cost.revisions, cost.lone_change_us
            );
        }
        for cost in costs.iter().filter(|cost| cost.revisions >= 5_000) {
            println!(
                "{component}: {:.1} MiB at {} revisions ({:.1} KiB each)",
                cost.resident_mib,
                cost.revisions,
                (cost.resident_mib - cost.empty_mib) * 1024.0 / cost.revisions as f64
            );
        }
        let many = costs.iter().find(|cost| cost.revisions == 5_000).expect("it is one of the sizes");
        println!(
            "{component}: at 5000 revisions, {:.2} % of a core at rest, {:.2} % at 200 changes a second",
            many.rest_percent, many.busy_percent
        );
        let worst = costs.iter().map(|cost| cost.change_us).fold(0.0, f64::max);
        let compared = costs.iter().filter(|cost| cost.revisions != 5_000).map(|cost| cost.lone_change_us);
        let (least, most) =
            compared.fold((f64::MAX, 0f64), |(least, most), us| (least.min(us), most.max(us)));
        goals.check(component, "CPU of a change, us", worst, 50.0);
        goals.check(component, "the same at 10, 1,000 and 10,000 revisions: ratio", most / least, 2.0);
        goals.check(component, "200 changes/s at 5,000 revisions, % of a core", many.busy_percent, 3.0);
        goals.check(component, "at rest with 5,000 revisions, % of a core", many.rest_percent, 0.5);
    }
    goals.print()
}

const SIZES: [usize; 4] = [10, 1_000, 5_000, 10_000];

fn in_a_process_of_its_own(component: &str, revisions: usize) -> Cost {
    let this = std::env::current_exe().expect("this executable");
    let output =
        Command::new(this).args([component, &revisions.to_string()]).output().expect("it can be run again");
    assert!(
        output.status.success(),
        "{component} with {revisions} revisions: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("one line of JSON")
}

#[derive(Default)]
struct Goals {
    rows: Vec<String>,
    missed: bool,
}

impl Goals {
    fn check(&mut self, component: &str, what: &str, measured: f64, most: f64) {
        let met = measured <= most;
        self.missed |= !met;
        let verdict = if met { "" } else { "MISSED" };
        self.rows
            .push(format!("{:<66} {measured:>8.2} <= {most:<6} {verdict}", format!("{component}: {what}")));
    }

    fn print(self) -> ExitCode {
        println!("\n{}", self.rows.join("\n"));
        if self.missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}
