//! An app that answers as it is told, and the probes that ask it.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use pilotlight_config::process::ProbeAction;
use pilotlight_net::tls::{CertificateFiles, ServerTls, TlsPolicy, TlsWords};
use pilotlight_net::{Body, Drain, Handler, Request, Response, serve, serve_tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;

/// An app that answers its requests with these statuses, the last one over and over.
struct App {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    last: Arc<Mutex<Option<Request>>>,
}

struct Script {
    statuses: Vec<u16>,
    asked: Arc<AtomicUsize>,
    last: Arc<Mutex<Option<Request>>>,
    delay: Duration,
}

impl Handler for Script {
    async fn handle(&self, _: &pilotlight_net::Client, request: Request) -> Response {
        *self.last.lock() = Some(request);
        let nth = self.asked.fetch_add(1, Ordering::SeqCst);
        sleep(self.delay).await;
        let mut response = Response::new(Body::empty());
        *response.status_mut() =
            StatusCode::from_u16(self.statuses[nth.min(self.statuses.len() - 1)]).unwrap();
        response
    }
}

async fn app_that_takes(delay: Duration, statuses: &[u16]) -> App {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, last) = (Arc::default(), Arc::default());
    let app = App { address, asked: Arc::clone(&asked), last: Arc::clone(&last) };
    let script = Script { statuses: statuses.to_vec(), asked, last, delay };
    tokio::spawn(serve(listener, Arc::new(script), Drain::default()));
    app
}

async fn app(statuses: &[u16]) -> App {
    app_that_takes(Duration::ZERO, statuses).await
}

/// An address where nobody listens, now or later: bound for as long as the tests run.
async fn nobody() -> SocketAddr {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    std::mem::forget(socket);
    address
}

fn http(to: SocketAddr, path: &str) -> ProbeAction {
    let headers = vec![("X-Mine".to_owned(), "1".to_owned()), ("Host".to_owned(), "other".to_owned())];
    ProbeAction::Http { host: to.ip(), port: to.port(), path: path.to_owned(), https: false, headers }
}

fn tcp(to: SocketAddr) -> ProbeAction {
    ProbeAction::Tcp { host: to.ip(), port: to.port() }
}

const ONCE: ProbePace = ProbePace::Once(Duration::from_secs(1));

fn readiness(
    actions: impl IntoIterator<Item = ProbeAction>,
    pace: ProbePace,
    success_threshold: u32,
) -> Readiness {
    let probes = actions.into_iter().map(|action| ReadinessProbe { action, success_threshold, pace });
    Readiness::new(&probes.collect::<Vec<_>>(), false)
}

fn impatient(action: ProbeAction, patience: Duration) -> Readiness {
    let mut prober =
        Prober::new(&ReadinessProbe { action, success_threshold: 1, pace: ProbePace::Aggressive }, false);
    prober.patience = patience;
    Readiness { probes: Arc::new(vec![prober]), run: Mutex::default() }
}

/// The log of this thread, until the guard is dropped.
fn logged() -> (Arc<Mutex<Vec<u8>>>, tracing::subscriber::DefaultGuard) {
    #[derive(Clone)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = Arc::new(Mutex::new(Vec::new()));
    let writer = Log(Arc::clone(&log));
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    (log, tracing::subscriber::set_default(subscriber))
}

