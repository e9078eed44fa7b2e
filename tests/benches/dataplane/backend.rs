//! The app behind every candidate: as little as hyper can do, so that it is never what is measured.
//!
//! `/KB` answers with so many kilobytes, `/hold` never answers, `/held` says how many requests it holds.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::pending;
use std::net::Ipv4Addr;
use std::rc::Rc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::spawn_local;

use crate::h2c::{self, OneThread};
use crate::process::tell_ports;

/// Serves on so many ports of its own choice, which it tells its parent, until it is killed.
pub(crate) async fn serve(ports: usize) -> anyhow::Result<()> {
    let held = Rc::new(Cell::new(0));
    let mut taken = Vec::new();
    for _ in 0..ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        taken.push(listener.local_addr()?.port());
        spawn_local(accept(listener, Rc::clone(&held)));
    }
    tell_ports(&taken)?;
    pending().await
}

async fn accept(listener: TcpListener, held: Rc<Cell<u32>>) {
    while let Ok((stream, _)) = listener.accept().await {
        if stream.set_nodelay(true).is_err() {
            continue;
        }
        let held = Rc::clone(&held);
        let service = service_fn(move |request: Request<Incoming>| {
            let held = Rc::clone(&held);
            async move { Ok::<_, Infallible>(answer(request.uri().path(), &held).await) }
        });
        spawn_local(async move {
            let speaks_http2 = h2c::is_spoken_by(&stream).await?;
            let stream = TokioIo::new(stream);
            if speaks_http2 {
                http2::Builder::new(OneThread).serve_connection(stream, service).await?;
            } else {
                http1::Builder::new().serve_connection(stream, service).await?;
            }
            anyhow::Ok(())
        });
    }
}

async fn answer(path: &str, held: &Cell<u32>) -> Response<Full<Bytes>> {
    static ZEROS: [u8; 100 << 10] = [b'0'; 100 << 10];
    match path {
        "/hold" => {
            let _held = Held::new(held);
            pending().await
        }
        "/held" => Response::new(Full::from(held.get().to_string())),
        _ => {
            let kilobytes: usize = path.trim_start_matches('/').parse().unwrap_or(0);
            let body = &ZEROS[..(kilobytes << 10).min(ZEROS.len())];
            Response::new(Full::new(Bytes::from_static(body)))
        }
    }
}

/// A request that is being held.
struct Held<'a>(&'a Cell<u32>);

impl<'a> Held<'a> {
    fn new(count: &'a Cell<u32>) -> Self {
        count.set(count.get() + 1);
        Held(count)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
