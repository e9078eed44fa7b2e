//! The activator: revisions of two pods, one of which comes or goes.

use std::net::SocketAddr;

use futures_util::StreamExt;
use pilotlight_activator::{Activator, ActivatorParams};
use pilotlight_core::{PodEndpoint, PodTimeline, RevisionEndpoints, RevisionId};
use pilotlight_feed::Feed;
use pilotlight_net::{Clock, Target};
use tokio::net::TcpListener;

use crate::cost::{self, Changing, Cost};

pub(crate) async fn measure(revisions: usize) -> Cost {
    pilotlight_telemetry::Registry::new().install().expect("the only recorder");
    let empty = cost::resident_mib();
    let endpoints = Feed::default();
    let mut changing = Revisions { endpoints, activator: None, has_both: vec![true; revisions] };
    for revision in 0..revisions {
        changing.publish(revision);
    }
    changing.endpoints.complete();
    let params = ActivatorParams::new("activator", Clock::start(), autoscaler().await);
    changing.activator = Some(Activator::start(params, changing.endpoints.follow()));
    cost::measure(revisions, empty, &mut changing).await
}

/// Takes whatever is reported.
async fn autoscaler() -> Target {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it listens");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await {
                while socket.next().await.is_some_and(|message| message.is_ok()) {}
            }
        }
    });
    Target::ws(&format!("ws://{address}")).expect("it is one")
}

struct Revisions {
    endpoints: Feed<RevisionId, RevisionEndpoints>,
    activator: Option<Activator>,
    has_both: Vec<bool>,
}

impl Revisions {
    fn publish(&self, revision: usize) {
        let pod = |number: usize| PodEndpoint {
            name: format!("revision-{revision}-pod-{number}"),
            address: SocketAddr::from(([10, 1, (revision >> 8) as u8, revision as u8], 8012 + number as u16)),
            tls_address: None,
            ports: Default::default(),
            timeline: PodTimeline::default(),
        };
        let pods = 1 + usize::from(self.has_both[revision]);
        let endpoints = RevisionEndpoints {
            hosts: vec![format!("revision-{revision}.default.example.com")],
            ready: (0..pods).map(pod).collect(),
            ..RevisionEndpoints::default()
        };
        self.endpoints.set(RevisionId::new("default", format!("revision-{revision}")), endpoints);
    }
}

impl Changing for Revisions {
    fn change(&mut self, revision: usize) {
        self.has_both[revision] = !self.has_both[revision];
        self.publish(revision);
    }

    async fn caught_up(&mut self) {
        self.activator.as_ref().expect("started").caught_up().await;
    }
}
