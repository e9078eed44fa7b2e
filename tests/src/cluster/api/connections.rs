//! Connections of clients, and outages: refused, reset or silent.

use std::net::SocketAddr;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

use super::faults::Outage;
use super::serve::Service;

/// Takes connections, unless there is an outage.
pub(crate) async fn accept(listener: TcpListener, service: Service) {
    let address = listener.local_addr().expect("a listener has an address");
    let mut outages = service.faults.outages();
    let mut listener = Some(listener);
    loop {
        let outage = *outages.borrow_and_update();
        if outage == Some(Outage::Refused) {
            drop(listener.take());
            // A socket that does not listen keeps the port, and refuses.
            let socket = bind(address);
            if outages.wait_for(|outage| *outage != Some(Outage::Refused)).await.is_err() {
                return;
            }
            listener = Some(socket.listen(1024).expect("a port that is ours"));
            continue;
        }
        let Some(listener) = &listener else { return };
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    tokio::spawn(serve(stream, service.clone(), service.faults.outages()));
                }
            }
            changed = outages.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

/// Serves one connection until it ends, or an outage ends it.
async fn serve(stream: TcpStream, service: Service, mut outages: watch::Receiver<Option<Outage>>) {
    let _ = stream.set_nodelay(true);
    let outage = *outages.borrow_and_update();
    if outage.is_some() {
        return go_away(stream, outages).await;
    }
    let service = service_fn(|request| Box::pin(service.clone().answer(request)));
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ = &mut connection => return,
        _ = outages.wait_for(Option::is_some) => {}
    }
    go_away(connection.into_parts().io.into_inner(), outages).await;
}

/// Lets a connection feel the outage.
async fn go_away(stream: TcpStream, mut outages: watch::Receiver<Option<Outage>>) {
    if *outages.borrow() == Some(Outage::Silent) {
        let _ = outages.wait_for(|outage| *outage != Some(Outage::Silent)).await;
    }
    // Without time to linger, closing resets.
    let _ = stream.set_zero_linger();
}

fn bind(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("an option that every system has");
    socket.bind(address).expect("a port that was ours");
    socket
}
