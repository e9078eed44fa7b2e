//! Listening sockets for many clients at once.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

use crate::keep_alive::{CLIENTS, keep_alive};

/// Listens, with a backlog that a burst of clients does not overflow: the SYN of a client that does not fit in is dropped,
/// and TCP sends it again only after a second.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // SO_REUSEADDR, as tokio's own listeners have it: without it, a port in TIME-WAIT could not be bound for a minute.
    socket.set_reuseaddr(true)?;
    // Connections inherit it: a client may be silent for as long as it likes, but one that has vanished would be silent for
    // ever.
    keep_alive(&socket, CLIENTS)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Connections that wait to be accepted: Linux's default for the most that are allowed (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;
