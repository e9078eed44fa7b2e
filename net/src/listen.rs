//! Ports that many clients may come to at once.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

/// Listens for clients, of whom so many may have come before the first of them is accepted that a burst does not
/// overflow the kernel's queue: whoever does not fit in comes again only after a second.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As with any other listener, or a port could not be taken again for a minute after its owner has gone.
    socket.set_reuseaddr(true)?;
    // The connections inherit it. A client may be silent for as long as it likes, but one that has vanished would be
    // silent for ever.
    socket.set_keepalive(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The most that Linux allows unless it was told otherwise (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn a_client_that_has_vanished_is_noticed() {
        let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (_client, accepted) = tokio::join!(client, listener.accept());
        let accepted = TcpSocket::from_std_stream(accepted.unwrap().0.into_std().unwrap());
        assert!(accepted.keepalive().unwrap());
    }
}
