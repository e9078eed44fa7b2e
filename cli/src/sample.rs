//! The sample application: work on request, to watch an autoscaler.
//!
//! `?sleep=100` waits that many milliseconds, `?prime=1000000` computes, `?bloat=50` holds that many megabytes of
//! memory for as long as the request lasts; they can be combined, as in Knative's `autoscale-go`. `/healthz`
//! answers at once, whatever else goes on. WebSockets and gRPC calls get their own messages back.

mod talk;

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::process::{self, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::Context;
use http::StatusCode;
use pilotlight_config::duration;
use pilotlight_net::{Client, Drain, Handler, Request, Response, plain, serve};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use self::talk::Talk;
use crate::block_on;
use crate::load::InFlight;
use crate::output::print;

/// Run the sample app, which works as requests say: ?sleep=MS, ?prime=N, ?bloat=MB
///
/// A WebSocket, or a gRPC call of any name, gets its own messages back.
#[derive(Clone, Debug, clap::Args)]
pub struct SampleArgs {
    /// Port to listen on; 0 picks a free one
    #[arg(long, env = "PORT", default_value_t = 8080)]
    pub port: u16,

    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub host: IpAddr,

    /// Time to take before listening, like an application that loads a model
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "0s")]
    pub startup: Duration,

    /// Most requests to work on at once; others wait their turn [default: no limit]
    #[arg(long, value_name = "REQUESTS", value_parser = clap::value_parser!(u32).range(1..))]
    pub concurrency: Option<u32>,

    /// Crash this long after the start
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub exit_after: Option<Duration>,

    /// Exit code of that crash
    #[arg(long, value_name = "CODE", default_value_t = 1, requires = "exit_after")]
    pub exit_code: u8,
}

/// Runs the sample application until SIGTERM or Ctrl-C; then finishes what is in flight.
pub fn run(args: SampleArgs) -> anyhow::Result<ExitCode> {
    block_on(run_until_stopped(args)).map(|()| ExitCode::SUCCESS)
}

async fn run_until_stopped(args: SampleArgs) -> anyhow::Result<()> {
    let drain = Drain::default();
    stop_on_signals(&drain)?;
    if let Some(time) = args.exit_after {
        tokio::spawn(async move {
            sleep(time).await;
            eprintln!("sample: exiting with {} after {time:?}, as asked", args.exit_code);
            process::exit(i32::from(args.exit_code));
        });
    }
    tokio::select! {
        () = sleep(args.startup) => {}
        () = drain.started() => return Ok(()),
    }
    let address = SocketAddr::new(args.host, args.port);
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    print(&format!("sample: listening on http://{}\n", listener.local_addr()?))?;
    serve(listener, Arc::new(Sample::new(pod_name(), args.concurrency)), drain).await;
    Ok(())
}

/// The first signal begins a graceful stop, the second cuts what is left.
fn stop_on_signals(drain: &Drain) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let drain = drain.clone();
    tokio::spawn(async move {
        for stop in [Drain::start, Drain::force] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            stop(&drain);
        }
    });
    Ok(())
}

/// The application behind the port.
struct Sample {
    pod_name: String,
    in_flight: AtomicU32,
    /// Requests worked on at once; `None`: no limit. First come, first served.
    places: Option<Semaphore>,
    /// One computation a processor: more would only take turns, and starve `/healthz`.
    processors: Semaphore,
}

impl Sample {
    fn new(pod_name: String, concurrency: Option<u32>) -> Self {
        Sample {
            pod_name,
            in_flight: AtomicU32::new(0),
            places: concurrency.map(|places| Semaphore::new(places as usize)),
            processors: Semaphore::new(available_parallelism().map_or(1, usize::from)),
        }
    }

    async fn answer(&self, query: &str) -> Response {
        let work = match Work::parse(query) {
            Ok(work) => work,
            Err(error) => return plain(StatusCode::BAD_REQUEST, error),
        };
        let _in_flight = InFlight::new(&self.in_flight);
        let _place = take(self.places.as_ref()).await;
        match self.perform(work).await {
            Ok(mut text) => {
                let in_flight = self.in_flight.load(Ordering::Relaxed);
                let _ = write!(text, "Pod {}, {in_flight} in flight.", self.pod_name);
                plain(StatusCode::OK, text)
            }
            Err(error) => plain(StatusCode::INSUFFICIENT_STORAGE, error),
        }
    }

