//! Cost of a request through our proxies, measured against a bare hyper relay on the same machine in the same minute:
//!
//! `cargo bench -p pilotlight-tests --bench dataplane [-- --full]`
//!
//! Needs wrk; takes HTTP/2 (with h2load) and nginx along if they are there, and any other proxy named by
//! `PEER=name=port:pid`. All candidates take turns, round by round, and the ratios are made within a round, so that
//! what else the machine does hits all alike.
//! `PILOTLIGHT_ROUNDS` (3) and `PILOTLIGHT_SECONDS` (2, of each run) make it longer; docs/benchmarks.md says what the
//! columns are.

mod backend;
mod candidates;
mod endpoints;
mod h2c;
mod h2load;
mod moments;
mod process;
mod relay;
mod table;
mod wrk;

use std::env;
use std::process::ExitCode;

use anyhow::{Context, bail};
use candidates::Candidate;
use endpoints::Endpoints;
use process::Process;
use table::{CPU, Goal, P50, Series, median};
use tokio::task::LocalSet;
use wrk::Shape;

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let outcome = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [BACKEND_ROLE, ports] => {
            ports.parse().map_err(Into::into).and_then(|ports| block_on(backend::serve(ports)))
        }
        [RELAY_ROLE, app] => app.parse().map_err(Into::into).and_then(|app| block_on(relay::serve(app))),
        _ if !wrk::is_installed() => {
            eprintln!("this benchmark needs wrk (https://github.com/wg/wrk, or your distribution's package)");
            return ExitCode::from(2);
        }
        _ => Plan::read(&words).and_then(|plan| {
            // Built first: it takes minutes, and what is started here is waited for in seconds.
            pilotlight_tests::binary();
            let goals = block_on(measure(&plan))?;
            if goals.iter().all(Goal::is_met) { Ok(()) } else { bail!("not every goal is met") }
        }),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, work)
}

/// How much is measured.
struct Plan {
    shapes: Vec<Shape>,
    rounds: u32,
    seconds: u32,
}

impl Plan {
    fn read(words: &[String]) -> anyhow::Result<Plan> {
        // Cargo says `--bench` to every benchmark.
        let mut words = words.iter().map(String::as_str).filter(|word| *word != "--bench");
        let mut shapes = match words.next() {
            None => DEFAULT_SHAPES.to_vec(),
            Some("--full") => FULL_CONNECTIONS
                .into_iter()
                .flat_map(|connections| FULL_KILOBYTES.map(|kilobytes| Shape::http1(connections, kilobytes)))
                .collect(),
            Some(word) => bail!("unknown argument {word}; there is only --full"),
        };
        if h2load::is_installed() {
            shapes.push(HTTP2);
        } else {
            eprintln!("no h2load (of nghttp2) in PATH: measuring without HTTP/2");
        }
        Ok(Plan {
            shapes,
            rounds: number("PILOTLIGHT_ROUNDS", 3)?,
            seconds: number("PILOTLIGHT_SECONDS", 2)?,
        })
    }
}

fn number(name: &str, otherwise: u32) -> anyhow::Result<u32> {
    match env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text}")),
        Err(_) => Ok(otherwise),
    }
}

async fn measure(plan: &Plan) -> anyhow::Result<Vec<Goal>> {
    let mut goals = moments().await?;

    let (app, ports) = start_app()?;
    let endpoints = Endpoints::serve(&ports)?;
    let candidates = candidates::all(&ports, &app, &endpoints).await?;
    println!("{:<26} {:>10}", "", "idle MiB");
    for Candidate { name, idle_mib, .. } in &candidates {
        println!("{name:<26} {idle_mib:>10.1}");
    }
    let subcommand = candidates::idle_subcommand(ports[0]).await?;
    println!("{:<26} {subcommand:>10.1}", "pilotlight queue-proxy");
    let mut all = Vec::new();
    for &shape in &plan.shapes {
        let mut series = Series::new(shape);
        for _ in 0..plan.rounds {
            series.rounds.push(round(&candidates, shape, plan.seconds)?);
        }
        series.print(&candidates);
        all.push(series);
    }
    goals.extend(of_rates(&candidates, &all));
    println!();
    goals.iter().for_each(Goal::print);
    Ok(goals)
}

