//! The app behind the proxies: takes every body, and answers `/huge` with 50 MB.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

/// Serves as long as the runtime lives.
pub(crate) async fn start() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut first = [0; 3];
                let speaks_http2 = stream.peek(&mut first).await? == 3 && &first == b"PRI";
                let stream = TokioIo::new(stream);
                if speaks_http2 {
                    http2::Builder::new(TokioExecutor::new())
                        .serve_connection(stream, service_fn(answer))
                        .await?;
                } else {
                    http1::Builder::new().serve_connection(stream, service_fn(answer)).await?;
                }
                anyhow::Ok(())
            });
        }
    });
    Ok(address)
}

async fn answer(request: Request<Incoming>) -> Result<Response<BoxBody<Bytes, Infallible>>, hyper::Error> {
    if request.uri().path() == "/huge" {
        static PIECE: [u8; 16 << 10] = [b'0'; 16 << 10];
        let pieces = (0..50_000_000 / PIECE.len()).map(|_| Ok(Frame::data(Bytes::from_static(&PIECE))));
        return Ok(Response::new(BodyExt::boxed(StreamBody::new(stream::iter(pieces)))));
    }
    let body = request.into_body().collect().await?;
    Ok(Response::new(Full::from(body.to_bytes().len().to_string()).boxed()))
}