    /// Does all the work, the memory first, so that it is held while the rest goes on.
    async fn perform(&self, work: Work) -> Result<String, String> {
        let mut text = String::new();
        let mut bloat = Vec::new();
        if let Some(megabytes) = work.bloat_megabytes {
            bloat = self.compute(move || allocate(megabytes)).await?;
            let _ = writeln!(text, "Allocated {} MB of memory.", bloat.len() / BYTES_A_MEGABYTE);
        }
        if let Some(time) = work.sleep {
            sleep(time).await;
            let _ = writeln!(text, "Slept for {} ms.", time.as_millis());
        }
        if let Some(below) = work.prime_below {
            let prime = self.compute(move || Ok(largest_prime_below(below))).await?;
            let _ = writeln!(text, "The largest prime below {below} is {prime}.");
        }
        drop(bloat);
        Ok(text)
    }

    /// Runs a computation on a thread of its own, away from the one that answers all other requests.
    async fn compute<T: Send + 'static>(
        &self,
        computation: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let _processor = take(Some(&self.processors)).await;
        spawn_blocking(computation).await.unwrap_or_else(|panic| Err(panic.to_string()))
    }
}

impl Handler for Sample {
    async fn handle(&self, _client: &Client, request: Request) -> Response {
        if let Some(talk) = Talk::wanted(&request) {
            return talk.begin(&self.pod_name, request);
        }
        match request.uri().path() {
            "/healthz" => plain(StatusCode::OK, "ok"),
            _ => self.answer(request.uri().query().unwrap_or_default()).await,
        }
    }
}

/// The work one request asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Work {
    sleep: Option<Duration>,
    prime_below: Option<u64>,
    bloat_megabytes: Option<u64>,
}

impl Work {
    fn parse(query: &str) -> Result<Work, String> {
        let mut work = Work::default();
        for (name, value) in query.split('&').filter(|pair| !pair.is_empty()).map(split_pair) {
            match name {
                "sleep" => {
                    let millis = number(name, value, 0, MAX_SLEEP_MILLIS)?;
                    work.sleep = Some(Duration::from_millis(millis));
                }
                "prime" => work.prime_below = Some(number(name, value, 3, MAX_PRIME)?),
                "bloat" => work.bloat_megabytes = Some(number(name, value, 0, MAX_BLOAT_MEGABYTES)?),
                _ => {
                    return Err(format!(
                        "{name} is not known; there are sleep=MILLISECONDS, prime=NUMBER and bloat=MEGABYTES"
                    ));
                }
            }
        }
        Ok(work)
    }
}

fn split_pair(pair: &str) -> (&str, &str) {
    pair.split_once('=').unwrap_or((pair, ""))
}

fn number(name: &str, value: &str, least: u64, most: u64) -> Result<u64, String> {
    match value.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("{name}={value}: a whole number between {least} and {most} is wanted")),
    }
}

/// Memory that is really there: every byte has been written.
fn allocate(megabytes: u64) -> Result<Vec<u8>, String> {
    let bytes = usize::try_from(megabytes).unwrap_or(usize::MAX).saturating_mul(BYTES_A_MEGABYTE);
    let mut memory = Vec::new();
    memory.try_reserve_exact(bytes).map_err(|_| format!("{megabytes} MB of memory are not to be had"))?;
    memory.resize(bytes, 1);
    Ok(memory)
}

/// The sieve of Eratosthenes over the odd numbers: work in proportion to `n`.
fn largest_prime_below(n: u64) -> u64 {
    // Entry i stands for 2i + 1; those below n are 0..n/2.
    let count = usize::try_from(n / 2).expect("the limit fits");
    let mut composite = vec![false; count];
    for i in (1..).take_while(|i| 2 * i * (i + 1) < count) {
        if !composite[i] {
            // From the square of 2i + 1 on: smaller multiples have a smaller factor.
            (2 * i * (i + 1)..count).step_by(2 * i + 1).for_each(|multiple| composite[multiple] = true);
        }
    }
    match (1..count).rev().find(|&i| !composite[i]) {
        Some(i) => 2 * i as u64 + 1,
        None => 2,
    }
}

async fn take(semaphore: Option<&Semaphore>) -> Option<SemaphorePermit<'_>> {
    match semaphore {
        Some(semaphore) => Some(semaphore.acquire().await.expect("never closed")),
        None => None,
    }
}

