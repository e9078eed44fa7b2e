//! What the admin port adds: every decision, and where the pods are.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, header};
use http_body_util::StreamBody;
use hyper::body::Frame;
use pilotlight_core::EndpointTable;
use pilotlight_net::{Admin, Body, Response};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::Autoscaler;

/// `/v1/decisions`: the latest evaluation of every revision and the latest changes of scale, as JSON.
pub fn decisions(admin: Admin, autoscaler: &Autoscaler) -> Admin {
    let board = Arc::clone(autoscaler.board());
    admin.route("/v1/decisions", move |_| {
        let body = serde_json::to_vec_pretty(&board.snapshot()).expect("a status has only string keys");
        std::future::ready(json("application/json", Body::full(body)))
    })
}

/// `/v1/endpoints`: the whole endpoint table as one line of JSON, now and again after every change. Activators
/// in other processes follow it.
pub fn endpoints(admin: Admin, endpoints: watch::Receiver<Arc<EndpointTable>>) -> Admin {
    admin.route("/v1/endpoints", move |_| {
        let mut endpoints = endpoints.clone();
        endpoints.mark_changed();
        let lines = futures_util::stream::unfold(endpoints, |mut endpoints| async move {
            let mut line = match timeout(EndpointTable::HEARTBEAT, endpoints.changed()).await {
                Ok(changed) => {
                    changed.ok()?;
                    serde_json::to_vec(&**endpoints.borrow_and_update())
                        .expect("a table has only string keys")
                }
                // An empty line: nothing new, and still here.
                Err(_) => Vec::new(),
            };
            line.push(b'\n');
            Some((Ok(Frame::data(Bytes::from(line))), endpoints))
        });
        std::future::ready(json("application/x-ndjson", Body::stream(StreamBody::new(lines))))
    })
}

fn json(content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
