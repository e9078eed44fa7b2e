//! A term of leadership: everything that a leader does, on a runtime of its own. It ends at once when it is dropped, and no
//! work of it holds up the Lease or the reports of activators.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context;
use kube::{Client, Config};
use pilotlight_autoscaler::{Autoscaler, AutoscalerParams};
use pilotlight_net::{Clock, Drain};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use super::own::OwnRights;
use super::plain::{PlainCluster, PlainClusterParams};
use super::signals::report;

/// A term. Dropping it ends it at once, in the middle of whatever it does.
pub(crate) struct Term {
    pub(crate) autoscaler: Autoscaler,
    own: OwnRights,
    drain: Drain,
    serving: JoinHandle<()>,
    _runtime: OwnRuntime,
}

/// A runtime that ends without waiting for its tasks.
struct OwnRuntime(Option<Runtime>);

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Term {
    /// Begins a term. Reports of activators are taken in on `stats`, on the runtime of the caller; `params` make the rest
    /// of it, with a client that has connections of its own.
    pub(crate) async fn begin(
        config: Config,
        stats: TcpListener,
        params: impl FnOnce(Client) -> PlainClusterParams + Send + 'static,
    ) -> anyhow::Result<Term> {
        let runtime = Builder::new_multi_thread().thread_name("leader").enable_all().build();
        let runtime = OwnRuntime(Some(runtime.context("cannot start the runtime of the leader")?));
        let handle = runtime.0.as_ref().map(|runtime| runtime.handle().clone());
        let handle = handle.context("the runtime of the leader is gone")?;
        let started = handle.spawn(async move {
            let client = Client::try_from(config).context("cannot make a client of the API server")?;
            let params = params(client);
            let clock = params.clock;
            let cluster = PlainCluster::start(params);
            let (own, worker) = (cluster.own.clone(), Arc::clone(&cluster.worker));
            let autoscaler = decide(clock, cluster);
            // Ends with the runtime.
            tokio::spawn(report(worker, autoscaler.clone()));
            anyhow::Ok((clock, own, autoscaler))
        });
        let (clock, own, autoscaler) = started.await.context("the leader did not start")??;
        let drain = Drain::default();
        let serving = tokio::spawn({
            let (autoscaler, drain) = (autoscaler.clone(), drain.clone());
            async move { autoscaler.serve_stats(clock, stats, drain).await }
        });
        Ok(Term { autoscaler, own, drain, serving, _runtime: runtime })
    }

    /// Says goodbye to activators and decides no more. Returns within the seconds that activators have for their goodbye.
    /// Puts everything back first if we are being uninstalled.
    pub(crate) async fn end(mut self) {
        self.own.settle().await;
        self.drain.start();
        self.autoscaler.stop().await;
        let _ = (&mut self.serving).await;
    }
}

impl Drop for Term {
    fn drop(&mut self) {
        self.drain.force();
        self.serving.abort();
    }
}

/// Starts deciding. Reports are taken from the activators' own addresses alone.
fn decide(clock: Clock, cluster: Arc<PlainCluster>) -> Autoscaler {
    let roll = Arc::clone(&cluster.worker.roll);
    let accepts_peer = move |ip: IpAddr| roll.lock().ips().contains(&ip);
    let params =
        AutoscalerParams { accepts_peer: Some(Arc::new(accepts_peer)), ..AutoscalerParams::new(clock) };
    Autoscaler::start(params, cluster)
}
