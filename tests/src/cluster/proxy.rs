//! A small kube-proxy: a listener for each port of each Service, and for each new connection a ready endpoint at random.
//!
//! Connections that exist stay where they are. A Service without endpoints refuses. An endpoint that refuses shows as a
//! connection that is reset, since only the kernel could refuse it for somebody else.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt;
use parking_lot::Mutex;
use pilotlight_core::Rng;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout_at};

use super::endpoints::SERVICE_NAME;
use super::log::Log;
use super::names::{cluster_ip, local_port};
use super::store::{Key, Presence, Store, key_of};

/// The proxy of all Services.
pub struct ServiceProxy {
    lag: Arc<Mutex<Duration>>,
    changes: mpsc::UnboundedSender<Change>,
}

/// The endpoints of a Service's ports at a moment, which take effect at another.
struct Change {
    service: Key,
    due: Instant,
    ports: BTreeMap<SocketAddr, Vec<SocketAddr>>,
    /// Told once it has taken effect.
    told: Option<oneshot::Sender<()>>,
}

/// A port that listens.
struct Rule {
    service: Key,
    backends: watch::Sender<Vec<SocketAddr>>,
    listening: JoinHandle<()>,
}

impl ServiceProxy {
    /// Starts it.
    pub(crate) fn start(
        services: &Arc<Store<Service>>,
        slices: &Arc<Store<EndpointSlice>>,
        tasks: &mut JoinSet<()>,
        log: &Log,
    ) -> ServiceProxy {
        let lag = Arc::<Mutex<Duration>>::default();
        let (changes, inbox) = mpsc::unbounded_channel();
        tasks.spawn(apply(inbox, log.clone()));

        let (known, of, to, wait) =
            (Arc::clone(services), Arc::clone(slices), changes.clone(), Arc::clone(&lag));
        slices.on_change(move |slice, _| {
            let Some(name) = slice.labels().get(SERVICE_NAME) else { return };
            let service = (slice.namespace().unwrap_or_default(), name.clone());
            let ports = known.get(&service).map(|each| ports_of(&each, &of)).unwrap_or_default();
            let _ = to.send(Change { service, due: Instant::now() + *wait.lock(), ports, told: None });
        });
        let (of, kept) = (Arc::clone(slices), changes.clone());
        services.on_change(move |service, presence| {
            let ports = if presence == Presence::There { ports_of(service, &of) } else { BTreeMap::new() };
            // A new Service is known without lag: the lag is that of endpoints.
            let _ = changes.send(Change { service: key_of(service), due: Instant::now(), ports, told: None });
        });
        ServiceProxy { lag, changes: kept }
    }

    /// Waits until every change of which it has heard so far has taken effect.
    pub async fn caught_up(&self) {
        let (told, caught_up) = oneshot::channel();
        let nothing =
            Change { service: Key::default(), due: Instant::now(), ports: BTreeMap::new(), told: Some(told) };
        let _ = self.changes.send(nothing);
        // Err: the proxy has ended, and nothing changes any more.
        let _ = caught_up.await;
    }

    /// Sets the time between a change of endpoints and its effect.
    pub fn set_lag(&self, lag: Duration) {
        *self.lag.lock() = lag;
    }
}

/// The places where a Service listens, each with the endpoints to choose from.
fn ports_of(service: &Service, slices: &Store<EndpointSlice>) -> BTreeMap<SocketAddr, Vec<SocketAddr>> {
    let Some(ip) = cluster_ip(service) else { return BTreeMap::new() };
    let all = slices.in_namespace(&service.namespace().unwrap_or_default());
    let own: Vec<_> =
        all.iter().filter(|slice| slice.labels().get(SERVICE_NAME) == Some(&service.name_any())).collect();
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let name = port.name.as_deref().unwrap_or_default();
            let place = SocketAddr::new(ip, local_port(u16::try_from(port.port).ok()?));
            Some((place, backends_of(own.iter().map(|slice| &***slice), name)))
        })
        .collect()
}

/// The endpoints of a port: those that are ready; if there are none, those that still serve while they end.
fn backends_of<'a>(slices: impl Iterator<Item = &'a EndpointSlice>, port: &str) -> Vec<SocketAddr> {
    let (mut ready, mut ending) = (Vec::new(), Vec::new());
    for slice in slices {
        let mut ports = slice.ports.iter().flatten();
        let port =
            ports.find(|each| each.name.as_deref().unwrap_or_default() == port).and_then(|port| port.port);
        let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else { continue };
        for endpoint in &slice.endpoints {
            let place = endpoint.addresses.first().and_then(|address| address.parse().ok());
            let Some(place) = place.map(|ip| SocketAddr::new(ip, port)) else { continue };
            match stage(endpoint) {
                (true, _) => ready.push(place),
                (false, true) => ending.push(place),
                (false, false) => {}
            }
        }
    }
    let mut chosen = if ready.is_empty() { ending } else { ready };
    // One pod may be in two slices.
    chosen.sort();
    chosen.dedup();
    chosen
}

