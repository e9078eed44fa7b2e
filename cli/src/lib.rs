//! The command `pilotlight` as a library, for its own tests. Glue only: decisions are made in `pilotlight-core`, and
//! the components carry them out.

mod columns;
pub mod demo;
pub mod explain;
pub mod exposition;
pub mod knative;
pub mod kube;
pub mod latency;
pub mod lint;
pub mod live;
pub mod load;
pub mod logging;
pub mod output;
pub mod pages;
pub mod run;
pub mod sample;
pub mod screen;
pub mod service;
pub mod sim;
pub mod stack;
pub mod summary;
pub mod view;

use anyhow::Context;

/// Runs a command to its end. Two threads: one for what comes in, one for what it sets off. More would cost memory and
/// win little here.
///
/// Commands are run here and not in `main`, which would compile once more all that they await.
fn block_on<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(command)
}