fn start_app() -> anyhow::Result<(Process, Vec<u16>)> {
    Process::start_role(BACKEND_ROLE, &PODS.to_string())
}

fn round(candidates: &[Candidate], shape: Shape, seconds: u32) -> anyhow::Result<Vec<Option<wrk::Sample>>> {
    let measured = candidates.iter().map(|candidate| {
        let run = if shape.is_http2() { h2load::run } else { wrk::run };
        candidate.takes(shape).then(|| run(candidate, shape, seconds)).transpose()
    });
    measured.collect()
}

async fn moments() -> anyhow::Result<Vec<Goal>> {
    // An app of their own: the one under load must not remember a thousand connections.
    let (_app, ports) = start_app()?;
    let (app, endpoints) = (ports[0], Endpoints::serve(&ports)?);
    // A request in flight has two connections, a parked one has one.
    moments::raise_open_files(PARKED.max(2 * IN_FLIGHT) as u64 + 1000)?;
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        starts.push(moments::start_to_first_probe(app)?);
    }
    let in_flight = moments::memory_in_flight(app, IN_FLIGHT).await?;
    let parked = moments::parked(&endpoints, PARKED).await?;
    let goal = |what: String, measured, at_most, unit| Goal { what, measured, at_most, unit };
    println!("an activator's idle connection that has had a request: {:.1} KiB\n", parked.connection_kib);
    Ok(vec![
        goal(
            format!("queue-proxy, start to first yes to a probe, median of {STARTS}"),
            median(starts).unwrap_or(f64::NAN),
            15.0,
            "ms",
        ),
        goal(format!("queue-proxy, memory with {IN_FLIGHT} requests in flight"), in_flight, 24.0, "MiB"),
        goal(
            format!("activator, memory of each of {PARKED} parked requests"),
            parked.request_kib,
            8.0,
            "KiB",
        ),
    ])
}

/// Goals for the numbers in the tables.
fn of_rates(candidates: &[Candidate], all: &[Series]) -> Vec<Goal> {
    let mut goals = Vec::new();
    for (name, idle_mib, cpu) in [(candidates::QUEUE_PROXY, 8.0, 1.15), (candidates::ACTIVATOR, 16.0, 1.4)] {
        let Some(at) = candidates.iter().position(|candidate| candidate.name == name) else { continue };
        let mut goal = |what: String, measured: Option<f64>, at_most, unit| {
            goals.extend(measured.map(|measured| Goal {
                what: format!("{name}, {what}"),
                measured,
                at_most,
                unit,
            }));
        };
        goal("idle memory".to_owned(), Some(candidates[at].idle_mib), idle_mib, "MiB");
        // Nothing is promised of HTTP/2 yet.
        for series in all.iter().filter(|series| !series.shape.is_http2()) {
            let at_shape = format!("with {}", series.shape);
            goal(format!("CPU {at_shape}"), series.ratio(at, CPU), cpu, "x");
            if name == candidates::QUEUE_PROXY && series.shape.connections == 1 {
                goal(format!("p50 added {at_shape}"), series.ratio_added(at, P50), 1.5, "x");
            }
        }
    }
    goals
}

const BACKEND_ROLE: &str = "__backend";
const RELAY_ROLE: &str = "__relay";

const DEFAULT_SHAPES: [Shape; 5] = [
    Shape::http1(1, 1),
    Shape::http1(64, 0),
    Shape::http1(64, 1),
    Shape::http1(64, 100),
    Shape::http1(512, 1),
];
const HTTP2: Shape = Shape { connections: 8, streams: 8, kilobytes: 1 };
const FULL_CONNECTIONS: [u32; 3] = [1, 64, 512];
const FULL_KILOBYTES: [u32; 4] = [0, 1, 10, 100];

const PODS: usize = 8;
const STARTS: usize = 20;
const IN_FLIGHT: usize = 1000;
const PARKED: usize = 10_000;
