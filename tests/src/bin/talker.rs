//! An app that speaks what the sample does not. `talker h2c PORT` answers calls over HTTP/2 only: every piece comes
//! back as it came, and trailers follow, as in gRPC. `talker websocket PORT` sends every message back. `talker mirror
//! PORT` answers with the name of its service and the headers it was sent, a line each. `talker register PORT FOLDER` makes
//! a file `FOLDER/PORT/NAME` of each request for `/NAME`, and answers after a moment.

use std::fs::{self, File};
use std::future::pending;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::task::yield_now;
use tokio::time::timeout;

#[derive(Clone, Copy)]
enum Protocol {
    H2c,
    WebSocket,
    Mirror,
    Register,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("talker: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [protocol, port, folder @ ..] = args.as_slice() else { bail!("talker PROTOCOL PORT") };
    let folder = folder.first().map(|register| Path::new(register).join(port)).unwrap_or_default();
    let port: u16 = port.parse().context("the port")?;
    let protocol = match protocol.as_str() {
        "h2c" => Protocol::H2c,
        "websocket" => Protocol::WebSocket,
        "mirror" => Protocol::Mirror,
        "register" => {
            fs::create_dir_all(&folder)?;
            Protocol::Register
        }
        other => bail!("{other} is not spoken here"),
    };
    runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            let folder = folder.clone();
            // Whoever only looks whether the port is open is no failure.
            tokio::spawn(async move {
                match protocol {
                    Protocol::H2c => drop(answer_calls(stream).await),
                    Protocol::WebSocket => drop(send_back(stream).await),
                    Protocol::Mirror => drop(reflect(stream).await),
                    Protocol::Register => drop(register(stream, &folder).await),
                }
            });
        }
    })
}

async fn answer_calls(stream: TcpStream) -> anyhow::Result<()> {
    let service = service_fn(async |request: Request<Incoming>| {
        let seen = format!("{:?} {}", request.version(), request.uri().path());
        let status = HeaderMap::from_iter([("grpc-status".parse()?, HeaderValue::from_static("0"))]);
        let response = Response::builder().header("content-type", "application/grpc").header("x-seen", seen);
        anyhow::Ok(response.body(request.into_body().with_trailers(async move { Some(Ok(status)) }))?)
    });
    http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await?;
    Ok(())
}

async fn send_back(stream: TcpStream) -> anyhow::Result<()> {
    let mut socket = tokio_tungstenite::accept_async(stream).await?;
    while let Some(message) = socket.next().await {
        let message = message?;
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}

async fn reflect(stream: TcpStream) -> anyhow::Result<()> {
    let service = service_fn(async |request: Request<Incoming>| {
        let mut lines = vec![std::env::var("K_SERVICE")?];
        for (name, value) in request.headers() {
            lines.push(format!("{name}: {}", value.to_str()?));
        }
        anyhow::Ok(Response::new(Full::new(Bytes::from(lines.join("\n")))))
    });
    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await?;
    Ok(())
}

/// A request is in the register before a byte of it is taken from the socket: none that was taken is missing, whenever the
/// app dies. Whoever gets the answer takes it out.
async fn register(mut stream: TcpStream, folder: &Path) -> anyhow::Result<()> {
    let mut seen = vec![0; 4096];
    loop {
        let length = stream.peek(&mut seen).await?;
        let Some(request) = Asked::parse(&seen[..length]) else {
            ensure!(length > 0, "the end of the connection");
            // The rest is on its way.
            yield_now().await;
            continue;
        };
        File::create(folder.join(request.name))?;
        stream.read_exact(&mut vec![0; request.length]).await?;
        let _ = timeout(STAY, pending::<()>()).await;
        let (port, length) = (stream.local_addr()?.port(), request.body.len());
        let head = format!("HTTP/1.1 200 OK\r\nX-Port: {port}\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(&[head.as_bytes(), request.body].concat()).await?;
    }
}

/// A request that is there as a whole.
struct Asked<'a> {
    name: &'a str,
    length: usize,
    body: &'a [u8],
}

impl Asked<'_> {
    fn parse(bytes: &[u8]) -> Option<Asked<'_>> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = str::from_utf8(&bytes[..end]).ok()?;
        let name = head.split(' ').nth(1)?.trim_start_matches('/');
        let said = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then_some(value.trim())
        });
        let length = end + said.map_or(Some(0), |said| said.parse().ok())?;
        Some(Asked { name, length, body: bytes.get(end..length)? })
    }
}

/// How long a request stays inside.
const STAY: Duration = Duration::from_millis(10);
