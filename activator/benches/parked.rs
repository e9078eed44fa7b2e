//! Memory of a waiting request: 10,000 of them over real connections, and what the process holds for each.
//!
//! Clients are another process, this program again. Run it with `cargo bench -p pilotlight-activator --bench parked`;
//! a number as argument asks for so many requests.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pilotlight_activator::{Activator, ActivatorParams};
use pilotlight_core::{RevisionEndpoints, RevisionId};
use pilotlight_feed::Feed;
use pilotlight_net::{Clock, Drain, Target};
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;
use tokio::time::sleep;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [command, address, requests] = args.as_slice()
        && command == CLIENTS
    {
        return be_clients(address, requests.parse().expect("a number"));
    }
    let parked = args.iter().find_map(|text| text.parse().ok()).unwrap_or(10_000);
    let runtime = Runtime::new().expect("a runtime");
    let (activator, address, _feed) = runtime.block_on(start());
    // Warm-up: memory that the first requests allocate for all is not the cost of one more.
    let _warm = Clients::start(address, WARM);
    runtime.block_on(until_queued(&activator, WARM));
    let before = resident_bytes();
    let each = || resident_bytes().saturating_sub(before) as f64 / parked as f64 / 1024.0;
    let started = Instant::now();
    let mut clients = Vec::new();
    for already in (0..parked).step_by(BATCH) {
        clients.push(Clients::start(address, BATCH.min(parked - already)));
        runtime.block_on(until_queued(&activator, WARM + parked.min(already + BATCH)));
    }
    println!("{parked} parked requests: {:.2} KiB each, after {:?}", each(), started.elapsed());
    drop(clients);
    runtime.block_on(until_queued(&activator, WARM));
    println!("after they have left: {:.2} KiB each", each());
}

/// A process that has sent so many requests, each over its own connection, and waits for the answers.
struct Clients(Child);

impl Clients {
    fn start(address: SocketAddr, requests: usize) -> Clients {
        let this = std::env::current_exe().expect("the path of this program");
        let args = [CLIENTS, &address.to_string(), &requests.to_string()];
        Clients(Command::new(this).args(args).stdin(Stdio::piped()).spawn().expect("a process"))
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        // Err: it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn be_clients(address: &str, requests: usize) {
    let send = |_| {
        let mut client = TcpStream::connect(address).expect("the activator listens");
        client.write_all(REQUEST.as_bytes()).expect("the activator reads");
        client
    };
    let clients: Vec<TcpStream> = (0..requests).map(send).collect();
    // Until whoever started this closes its end, however it goes.
    std::io::stdin().read_to_end(&mut Vec::new()).expect("a pipe");
    drop(clients);
}

/// An activator whose only revision has no pods.
async fn start() -> (Activator, SocketAddr, Feed<RevisionId, RevisionEndpoints>) {
    let hello = RevisionEndpoints { hosts: vec![HOST.to_owned()], ..RevisionEndpoints::default() };
    let feed = Feed::default();
    feed.replace([(RevisionId::new("default", "hello"), hello)].into());
    let autoscaler = Target::ws("ws://127.0.0.1:1").expect("a URL");
    let mut params = ActivatorParams::new("bench", Clock::start(), autoscaler);
    params.limits.requests_per_revision = usize::MAX;
    params.limits.requests = usize::MAX;
    let activator = Activator::start(params, feed.follow());
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    let listener = socket.listen(BATCH as u32 * 2).expect("a listener");
    let address = listener.local_addr().expect("an address");
    tokio::spawn({
        let activator = activator.clone();
        async move { activator.serve(listener, Drain::default()).await }
    });
    (activator, address, feed)
}

async fn until_queued(activator: &Activator, requests: usize) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while activator.activity().values().map(|revision| revision.queued).sum::<usize>() != requests {
        assert!(Instant::now() < deadline, "not within 30 s: {requests} waiting");
        sleep(Duration::from_millis(1)).await;
    }
}

/// The memory of this process.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * 4096
}

/// Requests that wait before anything is measured.
const WARM: usize = 100;
/// So many connect at once; the kernel keeps twice as many until they are accepted.
const BATCH: usize = 500;
const CLIENTS: &str = "clients";
const HOST: &str = "hello.example";
/// A request as browsers send it, more or less.
const REQUEST: &str = "GET /index.html?page=2 HTTP/1.1\r\nHost: hello.example\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n";
