//! Apps killed under load: lost is what was inside an app, and nothing else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use pilotlight_tests::process::{Bearer, send};
use pilotlight_tests::run::Pilotlight;
use pilotlight_tests::{SOON, eventually};
use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// `PILOTLIGHT_KILLS=50` kills more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_is_killed_loses_what_it_had_and_nothing_else() {
    let mut kills = std::env::var("PILOTLIGHT_KILLS").map_or(4, |kills| kills.parse().expect("a number"));
    // Pods that fail in a row are started later and later, so each run has few.
    while kills > 0 {
        let now = kills.min(5);
        kill_again_and_again(now).await;
        kills -= now;
    }
}

/// Twelve clients and two pods with two places each, one of which is killed so many times.
async fn kill_again_and_again(kills: usize) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let register = folder.path().display().to_string();
    let args =
        ["--concurrency", "2", "--min", "2", "--max", "2", "--", TALKER, "register", "{port}", &register];
    let pilotlight = Pilotlight::run(args).await;
    eventually("two ready pods", SOON, async || (ready(&pilotlight) == 2).then_some(())).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(ask_until(Arc::clone(&is_over), pilotlight.address, number));
    }
    for killed in 1..=kills {
        send(apps(&pilotlight).swap_remove(killed % 2).pid, Signal::KILL);
        eventually("another pod", SOON, async || (ready(&pilotlight) == 2 + killed).then_some(())).await;
    }
    is_over.store(true, Ordering::Relaxed);
    let outcomes = clients.join_all().await;
    let lost: Vec<_> = outcomes.iter().flat_map(|(_, lost)| lost).collect();
    let answered: usize = outcomes.iter().map(|(answered, _)| answered).sum();
    // An app takes away the files of the requests that it has answered.
    let inside = folder.path().read_dir().expect("a folder").count();
    println!("{kills} kills: {answered} answered, {inside} inside an app that died, {} lost", lost.len());
    // A request that has reached an app may not be in its register yet, and a dying app may take one more now and then: its
    // listener may be closed after its connections.
    let at_most = PLACES * kills + kills / 4;
    assert!(lost.len() <= at_most, "{inside} were inside an app that died, these were lost: {lost:#?}");
}

fn ready(pilotlight: &Pilotlight) -> usize {
    pilotlight.said().matches("\"Pod is ready\"").count()
}

fn apps(pilotlight: &Pilotlight) -> Vec<Bearer> {
    let mut processes = pilotlight.processes();
    processes.retain(|process| process.command.first().is_some_and(|program| program == TALKER));
    processes
}

/// Sends one request after the other. Returns how many were answered, and what became of the others.
async fn ask_until(is_over: Arc<AtomicBool>, address: SocketAddr, number: usize) -> (usize, Vec<String>) {
    let (mut answered, mut lost) = (0, Vec::new());
    let stream = TcpStream::connect(address).await.expect("a connection");
    let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await.expect("a connection");
    tokio::spawn(driver);
    for count in 0.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("{number}-{count}");
        let (method, body) = if count % 2 == 0 { ("GET", "") } else { ("POST", name.as_str()) };
        let request =
            Request::builder().method(method).uri(format!("/{name}")).header(header::HOST, "localhost");
        let request = request.body(Full::<Bytes>::from(body.to_owned())).expect("a request");
        sender.ready().await.expect("the connection is kept");
        let (head, content) = sender.send_request(request).await.expect("an answer").into_parts();
        let content = content.collect().await.expect("a whole answer").to_bytes();
        if head.status == StatusCode::OK {
            assert_eq!(content, body);
            answered += 1;
        } else {
            lost.push(format!("{method} /{name}: {} {content:?} {:?}", head.status, head.headers));
        }
    }
    (answered, lost)
}

const TALKER: &str = env!("CARGO_BIN_EXE_talker");
const CLIENTS: usize = 12;
/// Requests at one app at once.
const PLACES: usize = 2;
