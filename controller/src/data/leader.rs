//! The controller that leads, as its Lease names it, and the way to it: stats go there, and to a new one at once.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use k8s_openapi::api::coordination::v1::Lease;
use pilotlight_activator::link::Dial;
use pilotlight_net::{Error, connect_from};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// The address of the controller that holds a Lease: an identity is the name of a pod, `_` and its address. `None`: nobody
/// holds it.
pub(super) fn holder(lease: &Lease) -> Option<IpAddr> {
    let identity = lease.spec.as_ref()?.holder_identity.as_deref()?;
    let (_, ip) = identity.rsplit_once('_')?;
    ip.parse().ok()
}

/// The way to whichever controller leads.
#[derive(Clone, Debug)]
pub(super) struct LeaderDial {
    /// The address of our own pod: the leader takes reports from the addresses of activators' pods only.
    from: IpAddr,
    leader: watch::Receiver<Option<SocketAddr>>,
}

impl LeaderDial {
    /// Follows the leader's port for stats; `None`: nobody leads.
    pub(super) fn new(from: IpAddr, leader: watch::Receiver<Option<SocketAddr>>) -> Self {
        LeaderDial { from, leader }
    }
}

impl Dial for LeaderDial {
    type Stream = LeaderStream;

    fn url(&self) -> String {
        match *self.leader.borrow() {
            Some(leader) => format!("ws://{leader}"),
            None => NOBODY.to_owned(),
        }
    }

    async fn found(&self) {
        if self.leader.clone().wait_for(Option::is_some).await.is_err() {
            // The watch of the Lease has ended: there will be no leader.
            std::future::pending::<()>().await;
        }
    }

    async fn dial(&self) -> Result<LeaderStream, Error> {
        let mut leader = self.leader.clone();
        let chosen = *leader.borrow_and_update();
        let Some(to) = chosen else { return Err(Error::Broken(io::ErrorKind::NotConnected.into())) };
        let mut replaced: Replaced = Box::pin(async move {
            if leader.wait_for(|now| now.is_some_and(|now| now != to)).await.is_err() {
                std::future::pending::<()>().await;
            }
        });
        tokio::select! {
            stream = connect_from(self.from, to) => Ok(LeaderStream { stream: stream?, replaced: Some(replaced) }),
            () = &mut replaced => Err(Error::Broken(another_leads())),
        }
    }
}

/// A connection to the leader that breaks as soon as another one leads.
pub(super) struct LeaderStream {
    stream: TcpStream,
    /// `None`: another one leads.
    replaced: Option<Replaced>,
}

type Replaced = Pin<Box<dyn Future<Output = ()> + Send>>;

impl AsyncRead for LeaderStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.replaced.as_mut().is_none_or(|replaced| replaced.as_mut().poll(cx).is_ready()) {
            self.replaced = None;
            return Poll::Ready(Err(another_leads()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for LeaderStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn another_leads() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "another controller leads now")
}

/// The URL in logs while nobody leads.
const NOBODY: &str = "ws://nobody";

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn the_holder_of_a_lease_is_named_with_its_address() {
        let holder_of = |identity: &str| {
            let lease = json!({"metadata": {"name": "pilotlight"}, "spec": {"holderIdentity": identity}});
            holder(&serde_json::from_value(lease).unwrap()).map(|ip| ip.to_string())
        };
        assert_eq!(holder_of("pilotlight-1_10.0.0.7").as_deref(), Some("10.0.0.7"));
        assert_eq!(holder_of("pilot_light_fd00::7").as_deref(), Some("fd00::7"));
        assert_eq!(holder_of(""), None);
        assert_eq!(holder_of("pilotlight-1"), None);
        assert_eq!(holder(&Lease::default()), None);
    }

    #[tokio::test]
    async fn a_connection_lasts_until_another_one_leads() {
        let [one, other] = [
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
        ];
        let leader = watch::Sender::new(None);
        let dial = LeaderDial::new([127, 0, 0, 1].into(), leader.subscribe());
        leader.send_replace(Some(one.local_addr().unwrap()));
        dial.found().await;
        let mut stream = dial.dial().await.unwrap();
        let (mut end, _) = one.accept().await.unwrap();
        end.write_all(b"a").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'a');

        // The Lease was given up: the one that gave it up closes its connections itself.
        leader.send_replace(None);
        end.write_all(b"b").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'b');
        assert!(dial.dial().await.is_err(), "nobody leads");

        leader.send_replace(Some(other.local_addr().unwrap()));
        for _ in 0..2 {
            let error = stream.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        }
        dial.dial().await.unwrap();
        other.accept().await.unwrap();
    }
}
