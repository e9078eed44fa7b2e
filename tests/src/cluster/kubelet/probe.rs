//! Probes of one container, run as a kubelet runs them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use pilotlight_net::probe::probe;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::command::{Places, port_number};
use super::status::View;

/// The probe of one container.
pub(super) struct Prober {
    asks: Asks,
    delay: Duration,
    period: Duration,
    limit: Duration,
    successes: u32,
    failures: u32,
}

enum Asks {
    Http {
        at: SocketAddr,
        path: String,
        headers: HeaderMap,
    },
    Tcp(SocketAddr),
    /// A kind of probe that is not known here.
    Other,
}

impl Prober {
    pub(super) fn new(container: &Container, probe: &Probe, places: &Places) -> Prober {
        let at = |host: Option<&str>, port| {
            let at = places.find(port_number(container, port).unwrap_or_default());
            host.and_then(|host| host.parse().ok())
                .map_or(at, |host: IpAddr| SocketAddr::new(host, at.port()))
        };
        let asks = match (&probe.http_get, &probe.tcp_socket) {
            (Some(get), _) => Asks::Http {
                at: at(get.host.as_deref(), &get.port),
                path: path_of(get),
                headers: headers_of(get),
            },
            (_, Some(tcp)) => Asks::Tcp(at(tcp.host.as_deref(), &tcp.port)),
            _ => Asks::Other,
        };
        let or = |value: Option<i32>, default| {
            u32::try_from(value.unwrap_or(0)).ok().filter(|n| *n > 0).unwrap_or(default)
        };
        let seconds = |value, default| Duration::from_secs(or(value, default).into());
        Prober {
            asks,
            delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            limit: seconds(probe.timeout_seconds, 1),
            successes: or(probe.success_threshold, 1),
            failures: or(probe.failure_threshold, 3),
        }
    }

    /// Asks again and again, first at once or after the delay of the probe, and besides whenever `views` change while the
    /// last result was a failure. `tell` hears of each change that the thresholds confirm, and stops the probing by
    /// returning false.
    pub(super) async fn run(
        &self,
        mut views: watch::Receiver<Vec<View>>,
        mut tell: impl FnMut(bool, &str) -> bool,
    ) {
        let mut ticks = interval_at(Instant::now() + self.delay, self.period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut is_success, mut in_a_row) = (false, 0);
        let mut known = None;
        let mut is_begun = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => is_begun = true,
                changed = views.changed(), if is_begun && known != Some(true) => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
            views.borrow_and_update();
            let result = self.ask().await;
            in_a_row = if result.is_ok() == is_success { in_a_row + 1 } else { 1 };
            is_success = result.is_ok();
            let enough = if is_success { self.successes } else { self.failures };
            if in_a_row >= enough && known != Some(is_success) {
                known = Some(is_success);
                if !tell(is_success, result.err().as_deref().unwrap_or_default()) {
                    return;
                }
            }
        }
    }

    async fn ask(&self) -> Result<(), String> {
        match &self.asks {
            Asks::Http { at, path, headers } => match probe(*at, path, headers.clone(), self.limit).await {
                Ok(answer) if answer.is_success() => Ok(()),
                Ok(answer) => Err(format!("HTTP probe failed with statuscode: {}", answer.status.as_u16())),
                Err(error) => Err(format!("Get \"http://{at}{path}\": {error}")),
            },
            Asks::Tcp(at) => match timeout(self.limit, TcpStream::connect(at)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(format!("dial tcp {at}: {error}")),
                Err(_) => Err(format!("dial tcp {at}: i/o timeout")),
            },
            Asks::Other => Err("only httpGet and tcpSocket probes are known here".to_owned()),
        }
    }
}

/// Sends a hook's request, whatever the answer.
pub(super) async fn get(
    container: &Container,
    get: &HTTPGetAction,
    places: &Places,
    limit: Duration,
) -> Result<(), String> {
    let at = places.find(port_number(container, &get.port).unwrap_or_default());
    match probe(at, &path_of(get), headers_of(get), limit).await {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn path_of(get: &HTTPGetAction) -> String {
    match get.path.as_deref().unwrap_or("/") {
        path if path.starts_with('/') => path.to_owned(),
        path => format!("/{path}"),
    }
}

fn headers_of(get: &HTTPGetAction) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::USER_AGENT, HeaderValue::from_static("kube-probe/1.33"));
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    for each in get.http_headers.iter().flatten() {
        if let (Ok(name), Ok(value)) = (each.name.parse::<HeaderName>(), each.value.parse()) {
            headers.insert(name, value);
        }
    }
    headers
}
