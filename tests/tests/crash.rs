//! Apps killed under load: lost is what was inside an app, and nothing else.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use pilotlight_tests::process::{Bearer, send};
use pilotlight_tests::run::Pilotlight;
use pilotlight_tests::{SOON, eventually};
use rustix::process::Signal;
use tempfile::TempDir;
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
    let register = tempfile::tempdir().expect("a temporary folder");
    let folder = register.path().display().to_string();
    let args =
        ["--concurrency", "2", "--min", "2", "--max", "2", "--", TALKER, "register", "{port}", &folder];
    let pilotlight = Pilotlight::run(args).await;
    eventually("two ready pods", SOON, async || (ready(&pilotlight) == 2).then_some(())).await;
    let load =
        Arc::new(Load { address: pilotlight.address, register, answered: 0.into(), is_over: false.into() });
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(Arc::clone(&load).ask_until_it_is_over(number));
    }
    let (mut read, mut unread) = (HashSet::new(), 0);
    for killed in 1..=kills {
        let app = apps(&pilotlight).swap_remove(killed % 2);
        eventually("requests inside", SOON, async || (load.inside(&app).len() == PLACES).then_some(())).await;
        // The app stands still until others have been answered five times in a row. Meanwhile what it had answered itself has come to
        // its client, and both of its places are taken: with more clients than places, those who wait take them at once.
        send(app.pid, Signal::STOP);
        let before = load.answered();
        eventually("others are answered", SOON, async || {
            (load.answered() > before + 5 * PLACES).then_some(())
        })
        .await;
        let inside = load.inside(&app);
        assert!(inside.len() <= PLACES, "{inside:?}");
        unread += PLACES - inside.len();
        read.extend(inside);
        send(app.pid, Signal::KILL);
        eventually("another pod", SOON, async || (ready(&pilotlight) == 2 + killed).then_some(())).await;
    }
    load.is_over.store(true, Ordering::Relaxed);
    let lost: Vec<Lost> = clients.join_all().await.into_iter().flatten().collect();
    println!(
        "{kills} kills: {} answered, {} inside an app that died and {unread} in its sockets, {} lost",
        load.answered(),
        read.len(),
        lost.len()
    );
    assert!(lost.iter().all(|lost| lost.method == "POST"), "{lost:#?}");
    let never_read: Vec<&Lost> = lost.iter().filter(|lost| !read.contains(&lost.name)).collect();
    assert!(never_read.len() <= unread, "{unread} were in the sockets of an app that died: {never_read:#?}");
}

/// Requests of all clients, each with a name.
struct Load {
    address: SocketAddr,
    register: TempDir,
    answered: AtomicUsize,
    is_over: AtomicBool,
}

/// A request that was not answered by an app.
#[derive(Debug)]
#[expect(dead_code, reason = "shown by assertions")]
struct Lost {
    method: &'static str,
    name: String,
    outcome: String,
}

impl Load {
    /// Sends one request after the other. Takes those out of the register that are answered.
    async fn ask_until_it_is_over(self: Arc<Self>, number: usize) -> Vec<Lost> {
        let mut lost = Vec::new();
        let stream = TcpStream::connect(self.address).await.expect("a connection");
        let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await.expect("a connection");
        tokio::spawn(driver);
        for count in 0.. {
            if self.is_over.load(Ordering::Relaxed) {
                break;
            }
            let name = format!("{number}-{count}");
            let (method, body) =
                if (number + count).is_multiple_of(2) { ("GET", "") } else { ("POST", name.as_str()) };
            let request =
                Request::builder().method(method).uri(format!("/{name}")).header(header::HOST, "localhost");
            let request = request.body(Full::<Bytes>::from(body.to_owned())).expect("a request");
            sender.ready().await.expect("the connection is kept");
            let (head, content) = sender.send_request(request).await.expect("an answer").into_parts();
            let content = content.collect().await.expect("a whole answer").to_bytes();
            if head.status == StatusCode::OK {
                assert_eq!(content, body);
                let app = head.headers["x-port"].to_str().expect("a port");
                std::fs::remove_file(self.register.path().join(app).join(name)).expect("it was read");
                self.answered.fetch_add(1, Ordering::Relaxed);
            } else {
                let outcome = format!("{} {content:?} {:?}", head.status, head.headers);
                lost.push(Lost { method, name, outcome });
            }
        }
        lost
    }

    fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Names of the requests that this app has read, or is about to, and whose answers have not come to their clients.
    fn inside(&self, app: &Bearer) -> Vec<String> {
        let port = app.command.iter().skip_while(|word| *word != "register").nth(1).expect("a port");
        let entries = std::fs::read_dir(self.register.path().join(port)).expect("a folder");
        entries.map(|entry| entry.expect("a file").file_name().into_string().expect("a name")).collect()
    }
}

fn ready(pilotlight: &Pilotlight) -> usize {
    pilotlight.said().matches("\"Pod is ready\"").count()
}

fn apps(pilotlight: &Pilotlight) -> Vec<Bearer> {
    let mut processes = pilotlight.processes();
    processes.retain(|process| process.command.first().is_some_and(|program| program == TALKER));
    processes
}

const TALKER: &str = env!("CARGO_BIN_EXE_talker");
const CLIENTS: usize = 12;
/// Requests at one app at once.
const PLACES: usize = 2;