/// Whether an endpoint is ready, and whether it serves while it ends.
fn stage(endpoint: &Endpoint) -> (bool, bool) {
    let conditions = endpoint.conditions.as_ref();
    let is_ready = conditions.and_then(|each| each.ready).unwrap_or(true);
    let serves = conditions.and_then(|each| each.serving).unwrap_or(is_ready);
    (is_ready, serves && conditions.and_then(|each| each.terminating).unwrap_or(false))
}

/// Carries changes out, one after the other, each when it is due.
async fn apply(mut changes: mpsc::UnboundedReceiver<Change>, log: Log) {
    let connections = Arc::<Mutex<JoinSet<()>>>::default();
    let mut rules: BTreeMap<SocketAddr, Rule> = BTreeMap::new();
    while let Some(Change { service, due, ports, told }) = changes.recv().await {
        let _ = timeout_at(due, std::future::pending::<()>()).await;
        let is_over = |place: &SocketAddr, rule: &Rule| {
            rule.service == service && ports.get(place).is_none_or(Vec::is_empty)
        };
        for (_, rule) in rules.extract_if(.., |place, rule| is_over(place, rule)) {
            drop(rule.backends);
            // The port is free when its listener has gone.
            let _ = rule.listening.await;
        }
        for (place, backends) in ports.into_iter().filter(|(_, backends)| !backends.is_empty()) {
            if let Some(rule) = rules.get(&place) {
                rule.backends.send_replace(backends);
                continue;
            }
            let listener = match TcpListener::bind(place).await {
                Ok(listener) => listener,
                Err(error) => {
                    log.say("proxy", format!("{service:?} cannot listen on {place}: {error}"));
                    continue;
                }
            };
            let (sender, receiver) = watch::channel(backends);
            let listening = tokio::spawn(listen(listener, receiver, Arc::clone(&connections)));
            rules.insert(place, Rule { service: service.clone(), backends: sender, listening });
        }
        let _ = told.map(|told| told.send(()));
    }
}

async fn listen(
    listener: TcpListener,
    mut backends: watch::Receiver<Vec<SocketAddr>>,
    connections: Arc<Mutex<JoinSet<()>>>,
) {
    let mut rng = Rng::new(u64::from(listener.local_addr().map_or(0, |place| place.port())));
    let mut open = |client: TcpStream, backends: &[SocketAddr]| {
        let index = (rng.next_u64() % backends.len() as u64) as usize;
        let mut connections = connections.lock();
        while connections.try_join_next().is_some() {}
        connections.spawn(relay(client, backends[index]));
    };
    loop {
        tokio::select! {
            biased;
            changed = backends.changed() => if changed.is_err() { break },
            accepted = listener.accept() => if let Ok((client, _)) = accepted {
                open(client, &backends.borrow());
            },
        }
    }
    // Connections that the kernel has accepted already are not to be reset with the listener.
    while let Some(Ok((client, _))) = listener.accept().now_or_never() {
        open(client, &backends.borrow());
    }
}

async fn relay(mut client: TcpStream, backend: SocketAddr) {
    let Ok(mut server) = TcpStream::connect(backend).await else {
        // With something unread a connection is reset when it is closed; without, this does it.
        let _ = client.set_zero_linger();
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let _ = copy_bidirectional(&mut client, &mut server).await;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(name: &str, conditions: &[(&str, [bool; 3])]) -> EndpointSlice {
        let endpoints = conditions.iter().map(|(ip, [ready, serving, terminating])| {
            json!({ "addresses": [ip], "conditions": { "ready": ready, "serving": serving, "terminating": terminating } })
        });
        serde_json::from_value(json!({
            "metadata": { "name": name }, "addressType": "IPv4",
            "endpoints": endpoints.collect::<Vec<_>>(), "ports": [{ "name": "http", "port": 8012 }],
        }))
        .unwrap()
    }

    fn ips(slices: &[EndpointSlice]) -> Vec<String> {
        backends_of(slices.iter(), "http").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn connections_go_to_what_is_ready_and_else_to_what_still_serves() {
        let ready = ("10.0.0.1", [true, true, false]);
        let ending = ("10.0.0.2", [false, true, true]);
        let unready = ("10.0.0.3", [false, false, false]);
        assert_eq!(ips(&[slice("a", &[ready, ending, unready])]), ["10.0.0.1:8012"]);
        assert_eq!(ips(&[slice("a", &[ending]), slice("b", &[unready])]), ["10.0.0.2:8012"]);
        assert_eq!(ips(&[slice("a", &[unready])]), [""; 0]);
        // In two slices it is still one.
        assert_eq!(ips(&[slice("a", &[ready]), slice("b", &[ready])]).len(), 1);
        assert!(backends_of([slice("a", &[ready])].iter(), "https").is_empty());
    }
}