fn lines(log: &Mutex<Vec<u8>>) -> Vec<String> {
    String::from_utf8(log.lock().clone()).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_failure_at_first_is_forgotten_and_not_logged_when_the_app_comes_up() {
    let (log, _guard) = logged();
    let app = app(&[503, 200]).await;
    assert!(readiness([http(app.address, "/")], ProbePace::Aggressive, 1).is_ready().await);
    assert_eq!((app.asked.load(Ordering::SeqCst), lines(&log)), (2, vec![]));
}

#[tokio::test]
async fn an_app_that_never_comes_up_is_logged_once() {
    let (log, _guard) = logged();
    let app = app(&[500]).await;
    assert!(!impatient(http(app.address, "/"), Duration::from_millis(200)).is_ready().await);
    let [line] = &lines(&log)[..] else { panic!("{:?}", lines(&log)) };
    assert!(line.contains("aggressive probe error (failed ") && line.ends_with("status code: 500"), "{line}");
}

#[tokio::test]
async fn an_app_that_begins_to_listen_is_found_ready() {
    for action in [http as fn(SocketAddr, &str) -> ProbeAction, |to, _| tcp(to)] {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let readiness = impatient(action(address, "/"), Duration::from_secs(10));
        assert!(
            timeout(Duration::from_millis(30), readiness.is_ready()).await.is_err(),
            "nobody listens yet"
        );
        let listener = socket.listen(16).unwrap();
        let script = Script {
            statuses: vec![200],
            asked: Arc::default(),
            last: Arc::default(),
            delay: Duration::ZERO,
        };
        tokio::spawn(serve(listener, Arc::new(script), Drain::default()));
        assert!(readiness.is_ready().await);
    }
}

#[tokio::test]
async fn successes_must_come_in_a_row() {
    let app = app(&[200, 500, 200]).await;
    assert!(readiness([http(app.address, "/")], ProbePace::Aggressive, 3).is_ready().await);
    assert_eq!(app.asked.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn with_a_period_one_answer_decides() {
    for (status, ready) in [(200, true), (302, true), (399, true), (400, false), (503, false)] {
        let app = app(&[status, 200]).await;
        assert_eq!(readiness([http(app.address, "/")], ONCE, 1).is_ready().await, ready, "{status}");
        assert_eq!(app.asked.load(Ordering::SeqCst), 1);
    }
    assert!(!readiness([tcp(nobody().await)], ONCE, 1).is_ready().await);
}

#[tokio::test]
async fn with_a_period_the_timeout_is_the_probes_own() {
    let app = app_that_takes(Duration::from_secs(60), &[200]).await;
    let pace = ProbePace::Once(Duration::from_millis(30));
    assert!(!readiness([http(app.address, "/")], pace, 1).is_ready().await);
}

#[tokio::test]
async fn those_who_ask_together_share_one_probe_and_later_ones_do_not() {
    let app = app_that_takes(Duration::from_millis(50), &[200]).await;
    let readiness = readiness([http(app.address, "/")], ONCE, 1);
    assert_eq!(tokio::join!(readiness.is_ready(), readiness.is_ready()), (true, true));
    assert_eq!(app.asked.load(Ordering::SeqCst), 1);
    assert!(readiness.is_ready().await);
    assert_eq!(app.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_run_goes_on_when_the_one_who_asked_has_left() {
    let app = app_that_takes(Duration::from_millis(50), &[200]).await;
    let readiness = readiness([http(app.address, "/")], ONCE, 1);
    assert!(timeout(Duration::from_millis(20), readiness.is_ready()).await.is_err());
    assert!(readiness.is_ready().await);
    assert_eq!(app.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_app_is_asked_as_knative_asks() {
    let app = app(&[200]).await;
    assert!(readiness([http(app.address, "/health?foo=bar")], ONCE, 1).is_ready().await);
    let request = app.last.lock().take().unwrap();
    assert_eq!((request.method().as_str(), request.uri().to_string().as_str()), ("GET", "/health?foo=bar"));
    assert_eq!(request.headers()[header::USER_AGENT], "kube-probe//");
    assert_eq!(request.headers()[header::HOST], app.address.to_string().as_str(), "not the configured one");
    assert_eq!(request.headers()["x-mine"], "1");
}

#[tokio::test]
async fn of_several_probes_none_may_fail() {
    let (up, down) = (app(&[200]).await, app(&[500]).await);
    let ready = async |first: &App, second: &App| {
        readiness([http(first.address, "/"), http(second.address, "/")], ONCE, 1).is_ready().await
    };
    assert!(ready(&up, &up).await);
    assert!(!ready(&up, &down).await);
    assert!(!ready(&down, &up).await);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_asked_is_a_no_at_once() {
    for action in [ProbeAction::Exec, ProbeAction::Nothing] {
        for pace in [ONCE, ProbePace::Aggressive] {
            let started = Instant::now();
            assert!(!readiness([action.clone()], pace, 1).is_ready().await);
            assert_eq!(started.elapsed(), Duration::ZERO);
        }
    }
}

#[tokio::test]
async fn a_probe_that_keeps_failing_is_logged_when_it_begins_and_when_it_ends() {
    let (log, _guard) = logged();
    let app = app(&[500, 500, 200, 200]).await;
    let readiness = readiness([http(app.address, "/")], ONCE, 1);
    for ready in [false, false, true, true] {
        assert_eq!(readiness.is_ready().await, ready);
    }
    let lines = lines(&log);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains("not ready") && lines[1].contains("ready again"));
}

/// An app that answers HTTP/2 and HTTP/1.1 with a status each; `None`: it does not speak that.
async fn two_tongues(http2: Option<u16>, http1: Option<u16>) -> SocketAddr {
    struct Statuses(u16, Option<u16>);
    impl Handler for Statuses {
        async fn handle(&self, _: &pilotlight_net::Client, request: Request) -> Response {
            let status = if request.version() == Version::HTTP_2 { Some(self.0) } else { self.1 };
            let mut response = Response::new(Body::empty());
            *response.status_mut() = status.and_then(|code| StatusCode::from_u16(code).ok()).unwrap();
            response
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    if let Some(http2) = http2 {
        tokio::spawn(serve(listener, Arc::new(Statuses(http2, http1)), Drain::default()));
        return address;
    }
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut asked = Vec::new();
            while !asked.windows(4).any(|window| window == b"\r\n\r\n") {
                if client.read_buf(&mut asked).await.is_ok_and(|read| read == 0) {
                    break;
                }
            }
            if let (Some(status), false) = (http1, asked.starts_with(b"PRI")) {
                let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
                client.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    address
}

#[tokio::test]
async fn with_detection_http_2_is_tried_before_http_1() {
    let cases = [
        (Some(200), None, true),
        (None, Some(200), true),
        (Some(200), Some(200), true),
        (Some(503), Some(200), true),
        (None, Some(503), false),
        (Some(500), Some(500), false),
    ];
    for (http2, http1, ready) in cases {
        let action = http(two_tongues(http2, http1).await, "/");
        let probe = ReadinessProbe { action, success_threshold: 1, pace: ONCE };
        assert_eq!(Readiness::new(&[probe], true).is_ready().await, ready, "{http2:?} {http1:?}");
    }
}

#[tokio::test]
async fn without_detection_http_1_is_spoken() {
    let action = http(two_tongues(Some(503), Some(200)).await, "/");
    assert!(readiness([action], ONCE, 1).is_ready().await);
}

/// A server of gRPC's health service, for one service by name.
struct Health {
    name: &'static str,
    status: Option<u8>,
}

impl Handler for Health {
    async fn handle(&self, _: &pilotlight_net::Client, request: Request) -> Response {
        assert_eq!(
            (request.version(), request.uri().path()),
            (Version::HTTP_2, "/grpc.health.v1.Health/Check")
        );
        assert_eq!(request.headers()[header::CONTENT_TYPE], "application/grpc");
        assert_eq!(request.headers()[header::USER_AGENT], "kube-probe//");
        let asked = request.into_body().collect().await.unwrap().to_bytes();
        // The frame's head, then field 1: the name.
        assert_eq!(asked[5..].strip_prefix(&[0x0a, 4]).unwrap_or_default(), self.name.as_bytes());
        let mut trailers = HeaderMap::new();
        let Some(status) = self.status else {
            let mut response = Response::new(Body::empty());
            response.headers_mut().insert("grpc-status", HeaderValue::from_static("12"));
            response.headers_mut().insert("grpc-message", HeaderValue::from_static("unknown service"));
            return response;
        };
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let message = Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 0x08, status]);
        let frames = [Ok(Frame::data(message)), Ok(Frame::trailers(trailers))];
        let mut response = Response::new(Body::stream(StreamBody::new(stream::iter(frames))));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        response
    }
}

#[tokio::test]
async fn grpc_is_ready_when_the_service_says_serving_and_not_otherwise() {
    let (log, _guard) = logged();
    for (status, ready, why) in [
        (Some(1), true, ""),
        (Some(2), false, "service unhealthy (responded with \"NOT_SERVING\")"),
        (Some(0), false, "service unhealthy (responded with \"UNKNOWN\")"),
        (None, false, "gRPC status 12: unknown service"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(serve(listener, Arc::new(Health { name: "mine", status }), Drain::default()));
        log.lock().clear();
        let probe = ProbeAction::Grpc { port, service: "mine".to_owned() };
        assert_eq!(readiness([probe], ONCE, 1).is_ready().await, ready, "{status:?}");
        assert!(lines(&log).join("").contains(why), "{why} in {:?}", lines(&log));
    }
}

#[tokio::test]
async fn what_is_no_grpc_is_not_ready() {
    let app = app(&[200]).await;
    let probe = ProbeAction::Grpc { port: app.address.port(), service: String::new() };
    assert!(!readiness([probe], ONCE, 1).is_ready().await);
    assert_eq!(app.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn over_tls_any_certificate_will_do_and_the_status_counts() {
    let folder = tempfile::tempdir().unwrap();
    let self_signed = rcgen::generate_simple_self_signed(["somebody.else".to_owned()]).unwrap();
    std::fs::write(folder.path().join("tls.crt"), self_signed.cert.pem()).unwrap();
    std::fs::write(folder.path().join("tls.key"), self_signed.signing_key.serialize_pem()).unwrap();
    for (status, ready) in [(200, true), (500, false)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let policy = TlsPolicy::parse(TlsWords::default()).unwrap();
        let tls = ServerTls::load(CertificateFiles::in_folder(folder.path()), policy).unwrap();
        let (asked, last) = (Arc::default(), Arc::default());
        let script = Script { statuses: vec![status], asked, last: Arc::clone(&last), delay: Duration::ZERO };
        tokio::spawn(serve_tls(listener, Arc::new(tls), Arc::new(script), Drain::default()));
        let (host, port, path) = (to.ip(), to.port(), "/x?y".to_owned());
        let probe = ProbeAction::Http { host, port, path, https: true, headers: vec![] };
        assert_eq!(readiness([probe], ONCE, 1).is_ready().await, ready, "{status}");
        assert_eq!(last.lock().take().unwrap().uri().to_string(), "/x?y");
    }
}

#[tokio::test]
async fn an_app_that_listens_on_the_other_localhost_is_ready() {
    let Ok(listener) = TcpListener::bind("[::1]:0").await else { return };
    let port = listener.local_addr().unwrap().port();
    let (asked, last) = (Arc::default(), Arc::default());
    let script = Script { statuses: vec![200], asked, last, delay: Duration::ZERO };
    tokio::spawn(serve(listener, Arc::new(script), Drain::default()));
    let host = [127, 0, 0, 1].into();
    let http = ProbeAction::Http { host, port, path: "/".to_owned(), https: false, headers: Vec::new() };
    for probe in [ProbeAction::Tcp { host, port }, http] {
        let outcome = Action::new(&probe, true).attempt(Duration::from_secs(5)).await;
        assert!(outcome.is_ok(), "{probe:?}: {outcome:?}");
    }
}
