//! HTTP/2 by prior knowledge, for the app and the relay: one port for both protocols, as our proxies have.

use std::future::Future;
use std::io;

use hyper::rt::Executor;
use tokio::net::TcpStream;
use tokio::task::spawn_local;

/// Whether the client speaks HTTP/2: its first bytes are no method of HTTP/1.1.
pub(crate) async fn is_spoken_by(client: &TcpStream) -> io::Result<bool> {
    let mut first = [0; 3];
    // The first three come at once from any client there is.
    let peeked = client.peek(&mut first).await?;
    Ok(&first[..peeked] == b"PRI")
}

/// Runs the streams' tasks on the one thread there is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OneThread;

impl<F: Future + 'static> Executor<F> for OneThread {
    fn execute(&self, future: F) {
        spawn_local(async move {
            future.await;
        });
    }
}
