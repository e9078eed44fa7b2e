//! The components as processes of their own: the real binary, one process each.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{self, ExitStatus};
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::process::Signal;
use serde::Deserialize;

use crate::http::{get, send_raw};
use crate::process::Bearer;
use crate::started::{Started, pilotlight};
use crate::{SOON, eventually};

/// Address of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Addresses {
    /// For its work: requests, or stats.
    pub address: SocketAddr,
    /// For machines and operators.
    pub admin: SocketAddr,
}

impl Addresses {
    /// Free ports of a loopback address that nobody else has. What a killed process leaves stays free there for
    /// the one that takes its place, while on 127.0.0.1 any outgoing connection may get it.
    pub fn free() -> Addresses {
        static COUNT: AtomicU8 = AtomicU8::new(1);
        let [.., high, low] = process::id().to_be_bytes();
        // Below 127.64: the pods have what is above.
        let ip = Ipv4Addr::new(127, 1 + high % 62, low, COUNT.fetch_add(1, Ordering::Relaxed));
        let any_port = SocketAddr::from((ip, 0));
        Addresses { address: any_port, admin: any_port }
    }
}

/// A running component. Dropping it kills it and everything it started.
pub struct Component {
    /// The real address.
    pub at: Addresses,
    process: Started,
}

impl Component {
    /// Starts `pilotlight autoscaler` and waits until it listens.
    pub async fn autoscaler(at: Addresses, manifest: &Path, config: &Path) -> Component {
        let paths = [("-f", manifest), ("--config", config)];
        let args = paths.into_iter().flat_map(|(flag, path)| [flag.as_ref(), path.as_os_str()]);
        let mut command = pilotlight();
        command.arg("autoscaler").args(args);
        Component::start(command, at).await
    }

    /// Starts `pilotlight activator` for this autoscaler and waits until it listens.
    pub async fn activator(at: Addresses, autoscaler: Addresses) -> Component {
        let mut command = pilotlight();
        command.args(["activator", "--drain-wait", "100ms"]);
        command.args(["--autoscaler", &format!("ws://{}", autoscaler.address)]);
        command.args(["--endpoints", &format!("http://{}/v1/endpoints", autoscaler.admin)]);
        Component::start(command, at).await
    }

    async fn start(mut command: process::Command, at: Addresses) -> Component {
        command.args([
            "--listen",
            &at.address.to_string(),
            "--admin",
            &at.admin.to_string(),
            "--log-format",
            "json",
        ]);
        let mut process = Started::new(command);
        let at = eventually("the line that says where it listens", SOON, async || {
            if let Some(status) = process.exit_status() {
                panic!("{status} instead of listening");
            }
            let lines = process.stderr.lines();
            // The only line that has both addresses.
            lines.iter().find_map(|line| serde_json::from_str(line).ok())
        })
        .await;
        Component { at, process }
    }

    /// Sends `GET path` to its admin port and reads the whole response.
    pub async fn admin(&self, path: &str) -> crate::http::Answer {
        get(self.at.admin, "localhost", path).await.expect("an answer")
    }

    /// The answer of its working port to a kubelet, as the first line of the response.
    pub async fn probe(&self) -> String {
        let probe = b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: kube-probe/1.34\r\nConnection: close\r\n\r\n";
        let answer = send_raw(self.at.address, probe).await.expect("a connection");
        String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
    }

    /// Every process that runs now: itself, its guard, its pods and all that they started.
    pub fn processes(&self) -> Vec<Bearer> {
        self.process.mark.bearers()
    }

    /// The application processes that run now: those started as `pilotlight sample`.
    pub fn pods(&self) -> Vec<Bearer> {
        let mut processes = self.processes();
        processes.retain(|process| process.command.get(1).is_some_and(|word| word == "sample"));
        processes
    }

    /// Kills it, and nothing it started, as `kill -9` does. Returns when nothing is left of it and all it started.
    pub async fn kill_9(&mut self) {
        self.end(Signal::KILL).await;
    }

    /// Asks it to stop. Returns when nothing is left of it and all it started.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.end(Signal::TERM).await
    }

    async fn end(&mut self, signal: Signal) -> ExitStatus {
        self.process.signal(signal);
        let status = eventually("the exit", SOON, async || self.process.exit_status()).await;
        eventually("nothing is left", SOON, async || self.processes().is_empty().then_some(())).await;
        status
    }

    /// How often it has logged a line with this message.
    pub fn times_said(&self, message: &str) -> usize {
        let message = format!("\"message\":\"{message}\"");
        self.process.stderr.lines().iter().filter(|line| line.contains(&message)).count()
    }

    /// Everything it has logged so far.
    pub fn said(&self) -> String {
        self.process.stderr.lines().join("\n")
    }
}
