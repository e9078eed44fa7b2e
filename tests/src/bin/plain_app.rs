//! An app of a pod without a queue-proxy, which says in every answer which pod it is.
//!
//! `LISTEN` names its ports (`8080/http 9000/tcp`), `BIND` its address, `HOSTNAME` the pod. An `http` port answers HTTP/1.1
//! and HTTP/2 (`?sleep=MILLISECONDS` waits first), a `tcp` port sends each line back behind the pod's name (`sleep=MILLISECONDS` likewise). At SIGTERM it
//! goes on for `CLOSE_AFTER` (`0s`), then takes no more connections and finishes what it has. It listens after `STARTUP`
//! (`0s`).

use std::env;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http::StatusCode;
use pilotlight_config::duration;
use pilotlight_net::{Client, Drain, Handler, Request, Response, plain, serve};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::sleep;

#[derive(Clone, Copy)]
enum Speech {
    Http,
    Tcp,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("plain_app: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let ports = variable("LISTEN", "8080/http".to_owned())?;
    let ip = variable("BIND", IpAddr::V4(Ipv4Addr::LOCALHOST))?;
    let pod: Arc<str> = variable("HOSTNAME", "nobody".to_owned())?.into();
    let time = |name| {
        duration::parse(&variable(name, "0s".to_owned())?).with_context(|| format!("{name} is no time"))
    };
    let (startup, close_after) = (time("STARTUP")?, time("CLOSE_AFTER")?);
    runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let drain = Drain::default();
        close_at_sigterm(close_after, &drain)?;
        tokio::select! {
            () = sleep(startup) => {}
            () = drain.started() => return Ok(()),
        }
        let mut serving = JoinSet::new();
        for (port, protocol) in ports.split_whitespace().map(parse).collect::<anyhow::Result<Vec<_>>>()? {
            let at = SocketAddr::new(ip, port);
            let listener = TcpListener::bind(at).await.with_context(|| format!("cannot listen on {at}"))?;
            match protocol {
                Speech::Http => {
                    serving.spawn(serve(listener, Arc::new(PlainApp(Arc::clone(&pod))), drain.clone()))
                }
                Speech::Tcp => serving.spawn(serve_lines(listener, Arc::clone(&pod), drain.clone())),
            };
        }
        while serving.join_next().await.is_some() {}
        Ok(())
    })
}

/// A variable of the environment.
fn variable<T: FromStr>(name: &str, default: T) -> anyhow::Result<T> {
    match env::var(name) {
        Ok(text) => text.parse().ok().with_context(|| format!("{name} is {text:?}")),
        Err(_) => Ok(default),
    }
}

/// `8080/http` or `9000/tcp`.
fn parse(port: &str) -> anyhow::Result<(u16, Speech)> {
    let (number, protocol) = port.split_once('/').with_context(|| format!("{port} is no PORT/PROTOCOL"))?;
    let protocol = match protocol {
        "http" => Speech::Http,
        "tcp" => Speech::Tcp,
        _ => anyhow::bail!("{protocol} is neither http nor tcp"),
    };
    Ok((number.parse().with_context(|| format!("{number} is no port"))?, protocol))
}

fn close_at_sigterm(after: Duration, drain: &Drain) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let drain = drain.clone();
    tokio::spawn(async move {
        terminate.recv().await;
        sleep(after).await;
        drain.start();
    });
    Ok(())
}

struct PlainApp(Arc<str>);

impl Handler for PlainApp {
    async fn handle(&self, _client: &Client, request: Request) -> Response {
        let query = request.uri().query().unwrap_or_default();
        work(query).await;
        plain(StatusCode::OK, format!("Pod {}", self.0))
    }
}

/// Waits as `sleep=MILLISECONDS` says.
async fn work(told: &str) {
    if let Some(millis) = told.strip_prefix("sleep=").and_then(|millis| millis.parse().ok()) {
        sleep(Duration::from_millis(millis)).await;
    }
}

/// Sends lines back until the client has no more.
async fn serve_lines(listener: TcpListener, pod: Arc<str>, drain: Drain) {
    let mut conversations = JoinSet::new();
    loop {
        tokio::select! {
            () = drain.started() => break,
            accepted = listener.accept() => if let Ok((client, _)) = accepted {
                conversations.spawn(say_back(client, Arc::clone(&pod)));
            },
        }
        while conversations.try_join_next().is_some() {}
    }
    drop(listener);
    while conversations.join_next().await.is_some() {}
}

async fn say_back(client: TcpStream, pod: Arc<str>) -> anyhow::Result<()> {
    client.set_nodelay(true)?;
    let (from, mut to) = client.into_split();
    let mut lines = BufReader::new(from).lines();
    while let Some(line) = lines.next_line().await? {
        work(&line).await;
        to.write_all(format!("Pod {pod}: {line}\n").as_bytes()).await?;
    }
    Ok(())
}
