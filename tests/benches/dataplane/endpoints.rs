//! Endpoints, as an autoscaler would serve it to the activators.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use pilotlight_core::{EndpointLine, PodEndpoint, PodTimeline, RevisionEndpoints, RevisionId};

/// Serves one table, which never changes, as long as the process lives.
pub(crate) struct Endpoints {
    port: u16,
}

impl Endpoints {
    /// `one` has one pod, `eight` has as many as there are ports, and `parked` waits for its first.
    pub(crate) fn serve(pods: &[u16]) -> anyhow::Result<Endpoints> {
        let revisions = [("one", &pods[..1]), ("eight", pods), ("parked", &[])];
        let revisions: BTreeMap<_, _> =
            revisions.map(|(name, pods)| (RevisionId::new("bench", name), revision(pods))).into();
        let line: Arc<str> = serde_json::to_string(&EndpointLine::Snapshot(revisions))?.into();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let line = Arc::clone(&line);
                // The stream ends when the activator does.
                thread::spawn(move || tell(stream, &line));
            }
        });
        Ok(Endpoints { port })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1/endpoints", self.port)
    }
}

fn revision(pods: &[u16]) -> RevisionEndpoints {
    let pod = |&port: &u16| PodEndpoint {
        name: format!("pod-{port}"),
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        tls_address: None,
        ports: Arc::default(),
        timeline: PodTimeline::default(),
    };
    RevisionEndpoints {
        ready: pods.iter().map(pod).collect(),
        starting: u32::from(pods.is_empty()),
        ..RevisionEndpoints::default()
    }
}

fn tell(mut stream: TcpStream, line: &str) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n{line}\n")?;
    loop {
        // An empty line says nothing, but that we are still there.
        thread::sleep(Duration::from_secs(10));
        stream.write_all(b"\n")?;
    }
}
