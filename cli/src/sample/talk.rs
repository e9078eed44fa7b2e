//! Conversations with the sample application, which sends back what it receives: over a WebSocket message by message,
//! and in calls of gRPC's shape byte by byte, with the status in the trailers. Conversations take no place and are not
//! counted in flight.

use futures_util::{SinkExt, StreamExt};
use http::header::{CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use http_body_util::BodyExt;
use pilotlight_net::{Body, Request, Response, Transport, plain};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// A conversation that a client begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Talk {
    WebSocket,
    Grpc,
}

impl Talk {
    /// The conversation that the request begins; `None`: it is a plain request.
    pub(super) fn wanted(request: &Request) -> Option<Talk> {
        if says(request.headers(), &UPGRADE, "websocket") {
            Some(Talk::WebSocket)
        } else if request.version() == Version::HTTP_2
            && says(request.headers(), &CONTENT_TYPE, "application/grpc")
        {
            Some(Talk::Grpc)
        } else {
            None
        }
    }

    /// Begins the conversation. The response's head has the name of the pod.
    pub(super) fn begin(self, pod_name: &str, request: Request) -> Response {
        let mut response = match self {
            Talk::WebSocket => websocket(request.headers()),
            Talk::Grpc => call(request),
        };
        if let Ok(name) = HeaderValue::try_from(pod_name) {
            response.headers_mut().insert(POD, name);
        }
        response
    }
}

fn says(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    headers.get(name).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(wanted.as_bytes()))
}

fn websocket(headers: &HeaderMap) -> Response {
    let Some(key) = headers.get(SEC_WEBSOCKET_KEY) else {
        return plain(StatusCode::BAD_REQUEST, "a WebSocket begins with a Sec-WebSocket-Key");
    };
    let accept = derive_accept_key(key.as_bytes());
    let mut response = Response::new(Body::switched(say_back));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::try_from(accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

/// Sends messages back until the client closes, however it does.
async fn say_back(connection: Transport) {
    let mut socket = WebSocketStream::from_raw_socket(connection, Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        // Pings and the close are answered by the library, as the messages before them are read.
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
    }
}

fn call(request: Request) -> Response {
    let status = HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_static("0"))]);
    let body = request.into_body().with_trailers(async move { Some(Ok(status)) });
    let mut response = Response::new(Body::stream(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

const POD: HeaderName = HeaderName::from_static("x-pod");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