/// Name of the pod, if the environment has it.
fn pod_name() -> String {
    ["POD_NAME", "SERVING_POD", "HOSTNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .unwrap_or_else(|| format!("process-{}", process::id()))
}

const BYTES_A_MEGABYTE: usize = 1 << 20;
const MAX_SLEEP_MILLIS: u64 = 24 * 60 * 60 * 1000;
const MAX_PRIME: u64 = 1_000_000_000;
const MAX_BLOAT_MEGABYTES: u64 = 16 * 1024;

#[cfg(test)]
mod tests {
    use clap::Parser;
    use http_body_util::BodyExt;
    use pilotlight_net::Body;

    use super::*;

    fn sample(concurrency: Option<u32>) -> Sample {
        Sample::new("pod-1".to_owned(), concurrency)
    }

    async fn get(sample: &Sample, target: &str) -> (u16, String) {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = target.parse().expect("a legal target");
        let response = sample.handle(&Client::new(([127, 0, 0, 1], 1).into()), request).await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a whole body").to_bytes();
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[test]
    fn primes_are_prime_and_the_largest() {
        for (below, prime) in
            [(3, 2), (4, 3), (5, 3), (6, 5), (8, 7), (10, 7), (26, 23), (1000, 997), (10_000_000, 9_999_991)]
        {
            assert_eq!(largest_prime_below(below), prime, "below {below}");
        }
    }

    #[test]
    fn primes_agree_with_trial_division() {
        let is_prime = |n: u64| n > 1 && (2..n).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
        for below in 3..2000 {
            let expected = (2..below).rev().find(|&n| is_prime(n));
            assert_eq!(Some(largest_prime_below(below)), expected, "below {below}");
        }
    }

    #[tokio::test]
    async fn work_can_be_combined_and_is_reported_line_by_line() {
        let (status, text) = get(&sample(None), "/any/path?sleep=5&prime=100&bloat=2").await;
        assert_eq!(status, 200);
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "Allocated 2 MB of memory.",
                "Slept for 5 ms.",
                "The largest prime below 100 is 97.",
                "Pod pod-1, 1 in flight."
            ]
        );
    }

    #[tokio::test]
    async fn without_parameters_it_says_who_it_is() {
        assert_eq!(get(&sample(None), "/").await, (200, "Pod pod-1, 1 in flight.\n".to_owned()));
    }

    #[tokio::test]
    async fn bad_parameters_are_refused_with_what_is_wanted() {
        for (target, wanted) in [
            ("/?sleep=soon", "sleep=soon: a whole number between 0 and 86400000 is wanted"),
            ("/?sleep=-1", "sleep=-1: a whole number between"),
            ("/?prime=2", "prime=2: a whole number between 3 and 1000000000 is wanted"),
            ("/?bloat", "bloat=: a whole number between 0 and 16384 is wanted"),
            ("/?bloat=99999999999999999999", "a whole number between 0 and 16384 is wanted"),
            ("/?slep=100", "slep is not known; there are sleep=MILLISECONDS"),
        ] {
            let (status, text) = get(&sample(None), target).await;
            assert_eq!(status, 400, "{target}");
            assert!(text.contains(wanted), "{target}: {text}");
        }
    }

    #[tokio::test]
    async fn with_one_place_requests_are_served_one_by_one_in_order() {
        let sample = sample(Some(1));
        let order = parking_lot::Mutex::new(Vec::new());
        let one = async |name| {
            let (_, text) = get(&sample, "/?sleep=10").await;
            order.lock().push((name, text.lines().last().expect("has lines").to_owned()));
        };
        tokio::join!(one("a"), one("b"), one("c"));
        let expected = [("a", 3), ("b", 2), ("c", 1)]
            .map(|(name, in_flight)| (name, format!("Pod pod-1, {in_flight} in flight.")));
        assert_eq!(*order.lock(), expected);
    }

    #[tokio::test]
    async fn health_is_answered_while_every_place_is_taken() {
        let sample = sample(Some(1));
        let mut busy = std::pin::pin!(get(&sample, "/?sleep=60000"));
        tokio::select! {
            biased;
            _ = &mut busy => panic!("a minute has not passed"),
            health = get(&sample, "/healthz") => assert_eq!(health, (200, "ok\n".to_owned())),
        }
        assert_eq!(sample.in_flight.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_client_that_leaves_frees_its_place() {
        let sample = sample(Some(1));
        tokio::select! {
            biased;
            _ = get(&sample, "/?sleep=60000") => panic!("a minute has not passed"),
            () = tokio::task::yield_now() => {}
        }
        assert_eq!(get(&sample, "/").await.1, "Pod pod-1, 1 in flight.\n");
    }

    #[test]
    fn flags_have_the_documented_defaults() {
        #[derive(Parser)]
        struct Cli {
            #[command(flatten)]
            sample: SampleArgs,
        }
        let args = Cli::try_parse_from(["sample", "--port", "0", "--startup", "2s"]).expect("legal").sample;
        assert_eq!((args.port, args.startup), (0, Duration::from_secs(2)));
        assert_eq!(args.host, IpAddr::from([127, 0, 0, 1]));
        assert_eq!((args.concurrency, args.exit_after), (None, None));
        assert!(Cli::try_parse_from(["sample", "--concurrency", "0"]).is_err());
        assert!(Cli::try_parse_from(["sample", "--startup", "soon"]).is_err());
    }
}
