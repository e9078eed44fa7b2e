//! Traffic as the autoscaler sees it: pods that answer scrapes, and an activator that reports.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::SinkExt;
use http::{HeaderValue, header};
use pilotlight_core::{RevisionId, Stat};
use pilotlight_net::{Body, Client, Drain, Handler, Request, Response, listen, serve, wire};
use pilotlight_tests::cluster::api::ApiServer;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::population::{NAMESPACE, name, pod_ip, pod_name};

/// The queue-proxies of all pods, for scrapes alone. Dropping them ends them.
pub(crate) struct Pods {
    _serving: JoinSet<()>,
}

impl Pods {
    pub(crate) async fn start(pods: usize) -> anyhow::Result<Pods> {
        let mut serving = JoinSet::new();
        for number in 0..pods {
            let address = SocketAddr::new(pod_ip(number), 9090);
            let listener = listen(address).with_context(|| format!("cannot listen on {address}"))?;
            serving.spawn(serve(listener, Arc::new(QueueProxy { pod: pod_name(number) }), Drain::default()));
        }
        Ok(Pods { _serving: serving })
    }
}

struct QueueProxy {
    pod: String,
}

impl Handler for QueueProxy {
    /// All that the pod has comes through the activator, which counts it.
    async fn handle(&self, _: &Client, _: Request) -> Response {
        let stat = Stat {
            pod_name: self.pod.clone(),
            average_concurrent_requests: REQUESTS,
            average_proxied_concurrent_requests: REQUESTS,
            request_count: REQUESTS,
            proxied_request_count: REQUESTS,
            process_uptime: Some(Duration::from_secs(100)),
            timestamp: None,
        };
        let mut response = Response::new(Body::full(wire::encode_stat(&stat)));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/protobuf"));
        response
    }
}

/// An activator's reports.
pub(crate) struct Activator {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    busy: usize,
}

impl Activator {
    pub(crate) async fn connect(autoscaler: SocketAddr, busy: usize) -> anyhow::Result<Activator> {
        let (socket, _) = connect_async(format!("ws://{autoscaler}/")).await?;
        Ok(Activator { socket, busy })
    }

    /// Reports about the busy revisions once a second.
    pub(crate) async fn report_for(&mut self, period: Duration) -> anyhow::Result<()> {
        let (mut every, started) = (interval(Duration::from_secs(1)), Instant::now());
        while started.elapsed() < period {
            every.tick().await;
            self.report_once().await?;
        }
        Ok(())
    }

    pub(crate) async fn report_once(&mut self) -> anyhow::Result<()> {
        let stats: Vec<_> = (0..self.busy).map(|number| stat(number, REQUESTS)).collect();
        self.send(&stats).await
    }

    /// Reports the first request of these revisions, and returns how long each had to wait for the patch of its scale, in
    /// milliseconds.
    pub(crate) async fn wake(
        &mut self,
        server: &ApiServer,
        revisions: Range<usize>,
    ) -> anyhow::Result<Vec<f64>> {
        let stats: Vec<_> = revisions.clone().map(|number| stat(number, 1.0)).collect();
        let names: Vec<String> = revisions.map(|number| format!("{}-deployment", name(number))).collect();
        // Somewhere within the second, as requests come.
        sleep(Duration::from_millis(names[0].bytes().map(u64::from).sum::<u64>() * 37 % 900)).await;
        let sent = Instant::now();
        self.send(&stats).await?;
        let deadline = sent + Duration::from_secs(30);
        loop {
            let log = server.log().requests();
            let patches: Vec<_> = log
                .iter()
                .filter(|request| {
                    request.subresource == "scale" && request.at >= sent && names.contains(&request.name)
                })
                .collect();
            if patches.len() == names.len() {
                return Ok(patches.iter().map(|patch| (patch.at - sent).as_secs_f64() * 1000.0).collect());
            }
            let missing = names.len() - patches.len();
            anyhow::ensure!(
                Instant::now() < deadline,
                "{missing} of {} revisions were not woken",
                names.len()
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn send(&mut self, stats: &[(RevisionId, Stat)]) -> anyhow::Result<()> {
        self.socket
            .send(Message::Binary(wire::encode_stats(stats).into()))
            .await
            .context("the autoscaler has gone")
    }
}

fn stat(number: usize, requests: f64) -> (RevisionId, Stat) {
    let stat = Stat {
        pod_name: "activator-1".to_owned(),
        average_concurrent_requests: requests,
        request_count: requests,
        ..Stat::default()
    };
    (RevisionId::new(NAMESPACE, name(number)), stat)
}

/// In flight at each busy revision: one pod's worth.
const REQUESTS: f64 = 50.0;
