//! An app that speaks what the sample does not. `talker h2c PORT` answers calls over HTTP/2 only: every piece comes
//! back as it came, and trailers follow, as in gRPC. `talker websocket PORT` sends every message back. `talker mirror
//! PORT` answers with the name of its service and the headers it was sent, a line each. `talker register PORT FOLDER` keeps
//! a file for each request that is inside, named like the path, and answers after a moment.

use std::fs::{self, File};
use std::future::pending;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
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
    let folder = folder.first().map(String::as_str).unwrap_or_default();
    let port: u16 = port.parse().context("the port")?;
    let protocol = match protocol.as_str() {
        "h2c" => Protocol::H2c,
        "websocket" => Protocol::WebSocket,
        "mirror" => Protocol::Mirror,
        "register" => Protocol::Register,
        other => bail!("{other} is not spoken here"),
    };
    runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            let folder = folder.to_owned();
            // Whoever only looks whether the port is open is no failure.
            tokio::spawn(async move {
                match protocol {
                    Protocol::H2c => drop(answer_calls(stream).await),
                    Protocol::WebSocket => drop(send_back(stream).await),
                    Protocol::Mirror => drop(reflect(stream).await),
                    Protocol::Register => drop(register(stream, Path::new(&folder)).await),
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

async fn register(stream: TcpStream, folder: &Path) -> anyhow::Result<()> {
    let service = service_fn(async |request: Request<Incoming>| {
        let file = folder.join(request.uri().path().trim_start_matches('/'));
        File::create_new(&file)?;
        let body = request.into_body().collect().await?.to_bytes();
        let _ = timeout(STAY, pending::<()>()).await;
        fs::remove_file(&file)?;
        anyhow::Ok(Response::new(Full::new(body)))
    });
    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await?;
    Ok(())
}

/// How long a request stays inside.
const STAY: Duration = Duration::from_millis(10);
