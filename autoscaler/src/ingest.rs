//! The stat server: activators push what they measured over a websocket.
//!
//! Knative's name: statserver. Any path; binary frames of `WireStatMessages`; a kubelet's probe gets its 200.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use pilotlight_core::Time;
use pilotlight_net::{
    Body, Client, Clock, Drain, Handler, Request, Response, Transport, is_kubelet_probe, plain, serve, wire,
};
use tokio::net::TcpListener;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};
use tracing::{info, warn};

use crate::report::{AcceptsHost, AcceptsPeer, Intake};
use crate::run::Autoscaler;

impl Autoscaler {
    /// Takes stats in on `listener` until `drain` starts; then says goodbye to every activator.
    pub async fn serve_stats(&self, clock: Clock, listener: TcpListener, drain: Drain) {
        // A drain of its own: a stop says goodbye even if it cuts all else.
        let closing = Drain::default();
        let server = StatServer {
            clock,
            intake: self.intake().clone(),
            accepts: self.accepts().cloned(),
            accepts_peer: self.accepts_peer().cloned(),
            drain: closing.clone(),
        };
        let mut serving = pin!(serve(listener, Arc::new(server), closing.clone()));
        tokio::select! {
            () = &mut serving => return,
            () = drain.started() => closing.start(),
        }
        // Each has been told; whoever does not answer is not waited for.
        if tokio::time::timeout(GOODBYE_BUDGET, &mut serving).await.is_err() {
            closing.force();
            serving.await;
        }
    }
}

struct StatServer {
    clock: Clock,
    intake: Intake,
    accepts: Option<AcceptsHost>,
    accepts_peer: Option<AcceptsPeer>,
    drain: Drain,
}

impl Handler for StatServer {
    async fn handle(&self, client: &Client, request: Request) -> Response {
        let peer = client.address();
        if is_kubelet_probe(request.headers()) {
            return Response::new(Body::empty());
        }
        if self.accepts_peer.as_ref().is_some_and(|accepts| !accepts(peer.ip().to_canonical())) {
            return plain(StatusCode::FORBIDDEN, "Forbidden: stats are taken from activators alone");
        }
        let host =
            request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        if self.accepts.as_ref().is_some_and(|accepts| !accepts(host)) {
            // No 101: the handshake fails, and the client asks elsewhere. Knative's autoscaler answers just so.
            return Response::new(Body::empty());
        }
        let mut accepted = match accept(request.headers()) {
            Ok(accepted) => accepted,
            Err((status, why)) => return plain(status, why),
        };
        let session =
            Session { peer, clock: self.clock, intake: self.intake.clone(), drain: self.drain.clone() };
        *accepted.body_mut() = Body::switched(async move |connection| {
            // No reports are that large; a peer that sends more is not an activator.
            let config = WebSocketConfig::default()
                .max_message_size(Some(MAX_MESSAGE_BYTES))
                .max_frame_size(Some(MAX_MESSAGE_BYTES));
            session.run(WebSocketStream::from_raw_socket(connection, Role::Server, Some(config)).await).await;
        });
        accepted
    }
}

struct Session {
    peer: SocketAddr,
    clock: Clock,
    intake: Intake,
    drain: Drain,
}

type Socket = WebSocketStream<Transport>;

impl Session {
    async fn run(self, mut socket: Socket) {
        info!(peer = %self.peer, "Activator connected");
        loop {
            let message = tokio::select! {
                biased;
                () = self.drain.started() => return self.say_goodbye(socket).await,
                message = socket.next() => message,
            };
            match message {
                Some(Ok(Message::Binary(frame))) => self.take_in(&frame).await,
                Some(Ok(Message::Text(_))) => {
                    warn!(peer = %self.peer, "Text frame dropped: stats are binary");
                }
                // Pings are answered by the library.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(_))) | None => break,
                Some(Err(WebSocketError::ConnectionClosed | WebSocketError::AlreadyClosed)) => break,
                Some(Err(error)) => {
                    warn!(peer = %self.peer, %error, "Activator's connection failed");
                    break;
                }
            }
        }
        info!(peer = %self.peer, "Activator disconnected");
    }

    async fn take_in(&self, frame: &[u8]) {
        let stats = match wire::decode_stats(frame) {
            Ok(stats) => stats,
            Err(error) => {
                warn!(peer = %self.peer, %error, "Undecodable stats dropped");
                return;
            }
        };
        for (revision, mut stat) in stats {
            stat.timestamp.get_or_insert_with(|| Time::from_secs(self.clock.now().whole_seconds()));
            self.intake.push(revision, stat).await;
        }
    }

    async fn say_goodbye(&self, mut socket: Socket) {
        let frame = CloseFrame { code: CloseCode::Restart, reason: "Restarting".into() };
        if socket.send(Message::Close(Some(frame))).await.is_ok() {
            // Until the peer has closed too; serve_stats bounds the wait.
            while let Some(Ok(_)) = socket.next().await {}
        }
    }
}

/// The answer that turns a connection into a websocket, or why there will be none.
fn accept(headers: &HeaderMap) -> Result<Response, (StatusCode, &'static str)> {
    let refuse = |why| Err((StatusCode::BAD_REQUEST, why));
    let has = |name, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case(word))
    };
    if !has(header::CONNECTION, "upgrade") || !has(header::UPGRADE, "websocket") {
        return refuse("Bad Request: this port takes websocket connections from activators");
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return refuse("Bad Request: websocket version 13 is needed");
    }
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY) else {
        return refuse("Bad Request: Sec-WebSocket-Key is missing");
    };
    if headers.get(header::ORIGIN).is_some_and(|origin| !same_host(origin, headers)) {
        return Err((StatusCode::FORBIDDEN, "Forbidden: Origin is not this host"));
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let accept_key =
        HeaderValue::try_from(derive_accept_key(key.as_bytes())).expect("base64 is a legal value");
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept_key);
    Ok(response)
}

/// A browser says where a script came from; a page of another host has no business here.
fn same_host(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let origin =
        origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    origin.is_some() && origin == host
}

/// How long activators get to close their side.
const GOODBYE_BUDGET: Duration = Duration::from_secs(5);

/// 4 MiB: some 40,000 revisions in one frame.
const MAX_MESSAGE_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests;
