//! The figures of `pilotlight run` that users feel, measured on the real binary with real processes:
//!
//! * how fast a request at zero gets a process, and how fast a process that accepts connections gets its request;
//! * how many requests are lost over cycles 0 -> 1 -> 0, and while pods scale 1 -> 8 -> 1 under 200 connections;
//! * how much memory the idle parts hold.
//!
//! `cargo bench -p pilotlight-tests --bench numbers`. Takes about three minutes: the shortest window there is lasts six seconds.
//! `PILOTLIGHT_CYCLES` sets the number of cycles (200).

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pilotlight_cli::load::{End, Load, Mode};
use pilotlight_tests::process::Bearer;
use pilotlight_tests::run::Pilotlight;
use pilotlight_tests::{eventually, http, manifest};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use serde_json::Value;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|word| word == APP) {
        return app(&args[2]);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut table = Table::default();
    runtime.block_on(async {
        memory(&mut table).await;
        cycles(&mut table).await;
        up_and_down(&mut table).await;
    });
    println!("\n{:<64} {:>12} {:>12}", "", "measured", "goal");
    for row in &table.rows {
        println!(
            "{:<64} {:>12} {:>12} {}",
            row.what,
            row.measured,
            row.goal,
            if row.met { "" } else { "MISSED" }
        );
    }
    if table.rows.iter().all(|row| row.met) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[derive(Default)]
struct Table {
    rows: Vec<Row>,
}

struct Row {
    what: String,
    measured: String,
    goal: String,
    met: bool,
}

impl Table {
    fn at_most(&mut self, what: &str, measured: f64, goal: f64, unit: &str) {
        let show =
            |value: f64| if unit.is_empty() { format!("{value}") } else { format!("{value:.2} {unit}") };
        self.rows.push(Row {
            what: what.to_owned(),
            measured: show(measured),
            goal: format!("<= {}", show(goal)),
            met: measured <= goal,
        });
    }

    fn shown(&mut self, what: &str, measured: f64, unit: &str) {
        let row = Row {
            what: what.to_owned(),
            measured: format!("{measured:.2} {unit}"),
            goal: String::new(),
            met: true,
        };
        self.rows.push(row);
    }
}

/// Resident memory with nothing to do: of all of `run` without a pod, and of one queue-proxy.
async fn memory(table: &mut Table) {
    let pilotlight = Pilotlight::sample(&["--name", "idle"]).await;
    let resident = |filter: &dyn Fn(&Bearer) -> bool| -> f64 {
        let processes = pilotlight.processes();
        processes.iter().filter(|process| filter(process)).map(|process| resident_mib(process.pid)).sum()
    };
    // Both the command itself and its guard.
    table.at_most("resident memory of `run` without a pod, guard included", resident(&|_| true), 20.0, "MiB");
    assert_eq!(pilotlight.get("/").await.status, 200);
    table.at_most("resident memory of an idle queue-proxy", resident(&Bearer::is_queue_proxy), 8.0, "MiB");
}

fn resident_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let row = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    row.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or_default() / 1024.0
}

/// One request at zero after another, on services that take turns: each needs its window to fall asleep again.
async fn cycles(table: &mut Table) {
    let cycles: usize =
        std::env::var("PILOTLIGHT_CYCLES").ok().and_then(|text| text.parse().ok()).unwrap_or(200);
    let this = std::env::current_exe().expect("this executable").display().to_string();
    let documents: Vec<Value> =
        (0..SERVICES).map(|at| manifest::service(&format!("s{at}"), &[], &[&this, APP, "{port}"])).collect();
    let file = manifest::file(&documents);
    let mut pilotlight = Pilotlight::run(["-f", manifest::arg(file.path())]).await;
    let (mut to_main, mut to_request, mut lost) = (Vec::new(), Vec::new(), 0);
    for cycle in 0..cycles {
        let name = format!("s{}", cycle % SERVICES);
        eventually(&format!("{name} at zero"), Duration::from_secs(60), async || {
            is_asleep(&pilotlight, &name).await.then_some(())
        })
        .await;
        let sent = unix_nanos();
        match http::get(pilotlight.address, &format!("{name}.default.localhost"), "/").await {
            Ok(answer) if answer.status == 200 => {
                let marks: Marks = serde_json::from_str(&answer.body).expect("the app's own words");
                to_main.push(millis(sent, marks.started));
                to_request.push(millis(marks.listening, marks.first_request));
            }
            Ok(answer) => {
                eprintln!("cycle {cycle}: {} {}", answer.status, answer.body);
                lost += 1;
            }
            Err(error) => {
                eprintln!("cycle {cycle}: {error:#}");
                lost += 1;
            }
        }
        if (cycle + 1) % SERVICES == 0 {
            eprintln!("{} of {cycles} cycles", cycle + 1);
        }
    }
    pilotlight.signal(Signal::INT);
    pilotlight.exit(Duration::from_secs(60)).await;
    let said = pilotlight.said();
    let summary = said.lines().find(|line| line.contains("\"event\":\"summary\"")).expect("a summary");
    let summary: Value = serde_json::from_str(summary).expect("JSON");
    let number = |pointer: &str| summary.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN);

    table.at_most(&format!("requests lost over {cycles} cycles 0 -> 1 -> 0"), f64::from(lost), 0.0, "");
    table.shown("cold starts in these cycles", number("/cold_starts"), "");
    table.shown(
        "first byte at zero to the decision, p99",
        number("/cold_start_steps/decide/p99") * 1e3,
        "ms",
    );
    table.at_most(
        "first byte at zero to the spawned process, p99",
        number("/cold_start_steps/spawned/p99") * 1e3,
        5.0,
        "ms",
    );
    table.shown("the same, p50", number("/cold_start_steps/spawned/p50") * 1e3, "ms");
    table.shown("client's first byte to the app's main(), p99", quantile(&mut to_main, 0.99), "ms");
    table.at_most(
        "app accepts connections to its first request, p99",
        quantile(&mut to_request, 0.99),
        15.0,
        "ms",
    );
    table.shown("the same, p50", quantile(&mut to_request, 0.5), "ms");
}

