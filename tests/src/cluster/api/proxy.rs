//! The proxy of a pod: requests to it are forwarded to the pod's address.

use std::io;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, Uri, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;

use super::call::Call;
use super::failure::{Failure, Result};
use super::store::{Key, Store};

/// Forwards a request to `pods/NAME:PORT/proxy/PATH`, over HTTP/1.1.
pub(crate) async fn forward(
    store: &Mutex<Store>,
    call: &Call,
    head: Parts,
    body: Incoming,
) -> Result<Response<UnsyncBoxBody<Bytes, io::Error>>> {
    let name = call.target.name.trim_start_matches("http:");
    let (name, port) = name.split_once(':').unwrap_or((name, "80"));
    let pod = {
        let store = store.lock();
        let table = store.table("pods")?;
        let key = Key::new(&call.target.namespace, name);
        table.get(&key).cloned().ok_or_else(|| Failure::not_found(&table.definition, name))?
    };
    let away = |why: String| {
        Failure::new(503, "ServiceUnavailable", format!("error trying to reach service: {why}"))
    };
    let Some(ip) = pod.value["status"]["podIP"].as_str() else {
        return Err(away("the pod has no address".into()));
    };
    let stream = TcpStream::connect(format!("{ip}:{port}")).await.map_err(|error| away(error.to_string()))?;
    let connected = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = connected.map_err(|error| away(error.to_string()))?;
    // Its end is the end of the answer.
    tokio::spawn(connection);
    let body = body.collect().await.map_err(|error| away(error.to_string()))?.to_bytes();
    let path = call.target.subresource.strip_prefix("proxy").unwrap_or_default();
    let path = if path.is_empty() { "/" } else { path };
    let query = head.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let uri: Uri =
        format!("{path}{query}").parse().map_err(|_| Failure::bad_request("no path of a proxy"))?;
    let mut request =
        Request::builder().method(head.method).uri(uri).body(Full::new(body)).expect("a request");
    *request.headers_mut() = head.headers;
    request.headers_mut().remove(header::CONTENT_LENGTH);
    request.headers_mut().remove(header::TRANSFER_ENCODING);
    let host = format!("{ip}:{port}").parse().map_err(|_| Failure::bad_request("no address of a pod"))?;
    request.headers_mut().insert(header::HOST, host);
    let answer = sender.send_request(request).await.map_err(|error| away(error.to_string()))?;
    Ok(answer.map(|body| body.map_err(io::Error::other).boxed_unsync()))
}
