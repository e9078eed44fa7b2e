//! TCP keep-alive: a peer that has vanished (a node without power, a NAT that forgets) says nothing, and would be waited
//! for. By itself the system asks after two hours.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::sockopt;

/// Silence after which a client is asked for a sign of life. Go has its servers do so.
pub(crate) const CLIENTS: Duration = Duration::from_secs(15);

/// Silence after which an upstream is asked. Knative has it in its dialer (knative/pkg, `network/transports.go`).
pub(crate) const UPSTREAMS: Duration = Duration::from_secs(5);

/// Has the system ask after so much silence, and again in the same time if nothing comes back; the connection ends after
/// some times in vain.
pub(crate) fn keep_alive(socket: impl AsFd, every: Duration) -> io::Result<()> {
    let socket = socket.as_fd();
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, every)?;
    sockopt::set_tcp_keepintvl(socket, every)?;
    sockopt::set_tcp_keepcnt(socket, TIMES)?;
    Ok(())
}

/// The system's own number, and Go's.
const TIMES: u32 = 9;

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;
    use crate::{connect, listen};

    #[tokio::test]
    async fn both_ends_of_our_connections_notice_a_peer_that_has_vanished() {
        let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let (upstream, client) = tokio::join!(connect(address), listener.accept());
        for (socket, every) in [(upstream.unwrap(), 5), (client.unwrap().0, 15)] {
            assert_eq!(options(&socket), (true, every, every, 9));
        }
    }

    /// Whether keep-alive is on; seconds of silence, seconds between two questions, and their number.
    fn options(socket: &TcpStream) -> (bool, u64, u64, u32) {
        let is_on = sockopt::socket_keepalive(socket).unwrap();
        let [idle, interval] = [sockopt::tcp_keepidle(socket), sockopt::tcp_keepintvl(socket)];
        let count = sockopt::tcp_keepcnt(socket).unwrap();
        (is_on, idle.unwrap().as_secs(), interval.unwrap().as_secs(), count)
    }
}
