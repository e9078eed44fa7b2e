//! Two connected sockets, for tests.

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use crate::transport::Transport;

/// A runtime with a listener: sockets for one script after the other.
pub(super) struct Wires {
    runtime: Runtime,
    listener: TcpListener,
}

impl Default for Wires {
    fn default() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        Wires { runtime, listener }
    }
}

impl Wires {
    /// Runs a script that has the two ends of a connection.
    pub(super) fn run<T>(&self, script: impl AsyncFnOnce(TcpStream, Transport) -> T) -> T {
        self.runtime.block_on(async {
            let near = TcpStream::connect(self.listener.local_addr().unwrap()).await.unwrap();
            let far = Transport::new(self.listener.accept().await.unwrap().0);
            script(near, far).await
        })
    }
}
