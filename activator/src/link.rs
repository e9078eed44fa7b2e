//! A WebSocket to an autoscaler: stats go out, pings are answered, and a peer that is gone is noticed.
//!
//! The connection of an activator is one; an autoscaler that gives stats to another has some, too.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use pilotlight_core::{RevisionId, Stat};
use pilotlight_net::{Drain, Target, wire};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, interval_at, sleep_until, timeout, timeout_at};
use tokio_tungstenite::tungstenite::{
    self, Message, protocol::CloseFrame, protocol::frame::coding::CloseCode,
};
use tokio_tungstenite::{WebSocketStream, client_async};

/// The way to the autoscaler: a TCP connection to a [`Target`], or, in a test, a pipe.
pub trait Dial: Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send;

    /// The URL for the handshake, and for logs.
    fn url(&self) -> String;

    /// Waits until there is an autoscaler to connect to. Sets no time limit.
    fn found(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Opens a connection. Sets no time limit.
    fn dial(&self) -> impl Future<Output = Result<Self::Stream, pilotlight_net::Error>> + Send;
}

impl Dial for Target {
    type Stream = TcpStream;

    fn url(&self) -> String {
        self.to_string()
    }

    fn dial(&self) -> impl Future<Output = Result<TcpStream, pilotlight_net::Error>> + Send {
        self.connect()
    }
}

/// Stats that wait to be sent.
pub trait Outgoing: Sync {
    /// Takes all of them, the oldest first.
    fn take(&self) -> Vec<(RevisionId, Stat)>;

    /// Waits until there may be some.
    fn filled(&self) -> impl Future<Output = ()> + Send;
}

/// The reason why a connection ended or did not come about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// There is no connection.
    #[error(transparent)]
    Dial(#[from] pilotlight_net::Error),
    /// The peer does not speak the protocol.
    #[error(transparent)]
    WebSocket(Box<tungstenite::Error>),
    /// Connection and handshake took too long.
    #[error("no handshake within {0:?}")]
    HandshakeTimeout(Duration),
    /// The peer is silent.
    #[error("no pong within {PONG_TIMEOUT:?}")]
    PongTimeout,
    /// The peer has closed the connection.
    #[error("closed by the autoscaler: {0}")]
    Closed(String),
}

impl From<tungstenite::Error> for LinkError {
    fn from(error: tungstenite::Error) -> Self {
        LinkError::WebSocket(Box::new(error))
    }
}

/// Connects and shakes hands within `limit`.
pub async fn connect<D: Dial>(to: &D, limit: Duration) -> Result<WebSocketStream<D::Stream>, LinkError> {
    let dial = async {
        let (socket, _) = client_async(to.url(), to.dial().await?).await?;
        Ok(socket)
    };
    timeout(limit, dial).await.unwrap_or(Err(LinkError::HandshakeTimeout(limit)))
}

/// Sends until the connection fails (`Err`) or `stop` starts (`Ok`, after the last stats and a close frame).
pub async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: WebSocketStream<S>,
    outgoing: &impl Outgoing,
    stop: &Drain,
) -> Result<(), LinkError> {
    let mut ping = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
    let mut deadline = Instant::now() + PONG_TIMEOUT;
    loop {
        // The deadline of pongs holds for sending as well: it is the guard against a peer that reads nothing.
        if let Some(message) = message(&outgoing.take()) {
            send(&mut socket, message, deadline).await?;
        }
        tokio::select! {
            () = outgoing.filled() => {}
            _ = ping.tick() => send(&mut socket, Message::Ping(Default::default()), deadline).await?,
            received = socket.next() => match received {
                Some(Ok(Message::Pong(_))) => deadline = Instant::now() + PONG_TIMEOUT,
                Some(Ok(Message::Close(frame))) => return Err(LinkError::Closed(reason(frame))),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Err(LinkError::Closed("no reason given".to_owned())),
            },
            () = sleep_until(deadline) => return Err(LinkError::PongTimeout),
            () = stop.started() => {
                if let Some(message) = message(&outgoing.take()) {
                    send(&mut socket, message, deadline).await?;
                }
                // Err: the peer does not take the close frame in time, and the connection ends either way.
                let _ = timeout(CLOSE_TIMEOUT, socket.close(None)).await;
                return Ok(());
            }
        }
    }
}

async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    message: Message,
    deadline: Instant,
) -> Result<(), LinkError> {
    match timeout_at(deadline, socket.send(message)).await {
        Ok(sent) => Ok(sent?),
        Err(_) => Err(LinkError::PongTimeout),
    }
}

fn reason(frame: Option<CloseFrame>) -> String {
    match frame {
        Some(CloseFrame { code: CloseCode::Restart, .. }) => "it restarts".to_owned(),
        Some(frame) => format!("{} {}", frame.code, frame.reason),
        None => "no reason given".to_owned(),
    }
}

/// Knative's batch; `None`: there is nothing to say.
pub(crate) fn message(stats: &[(RevisionId, Stat)]) -> Option<Message> {
    (!stats.is_empty()).then(|| Message::binary(wire::encode_stats(stats)))
}

const PING_INTERVAL: Duration = Duration::from_nanos(3_333_333_333);
const PONG_TIMEOUT: Duration = Duration::from_secs(10);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
