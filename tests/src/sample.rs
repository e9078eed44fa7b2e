//! A running `pilotlight sample`.

use std::net::SocketAddr;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;

use crate::http::{Answer, get};
use crate::started::{Started, pilotlight};
use crate::{SOON, eventually};

/// A `pilotlight sample`. Dropping it kills it.
pub struct Sample {
    /// Its address.
    pub address: SocketAddr,
    process: Started,
}

impl Sample {
    /// Starts it with these arguments and environment variables, and waits until it listens.
    pub async fn start(args: &[&str], env: &[(&str, &str)]) -> Sample {
        let mut command = pilotlight();
        command.arg("sample").args(args).envs(env.iter().copied());
        let mut process = Started::new(command);
        let first = eventually("the address", SOON, async || {
            if let Some(status) = process.exit_status() {
                panic!("{status} instead of listening");
            }
            process.stdout.lines().into_iter().next()
        })
        .await;
        let address = first.rsplit("http://").next().and_then(|address| address.parse().ok());
        Sample { address: address.expect("a line that ends with the address"), process }
    }

    /// Sends `GET path` and reads the whole response.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        get(self.address, "localhost", path).await
    }

    /// Sends a signal to it.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits until it has exited.
    pub async fn exit(&mut self, within: Duration) -> ExitStatus {
        eventually("the exit", within, async || self.process.exit_status()).await
    }
}