async fn is_asleep(pilotlight: &Pilotlight, name: &str) -> bool {
    let Ok(answer) = http::get(pilotlight.admin, "localhost", "/v1/decisions").await else { return false };
    let decisions: Vec<Value> = serde_json::from_str(&answer.body).expect("JSON");
    let of = |decision: &&Value| decision["revision"] == format!("default/{name}");
    decisions.iter().find(of).is_some_and(|decision| {
        let pods = &decision["evaluation"]["pods"];
        decision["scale"].as_u64().unwrap_or(0) == 0
            && ["ready", "starting", "terminating"].iter().all(|phase| pods[phase] == 0)
    })
}

/// 200 connections: busy enough for eight pods, then for one, and not a request lost on the way.
async fn up_and_down(table: &mut Table) {
    let args = ["--name", "wave", "--min", "1", "--max", "8", "--target", "36", "--utilization", "70"];
    let mut pilotlight = Pilotlight::sample(&args).await;
    pilotlight.wait_for_pods(1, Duration::from_secs(20)).await;
    let base = Load { connections: 200, ..pilotlight.load("/?sleep=100") };
    let busy = Load { mode: Mode::Closed, end: End::After(Duration::from_secs(12)), ..base.clone() };
    let calm = Load {
        mode: Mode::Open { rate_per_second: 100.0 },
        end: End::After(Duration::from_secs(25)),
        ..base
    };
    let busy = busy.start().expect("a load");
    pilotlight.wait_for_pods(8, Duration::from_secs(12)).await;
    let busy = busy.finish().await;
    let calm = calm.start().expect("a load");
    pilotlight.wait_for_pods(1, Duration::from_secs(24)).await;
    let calm = calm.finish().await;
    pilotlight.signal(Signal::INT);
    pilotlight.exit(Duration::from_secs(60)).await;
    let requests = busy.requests + calm.requests;
    let lost = busy.failed() + calm.failed();
    let what = format!("of {requests} requests on 200 connections lost while 1 -> 8 -> 1 pods");
    table.at_most(&what, lost as f64, 0.0, "");
}

/// The app of a cycle: says when it started, when it accepted connections, and when its first request came.
fn app(port: &str) -> ExitCode {
    let started = unix_nanos();
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).expect("a free port");
    let listening = unix_nanos();
    static FIRST_REQUEST: OnceLock<u64> = OnceLock::new();
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || {
            let _ = answer(stream, |at| Marks {
                started,
                listening,
                first_request: *FIRST_REQUEST.get_or_init(|| at),
            });
        });
    }
    ExitCode::SUCCESS
}

fn answer(mut stream: TcpStream, marks: impl Fn(u64) -> Marks) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut bytes = [0; 1024];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut bytes)? {
            // A readiness probe: it connects and says nothing.
            0 => return Ok(()),
            read => head.extend_from_slice(&bytes[..read]),
        }
    }
    let body = serde_json::to_string(&marks(unix_nanos()))?;
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

/// Unix time in nanoseconds: comparable between the processes of one machine.
#[derive(Serialize, Deserialize)]
struct Marks {
    started: u64,
    listening: u64,
    first_request: u64,
}

fn unix_nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

fn millis(from: u64, to: u64) -> f64 {
    to.saturating_sub(from) as f64 / 1e6
}

fn quantile(values: &mut [f64], fraction: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * fraction).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// So many that one is asleep again when its turn comes.
const SERVICES: usize = 20;

const APP: &str = "__app";
