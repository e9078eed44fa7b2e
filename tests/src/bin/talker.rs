//! An app that speaks what the sample does not. `talker h2c PORT` answers calls over HTTP/2 only: every piece comes
//! back as it came, and trailers follow, as in gRPC. `talker websocket PORT` sends every message back. `talker mirror
//! PORT` answers with the name of its service and the headers it was sent, a line each.

use std::process::ExitCode;

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

#[derive(Clone, Copy)]
enum Protocol {
    H2c,
    WebSocket,
    Mirror,
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
    let [protocol, port] = args.as_slice() else { bail!("talker h2c|websocket PORT?") };
    let port: u16 = port.parse().context("the port")?;
    let protocol = match protocol.as_str() {
        "h2c" => Protocol::H2c,
        "websocket" => Protocol::WebSocket,
        "mirror" => Protocol::Mirror,
        other => bail!("{other} is not spoken here"),
    };
    runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            // Whoever only looks whether the port is open is no failure.
            tokio::spawn(async move {
                match protocol {
                    Protocol::H2c => drop(answer_calls(stream).await),
                    Protocol::WebSocket => drop(send_back(stream).await),
                    Protocol::Mirror => drop(reflect(stream).await),
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
