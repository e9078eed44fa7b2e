//! The bare relay: the least that a proxy made of hyper and tokio can do, and so what ours are measured against.
//!
//! One thread. Every client connection has one connection to the app, of the same protocol, kept for as long as the
//! client's. Nothing is pooled, counted, limited or timed, and no header is looked at.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{client, server};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use crate::h2c::{self, OneThread};
use crate::process::tell_ports;

/// Relays from a port of its own choice, which it tells its parent, until it is killed.
pub(crate) async fn serve(app: u16) -> anyhow::Result<()> {
    let app = SocketAddr::from((Ipv4Addr::LOCALHOST, app));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    tell_ports(&[listener.local_addr()?.port()])?;
    loop {
        let (stream, _) = listener.accept().await?;
        // A client that leaves ends its own connection and nobody else's.
        spawn_local(async move { relay(stream, app).await.ok() });
    }
}

async fn relay(client: TcpStream, app: SocketAddr) -> anyhow::Result<()> {
    let upstream = TcpStream::connect(app).await?;
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    if h2c::is_spoken_by(&client).await? {
        return relay_http2(client, upstream).await;
    }
    let (sender, connection) = client::conn::http1::handshake(TokioIo::new(upstream)).await?;
    spawn_local(connection);
    // HTTP/1.1 has one request at a time on a connection, so whoever comes finds the sender here.
    let kept = Rc::new(Cell::new(Some(sender)));
    let service = service_fn(move |request: Request<Incoming>| {
        let kept = Rc::clone(&kept);
        async move {
            let mut sender = kept.take().ok_or_else(|| anyhow::anyhow!("two requests at a time"))?;
            sender.ready().await?;
            let response = sender.send_request(request);
            kept.set(Some(sender));
            Ok::<_, anyhow::Error>(response.await?)
        }
    });
    server::conn::http1::Builder::new().serve_connection(TokioIo::new(client), service).await?;
    Ok(())
}

async fn relay_http2(client: TcpStream, upstream: TcpStream) -> anyhow::Result<()> {
    let (sender, connection) = client::conn::http2::handshake(OneThread, TokioIo::new(upstream)).await?;
    spawn_local(connection);
    let service = service_fn(move |request: Request<Incoming>| sender.clone().send_request(request));
    server::conn::http2::Builder::new(OneThread).serve_connection(TokioIo::new(client), service).await?;
    Ok(())
}
